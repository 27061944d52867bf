"""What each figure is called, which way is better, what it can tell and what not: one place for all who show it."""

import math
from dataclasses import dataclass
from typing import Literal

NO_NUMBER = "–"

Best = Literal["low", "high", "real"]  # "real": as near as can be to the same figure of real images


@dataclass(frozen=True)
class Figure:
    """One figure of one model. `value` is the mean over the repeats, each of other seeds.

    `spread`: their sample standard deviation, None where there was one; `floor`: the same figure of real images, which
    no generator need beat.
    """

    value: float
    spread: float | None
    floor: float | None


@dataclass(frozen=True)
class Meaning:
    """`tells` and `hides` are a clause each, of a sentence "It tells ...; it does not tell ...". `digits`: decimals."""

    title: str
    best: Best
    tells: str
    hides: str
    digits: int = 3


MEANINGS: dict[str, Meaning] = {
    "fid": Meaning(
        "domain FID", "low",
        "how far the pictures as a whole are from real ones, in quality and variety together",
        "which of the two is wrong, nor whether pictures were copied; it falls with the number of pictures",
        2,
    ),
    "kid": Meaning(
        "domain KID", "low",
        "the same as FID without a bias by the number of pictures, so that small sets can be compared",
        "more than a mean distance: a rare fault drowns in it; where there is none it is around 0, also below",
        2,
    ),
    "inception_score": Meaning(
        "domain IS", "high",
        "whether pictures are clearly of one class each, and all classes come",
        "anything about real images: one picture for each class repeated for ever scores best",
        2,
    ),
    "precision": Meaning(
        "precision", "high",
        "what share of the pictures lies among real ones",
        "how varied they are: a single good picture repeated has precision 1",
    ),
    "recall": Meaning(
        "recall", "high",
        "what share of real images lies among the pictures: a collapsed model has little",
        "how good they are: pictures strewn everywhere cover much",
    ),
    "density": Meaning(
        "density", "real",
        "how closely the pictures lie where real ones are close; an outlier among the real ones does not lift it",
        "how varied they are; it may exceed 1 where only the commonest kinds are drawn",
    ),
    "coverage": Meaning(
        "coverage", "high",
        "what share of real images has a picture in its own neighbourhood",
        "how many pictures lie far from everything real",
    ),
    "agreement": Meaning(
        "label agreement", "high",
        "what share of the pictures the judge takes for the class asked for",
        "whether they look real, or differ from each other",
    ),
    "class_histogram_distance": Meaning(
        "class histogram distance", "low",
        "what share of the pictures would have to change class for the classes to come as often as in real images",
        "anything about the pictures within a class",
    ),
    "within_class_variance_ratio": Meaning(
        "variance within classes", "real",
        "whether pictures of one class differ as real ones do (1), in the judge's eyes; near 0 they have collapsed",
        "whether they differ in the right way: noise varies too",
    ),
    "within_class_similarity": Meaning(
        "MS-SSIM within classes", "real",
        "how alike two pictures of one class are, pixel structure by pixel structure; 1 is the same picture",
        "how good they are; for small pictures that are shifted it sees difference where people see none",
    ),
    "sharpness_ratio": Meaning(
        "sharpness", "real",
        "whether edges are as strong as in real images (1): below is blur, above is noise or ringing",
        "whether the edges are in the right places",
        2,
    ),
    "copying": Meaning(
        "copying", "real",
        "the chance that a picture is nearer to a training image than an unseen real image is: 0.5 by an honest "
        "generator, 1 by one that copies",
        "why: good pictures of a simple set are near to training images without being copies",
    ),
    "copies": Meaning(
        "near copies", "real",
        "the share of pictures nearer to a training image than 99 % of unseen real images are",
        "copies of training images beyond those that were compared with (protocol)",
    ),
    "transfer_accuracy": Meaning(
        "transfer accuracy", "high",
        "how well a classifier that learnt from the pictures alone knows real images: quality, variety and labels",
        "which of the three is wrong",
    ),
}  # fmt: skip


def number(value: float | None, digits: int) -> str:
    """A figure in words; a dash where it is none."""
    if value is None or not math.isfinite(value):
        return NO_NUMBER
    text = f"{value:,.{digits}f}"
    return text.replace("-", "−") if float(text.replace(",", "")) else f"{0:.{digits}f}"  # no "-0.00"
