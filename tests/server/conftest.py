"""limner on a port of the test's own process, with an engine that can be told to misbehave."""

import contextlib
import io
import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import structlog

from export.engines import Engine
from server import repository
from server.process import in_background
from server.settings import Settings

PATIENCE = 20.0  # seconds until a test that would hang fails


class Saboteur:
    """The real engine, until `sabotage` is set to what shall happen instead."""

    on_cpu = True

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.artifact, self.buckets = engine.artifact, engine.buckets
        self.describe, self.close = engine.describe, engine.close
        self.sabotage: Any = None

    def run(self, z: np.ndarray, label: np.ndarray | None) -> np.ndarray:
        made = self.engine.run(z, label)
        return made if self.sabotage is None else self.sabotage(made)


@dataclass(frozen=True)
class Application:
    """limner on a port of this process, serving `plain`: a client of it, its engine, and what it wrote to stderr."""

    client: httpx.Client
    engine: Saboteur
    stderr: io.StringIO

    def hold(self) -> tuple[threading.Event, threading.Event]:
        """Make the engine wait in its batches: an event that says that it does, and one that lets it go."""
        assert not self.engine.on_cpu, "would hold the event loop: use the fixture `waits`"
        running, let_go = threading.Event(), threading.Event()

        def waits(made: np.ndarray) -> np.ndarray:
            running.set()
            let_go.wait(PATIENCE)
            return made

        self.engine.sabotage = waits
        return running, let_go

    def fail_after(self, batches: int) -> None:
        """Let so many more batches be made, and none after them."""
        ran: list[int] = []

        def fails(made: np.ndarray) -> np.ndarray:
            ran.append(len(made))
            if len(ran) > batches:
                raise ValueError("sabotage")
            return made

        self.engine.sabotage = fails

    def metric(self, line: str) -> bool:
        """Whether /metrics has this line."""
        return line in self.client.get("/metrics").text.splitlines()

    @contextlib.contextmanager
    def connected(self, said: bytes = b"", receive_buffer: int | None = None) -> Iterator[socket.socket]:
        """A connection of its own, over which this has been said. What is not read is kept in so small a buffer."""
        with socket.socket() as connection:
            if receive_buffer is not None:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            connection.settimeout(PATIENCE)
            connection.connect((self.client.base_url.host, self.client.base_url.port or 80))
            connection.sendall(said)
            yield connection

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait for it."""
        end = time.monotonic() + PATIENCE
        while not holds() and time.monotonic() < end:
            time.sleep(0.01)
        assert holds()

    def logged(self, lines: int) -> list[dict[str, Any]]:
        """All that was written, once it is that many lines: the last one follows the answer. Each of them is JSON."""
        until = time.monotonic() + PATIENCE
        while self.stderr.getvalue().count("\n") < lines and time.monotonic() < until:
            time.sleep(0.005)
        return [json.loads(line) for line in self.stderr.getvalue().splitlines()]


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine of `application` may wait, as one of a GPU does: it has a thread."""
    monkeypatch.setattr(Saboteur, "on_cpu", False)


@pytest.fixture
def application(request: pytest.FixtureRequest, models: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Application]:
    opened: list[Saboteur] = []
    real, stderr = repository.open_engine, io.StringIO()

    def open_engine(*arguments: Any) -> Saboteur:
        opened.append(Saboteur(real(*arguments)))
        return opened[-1]

    monkeypatch.setattr(repository, "open_engine", open_engine)
    monkeypatch.setattr(sys, "stderr", stderr)
    settings = Settings(models=models / "plain", **getattr(request, "param", {}))
    with in_background(settings) as url, httpx.Client(base_url=url, timeout=PATIENCE) as client:
        yield Application(client, opened[-1], stderr)
    structlog.reset_defaults()
