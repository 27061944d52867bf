"""A model and a large request in, blocks of its images out, in order: two batches of it wait or run at a time.

The next block is asked for when the one before it is taken. So a client that reads slowly is waited for, with a few
blocks in memory, and others are queued behind two batches of each such request at most. Nor can many such requests fill
the queue: behind its first block, each waits for one of the model's `turns`.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from server.batcher import Generated
from server.errors import Overloaded
from server.repository import LiveModel
from training.latents import Asked

AHEAD = 2  # blocks that wait or run
PAUSE = 0.05  # seconds until a full queue is asked again


async def blocks(
    model: LiveModel,
    asked: Asked,
    size: int,
    seconds: float,
    low: bool = False,
    left: Callable[[], Awaitable[None]] | None = None,
) -> AsyncGenerator[Generated]:
    """Its images in blocks of `size`, each within `seconds` of its turn; `left` tells of the first.

    Raises Overloaded where the first block finds no place, and as `LiveModel.generate` does. Whoever closes it, or is
    cancelled in it, leaves the queue.
    """
    tasks: deque[asyncio.Task[Generated]] = deque()
    try:
        for start in range(0, asked.count, size):
            block = asked.part(start, min(start + size, asked.count))
            work = model.generate(block, seconds, low, left) if start == 0 else _patient(model, block, seconds, low)
            tasks.append(asyncio.create_task(work))
            if len(tasks) == AHEAD:
                yield await tasks.popleft()
        while tasks:
            yield await tasks.popleft()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _patient(model: LiveModel, asked: Asked, seconds: float, low: bool) -> Generated:
    """As `generate` in one of the model's turns, but a queue that is full is asked again until the time is up."""
    async with model.turns:
        until = time.monotonic() + seconds
        while True:
            left = until - time.monotonic()
            try:
                return await model.generate(asked, left, low)
            except Overloaded:
                if left <= PAUSE:
                    raise
                await asyncio.sleep(PAUSE)


class Streamed(StreamingResponse):
    """Pieces of a body as they are made. Closes their source however it ends; ClientDisconnect if nobody stayed."""

    def __init__(self, pieces: AsyncGenerator[bytes], headers: dict[str, str], media_type: str) -> None:
        super().__init__(pieces, headers=headers, media_type=media_type)
        self._pieces = pieces
        self._whole = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().__call__(scope, receive, send)
        if not self._whole:
            raise ClientDisconnect

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self._pieces):
            await super().stream_response(send)
        self._whole = True
