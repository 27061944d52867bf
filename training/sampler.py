"""A number of images (and their labels) in, endless batches of row numbers out, from where an earlier run stopped."""

from typing import Any

import numpy as np
import torch
from torch import Tensor


class Sampler:
    """Every image once an epoch at most, in a new order each time; what does not fill a batch is left out.

    With `labels` (int64 [count]) every class is drawn equally often instead: a class with few images shows each of them
    several times an epoch, one with many shows a part, and an epoch stays as long.
    """

    def __init__(self, count: int, batch: int, seed: int, labels: np.ndarray | None = None) -> None:
        self.batch = min(batch, count)
        self._count = count
        self._classes = None
        if labels is not None:
            self._classes = [torch.from_numpy(np.flatnonzero(labels == label)) for label in np.unique(labels)]
        self._noise = torch.Generator().manual_seed(seed)
        self._begin()

    def _begin(self) -> None:
        self._start, self._place = self._noise.get_state(), 0
        self._order = self._shuffled(self._count) if self._classes is None else self._balanced(self._classes)

    def _shuffled(self, count: int) -> Tensor:
        return torch.randperm(count, generator=self._noise)

    def _balanced(self, classes: list[Tensor]) -> Tensor:
        quota = -(-self._count // len(classes))
        rounds = [[rows[self._shuffled(len(rows))] for _ in range(-(-quota // len(rows)))] for rows in classes]
        drawn = torch.cat([torch.cat(parts)[:quota] for parts in rounds])
        return drawn[self._shuffled(len(drawn))][: self._count]

    def __iter__(self) -> "Sampler":
        return self

    def __next__(self) -> Tensor:
        """Row numbers int64 [batch]."""
        if self._place + self.batch > self._count:
            self._begin()
        rows = self._order[self._place : self._place + self.batch]
        self._place += self.batch
        return rows

    def state_dict(self) -> dict[str, Any]:
        """The noise at the beginning of this epoch, and how many of its images were drawn."""
        return {"noise": self._start, "place": self._place}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another sampler of the same images stopped."""
        self._noise.set_state(state["noise"])
        self._begin()
        self._place = state["place"]


def is_balanced(labels: np.ndarray, ratio: float = 2.0) -> bool:
    """Whether no class has more than `ratio` times the images of another."""
    counts = np.unique(labels, return_counts=True)[1]
    return bool(counts.max() <= ratio * counts.min())
