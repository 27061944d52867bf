"""Real images in, all that figures need of them out: kept as judge.npz, so that a bundle is judged without the images.

It holds features and small descriptors, no pixels.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from training import arrays
from training.data.images import Dataset, Images
from training.data.splits import permutation
from training.errors import EvaluationError
from training.evaluation.appearance import sharpness, within_class_similarity
from training.evaluation.sight import Sees, Sight
from training.evaluation.transfer import describe

FEWEST = 100  # images of a split that a distance is measured against; with fewer all images of the set are taken
MOST = 10_000  # images on either side
DESCRIBED = 5_000  # of them described for the transfer accuracy, whose classifier learns from no more
SCHEMA = 1


@dataclass(frozen=True)
class Pixels:
    """What pixels tell without a judge: sharpness float64 [N]; descriptors float16 [n, D] of the first n.

    `similarity`: MS-SSIM of pairs within a class; NaN where no class has a pair.
    """

    sharpness: np.ndarray
    descriptors: np.ndarray
    similarity: float

    @classmethod
    def of(cls, images: np.ndarray, classes: np.ndarray, described: int = DESCRIBED) -> "Pixels":
        """uint8 [N, H, W, C]; the class of each, int64 [N], within which pairs are made; how many are described."""
        try:
            similarity = within_class_similarity(images, classes)
        except EvaluationError:
            similarity = float("nan")  # asked for as a training begins, long before anybody needs it
        return cls(sharpness(images), describe(images[:described]), similarity)

    def take(self, rows: slice) -> "Pixels":
        return Pixels(self.sharpness[rows], self.descriptors[rows], self.similarity)


@dataclass(frozen=True)
class Side:
    """One side of an evaluation, N pictures. `pixels` None: nobody asked for more than the judge sees."""

    sight: Sight
    pixels: Pixels | None

    @classmethod
    def of(
        cls,
        judge: Sees,
        images: np.ndarray,
        labels: np.ndarray | None,
        classes: int,
        thorough: bool,
        described: int = DESCRIBED,
    ) -> "Side":
        """uint8 [N, H, W, C], labels int64 [N] or None: then each image belongs to the class that it is taken for.

        `classes` 0: the set has none, and any two pictures are a pair. `thorough`: with the first `described` of them
        described, and all that pixels tell.
        """
        sight = Sight.of(judge, images, labels)
        alike = sight.classes if classes else np.zeros(len(images), np.int64)
        return cls(sight, Pixels.of(images, alike, described) if thorough else None)

    def __len__(self) -> int:
        return len(self.sight)

    def take(self, rows: slice) -> "Side":
        return Side(self.sight.take(rows), None if self.pixels is None else self.pixels.take(rows))

    def known(self, conditional: bool) -> "Side":
        """The same; to a model without classes, each image is of the class that it is taken for."""
        return self if conditional else replace(self, sight=self.sight.taken())


@dataclass(frozen=True)
class Reference:
    """The real images of a data set: `real` ones of the split, and `training` ones, at most 10,000 each.

    `training` is None where the split is `all`: then those are among the real ones. `limit`: how many images were taken
    of the set at most, for whoever loads it again.
    """

    data: str
    split: str
    size: int
    channels: int
    class_names: tuple[str, ...]
    judge_sha256: str
    real: Side
    training: Side | None
    limit: int | None = None

    @classmethod
    def of(
        cls, judge: Sees, dataset: Dataset, split: str, thorough: bool = True, limit: int | None = None
    ) -> "Reference":
        """The split `val` or `test`; `all` images where that is asked or the split has under 100.

        `thorough` False: only what the judge sees, which is all that `Evaluation` needs.
        """
        split, images = reference_images(dataset, split)
        classes = len(dataset.class_names)
        described = MOST if split == "all" else DESCRIBED  # both of its halves are needed
        real = Side.of(judge, images.images, images.labels, classes, thorough, described)
        train = training_images(dataset)
        training = None if split == "all" else Side.of(judge, train.images, train.labels, classes, thorough)
        shape = (dataset.size, dataset.channels, dataset.class_names)
        return cls(dataset.name, split, *shape, judge.sha256(), real, training, limit)

    def instead(self, judge: Sees, dataset: Dataset, split: str) -> "Reference":
        """The same of another split, as far as the judge sees: enough for `Evaluation`."""
        split, images = reference_images(dataset, split)
        real = Side.of(judge, images.images, images.labels, len(dataset.class_names), thorough=False)
        return replace(self, split=split, real=real, training=None if split == "all" else self.training)

    def floor(self, samples: int) -> tuple[Side, Side]:
        """Two sides that are both real: as many training images as generated ones (at most all), and the reference.

        Where all images are the reference, one half of it and the other: no image is on both sides.
        """
        if self.training is not None:
            return self.training.take(slice(None, samples)), self.real
        middle = len(self.real) // 2
        return self.real.take(slice(None, min(samples, middle))), self.real.take(slice(middle, None))

    def save(self, path: Path) -> None:
        """Write judge.npz, whole or not at all. The same reference gives the same bytes."""
        about = {
            "schema": SCHEMA,
            "data": self.data,
            "split": self.split,
            "size": self.size,
            "channels": self.channels,
            "class_names": self.class_names,
            "judge_sha256": self.judge_sha256,
            "limit": self.limit,
        }
        found = {"about": np.array(json.dumps(about))} | _arrays("real", self.real)
        if self.training is not None:
            found |= _arrays("training", self.training)
        part = path.with_name(f".{path.name}.part")
        try:
            arrays.save(part, found, compressed=True)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)  # of a disk that was full

    @classmethod
    def load(cls, path: Path) -> "Reference":
        """Read judge.npz. Raises EvaluationError where it is missing or damaged."""
        if not path.is_file():
            raise EvaluationError(
                f"there is no {path}, the features of the real images", "Train again with this version of limner."
            )
        try:
            found = arrays.load(path)
            about: dict[str, Any] = json.loads(str(found["about"]))
            if about.pop("schema") != SCHEMA:
                raise ValueError("another schema")
            about["class_names"] = tuple(about["class_names"])
            training = _side("training", found) if "training_features" in found else None
            return cls(**about, real=_side("real", found), training=training)
        except (ValueError, KeyError, TypeError) as error:
            raise EvaluationError(f"{path} is damaged ({error})", "Restore it, or train again.") from error


def reference_images(dataset: Dataset, split: str) -> tuple[str, Images]:
    """The split that is really taken, and at most 10,000 of its images."""
    parts = [dataset.val if split == "val" else dataset.test]
    if split == "all" or len(parts[0]) < FEWEST:
        split, parts = "all", [dataset.train, dataset.val, dataset.test]
    return split, _some(parts)


def training_images(dataset: Dataset) -> Images:
    """The first 10,000 of the training images, whose order is random already."""
    return dataset.train.take(slice(None, MOST))


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


def _arrays(name: str, side: Side) -> dict[str, np.ndarray]:
    assert side.pixels is not None
    return {
        f"{name}_logits": side.sight.logits,
        f"{name}_features": side.sight.features,
        f"{name}_classes": side.sight.classes,
        f"{name}_sharpness": side.pixels.sharpness,
        f"{name}_descriptors": side.pixels.descriptors,
        f"{name}_similarity": np.array(side.pixels.similarity),
    }


def _side(name: str, found: dict[str, np.ndarray]) -> Side:
    parts = [found[f"{name}_{part}"] for part in ("logits", "features", "classes", "sharpness", "descriptors")]
    logits, features, classes, sharp, descriptors = parts
    if not len(logits) == len(features) == len(classes) == len(sharp) or len(descriptors) > len(logits):
        raise ValueError(f"the arrays of {name} are of different lengths")
    if not all(np.isfinite(part).all() for part in parts):
        raise ValueError(f"an array of {name} is not finite")
    pixels = Pixels(sharp, descriptors, float(found[f"{name}_similarity"]))
    return Side(Sight(logits, features, classes), pixels)
