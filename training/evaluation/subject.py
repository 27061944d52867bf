"""Whatever makes pictures in, something that can be evaluated out: a run's generator and a bundle's engine alike."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from training.evaluation.reference import Reference
from training.evaluation.sight import Sees
from training.latents import draw
from training.prior import Prior

BATCH = 512  # pictures that torch makes at once

Observe = Callable[[float], None]
Run = Callable[[np.ndarray, np.ndarray | None], np.ndarray]
Reconstruct = Callable[[np.ndarray, np.ndarray | None], np.ndarray]


@dataclass(frozen=True)
class Model:
    """`run`: z float32 [N, latent], label int64 [N] or None -> uint8 [N, H, W, C], for N up to `batch`.

    `prior` None: latents are drawn from N(0, I).
    """

    latent: int
    class_names: tuple[str, ...]  # () for an unconditional model
    prior: Prior | None
    run: Run
    batch: int = BATCH

    @property
    def classes(self) -> int:
        return len(self.class_names)

    def pictures(
        self, seed: int, count: int, label: np.ndarray | None = None, observe: Observe = lambda fraction: None
    ) -> np.ndarray:
        """uint8 [count, H, W, C]: the images of seeds seed, seed + 1, ..., as a server gives them.

        label int64 [count] to a model with classes.
        """
        z, labels = draw(seed, count, self.latent, self.classes, label, prior=self.prior)
        return self.of_latents(z, labels, observe)

    def of_latents(
        self, z: np.ndarray, label: np.ndarray | None, observe: Observe = lambda fraction: None
    ) -> np.ndarray:
        """z float32 [N, latent], label int64 [N] or None -> uint8 [N, H, W, C], any N."""
        parts = []
        for start in range(0, len(z), self.batch):
            observe(start / len(z))
            rows = slice(start, start + self.batch)
            parts.append(self.run(z[rows], None if label is None else label[rows]))
        return np.concatenate(parts)


@dataclass(frozen=True)
class Subject:
    """A model with the judge and the real images that belong to it. `about`: what it is, for people."""

    title: str
    about: dict[str, str]
    model: Model
    judge: Sees
    reference: Reference
    reconstruct: Reconstruct | None = None  # uint8 [N, H, W, C], label int64 [N] or None -> the same images, rebuilt
    config: dict[str, Any] | None = None  # of the training, where it is known
    records: list[dict[str, Any]] | None = field(default=None, repr=False)  # the lines of metrics.jsonl
