"""Settings in, a listening process out: the socket, the signals and the drain around the application."""

import logging
import math
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import cast

import uvicorn

from server.app import Application, create_app
from server.listening import BACKLOG, address, bind
from server.patience import Patience
from server.settings import Settings
from server.telemetry import configure_logging
from server.wire import Protocol
from training.errors import Interrupted, LimnerError

IDLE_TICKS = 2  # of uvicorn's 0.1 s: a request may sit in a socket while none is in flight
START_SECONDS = 60.0


def serve(app: Application, settings: Settings, listener: socket.socket) -> None:
    """Serve until SIGTERM (return) or Ctrl-C (raise Interrupted), each after the requests in flight are answered."""
    configure_logging()
    if run(app, settings, listener).interrupted:
        raise Interrupted("stopped")


def run(
    app: Application, settings: Settings, listener: socket.socket, started: Callable[[], None] = lambda: None
) -> "_Server":
    """Serve until a signal, `started` once requests are answered; the server that has stopped."""
    server = _Server(app, settings, started)
    server.run(sockets=[listener])
    return server


@contextmanager
def in_background(settings: Settings) -> Iterator[str]:
    """Serve from a thread of this process on a free loopback port; gives the address. For `--once` and `--models`."""
    configure_logging(logging.WARNING)
    server = _Server(create_app(settings), settings)  # before the socket: a bundle that is refused leaves none open
    listener = bind("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="http")
    thread.start()
    try:
        waited = time.monotonic()
        while not server.started:
            if not thread.is_alive() or time.monotonic() - waited > START_SECONDS:
                raise LimnerError("the server did not start", "Run limner serve to see why.")
            time.sleep(0.01)
        yield address(listener)
    finally:
        server.should_exit = True
        thread.join()


class _Server(uvicorn.Server):
    """uvicorn that drains: /readyz turns 503 and new work is refused while what is in flight is answered."""

    def __init__(self, app: Application, settings: Settings, on_start: Callable[[], None] = lambda: None) -> None:
        config = uvicorn.Config(
            app,
            http=Protocol,
            ws="none",  # there are no WebSockets here: who asks for one gets the answer to his GET
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # nothing here depends on who asks
            backlog=BACKLOG,
            timeout_graceful_shutdown=1,  # what is left after the drain is cut; see on_tick
        )
        super().__init__(config)
        self.on_start = on_start
        self.metrics, self.drain = app.state.metrics, app.state.drain
        self.drain_seconds = settings.drain_seconds
        self.interrupted = False
        self.patience = Patience()
        self._idle_ticks = 0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.on_start()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.drain.started:
            self.should_exit = self.force_exit = True  # asked twice
            return
        self.interrupted = sig == signal.SIGINT
        self.drain.start()

    async def on_tick(self, counter: int) -> bool:
        self.metrics.refresh()
        self.patience.look(cast("set[Protocol]", self.server_state.connections))
        if self.drain.started:
            self._idle_ticks = 0 if self.drain.in_flight else self._idle_ticks + 1
            left = self.drain_seconds - self.drain.seconds
            self.should_exit |= self._idle_ticks >= IDLE_TICKS or left < 0
            # answered is not yet delivered: whoever reads slowly has the rest of the drain
            self.config.timeout_graceful_shutdown = max(1, math.ceil(left))
        return await super().on_tick(counter)
