"""What was understood of a request in, the parts of its answer out that all routes share which make pictures."""

import importlib.metadata
import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeVar

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import Response

from server.batcher import Generated
from server.caching import has_it
from server.errors import InvalidParameter, NotReady
from server.identity import Identity
from server.repository import LiveModel
from server.state import State
from training.latents import DRAWN_SEEDS

_SEED_BITS = DRAWN_SEEDS.bit_length() - 1
_drawn = random.Random()  # noqa: S311 (seeds, no secrets: a call of the system gives the interpreter away)

T = TypeVar("T")

VERSION = importlib.metadata.version("limner")
HEADERS = ("X-Limner-Seed", "X-Limner-Label", "X-Limner-Model", "X-Request-Id", "Server-Timing", "ETag")
INLINE_PIXELS = 1 << 14  # encoded in the event loop; more go to a thread, whose hop takes longer than so many as PNG
_STAGES, _BATCH = "queue;dur=%.3f, compute;dur=%.3f, ", "batch;desc=%d"
TIMING = f"{_STAGES}encode;dur=%.3f, {_BATCH}"  # of one answer, in milliseconds
PLAIN, SLOW, COPIED = 1.0, 16.0, 1 / 32  # what a pixel takes, as PNG; of jpeg, webp and gif; of npy; at least


@dataclass(frozen=True, kw_only=True)
class Order:
    """A request that was understood: pictures of which model, for whom, in how much time, and how written.

    `draining`: whether the server was when it came.
    """

    request: Request
    state: State
    model: LiveModel
    format: str
    pixels: int
    seconds: float
    arrived: float
    draining: bool

    def identity(self, seed: int, label: int | None, truncation: float | None) -> Identity:
        """That of an image of its model."""
        model = self.model
        return Identity(model.name, model.version, model.bundle.digest, model.artifact, seed, label, truncation)

    def waiting(self) -> AbstractContextManager[None]:
        """Around what asks the batcher. Metrics hear what becomes of it."""
        return self.state.metrics.waiting(self.model.title)

    def unchanged(self, headers: dict[str, str]) -> Response | None:
        """The 304 of who has it already. Raises NotReady where the server was draining: nothing new is begun."""
        if "ETag" in headers and has_it(",".join(self.request.headers.getlist("if-none-match")), headers["ETag"]):
            return Response(status_code=304, headers=headers)
        with self.waiting():
            if self.draining:
                raise NotReady("the server is draining", "Ask another replica.", retry_after=1)
        return None

    async def left(self) -> None:
        await left(self.request)

    async def written(self, work: Callable[[], bytes], pixels: int, effort: float = PLAIN) -> tuple[bytes, float]:
        """So many pixels as bytes, of which each takes that much, and the seconds that took."""
        began = time.perf_counter()
        body = await off_loop(work, pixels, effort)
        seconds = time.perf_counter() - began
        self.state.metrics.encoded(self.model.title, seconds)
        return body, seconds

    def begins(self) -> None:
        """The answer is about to be sent: count it if it is late."""
        if time.monotonic() > self.arrived + self.seconds:
            self.state.metrics.late.labels(self.model.title).inc()


async def off_loop(work: Callable[[], T], pixels: int, effort: float) -> T:
    """What it gives: made here where that is quick, and else in a thread."""
    return work() if pixels * effort <= INLINE_PIXELS else await anyio.to_thread.run_sync(work)


async def left(request: Request) -> None:
    """Return once the client is gone. Its body has been read: nothing else comes."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def timing(made: Generated, encode: float | None = None) -> str:
    """As Server-Timing says it, in milliseconds: queue, compute, encode; and the images of its batch."""
    stages = made.queue_seconds * 1e3, made.compute_seconds * 1e3
    if encode is None:
        return (_STAGES + _BATCH) % (*stages, made.batch)
    return TIMING % (*stages, encode * 1e3, made.batch)


def drawn_seed() -> int:
    """For a request that names none."""
    return _drawn.getrandbits(_SEED_BITS)


def patience(timeout_ms: int | None, most: float) -> float:
    """Seconds that a request may take. Raises InvalidParameter where it asks for longer than anybody may."""
    if timeout_ms is None:
        return most
    if timeout_ms > most * 1e3:
        raise InvalidParameter("timeout_ms", timeout_ms, f"an integer from 1 to {most * 1e3:g}")
    return timeout_ms / 1e3
