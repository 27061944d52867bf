"""POST, GET and HEAD /generate: parameters in, pictures out."""

import secrets
import time
from typing import Any

import anyio.to_thread
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from server import images, schemas
from server.errors import PROBLEM, InvalidParameter, NotReady
from server.images import MEDIA_TYPES, PICTURE_FORMATS, Identity
from server.state import State
from training import latents

router = APIRouter()

HEADERS = ("X-Limner-Seed", "X-Limner-Label", "X-Limner-Model", "X-Request-Id", "Server-Timing")
INLINE_IMAGES = 16  # encoded in the event loop; more go to a thread, whose hop costs as much as six 28x28 PNGs


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
    seed = secrets.randbelow(latents.DRAWN_SEEDS) if asked.seed is None else asked.seed
    manifest = model.bundle.manifest
    z, labels = latents.draw(seed, asked.n, manifest.latent, manifest.classes, given, asked.truncation, model.prior)
    made = await model.generate(z, labels, state.settings.timeout_seconds)

    label = int(labels[0]) if labels is not None and asked.n == 1 else given
    identity = Identity(model.name, model.version, model.bundle.digest, model.artifact, seed, label, asked.truncation)
    began = time.perf_counter()
    arguments = (format, made.images, identity, labels, manifest.class_names)
    body = (
        images.encode(*arguments)
        if asked.n <= INLINE_IMAGES
        else await anyio.to_thread.run_sync(images.encode, *arguments)
    )
    encode_seconds = time.perf_counter() - began
    state.metrics.encode.labels(model.title).observe(encode_seconds)
    headers = {
        "X-Limner-Seed": str(seed),
        "X-Limner-Model": model.title,
        "Server-Timing": f"queue;dur={made.queue_seconds * 1e3:.3f}, compute;dur={made.compute_seconds * 1e3:.3f}, "
        f"encode;dur={encode_seconds * 1e3:.3f}",
        "Vary": "Accept",
    }
    if label is not None and asked.n == 1:
        headers["X-Limner-Label"] = str(label)
    if asked.seed is None:
        headers["Cache-Control"] = "no-store"  # another request gets another seed
    return Response(body, headers=headers, media_type=MEDIA_TYPES[format])


def _responses() -> dict[int | str, dict[str, Any]]:
    problem = {"content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}}
    refused = {
        400: "The body is no JSON object.",
        404: "No such model or version.",
        406: "Accept names no supported type.",
        413: "The body is too large.",
        415: "The body is not JSON.",
        422: "A parameter is unknown, repeated or out of range.",
        429: "The queue is full.",
        503: "Draining.",
        504: "No picture in time.",
        500: "The engine failed.",
    }
    pictures = {
        "description": "The pictures.",
        "headers": {name: {"schema": {"type": "string"}} for name in HEADERS},
        "content": {
            "image/png": {"schema": {"type": "string", "format": "binary"}},
            "application/x-npy": {"schema": {"type": "string", "format": "binary"}},
            "application/json": {"schema": {"$ref": "#/components/schemas/Images"}},
        },
    }
    return {200: pictures, **{code: {"description": text, **problem} for code, text in refused.items()}}


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
