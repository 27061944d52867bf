"""Requests in, batches to the engine, images back: work-conserving and bounded. Knows an Engine and a clock, not HTTP.

No batch waits to be fuller: what arrives while one runs forms the next. A batch that fails is run once more in halves,
so that one bad row takes few others with it.
"""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from export.engines import Engine, EngineError, NonFinite
from server.backlog import Backlog, Part, Request
from server.cost import Cost
from server.errors import Expired, Hopeless, NotReady, Overloaded
from training.errors import LimnerError

Rows = tuple[np.ndarray, np.ndarray | None]
Compose = Callable[[Sequence[Part]], Rows]
Reason = Literal["full", "fitted", "drained", "retry"]


class Generated(NamedTuple):
    """images uint8 [n, H, W, C], their labels int64 [n] or None; seconds from arrival to the first batch, and inside
    the engine; `batch`: images of the largest batch that made some of them, whoever asked for the others.
    """

    images: np.ndarray
    labels: np.ndarray | None
    queue_seconds: float
    compute_seconds: float
    batch: int


@dataclass(frozen=True)
class Batch:
    """What one run of the engine was, for metrics and the log.

    `reason`: it is as large as a batch can be, or as large as needs no padding, or holds all that waited, or is half of
    one that failed. `rows` that the engine ran, with padding; `failed` images that did not come out. `queue_seconds`:
    waits of the requests that began in it. `busy_seconds`: all that whoever steps did since the batch before.
    """

    images: int
    rows: int
    failed: int
    reason: Reason
    compute_seconds: float
    queue_seconds: tuple[float, ...]
    busy_seconds: float
    error: EngineError | None = None


Settled = list[tuple[Request, Generated | LimnerError]]


class Batcher:
    """Owns an engine. Every method may be called from any thread, `step` by one at a time.

    `wake` hears that something waits. `compose` makes a batch's z and labels when its members are known. `deliver`
    hears, once for each request that was neither refused nor cancelled, what became of it; it must not call back.
    """

    def __init__(
        self,
        engine: Engine,
        cost: Cost,
        capacity: int,
        compose: Compose,
        deliver: Callable[[Settled], None],
        observe: Callable[[Batch], None] = lambda batch: None,
        wake: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._cost = cost
        self._compose = compose
        self._deliver = deliver
        self._observe = observe
        self._wake = wake
        self._clock = clock
        self._backlog = Backlog(capacity, engine.buckets[-1])
        self._free_at = 0.0  # when the batch under way should end; 0.0 where none is
        self.ended = 0.0  # when the last run was over
        self._busy_since = 0.0
        self._open = True
        self._lock = threading.Lock()

    @property
    def queued(self) -> int:
        """Images that wait for a batch."""
        return self._backlog.images

    def submit(self, request: Request) -> None:
        """Queue it. Raises Overloaded where it does not fit, Hopeless where it could not be done in time, NotReady
        after `close`.
        """
        with self._lock:
            if not self._open:
                raise NotReady("the server is shutting down", "Ask again.", retry_after=1)
            request.arrived = self._clock()
            self._refuse_hopeless(request)
            if not self._backlog.add(request):
                over = self._backlog.images + request.count - self._backlog.capacity
                raise Overloaded(
                    f"{self._backlog.images} of {self._backlog.capacity} places in the queue are taken, "
                    f"{request.count} more do not fit",
                    "Come back after Retry-After seconds.",
                    retry_after=self._cost.work(over),
                )
        self._wake()

    def cancel(self, request: Request) -> None:
        """Nobody waits for it any more: its places are free at once, and nothing is delivered."""
        with self._lock:
            self._end(request)

    def expire(self, request: Request) -> None:
        """Its deadline has come: deliver that, unless it is settled."""
        with self._lock:
            settled = self._settle(request, _expired(request))
        self._tell(settled)

    def step(self, busy_since: float | None = None) -> bool:
        """Run the next batch, if something waits; whether there was one. `busy_since`: where its busy_seconds begin."""
        with self._lock:
            now = self._clock()
            settled = [pair for late in self._backlog.sweep(now) for pair in self._settle(late, _expired(late))]
            parts = self._backlog.take(self._cost.fitting(self._backlog.images))
            size = _size(parts)
            for request, start, _ in parts:
                if start == 0:
                    request.queue_seconds = now - request.arrived
            self._free_at = now + self._cost.batch(size) if parts else 0.0
        self._tell(settled)
        if not parts:
            return False
        self._busy_since = now if busy_since is None else busy_since
        try:
            left = self._backlog.images
            self._run(parts, "full" if size == self._backlog.largest else "fitted" if left else "drained")
        except Exception as caught:  # a fault of limner; whoever runs the engine must outlive it
            self._fail(parts, _wrapped(caught))
        finally:
            self._free_at = 0.0
        return True

    def close(self) -> None:
        """Refuse new requests."""
        with self._lock:
            self._open = False

    def finish(self) -> None:
        """`step` until nothing waits, and close the engine."""
        while self.step():
            pass
        self._engine.close()

    def _refuse_hopeless(self, request: Request) -> None:
        """An idle engine takes everything: what it then measures is how the estimate is mended."""
        if not self._free_at and not self._backlog.images:
            return
        ahead = self._backlog.before(request.low, request.count)
        seconds = max(0.0, self._free_at - request.arrived) + self._cost.work(ahead + request.count)
        late = request.arrived + seconds - request.deadline
        if late > 0:
            raise Hopeless(
                f"the queue would take {seconds:.3g} s, {late:.3g} s more than this request has",
                "Come back after Retry-After seconds, or give it longer.",
                retry_after=late,
            )

    def _run(self, parts: Sequence[Part], reason: Reason) -> None:
        """A batch; and the halves of one that failed as a whole, each once."""
        if self._once(parts, reason) is None:
            return
        size = _size(parts)
        for half in (_between(parts, 0, size // 2), _between(parts, size // 2, size)):
            if all(part.request.settled for part in half):  # nobody waits, or there is no row in it
                continue
            error = self._once(half, "retry")
            if error is not None:
                self._fail(half, error)

    def _once(self, parts: Sequence[Part], reason: Reason) -> EngineError | None:
        """Compose, run the engine once and deliver what came; why all of it failed, if it did."""
        size = _size(parts)
        bad: frozenset[int] = frozenset()
        images, label, error, whole = np.empty(0), None, None, None
        began = self._clock()
        try:
            z, label = self._compose(parts)
            began = self._clock()
            images = self._engine.run(z, label)
            if len(images) != size:
                raise EngineError(f"the engine gave {len(images)} images for {size} latents")
        except NonFinite as caught:
            images, bad, error = caught.images, frozenset(caught.rows), caught
        except EngineError as caught:
            error = whole = caught
        except Exception as caught:  # no engine should, but any library may
            error = whole = _wrapped(caught)
        self.ended = self._clock()
        seconds, busy = self.ended - began, self.ended - self._busy_since
        self._busy_since = self.ended
        if whole is None:
            self._cost.learn(size, seconds, busy - seconds)
        waits = tuple(part.request.queue_seconds for part in parts if part.start == 0 and reason != "retry")
        failed = len(bad) if whole is None else size
        with suppress(Exception):  # a log whose pipe is closed is no reason to stop the engine
            self._observe(Batch(size, self._cost.rows(size), failed, reason, seconds, waits, busy, error))
        if whole is not None:
            return whole
        with self._lock:
            settled = self._received(parts, images, label, seconds, bad, error)
        self._tell(settled)
        return None

    def _received(
        self,
        parts: Sequence[Part],
        images: np.ndarray,
        label: np.ndarray | None,
        seconds: float,
        bad: frozenset[int],
        error: EngineError | None,
    ) -> Settled:
        """Give each request its images; what is settled by that."""
        settled: Settled = []
        row, size = 0, len(images)
        for request, start, stop in parts:
            first, row = row, row + stop - start
            if request.settled:
                continue
            if error is not None and not bad.isdisjoint(range(first, row)):
                settled += self._settle(request, error)
                continue
            mine = images[first:row], None if label is None else label[first:row]
            if row - first == request.count:
                settled += self._settle(request, Generated(*mine, request.queue_seconds, seconds, size))
                continue
            request.keep(*mine, seconds, size)
            if stop == request.count:
                settled += self._settle(request, _made(request))
        return settled

    def _fail(self, parts: Sequence[Part], error: EngineError) -> None:
        with self._lock:
            settled = [pair for part in parts for pair in self._settle(part.request, error)]
        self._tell(settled)

    def _tell(self, settled: Settled) -> None:
        if settled:
            with suppress(Exception):  # whoever cannot be told is no reason to stop the engine
                self._deliver(settled)

    def _settle(self, request: Request, outcome: Generated | LimnerError) -> Settled:
        """Once, and nothing of it waits any more."""
        if request.settled:
            return []
        self._end(request)
        return [(request, outcome)]

    def _end(self, request: Request) -> None:
        """Nothing of it waits any more, and it keeps nothing."""
        request.settled = True
        request.parts.clear()
        request.labels.clear()
        self._backlog.drop(request)


def _size(parts: Sequence[Part]) -> int:
    return sum(part.stop - part.start for part in parts)


def _made(request: Request) -> Generated | EngineError:
    """All of its images; or why they cannot be put together, which is no fault of those who shared its batch."""
    try:
        labels = _joined(request.labels) if request.labels else None
        seconds = request.queue_seconds, request.compute_seconds
        return Generated(_joined(request.parts), labels, *seconds, request.batch)
    except Exception as caught:
        return _wrapped(caught)


def _joined(arrays: list[np.ndarray]) -> np.ndarray:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _between(parts: Sequence[Part], start: int, stop: int) -> list[Part]:
    """The parts of rows start to stop of a batch."""
    found, row = [], 0
    for request, first, last in parts:
        low, high = max(start, row), min(stop, row + last - first)
        if low < high:
            found.append(Part(request, first + low - row, first + high - row))
        row += last - first
    return found


def _expired(request: Request) -> Expired:
    seconds = max(0.0, request.deadline - request.arrived)  # a microsecond may be over before it is queued
    return Expired(f"no picture after {seconds:g} s", "Ask for fewer images, or later.")


def _wrapped(cause: Exception) -> EngineError:
    error = EngineError("the engine failed on a batch", "See the server's log.")
    error.__cause__ = cause
    return error
