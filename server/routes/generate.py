"""POST, GET and HEAD /generate: parameters in, pictures out."""

import importlib.metadata
import math
import random
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio.to_thread
import numpy as np
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from export.bundle import Manifest
from server import images, schemas
from server.archive import ZipWriter
from server.batcher import Generated
from server.caching import NEVER, control, etag, has_it
from server.errors import PROBLEM, InvalidParameter, NotReady
from server.identity import Identity
from server.images import MEDIA_TYPES, NpyWriter
from server.pictures import LARGEST_SIDE, PICTURE_FORMATS, QUALITY_FORMATS
from server.repository import LiveModel
from server.schemas import GenerateRequest
from server.settings import Settings
from server.state import State
from server.streaming import Streamed, blocks
from training.latents import DRAWN_SEEDS, Asked

router = APIRouter()
_drawn = random.Random()  # noqa: S311 (seeds, no secrets: a call of the system gives the interpreter away)

VERSION = importlib.metadata.version("limner")
HEADERS = ("X-Limner-Seed", "X-Limner-Label", "X-Limner-Model", "X-Request-Id", "Server-Timing", "ETag")
INLINE_PIXELS = 1 << 14  # encoded in the event loop; more go to a thread, whose hop takes longer than so many as PNG
STREAMED_FORMATS = ("npy", "zip")
SLOW = 16  # times as long takes a pixel of jpeg and webp, at least


@dataclass(frozen=True)
class _Order:
    """A request that was understood: which images of which model, for whom, in how much time, and how written."""

    request: Request
    state: State
    model: LiveModel
    format: str
    images: Asked
    pixels: int
    seconds: float
    arrived: float
    asked: GenerateRequest

    @property
    def low(self) -> bool:
        return self.asked.priority == "low"

    def identity(self, label: int | None) -> Identity:
        model, images = self.model, self.images
        facts = (model.name, model.version, model.bundle.digest, model.artifact)
        return Identity(*facts, images.seed, label, images.truncation)

    async def written(self, work: Callable[[], bytes], pixels: int) -> tuple[bytes, float]:
        """So many pixels as bytes, and the seconds that took."""
        began = time.perf_counter()
        inline = pixels * (SLOW if self.format in QUALITY_FORMATS else 1) <= INLINE_PIXELS
        body = work() if inline else await anyio.to_thread.run_sync(work)
        seconds = time.perf_counter() - began
        self.state.metrics.encode.labels(self.model.title).observe(seconds)
        return body, seconds

    def begins(self) -> None:
        """The answer is about to be sent: count it if it is late."""
        if time.monotonic() > self.arrived + self.seconds:
            self.state.metrics.late.labels(self.model.title).inc()


async def generate(request: Request) -> Response:
    """Images of a class, or of all classes, from a seed.

    Image *i* is the image of `seed + i`: the same bytes alone, in any batch, on any replica. More than 1,024 (as npy or
    zip) are sent while they are made, and so is a zip of large pictures.
    """
    state: State = request.app.state.limner
    draining = state.drain.started  # before the body is read: what is in flight when a drain begins is answered
    order = await _understood(request, state)
    headers = {"X-Limner-Seed": str(order.images.seed), "X-Limner-Model": order.model.title}
    label = order.images.label
    assert not isinstance(label, np.ndarray)
    headers |= caching(request.method, order.asked, order.model, label, order.format)
    if "ETag" in headers and has_it(",".join(request.headers.getlist("if-none-match")), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    with state.metrics.waiting(order.model.title):
        if draining:
            raise NotReady("the server is draining", "Ask another replica.", retry_after=1)
    streamed = order.images.count > state.settings.max_images
    streamed |= order.format == "zip" and order.pixels > state.settings.max_pixels
    return await (_streamed(order, headers) if streamed else _whole(order, headers))


async def _understood(request: Request, state: State) -> _Order:
    """Raises the RequestErrors of design section 5."""
    asked = await schemas.read(request, state.settings.max_body_bytes)
    model = state.repository.get(asked.model, asked.version)
    format = schemas.choose_format(asked.format, ",".join(request.headers.getlist("accept")))
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
        seconds=_seconds(asked.timeout_ms, state.settings.timeout_seconds),
        arrived=time.monotonic(),
        asked=asked,
    )


async def _whole(order: _Order, headers: dict[str, str]) -> Response:
    """All images, then the body."""
    model, metrics, asked = order.model, order.state.metrics, order.asked
    with metrics.waiting(model.title):
        made = await model.generate(order.images, order.seconds, order.low, partial(left, order.request))
    label = order.images.label
    if made.labels is not None and asked.n == 1:
        label = int(made.labels[0])
        headers["X-Limner-Label"] = str(label)
    assert label is None or isinstance(label, int)
    names = model.bundle.manifest.class_names
    work = partial(images.encode, order.format, made.images, order.identity(label), made.labels, names)
    body, seconds = await order.written(partial(work, scale=asked.scale, quality=asked.quality), order.pixels)
    headers["Server-Timing"] = timing(queue=made.queue_seconds, compute=made.compute_seconds, encode=seconds)
    order.begins()
    return Response(body, headers=headers, media_type=MEDIA_TYPES[order.format])


async def _streamed(order: _Order, headers: dict[str, str]) -> Response:
    """The head once the first block is made, and each block as it comes."""
    model, manifest, media_type = order.model, order.model.bundle.manifest, MEDIA_TYPES[order.format]
    size = min(model.buckets[-1], order.state.settings.queue_images)
    made = blocks(model, order.images, size, order.seconds, order.low, partial(left, order.request))
    with order.state.metrics.waiting(model.title):
        first = await anext(made)
    headers["Server-Timing"] = timing(queue=first.queue_seconds, compute=first.compute_seconds)
    if order.format == "npy":
        writer = NpyWriter(order.images.count, (manifest.height, manifest.width, manifest.channels))
        headers["Content-Length"] = str(writer.length)
    else:
        writer = ZipWriter(order.identity(None), manifest.class_names, scale=order.asked.scale)
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
    with order.state.metrics.waiting(order.model.title):
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
                yield (await order.written(work, each * len(block.images)))[0]
        if last := (await order.written(writer.finish, order.images.count))[0]:
            yield last
    finally:
        writer.discard()


def timing(**seconds: float) -> str:
    """As Server-Timing says it, in milliseconds."""
    return ", ".join(f"{name};dur={value * 1e3:.3f}" for name, value in seconds.items())


async def left(request: Request) -> None:
    """Return once the client is gone. Its body has been read: nothing else comes."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def drawn_seed() -> int:
    """For a request that names none."""
    return _drawn.randrange(DRAWN_SEEDS)


def caching(method: str, asked: GenerateRequest, model: LiveModel, label: int | None, format: str) -> dict[str, str]:
    """Headers for caches. Only what a URL says whole has an ETag."""
    headers = {"Vary": "Accept"}
    if method not in ("GET", "HEAD"):
        return headers | ({"Cache-Control": NEVER} if asked.seed is None else {})
    headers["Cache-Control"] = control(asked.seed, asked.version)
    if asked.seed is not None:
        made_by = (model.title, model.bundle.digest, model.artifact, VERSION)
        asked_for = (asked.seed, asked.n, label, asked.truncation, format, asked.quality, asked.scale)
        headers["ETag"] = etag(*made_by, *asked_for)
    return headers


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


def _seconds(timeout_ms: int | None, most: float) -> float:
    """How long a request may take. Raises InvalidParameter where it asks for longer than anybody may."""
    if timeout_ms is None:
        return most
    if timeout_ms > most * 1e3:
        raise InvalidParameter("timeout_ms", timeout_ms, f"an integer from 1 to {most * 1e3:g}")
    return timeout_ms / 1e3


def _responses() -> dict[int | str, dict[str, Any]]:
    problem = {"content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}}
    refused = {
        400: "The body is no JSON object.",
        404: "No such model or version.",
        406: "Accept names no supported type.",
        413: "The body is too large.",
        415: "The body is not JSON.",
        422: "A parameter is unknown, repeated or out of range.",
        429: "The queue is full, or would take longer than the request may.",
        503: "Draining.",
        504: "No picture in time.",
        500: "The engine failed.",
    }
    pictures = {
        "description": "The pictures.",
        "headers": {name: {"schema": {"type": "string"}} for name in HEADERS},
        "content": {
            media_type: {"schema": {"type": "string", "format": "binary"}}
            for media_type in MEDIA_TYPES.values()
            if media_type != "application/json"
        }
        | {
            "application/json": {"schema": {"$ref": "#/components/schemas/Images"}},
        },
    }
    unchanged = {"description": "The asker has it already: If-None-Match names its ETag."}
    return {200: pictures, 304: unchanged, **{code: {"description": text, **problem} for code, text in refused.items()}}


_DOCUMENTED = schemas.openapi()
_QUERY = {"parameters": _DOCUMENTED["parameters"]}
_BODY = {"requestBody": {"required": False, "content": {"application/json": {"schema": _DOCUMENTED["body"]}}}}
_COMMON: dict[str, Any] = {"response_class": Response, "responses": _responses(), "tags": ["generate"]}

router.add_api_route(
    "/generate", generate, methods=["POST"], operation_id="generate", openapi_extra=_QUERY | _BODY, **_COMMON
)
router.add_api_route(
    "/generate", generate, methods=["GET"], operation_id="generate_by_query", openapi_extra=_QUERY, **_COMMON
)
router.add_api_route("/generate", generate, methods=["HEAD"], include_in_schema=False)


def routes() -> list[Route]:
    """Those of `generate`."""
    return [route for route in router.routes if isinstance(route, Route)]
