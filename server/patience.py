"""Connections in, those closed whose client has kept the server waiting for too long.

uvicorn limits only the pause behind an answer. Without more, who begins a request and never ends it, or asks and never
reads, keeps a connection and its answer for ever.
"""

import time
from collections.abc import Callable, Iterable
from typing import Protocol

LONGEST = 60.0  # seconds for a request to arrive, and between two bytes of an answer that its client takes: nginx's
PAUSE = 1.0  # seconds between two looks


class Connection(Protocol):
    """`awaited`: what the server waits for, another object as soon as the client has moved; None: for nothing."""

    def awaited(self) -> object: ...

    def cut(self) -> None: ...


class Patience:
    def __init__(self, longest: float = LONGEST, clock: Callable[[], float] = time.monotonic) -> None:
        self._longest, self._clock = longest, clock
        self._next = 0.0
        self._waits: dict[Connection, tuple[object, float]] = {}  # for what, since when

    def look(self, connections: Iterable[Connection]) -> None:
        """Cut those that have not moved since `longest` seconds. However often it is called, it looks once a second."""
        now = self._clock()
        if now < self._next:
            return
        self._next = now + PAUSE
        waits, self._waits = self._waits, {}
        for connection in [*connections]:
            awaited = connection.awaited()
            before, since = waits.get(connection, (None, now))
            if awaited is None:
                continue
            if awaited != before:
                since = now
            elif now - since >= self._longest:
                connection.cut()
            self._waits[connection] = awaited, since
