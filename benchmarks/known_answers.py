"""Pictures of known faults in, a table of what each figure says of them out: `python benchmarks/known_answers.py`.

The pictures are MNIST-5k's own, spoilt in one way each, shown as if a model had made them, and examined as
`limner evaluate` does: against the test split, beside real images that the judge never saw. docs/evaluation.md has the
table, and tests/training/evaluation/test_known_answers.py holds it to these functions.
"""

import itertools
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import ndimage

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])  # not this folder, in which `training` is another benchmark

from training.data import Dataset, Images, load
from training.evaluation.examine import examine
from training.evaluation.figures import MEANINGS
from training.evaluation.reference import Reference
from training.evaluation.subject import Model, Subject
from training.judge import Judge, judge_for

MISSING = 9  # the class that is left out; a picture of the class before stands in its place
BLUR, NOISE = 1.0, 40.0  # standard deviations: pixels, levels

Spoil = Callable[[Images, Images], Images]  # unseen real images, training images -> pictures, labels as asked for


def real(unseen: Images, training: Images) -> Images:
    return unseen


def blurred(unseen: Images, training: Images) -> Images:
    smooth = ndimage.gaussian_filter(unseen.images.astype(float), (0, BLUR, BLUR, 0))
    return Images(smooth.round().astype(np.uint8), unseen.labels)


def noisy(unseen: Images, training: Images) -> Images:
    noise = np.random.default_rng(0).normal(0, NOISE, unseen.images.shape)
    return Images((unseen.images + noise).round().clip(0, 255).astype(np.uint8), unseen.labels)


def class_missing(unseen: Images, training: Images) -> Images:
    """Asked for the class that is missing, this model draws the class before."""
    labels = _labels(unseen)
    images = unseen.images.copy()
    other, gone = (np.flatnonzero(labels == label) for label in (MISSING - 1, MISSING))
    images[gone] = images[np.resize(other, len(gone))]
    return Images(images, labels)


def repeated(unseen: Images, training: Images) -> Images:
    """One picture for each class."""
    labels = _labels(unseen)
    first = {label: unseen.images[labels == label][0] for label in np.unique(labels)}
    return Images(np.stack([first[label] for label in labels]), labels)


def shuffled(unseen: Images, training: Images) -> Images:
    return Images(unseen.images, np.random.default_rng(0).permutation(_labels(unseen)))


def copied(unseen: Images, training: Images) -> Images:
    return training.take(slice(None, len(unseen)))


CASES: dict[str, Spoil] = {
    "real": real,
    "blurred": blurred,
    "noisy": noisy,
    "class missing": class_missing,
    "repeated": repeated,
    "labels shuffled": shuffled,
    "copied": copied,
}


def answers(dataset: Dataset, judge: Judge, spoil: Spoil) -> dict[str, float]:
    """What every figure says of one case. As of a model with classes, and the class histogram as of one without."""
    reference = Reference.of(judge, dataset, "test")
    shown = spoil(dataset.val, dataset.train)
    found: dict[str, float] = {}
    for class_names in ((), dataset.class_names):
        model = Model(1, class_names, None, _Shown(shown), batch=len(dataset.test))
        subject = Subject(spoil.__name__, {}, model, judge, reference)
        figures = examine(subject, samples=len(dataset.test), repeats=1).figures
        found |= {name: figure.value for name, figure in figures.items()}
    return {name: found[name] for name in MEANINGS}


class _Shown:
    """A model that draws what it was given: the next of the class asked for, or the next of all."""

    def __init__(self, images: Images) -> None:
        self._images = images

    def __call__(self, z: np.ndarray, label: np.ndarray | None) -> np.ndarray:
        if label is None:
            return np.resize(self._images.images, (len(z), *self._images.images.shape[1:]))
        rows = {one: itertools.cycle(np.flatnonzero(self._images.labels == one)) for one in np.unique(label)}
        return self._images.images[[next(rows[one]) for one in label]]


def _labels(images: Images) -> np.ndarray:
    assert images.labels is not None
    return images.labels


def table(found: dict[str, dict[str, float]]) -> list[str]:
    """Markdown: a row for each figure, a column for each case."""
    lines = [f"| figure | {' | '.join(found)} |", f"|---|{'---:|' * len(found)}"]
    for name, meaning in MEANINGS.items():
        values = (f"{answer[name]:.{meaning.digits}f}" for answer in found.values())
        lines.append(f"| {meaning.title} | {' | '.join(values)} |")
    return lines


def main() -> None:
    dataset = load("mnist-5k")
    with tempfile.TemporaryDirectory() as place:
        judge = judge_for(dataset, Path(place))
    print("\n".join(table({name: answers(dataset, judge, spoil) for name, spoil in CASES.items()})))


if __name__ == "__main__":
    main()
