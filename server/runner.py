"""A batcher in which something waits in, its batches run out: by the event loop itself, or by a thread.

A thread shares Python's lock, and mostly a core, with the loop, and both hand over twice for each batch. A short batch
is quicker without: whoever asks meanwhile waits in his socket. What takes longer, or waits for a device, has a thread.
"""

import asyncio
import threading
import time
from collections import deque
from typing import Protocol

from server.batcher import Batcher

SHORT = 0.02  # seconds in which an event loop may do nothing else
TURNS, MOST_TURNS = 3, 64  # of the loop, between two batches, and while connections come


class Runner(Protocol):
    """Runs the batches of the batcher that `start` is given."""

    def start(self, batcher: Batcher) -> None: ...

    def wake(self) -> None:
        """Something waits. Called by the batcher, after it was queued."""
        ...

    def close(self, batcher: Batcher) -> None:
        """Run what still waits in it, which is closed, and return when its engine is closed."""
        ...


class Busy:
    """Since when a runner has done what it has not told of yet, all batchers together."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._owed = 0.0  # what was done after the last batch, before it rested

    def since(self) -> float:
        """Something is to be done."""
        if self._since is None:
            self._since = time.monotonic() - self._owed
        return self._since

    def told(self, until: float) -> None:
        self._since = until

    def rests(self) -> None:
        if self._since is not None:
            self._since, self._owed = None, time.monotonic() - self._since


class InLoop:
    """Batches of several batchers, in turn. `wake` is called in the event loop that runs them.

    Between two batches that loop has turns for all others: in the first, those who wait are woken, and what was sent is
    read; in the second, they go on, and what was read is queued; in the third, connections are closed and those go on
    who pass pictures on to others. libuv accepts one connection a turn, so while some come there are more: else many
    who come at once would wait for a batch each, and each would be a batch of its own.
    """

    def __init__(self) -> None:
        self._batchers = deque[Batcher]()
        self._asked: asyncio.AbstractEventLoop | None = None
        self._turns = 0  # since the last batch
        self._more = 0  # before the next one
        self._came = False
        self._busy = Busy()

    def start(self, batcher: Batcher) -> None:
        self._batchers.append(batcher)

    def connected(self) -> None:
        """A connection was accepted."""
        self._came = True

    def wake(self) -> None:
        loop = asyncio.get_running_loop()
        if self._asked is not loop:
            self._asked = loop
            loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._asked = None
        self._turns += 1
        if self._came and self._turns < MOST_TURNS:
            self._more, self._came = max(1, self._more), False
        if self._more:
            self._more -= 1
            self.wake()
            return
        self._turns, ran = 0, True
        try:
            ran = self._step()
        finally:  # whatever is raised, there is another turn
            self._more = TURNS - 1 if ran else 0
            if ran:
                self.wake()

    def _step(self) -> bool:
        """A batch of the next one in which something waits, if there is one."""
        since = self._busy.since()
        for _ in range(len(self._batchers)):
            self._batchers.rotate(-1)
            batcher = self._batchers[-1]
            if batcher.step(since):
                self._busy.told(batcher.ended)
                return True
        self._busy.rests()
        return False

    def close(self, batcher: Batcher) -> None:
        self._batchers.remove(batcher)
        batcher.finish()


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
            busy = Busy()
            while self._batcher.step(busy.since()):
                busy.told(self._batcher.ended)
        self._batcher.finish()

    def close(self, batcher: Batcher) -> None:
        self._ends = True
        self._wanted.set()
        self._thread.join()
