"""A generator and a judge in, figures about its pictures out, beside the same figures of real images."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from training import metrics
from training.config import ModelSpec
from training.data import Dataset, Images
from training.data.splits import permutation
from training.judge import Judge
from training.networks import Generator
from training.prior import Prior
from training.sampling import latents, sample

FEWEST = 100  # images of a split that a distance is measured against; with fewer all images of the set are taken
MOST = 10_000  # images on either side
NEIGHBOURHOOD = 5_000  # of them for precision and recall, whose cost is the product of both sides


@dataclass(frozen=True)
class Sight:
    """What the judge sees: logits float32 [N, classes], features float32 [N, 128]; the class of each image [N]."""

    logits: np.ndarray
    features: np.ndarray
    classes: np.ndarray

    @classmethod
    def of(cls, judge: Judge, images: np.ndarray, labels: np.ndarray | None) -> "Sight":
        """uint8 [N, H, W, C] -> what the judge sees; an image without a label belongs to the class it is taken for."""
        logits, features = judge.look(images)
        return cls(logits, features, logits.argmax(1) if labels is None else labels)


class Evaluation:
    """The same question to every generator of a run: `samples` pictures of fixed latents against one reference.

    The reference is the split `val` or `test`, at most 10,000 of it; `all` images where that is asked or the split has
    under 100. The labels of a conditional model are the reference's own, in turn, so that both sides have the classes
    alike.
    """

    def __init__(self, judge: Judge, spec: ModelSpec, dataset: Dataset, split: str, samples: int, seed: int) -> None:
        parts = [dataset.val if split == "val" else dataset.test]
        if split == "all" or len(parts[0]) < FEWEST:
            split, parts = "all", [dataset.train, dataset.val, dataset.test]
        self._judge, self._spec, self._dataset, self._seed = judge, spec, dataset, seed
        self._reference = _some(parts)
        self._known = self._known_of(self._reference)
        self._samples = max(min(samples, MOST), 2 * spec.classes)  # a variance needs two of a class
        self.protocol = {
            "samples": self._samples,
            "reference": len(self._reference),
            "split": split,
            "judge_sha256": judge.sha256(),
        }

    @cached_property
    def _real(self) -> Sight:
        return Sight.of(self._judge, self._reference.images, self._known)

    @cached_property
    def floor(self) -> dict[str, float]:
        """The figures of as many real training images (at most all): what a perfect generator would reach.

        Where the reference is `all` images, those of one half of it against the other: no image is on both sides.
        """
        if self.protocol["split"] == "all":
            middle = len(self._reference) // 2
            halves = (self._reference.take(slice(None, middle)), self._reference.take(slice(middle, None)))
            first, second = (Sight.of(self._judge, half.images, self._known_of(half)) for half in halves)
            return self._figures(first, second)
        train = self._dataset.train.take(slice(None, self._samples))
        return self._figures(Sight.of(self._judge, train.images, self._known_of(train)), self._real)

    def _known_of(self, images: Images) -> np.ndarray | None:
        """The labels that count: those of a conditional model's images."""
        return images.labels if self._spec.classes else None

    def __call__(self, generator: Generator, prior: Prior | None = None) -> dict[str, float]:
        """Figures of a generator in eval mode. Raises nothing that depends on how bad its pictures are."""
        label = None if self._known is None else np.resize(self._known, self._samples)
        noise = torch.Generator().manual_seed(self._seed)
        z = latents(self._samples, self._spec, prior, label, noise)
        return self._figures(Sight.of(self._judge, sample(generator, z, label), label), self._real)

    def pictures(self, images: np.ndarray, labels: np.ndarray | None) -> dict[str, float]:
        """The same figures of pictures from elsewhere, such as reconstructions: uint8 [N, H, W, C]."""
        return self._figures(Sight.of(self._judge, images, labels), self._real)

    def _figures(self, seen: Sight, real: Sight) -> dict[str, float]:
        figures = {"fid": metrics.fid(seen.features, real.features)}
        if min(len(seen.features), len(real.features)) > metrics.NEIGHBOURS:
            near = metrics.precision_recall(seen.features[:NEIGHBOURHOOD], real.features[:NEIGHBOURHOOD])
            figures |= {"precision": near[0], "recall": near[1]}
        spread = metrics.within_class_variance(real.features, real.classes)
        if spread > 0:  # neither 0, a set of one picture, nor NaN
            ratio = metrics.within_class_variance(seen.features, seen.classes) / spread
            figures["within_class_variance_ratio"] = ratio
        if self._spec.classes:
            figures["agreement"] = metrics.agreement(seen.logits, seen.classes)
        elif self._dataset.class_names:
            taken, known = (side.logits.argmax(1) for side in (seen, real))
            figures["class_histogram_distance"] = metrics.class_histogram_distance(
                taken, known, len(self._dataset.class_names)
            )
        return {name: round(value, 4) for name, value in figures.items() if np.isfinite(value)}


def closing(
    judge: Judge, spec: ModelSpec, dataset: Dataset, seed: int, generator: Generator, prior: Prior | None
) -> dict[str, Any]:
    """The figures that a run ends with, against the test split, with floor and protocol."""
    samples = max(1_000, len(dataset.test))
    evaluation = Evaluation(judge, spec, dataset, "test", samples, seed)
    figures: dict[str, Any] = dict(evaluation(generator, prior))
    return figures | {"floor": evaluation.floor, "protocol": evaluation.protocol}


def _some(parts: list[Images]) -> Images:
    """At most MOST images of several parts; permuted, because a split may lie sorted by class."""
    rows = permutation(sum(map(len, parts)))[:MOST]
    start, taken = 0, []
    for part in parts:
        taken.append(part.take(rows[(start <= rows) & (rows < start + len(part))] - start))
        start += len(part)
    images = np.concatenate([part.images for part in taken])
    labels = [part.labels for part in taken if part.labels is not None]
    whole = Images(images, np.concatenate(labels) if labels else None)
    return whole if len(parts) == 1 else whole.take(permutation(len(whole)))  # of each part among the first 5,000
