"""Requests in, the members of the next batch out: two priorities, deadlines, a bound in images. No threads, no clock.

Requests of one priority are taken in the order in which they came. While both wait, every batch keeps a share of its
places for low ones, so that neither starves. A large request is taken in pieces, small ones share a batch.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from math import inf
from typing import Any, NamedTuple

import numpy as np

LOW_SHARE = 1 / 8  # of the places of a batch that others want too


@dataclass(eq=False, slots=True)
class Request:
    """So many images that somebody waits for. `rows`: what they are made from. Times are of the batcher's clock."""

    count: int
    rows: Any = None
    low: bool = False
    deadline: float = inf
    arrived: float = 0.0
    queue_seconds: float = 0.0
    input_seconds: float = 0.0
    compute_seconds: float = 0.0
    batch: int = 0  # images of the largest batch that made some of it
    taken: int = 0  # images that a batch has taken so far
    settled: bool = False
    parts: list[np.ndarray] = field(default_factory=list)
    labels: list[np.ndarray] = field(default_factory=list)

    def keep(self, images: np.ndarray, labels: np.ndarray | None, compute_seconds: float, batch: int) -> None:
        """Some of its images, copied: a view would keep all of the batch."""
        self.parts.append(images.copy())
        if labels is not None:
            self.labels.append(labels)
        self.compute_seconds += compute_seconds
        self.batch = max(self.batch, batch)


class Part(NamedTuple):
    """Images `start` to, not including, `stop` of a request."""

    request: Request
    start: int
    stop: int


class Backlog:
    """What waits. `images` of it have not been taken into a batch yet; they are never more than `capacity`."""

    def __init__(self, capacity: int, largest: int) -> None:
        self.capacity, self.largest = capacity, largest
        self._lines: tuple[OrderedDict[Request, None], ...] = (OrderedDict(), OrderedDict())  # normal, low
        self.images, self._waiting = 0, [0, 0]
        self._credit = 0.0  # places that low requests have saved up
        self._soonest = inf  # no deadline that waits is earlier

    def before(self, low: bool, count: int) -> int:
        """Images that will be taken before the last of `count` new ones, at most."""
        normal, others = self._waiting
        if low or not others:
            return self.images
        return normal + min(others, int((normal + count) * LOW_SHARE / (1 - LOW_SHARE)) + 1)

    def add(self, request: Request) -> bool:
        """Whether it fits."""
        if self.images + request.count > self.capacity:
            return False
        self._lines[request.low][request] = None
        self._count(request.low, request.count)
        if request.deadline < self._soonest:
            self._soonest = request.deadline
        return True

    def drop(self, request: Request) -> None:
        """Give back the places that it still has."""
        if request in self._lines[request.low]:
            del self._lines[request.low][request]
            self._count(request.low, request.taken - request.count)

    def sweep(self, now: float) -> list[Request]:
        """Drop those whose deadline has come, and give them."""
        if now < self._soonest:
            return []
        late = [request for line in self._lines for request in line if request.deadline <= now]
        for request in late:
            self.drop(request)
        self._soonest = min((request.deadline for line in self._lines for request in line), default=inf)
        return late

    def take(self, most: int | None = None) -> list[Part]:
        """The next batch, as full as can be, of `most` images where fewer are wanted; [] where nothing waits."""
        places = self.largest if most is None else most
        normal, low = self._waiting
        self._credit = min(self._credit + places * LOW_SHARE, self.largest) if normal and low else 0.0
        kept = min(int(self._credit), low, places)
        normal = min(normal, places - kept)
        low = min(low, places - normal)
        self._credit -= min(low, kept)
        return self._first(False, normal) + self._first(True, low)

    def _first(self, low: bool, count: int) -> list[Part]:
        line, parts = self._lines[low], []
        self._count(low, -count)
        while count:
            request = next(iter(line))
            start = request.taken
            request.taken = min(request.count, start + count)
            parts.append(Part(request, start, request.taken))
            count -= request.taken - start
            if request.taken == request.count:
                line.popitem(last=False)
        return parts

    def _count(self, low: bool, more: int) -> None:
        self._waiting[low] += more
        self.images += more
