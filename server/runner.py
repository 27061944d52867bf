"""A batcher in which something waits in, its batches run out: by the event loop itself, or by a thread.

A thread shares Python's lock, and mostly a core, with the loop, and both hand over twice for each batch. A short batch
is quicker without: whoever asks meanwhile waits in his socket. What takes longer, or waits for a device, has a thread.
"""

import asyncio
import threading
from typing import Protocol

from server.batcher import Batcher

SHORT = 0.02  # seconds in which an event loop may do nothing else


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
    """One batch in each turn of the event loop that asks: what came in is read before the next, and told."""

    def __init__(self) -> None:
        self._asked: asyncio.AbstractEventLoop | None = None

    def start(self, batcher: Batcher) -> None:
        self._batcher = batcher

    def wake(self) -> None:
        loop = asyncio.get_running_loop()
        if self._asked is not loop:
            self._asked = loop
            loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._asked = None
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
