"""Figures of a running training in, warnings in words out: what goes wrong without an error, and what usually mends it.

A loss tells none of this: D's loss looks alike whether the generator is good or has collapsed (docs/decisions.md).
"""

from collections.abc import Mapping
from typing import NamedTuple

WAIT = 0.25  # share of the budget before which every young model looks ill


class Alarm(NamedTuple):
    code: str
    what: str
    mend: str

    def __str__(self) -> str:
        return f"{self.what}. {self.mend}"


def alarms(figures: Mapping[str, float | None]) -> list[Alarm]:
    """The alarms that `figures` give cause for; a figure that a model does not have is left out or None.

    within_class_variance_ratio, class_histogram_distance, recall, sharpness_ratio, copies: of an evaluation.
    told_apart: share of real images whose logit is above that of the generated image beside them, over the last steps
    of an adversarial kind.
    active_units: share of latents whose posterior mean varies over the images (Burda et al. 2016).
    """
    rows: list[tuple[str, bool, str, str]] = []

    def check(name: str, code: str, low: float | None, high: float | None, what: str, mend: str) -> None:
        value = figures.get(name)
        if value is not None:
            ill = (low is not None and value < low) or (high is not None and value > high)
            rows.append((code, ill, what.format(value), mend))

    check(
        "within_class_variance_ratio", "collapse", 0.4, None,
        "Collapse within classes: the variance of pictures of one class is {:.2f} of real",
        "Usual mend: --set augment=true on a small set; else more epochs, more width, or a higher discriminator_rate.",
    )  # fmt: skip
    check(
        "class_histogram_distance", "classes", None, 0.25,
        "Classes are missing or far too frequent: {:.0%} of the pictures would have to change class",
        "Usual mend: more epochs, or a conditional model.",
    )  # fmt: skip
    check(
        "recall", "recall", 0.1, None,
        "The pictures cover {:.0%} of the real ones",
        "Usual mend: more epochs, or more width; for a GAN a higher discriminator_rate.",
    )  # fmt: skip
    check(
        "sharpness_ratio", "blurred", 0.5, None,
        "The pictures are blurred: their edges have {:.0%} of the strength of real ones",
        "Usual mend: more epochs, or more width; a VAE blurs without its critic (--set critic=20, as by default).",
    )  # fmt: skip
    check(
        "sharpness_ratio", "noisy", None, 2.0,
        "The pictures are noisy: their edges have {:.0%} of the strength of real ones",
        "Usual mend: more epochs, or lower rates.",
    )  # fmt: skip
    check(
        "copies", "copies", None, 0.2,
        "The model copies: {:.0%} of the pictures are nearer to a training image than 99 % of unseen images are",
        "Usual mend: more images, --set augment=true, or fewer epochs.",
    )  # fmt: skip
    check(
        "told_apart", "discriminator-wins", None, 0.995,
        "The discriminator tells {:.1%} of the pairs apart, so the generator learns little from it",
        "Usual mend: --set augment=true on a small set, more dropout, --set r1=1 --set normalization=none, or a lower "
        "discriminator_rate.",
    )  # fmt: skip
    check(
        "told_apart", "discriminator-blind", 0.55, None,
        "The discriminator tells only {:.0%} of the pairs apart, half of them by chance",
        "Usual mend: a higher discriminator_rate, less dropout, or more width.",
    )  # fmt: skip
    check(
        "active_units", "posterior-collapse", 0.1, None,
        "Posterior collapse: {:.0%} of the latents say anything about the image",
        "Usual mend: --set kl_warmup=0.5, --set free_bits=0.1, or a lower variational_rate.",
    )  # fmt: skip
    return [Alarm(code, what, mend) for code, ill, what, mend in rows if ill]
