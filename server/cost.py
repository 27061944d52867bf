"""Batches that were run in, what the next ones will take out: seconds = a · images + b in the engine, and what is done
for each beside it.
"""

import time
from bisect import bisect_left
from collections.abc import Mapping
from contextlib import suppress

import numpy as np

from export.engines import Engine, NonFinite

WEIGHT = 0.1  # of the newest batch
SURPRISE = 2.0  # times what was expected that one batch may count for: a pause is no slower engine

REPEATS = 3  # runs of each size, of which the quickest counts


def measured(engine: Engine, z: np.ndarray, label: np.ndarray | None) -> dict[int, float]:
    """Seconds of a batch of each of the engine's buckets, from rows of z [N, latent], N at least the largest."""
    found = {}
    for size in engine.buckets:
        rows = z[:size], None if label is None else label[:size]
        for _ in range(REPEATS):
            began = time.perf_counter()
            with suppress(NonFinite):
                engine.run(*rows)
            found[size] = min(found.get(size, float("inf")), time.perf_counter() - began)
    return found


class Cost:
    """What runs of one engine take on this machine.

    a and b are fitted to the warm-up and then scaled together by what batches really take: one size alone cannot tell
    them apart, and under load all batches have one size. What is done beside the engine is a mean for each batch.
    """

    def __init__(self, measured: Mapping[int, float]) -> None:
        """`measured`: size of a batch -> seconds, of all the sizes that the engine runs: others are filled up."""
        self._sizes = sorted(measured)
        self._largest = self._sizes[-1]
        sizes, seconds = (np.array(values, np.float64) for values in (list(measured), list(measured.values())))
        seconds = np.maximum(seconds, 1e-9)
        table = np.stack([sizes, np.ones_like(sizes)], axis=1) / seconds[:, None]  # a relative error for each size
        a, b = _fitted(table)
        self._batch = [a * self.rows(images) + b for images in range(self._largest + 1)]  # before any was learnt from
        self._scale, self._beside = 1.0, 0.0
        self._fitting = self._plan()

    def rows(self, images: int) -> int:
        """What the engine runs for a batch of so many, padding included."""
        place = bisect_left(self._sizes, images)
        return self._sizes[place] if place < len(self._sizes) else images

    def fitting(self, images: int) -> int:
        """How many of those that wait the next batch should take, so that all of them cost least.

        40 are quicker as 32 and 8 than as 64 of which 24 are padding; 60 are not worth two runs.
        """
        return self._fitting[min(images, self._largest)]

    def _plan(self) -> list[int]:
        """What `fitting` says, by number of images: the first batch of the cheapest way to split them."""
        cheapest, first = [0.0], [0]
        for images in range(1, self._largest + 1):
            ways = [(self.batch(images), images)]  # all at once, padded; else without padding, the largest first
            ways += [(self.batch(size) + cheapest[images - size], size) for size in self._sizes if size < images]
            cheapest.append(min(seconds for seconds, _ in ways))
            first.append(max(size for seconds, size in ways if seconds <= cheapest[-1] * (1 + 1e-9)))
        return first

    def batch(self, images: int) -> float:
        """Seconds of one batch."""
        return self._scale * self._batch[images] + self._beside

    def work(self, images: int) -> float:
        """Seconds of so many images in batches as large as there are."""
        if 0 < images <= self._largest:
            return self.batch(images)
        full, rest = divmod(images, self._largest)
        return full * self.batch(self._largest) + (self.batch(rest) if rest else 0.0)

    def learn(self, images: int, seconds: float, beside: float = 0.0) -> None:
        """A batch took that long in the engine, and beside it."""
        expected, whole = self._scale * self._batch[images], self.batch(images)
        if expected > 0:
            self._scale *= 1 - WEIGHT + WEIGHT * min(seconds / expected, SURPRISE)
        self._beside += WEIGHT * (min(beside, SURPRISE * whole) - self._beside)


def _fitted(table: np.ndarray) -> tuple[float, float]:
    """The a, b >= 0 for which table @ (a, b) is nearest to 1 everywhere: both, or where one would be negative, one.

    As scipy.optimize.nnls, whose import takes as long as a sixth of the whole server's.
    """
    (a, b), *_ = np.linalg.lstsq(table, np.ones(len(table)), rcond=None)
    if a >= 0 and b >= 0 and len(table) > 1:
        return float(a), float(b)
    alone = table.sum(axis=0) / np.square(table).sum(axis=0)
    errors = np.square(table * alone - 1).sum(axis=0)
    return (float(alone[0]), 0.0) if errors[0] <= errors[1] else (0.0, float(alone[1]))
