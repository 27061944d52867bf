"""POST, GET and HEAD /generate: parameters in, pictures out."""

import math
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial

import numpy as np
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from export.bundle import Manifest
from server import answering, images, schemas
from server.answering import COPIED, PLAIN, SLOW, VERSION, drawn_seed, timing
from server.archive import ZipWriter
from server.batcher import Generated
from server.caching import control_headers
from server.errors import InvalidParameter
from server.identity import Identity
from server.images import MEDIA_TYPES, OFFERED, NpyWriter
from server.pictures import LARGEST_SIDE, PICTURE_FORMATS, QUALITY_FORMATS
from server.repository import LiveModel
from server.routes import add_routes
from server.schemas import GenerateRequest
from server.settings import Settings
from server.state import State
from server.streaming import Streamed, blocks
from training.latents import Asked

router = APIRouter()

PATH = "/generate"
STREAMED_FORMATS = ("npy", "zip")


@dataclass(frozen=True, kw_only=True)
class _Order(answering.Order):
    """Which images, as asked for."""

    images: Asked
    asked: GenerateRequest

    @property
    def low(self) -> bool:
        return self.asked.priority == "low"

    @property
    def effort(self) -> float:
        return COPIED if self.format == "npy" else SLOW if self.format in QUALITY_FORMATS else PLAIN

    def identified(self, label: int | None) -> Identity:
        """That of its first image."""
        return self.identity(self.images.seed, label, self.images.truncation)


async def generate(request: Request) -> Response:
    """Images of a class, or of all classes, from a seed.

    Image *i* is the image of `seed + i`: the same bytes alone, in any batch, on any replica. More than 1,024 (as npy or
    zip) are sent while they are made, and so is a zip of large pictures.
    """
    state: State = request.app.state.limner
    order = await _understood(request, state)
    headers = {"X-Limner-Seed": str(order.images.seed), "X-Limner-Model": order.model.title}
    label = order.images.label
    assert not isinstance(label, np.ndarray)
    headers |= caching(request.method, order.asked, order.model, label, order.format)
    if unchanged := order.unchanged(headers):
        return unchanged
    streamed = order.images.count > state.settings.max_images
    streamed |= order.format == "zip" and order.pixels > state.settings.max_pixels
    return await (_streamed(order, headers) if streamed else _whole(order, headers))


async def _understood(request: Request, state: State) -> _Order:
    """Raises the RequestErrors of design section 5."""
    draining = state.drain.started  # before the body is read: what is in flight when a drain begins is answered
    asked = await schemas.read(request, state.settings.max_body_bytes, GenerateRequest)
    model = state.repository.get(asked.model, asked.version)
    format = OFFERED.choose(asked.format, ",".join(request.headers.getlist("accept")))
    most = _most(format, state.settings)
    if asked.n > most:
        raise InvalidParameter("n", asked.n, f"an integer from 1 to {most} as {format}")
    seed = drawn_seed() if asked.seed is None else asked.seed
    return _Order(
        request=request,
        state=state,
        model=model,
        format=format,
        images=Asked(seed, asked.n, model.label_index(asked.label), asked.truncation),
        pixels=_pixels(asked, format, model.bundle.manifest, state.settings.max_pixels),
        seconds=answering.patience(asked.timeout_ms, state.settings.timeout_seconds),
        arrived=time.monotonic(),
        draining=draining,
        asked=asked,
    )


async def _whole(order: _Order, headers: dict[str, str]) -> Response:
    """All images, then the body."""
    model, asked = order.model, order.asked
    with order.waiting():
        made = await model.generate(order.images, order.seconds, order.low, order.left)
    label = order.images.label
    if made.labels is not None and asked.n == 1:
        label = int(made.labels[0])
        headers["X-Limner-Label"] = str(label)
    assert label is None or isinstance(label, int)
    names = model.bundle.manifest.class_names
    work = partial(images.encode, order.format, made.images, order.identified(label), made.labels, names)
    body, seconds = await order.written(
        partial(work, scale=asked.scale, quality=asked.quality), order.pixels, order.effort
    )
    headers["Server-Timing"] = timing(made, seconds)
    order.begins()
    return Response(body, headers=headers, media_type=MEDIA_TYPES[order.format])


async def _streamed(order: _Order, headers: dict[str, str]) -> Response:
    """The head once the first block is made, and each block as it comes."""
    model, manifest, media_type = order.model, order.model.bundle.manifest, MEDIA_TYPES[order.format]
    size = min(model.buckets[-1], order.state.settings.queue_images)
    made = blocks(model, order.images, size, order.seconds, order.low, order.left)
    with order.waiting():
        first = await anext(made)
    headers["Server-Timing"] = timing(first)
    if order.format == "npy":
        writer = NpyWriter(order.images.count, (manifest.height, manifest.width, manifest.channels))
        headers["Content-Length"] = str(writer.length)
    else:
        writer = ZipWriter(order.identified(None), manifest.class_names, scale=order.asked.scale)
    order.begins()
    if order.request.method != "HEAD":
        return Streamed(_pieces(order, writer, _counted(order, first, made)), headers, media_type)
    writer.discard()
    await made.aclose()
    head = Response(headers=headers, media_type=media_type)
    if order.format != "npy":
        del head.headers["Content-Length"]  # of no body: that of the zip is not known
    return head


async def _counted(order: _Order, first: Generated, rest: AsyncGenerator[Generated]) -> AsyncGenerator[Generated]:
    """All blocks; metrics hear why, if they end before the last."""
    with order.waiting():
        async with aclosing(rest):
            yield first
            del first
            async for block in rest:
                yield block


async def _pieces(
    order: _Order, writer: NpyWriter | ZipWriter, blocks: AsyncGenerator[Generated]
) -> AsyncGenerator[bytes]:
    """Blocks as pieces of a body."""
    each = order.pixels // order.images.count
    try:
        async with aclosing(blocks):
            async for block in blocks:
                work = partial(writer.add, block.images, block.labels)
                yield (await order.written(work, each * len(block.images), order.effort))[0]
        if last := (await order.written(writer.finish, order.images.count))[0]:
            yield last
    finally:
        writer.discard()


def caching(method: str, asked: GenerateRequest, model: LiveModel, label: int | None, format: str) -> dict[str, str]:
    """Headers for caches. Only what a URL says whole has an ETag."""
    made_by = (model.title, model.bundle.digest, model.artifact, VERSION)
    asked_for = (asked.seed, asked.n, label, asked.truncation, format, asked.quality, asked.scale)
    return control_headers(method, asked.seed, asked.version, *made_by, *asked_for)


def _most(format: str, settings: Settings) -> int:
    """Images of one answer."""
    if format in PICTURE_FORMATS:
        return min(settings.max_sheet, settings.max_images)  # a picture is made before it is sent
    return settings.max_streamed if format in STREAMED_FORMATS else settings.max_images


def _pixels(asked: GenerateRequest, format: str, manifest: Manifest, most: int) -> int:
    """Pixels of the answer. Raises InvalidParameter where `scale` or `quality` does not go with the rest."""
    if asked.quality is not None and format not in QUALITY_FORMATS:
        raise InvalidParameter("quality", asked.quality, "none", f"{format} has no quality")
    if asked.scale > 1 and format == "npy":
        raise InvalidParameter("scale", asked.scale, "1", "npy holds the pixels as they are")
    unscaled = asked.n * manifest.height * manifest.width
    largest = math.isqrt(max(most, unscaled) // unscaled)
    if format == "zip":  # a picture at a time
        largest = math.isqrt(max(1, most // (manifest.height * manifest.width)))
    if format in PICTURE_FORMATS:
        columns = math.isqrt(asked.n - 1) + 1
        largest = min(largest, LARGEST_SIDE[format] // (columns * max(manifest.height, manifest.width)))
    if largest < 1:
        raise InvalidParameter("n", asked.n, "fewer", f"a {format} of {asked.n} pictures would be too large")
    if asked.scale > largest:
        raise InvalidParameter("scale", asked.scale, f"an integer from 1 to {largest} for n={asked.n} as {format}")
    return unscaled * asked.scale**2


add_routes(router, generate, GenerateRequest, OFFERED, "The pictures.", "Images")


def routes() -> list[Route]:
    """Those of `generate`."""
    return [route for route in router.routes if isinstance(route, Route)]
