"""A batcher in which something waits in, its batches run out: by the event loop itself, or by a thread.

A thread shares Python's lock, and mostly a core, with the loop, and both hand over twice for each batch. A short batch
is quicker without: whoever asks meanwhile waits in his socket. What takes longer, or waits for a device, has a thread.
"""

import asyncio
import threading
from dataclasses import dataclass
from typing import Protocol

from server.batcher import Batcher

SHORT = 0.02  # seconds in which an event loop may do nothing else
MOST_TURNS = 64  # of the loop, between two batches


@dataclass
class Callers:
    """Connections that have been opened so far."""

    came: int = 0


class Runner(Protocol):
    """Runs the batches of the batcher that `start` is given."""

    def start(self, batcher: Batcher) -> None: ...

    def wake(self) -> None:
        """Something waits. Called by the batcher, after it was queued."""
        ...

    def close(self) -> None:
        """Run what still waits in a closed batcher, and return when its engine is closed."""
        ...


class InLoop:
    """One batch after a turn of the event loop that asks: what came in is read before the next, and told.

    libuv accepts one connection in each turn. While they come, it turns again: else many who come at once would wait
    for a batch each, and each would be a batch of its own.
    """

    def __init__(self, callers: Callers) -> None:
        self._asked: asyncio.AbstractEventLoop | None = None
        self._callers, self._seen = callers, 0
        self._turns = 0  # since the last batch

    def start(self, batcher: Batcher) -> None:
        self._batcher = batcher

    def wake(self) -> None:
        loop = asyncio.get_running_loop()
        if self._asked is not loop:
            self._asked = loop
            loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._asked = None
        self._turns += 1
        if self._seen != self._callers.came and self._turns < MOST_TURNS:
            self._seen = self._callers.came
            self.wake()
            return
        self._turns = 0
        if self._batcher.step() and self._batcher.queued:
            self.wake()

    def close(self) -> None:
        self._batcher.finish()


class InThread:
    """One batch after the other for as long as something waits."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._wanted = threading.Event()
        self._ends = False

    def start(self, batcher: Batcher) -> None:
        self._batcher = batcher
        self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
        self._thread.start()

    def wake(self) -> None:
        if not self._wanted.is_set():  # else the thread has still to look
            self._wanted.set()

    def _work(self) -> None:
        while not self._ends:
            self._wanted.wait()
            self._wanted.clear()
            while self._batcher.step():
                pass
        self._batcher.finish()

    def close(self) -> None:
        self._ends = True
        self._wanted.set()
        self._thread.join()
