"""A model and a reference in, figures about its pictures out, beside the same figures of real images."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from training.evaluation import metrics
from training.evaluation.reference import MOST, Reference
from training.evaluation.sight import Sees, Sight
from training.evaluation.subject import Model

NEIGHBOURHOOD = 5_000  # pictures a side for precision, recall, density and coverage: their cost is the product of both


class Evaluation:
    """The same question to every generator of a run: `samples` pictures of fixed seeds against one reference.

    Quick enough to be asked on the way. The labels of a conditional model are the reference's own, in turn, so that
    both sides have the classes alike.
    """

    def __init__(self, judge: Sees, reference: Reference, conditional: bool, samples: int, seed: int) -> None:
        self._judge, self._reference, self._conditional, self._seed = judge, reference, conditional, seed
        self._real = reference.real.known(conditional).sight
        fewest = 2 * len(reference.class_names) if conditional else 2  # a variance needs two of a class
        self._samples = max(min(samples, MOST), fewest)
        self.protocol = {
            "samples": self._samples,
            "reference": len(self._real),
            "split": reference.split,
            "judge_sha256": judge.sha256(),
        }

    @cached_property
    def floor(self) -> dict[str, float]:
        """The same figures of real images: what a perfect generator would reach."""
        seen, real = (side.known(self._conditional).sight for side in self._reference.floor(self._samples))
        found = self._figures(seen, real)
        return found | {name: round(value, 4) for name, value in verdicts(self._real, found).items()}

    def __call__(self, model: Model) -> dict[str, float]:
        """Raises nothing that depends on how bad its pictures are."""
        label = labels_for(self._reference, self._samples) if self._conditional else None
        return self.pictures(model.pictures(self._seed, self._samples, label), label)

    def pictures(self, images: np.ndarray, labels: np.ndarray | None) -> dict[str, float]:
        """The same figures of pictures from elsewhere, such as reconstructions: uint8 [N, H, W, C]."""
        return self._figures(Sight.of(self._judge, images, labels), self._real)

    def _figures(self, seen: Sight, real: Sight) -> dict[str, float]:
        found = figures(seen, real, self._conditional, self._reference.class_names)
        return {name: round(value, 4) for name, value in found.items() if np.isfinite(value)}


def figures(seen: Sight, real: Sight, conditional: bool, class_names: tuple[str, ...]) -> dict[str, float]:
    """What the judge's features and verdicts tell; a figure that so few pictures cannot have is left out."""
    found = {"fid": metrics.fid(seen.features, real.features)}
    if min(len(seen), len(real)) > metrics.NEIGHBOURS:
        found |= metrics.neighbourhood(seen.features[:NEIGHBOURHOOD], real.features[:NEIGHBOURHOOD])._asdict()
    spread = metrics.within_class_variance(real.features, real.classes)
    if spread > 0:  # neither 0, a set of one picture, nor NaN
        found["within_class_variance_ratio"] = metrics.within_class_variance(seen.features, seen.classes) / spread
    if conditional:
        found["agreement"] = metrics.agreement(seen.logits, seen.classes)
    elif class_names:
        taken, known = (side.logits.argmax(1) for side in (seen, real))
        found["class_histogram_distance"] = metrics.class_histogram_distance(taken, known, len(class_names))
    return found


def verdicts(real: Sight, found: Mapping[str, float]) -> dict[str, float]:
    """The floors of those of the figures `found` that go by verdicts: of the reference itself.

    The judge has learnt the training images by heart, and is surer of them than of anything new.
    """
    floors = {
        "agreement": lambda: metrics.agreement(real.logits, real.classes),
        "inception_score": lambda: metrics.inception_score(real.logits),
    }
    return {name: floor() for name, floor in floors.items() if name in found}


def closing(judge: Sees, reference: Reference, conditional: bool, seed: int, model: Model) -> dict[str, Any]:
    """The figures that a run ends with, with floor and protocol."""
    evaluation = Evaluation(judge, reference, conditional, samples_for(len(reference.real)), seed)
    found: dict[str, Any] = dict(evaluation(model))
    return found | {"floor": evaluation.floor, "protocol": evaluation.protocol}


def samples_for(reference: int) -> int:
    """As many pictures as there are real ones, at least 1,000 and at most 10,000."""
    return min(max(1_000, reference), MOST)


def labels_for(reference: Reference, count: int) -> np.ndarray:
    """int64 [count]: the classes of the real images, in turn."""
    return np.resize(reference.real.sight.classes, count)
