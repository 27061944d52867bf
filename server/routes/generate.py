"""POST, GET and HEAD /generate: parameters in, pictures out."""

import importlib.metadata
import math
import secrets
import time
from functools import partial
from typing import Any

import anyio.to_thread
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from export.bundle import Manifest
from server import images, schemas
from server.caching import NEVER, control, etag, has_it
from server.errors import PROBLEM, InvalidParameter, NotReady
from server.identity import Identity
from server.images import MEDIA_TYPES
from server.pictures import LARGEST_SIDE, PICTURE_FORMATS, QUALITY_FORMATS
from server.repository import LiveModel
from server.schemas import GenerateRequest
from server.state import State
from training.latents import DRAWN_SEEDS, Asked

router = APIRouter()

VERSION = importlib.metadata.version("limner")
HEADERS = ("X-Limner-Seed", "X-Limner-Label", "X-Limner-Model", "X-Request-Id", "Server-Timing", "ETag")
INLINE_PIXELS = 1 << 14  # encoded in the event loop; more go to a thread, whose hop takes longer than so many as PNG
SLOW = 16  # times as long takes a pixel of jpeg and webp, at least


async def generate(request: Request) -> Response:
    """Images of a class, or of all classes, from a seed.

    Image *i* is the image of `seed + i`: the same bytes alone, in any batch, on any replica.
    """
    state: State = request.app.state.limner
    if state.drain.started:
        raise NotReady("the server is draining", "Ask another replica.", retry_after=1)
    asked = await schemas.read(request, state.settings.max_body_bytes)
    model = state.repository.get(asked.model, asked.version)
    format = schemas.choose_format(asked.format, ",".join(request.headers.getlist("accept")))
    most = state.settings.max_sheet if format in PICTURE_FORMATS else state.settings.max_images
    if asked.n > most:
        raise InvalidParameter("n", asked.n, f"an integer from 1 to {most} as {format}")
    given = model.label_index(asked.label)
    pixels = _pixels(asked, format, model.bundle.manifest, state.settings.max_pixels)
    seed = secrets.randbelow(DRAWN_SEEDS) if asked.seed is None else asked.seed
    manifest = model.bundle.manifest
    seconds = _seconds(asked.timeout_ms, state.settings.timeout_seconds)
    caching = _caching(request, asked, seed, given, format, model)
    if caching.get("ETag") and has_it(",".join(request.headers.getlist("if-none-match")), caching["ETag"]):
        return Response(status_code=304, headers=caching)
    arrived = time.monotonic()
    with state.metrics.waiting(model.title):
        wanted = Asked(seed, asked.n, given, asked.truncation)
        made = await model.generate(wanted, seconds, asked.priority == "low", partial(_left, request))
    labels = made.labels
    label = int(labels[0]) if labels is not None and asked.n == 1 else given
    identity = Identity(model.name, model.version, model.bundle.digest, model.artifact, seed, label, asked.truncation)
    began = time.perf_counter()
    work = partial(
        images.encode,
        format,
        made.images,
        identity,
        labels,
        manifest.class_names,
        scale=asked.scale,
        quality=asked.quality,
    )
    inline = pixels * (SLOW if format in QUALITY_FORMATS else 1) <= INLINE_PIXELS
    body = work() if inline else await anyio.to_thread.run_sync(work)
    encode_seconds = time.perf_counter() - began
    state.metrics.encode.labels(model.title).observe(encode_seconds)
    if time.monotonic() > arrived + seconds:
        state.metrics.late.labels(model.title).inc()
    headers = {
        "X-Limner-Seed": str(seed),
        "X-Limner-Model": model.title,
        "Server-Timing": f"queue;dur={made.queue_seconds * 1e3:.3f}, compute;dur={made.compute_seconds * 1e3:.3f}, "
        f"encode;dur={encode_seconds * 1e3:.3f}",
    } | caching
    if label is not None and asked.n == 1:
        headers["X-Limner-Label"] = str(label)
    return Response(body, headers=headers, media_type=MEDIA_TYPES[format])


async def _left(request: Request) -> None:
    """Return once the client is gone. Its body has been read: nothing else comes."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _caching(
    request: Request, asked: GenerateRequest, seed: int, label: int | None, format: str, model: LiveModel
) -> dict[str, str]:
    """Headers for caches. Only what a URL says whole has an ETag."""
    headers = {"Vary": "Accept"}
    if request.method not in ("GET", "HEAD"):
        return headers | ({"Cache-Control": NEVER} if asked.seed is None else {})
    headers["Cache-Control"] = control(asked.seed, asked.version)
    if asked.seed is not None:
        made_by = (model.title, model.bundle.digest, model.artifact, VERSION)
        headers["ETag"] = etag(*made_by, seed, asked.n, label, asked.truncation, format, asked.quality, asked.scale)
    return headers


def _pixels(asked: GenerateRequest, format: str, manifest: Manifest, most: int) -> int:
    """Pixels of the answer. Raises InvalidParameter where `scale` or `quality` does not go with the rest."""
    if asked.quality is not None and format not in QUALITY_FORMATS:
        raise InvalidParameter("quality", asked.quality, "none", f"{format} has no quality")
    if asked.scale > 1 and format == "npy":
        raise InvalidParameter("scale", asked.scale, "1", "npy holds the pixels as they are")
    unscaled = asked.n * manifest.height * manifest.width
    largest = math.isqrt(max(most, unscaled) // unscaled)
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
