"""Settings in, a listening process out: the socket, the signals and the drain around the application."""

import logging
import math
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from fastapi import FastAPI

from server.app import create_app
from server.observer import Drain
from server.settings import Settings
from server.telemetry import configure_logging
from training.errors import ConfigError, Interrupted, LimnerError

IDLE_TICKS = 2  # of uvicorn's 0.1 s: a request may sit in a socket while none is in flight
START_SECONDS = 60.0
BACKLOG = 2048


def bind(host: str, port: int, tries: int = 1) -> socket.socket:
    """A listening socket on `port`, or the first free one of the `tries` - 1 after it. Raises ConfigError.

    It listens at once, because two sockets can be bound to one port until then: the later of two servers that start
    together would print its address and never be asked. Who connects during the warm-up waits for its end.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    failure: OSError | None = None
    for number in range(port, min(port + tries, 65536)):
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, number))
            listener.listen(BACKLOG)
            return listener
        except OSError as error:
            listener.close()
            failure = error
    reason = failure.strerror if failure else "no port left"
    raise ConfigError(f"cannot listen on {host}:{port} ({reason})", "Choose another --port or --host.")


def address(listener: socket.socket) -> str:
    """http://127.0.0.1:8000, with a name to open where the socket listens on every interface."""
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{shown}:{port}"


def serve(app: FastAPI, settings: Settings, listener: socket.socket) -> None:
    """Serve until SIGTERM (return) or Ctrl-C (raise Interrupted), each after the requests in flight are answered."""
    configure_logging()
    server = _Server(app, settings)
    server.run(sockets=[listener])
    if server.interrupted:
        raise Interrupted("stopped")


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

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_graceful_shutdown=1,  # what is left after the drain is cut; see on_tick
        )
        super().__init__(config)
        self.drain: Drain = app.state.limner.drain
        self.drain_seconds = settings.drain_seconds
        self.interrupted = False
        self._deadline = 0.0
        self._idle_ticks = 0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.drain.started:
            self.should_exit = self.force_exit = True  # asked twice
            return
        self.interrupted = sig == signal.SIGINT
        self._deadline = time.monotonic() + self.drain_seconds
        self.drain.started = True

    async def on_tick(self, counter: int) -> bool:
        if self.drain.started:
            self._idle_ticks = 0 if self.drain.in_flight else self._idle_ticks + 1
            left = self._deadline - time.monotonic()
            self.should_exit |= self._idle_ticks >= IDLE_TICKS or left < 0
            # answered is not yet delivered: whoever reads slowly has the rest of the drain
            self.config.timeout_graceful_shutdown = max(1, math.ceil(left))
        return await super().on_tick(counter)
