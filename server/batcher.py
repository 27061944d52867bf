"""Requests in, batches to the engine, images back: work-conserving and bounded. Knows an Engine and a clock, not HTTP.

The engine is never idle while something is queued, and never waits for a batch to fill: what arrives while it runs
forms the next batch. Large requests are split, small ones packed, and cancelled ones give their places back at once.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from export.engines import Engine, EngineError, NonFinite
from server.errors import NotReady, Overloaded

RATE_MEMORY = 0.9  # weight of the past in the running mean of seconds per image


@dataclass(frozen=True)
class Generated:
    """images uint8 [n, H, W, C]; seconds from arrival to the first batch, and inside the engine."""

    images: np.ndarray
    queue_seconds: float
    compute_seconds: float


@dataclass(frozen=True)
class Batch:
    """What one run of the engine was, for metrics and the log: waits of the requests that began in it."""

    images: int
    compute_seconds: float
    queue_seconds: tuple[float, ...]
    error: EngineError | None = None


@dataclass(eq=False, slots=True)
class _Request:
    z: np.ndarray
    label: np.ndarray | None
    future: "Future[Generated]"
    arrived: float
    taken: int = 0  # images that a batch has taken so far
    queue_seconds: float = 0.0
    compute_seconds: float = 0.0
    parts: list[np.ndarray] = field(default_factory=list)


class Batcher:
    """Owns the engine and the one thread that runs it. `submit` may be called from any thread."""

    def __init__(
        self,
        engine: Engine,
        capacity: int,
        observe: Callable[[Batch], None] = lambda batch: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._largest = engine.buckets[-1]
        self._capacity = capacity
        self._observe = observe
        self._clock = clock
        self._queue: deque[_Request] = deque()
        self._queued = 0  # images not yet taken into a batch
        self._seconds_per_image = 0.0
        self._open = True
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    def submit(self, z: np.ndarray, label: np.ndarray | None) -> "Future[Generated]":
        """Queue z float32 [n, latent] with labels [n]. Cancel the future to leave the queue.

        Raises Overloaded where n more images do not fit, NotReady after `close`.
        """
        request = _Request(z, label, Future(), self._clock())
        with self._changed:
            if not self._open:
                raise NotReady("the server is shutting down", "Ask again.", retry_after=1)
            if self._queued + len(z) > self._capacity:
                raise Overloaded(
                    f"{self._queued} of {self._capacity} places in the queue are taken, {len(z)} more do not fit",
                    "Come back after Retry-After seconds.",
                    retry_after=self._queued * self._seconds_per_image,
                )
            self._queue.append(request)
            self._queued += len(z)
            self._changed.notify()
        request.future.add_done_callback(lambda future: self._drop(request))
        return request.future

    def close(self) -> None:
        """Refuse new requests, finish those that are queued, then close the engine."""
        with self._changed:
            self._open = False
            self._changed.notify()
        self._thread.join()
        self._engine.close()

    def _drop(self, request: _Request) -> None:
        """Give back the places that a cancelled or failed request still has in the queue."""
        if request.taken == len(request.z):  # it has left the queue already
            return
        with self._changed:
            if request in self._queue:
                self._queue.remove(request)
                self._queued -= len(request.z) - request.taken

    def _work(self) -> None:
        while members := self._next():
            try:
                self._run(members)
            except Exception as caught:  # a fault of limner; the one thread of the engine must outlive it
                for request, _, _ in members:
                    self._fail(request, _wrapped(caught))

    def _next(self) -> list[tuple[_Request, int, int]]:
        """Wait for work, then fix the members of the next batch: (request, first row, end row). [] once closed."""
        with self._changed:
            while True:
                members = self._take()
                if members or not self._open:
                    return members
                self._changed.wait()

    def _take(self) -> list[tuple[_Request, int, int]]:
        members: list[tuple[_Request, int, int]] = []
        room, now = self._largest, self._clock()
        while self._queue and room:
            request = self._queue[0]
            left = len(request.z) - request.taken
            count = min(room, left)
            if not request.taken:
                request.queue_seconds = now - request.arrived
            members.append((request, request.taken, request.taken + count))
            request.taken += count
            room -= count
            self._queued -= count
            if count == left:
                self._queue.popleft()
        return members

    def _run(self, members: list[tuple[_Request, int, int]]) -> None:
        z = np.concatenate([request.z[start:end] for request, start, end in members])
        labels = [request.label[start:end] for request, start, end in members if request.label is not None]
        failed: frozenset[int] = frozenset(range(len(z)))
        images, error = np.empty(0), None
        began = self._clock()
        try:
            images = self._engine.run(z, np.concatenate(labels) if labels else None)
            if len(images) != len(z):
                raise EngineError(f"the engine gave {len(images)} images for {len(z)} latents")
            failed = frozenset()
        except NonFinite as caught:
            images, failed, error = caught.images, frozenset(caught.rows), caught
        except EngineError as caught:
            error = caught
        except Exception as caught:  # no engine should, but any library may
            error = _wrapped(caught)
        seconds = self._clock() - began
        memory = RATE_MEMORY if self._seconds_per_image else 0.0
        self._seconds_per_image = memory * self._seconds_per_image + (1 - memory) * seconds / len(z)
        waits = tuple(request.queue_seconds for request, start, _ in members if start == 0)
        with suppress(Exception):  # a log whose pipe is closed is no reason to stop the engine
            self._observe(Batch(len(z), seconds, waits, error))
        row = 0
        for request, start, end in members:
            mine = range(row, row + end - start)
            row = mine.stop
            if error is not None and not failed.isdisjoint(mine):
                self._fail(request, error)
                continue
            request.parts.append(images[mine.start : mine.stop])
            request.compute_seconds += seconds
            if end == len(request.z):
                done = request.parts[0] if len(request.parts) == 1 else np.concatenate(request.parts)
                _settle(request.future, Generated(done, request.queue_seconds, request.compute_seconds))

    def _fail(self, request: _Request, error: EngineError) -> None:
        self._drop(request)
        _settle(request.future, error)


def _wrapped(cause: Exception) -> EngineError:
    error = EngineError("the engine failed on a batch", "See the server's log.")
    error.__cause__ = cause
    return error


def _settle(future: "Future[Generated]", outcome: Generated | EngineError) -> None:
    try:
        if isinstance(outcome, EngineError):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
    except InvalidStateError:
        pass  # cancelled between the batch and now: nobody waits for it
