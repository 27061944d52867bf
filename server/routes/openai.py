"""/v1, as OpenAI's clients ask: POST /v1/images/generations, GET /v1/models and /v1/models/{model}."""

import json
import math
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from export.bundle import GRAPH, Manifest
from server import answering, images, schemas
from server.answering import PLAIN, SLOW, drawn_seed, timing
from server.batcher import Generated
from server.caching import NEVER
from server.errors import InvalidParameter, NotFound, shorten
from server.fields import LARGEST_SCALE
from server.openai_schemas import ANY, SIZE, Envelope, ImagesRequest, ImagesResponse, Model, ModelList
from server.pictures import LARGEST_SIDE, QUALITY_FORMATS
from server.repository import LiveModel, Repository
from server.state import State
from training.latents import Asked

router = APIRouter(prefix="/v1", tags=["openai"])


@dataclass(frozen=True, kw_only=True)
class _Order(answering.Order):
    """Which images, each a file of its own."""

    images: Asked
    scale: int
    quality: int | None


async def generate(request: Request) -> Response:
    """Pictures of a class, each a file of its own in base64.

    The request of OpenAI's images API. Image *i* is the image of `seed + i`, the same as that of /generate.
    """
    state: State = request.app.state.limner
    order = await _understood(request, state)
    headers = {"X-Limner-Seed": str(order.images.seed), "X-Limner-Model": order.model.title, "Cache-Control": NEVER}
    order.unchanged(headers)
    with order.waiting():
        made = await order.model.generate(order.images, order.seconds, left=order.left)
    effort = SLOW if order.format in QUALITY_FORMATS else PLAIN
    body, seconds = await order.written(partial(_body, order, made), order.pixels, effort)
    headers["Server-Timing"] = timing(made, seconds)
    order.begins()
    return Response(body, headers=headers, media_type="application/json")


async def _understood(request: Request, state: State) -> _Order:
    """Raises the RequestErrors of design section 5."""
    draining, settings = state.drain.started, state.settings
    if query := request.url.query:
        raise InvalidParameter("query", query, "parameters in the body", "there is a query")
    asked = await schemas.read(request, settings.max_body_bytes, ImagesRequest)
    model = _model(state.repository, asked.model)
    manifest = model.bundle.manifest
    if asked.n > settings.max_images:
        raise InvalidParameter("n", asked.n, f"an integer from 1 to {settings.max_images}")
    seed = drawn_seed() if asked.seed is None else asked.seed
    scale = _scale(asked, manifest, settings.max_pixels)
    return _Order(
        request=request,
        state=state,
        model=model,
        images=Asked(seed, asked.n, _label(asked, model), asked.truncation),
        seconds=settings.timeout_seconds,
        arrived=time.monotonic(),
        draining=draining,
        format=asked.output_format,
        scale=scale,
        quality=_quality(asked),
        pixels=asked.n * manifest.height * manifest.width * scale**2,
    )


def _model(repository: Repository, asked: str | None) -> LiveModel:
    """By name or by name@version."""
    name, at, version = (None, "", "") if asked is None else asked.partition("@")
    if at and not (version.isascii() and version.isdigit() and len(version) < 10):
        there = ", ".join(f"{name}@{model.version}" for name, of in repository.versions().items() for model in of)
        raise NotFound(f"there is no model '{shorten(asked)}'", f"Allowed: {there}.", field="model")
    try:
        return repository.get(name, int(version) if at else None)
    except NotFound as error:
        error.members["field"] = "model"  # the version is a part of it
        raise


def _label(asked: ImagesRequest, model: LiveModel) -> int | None:
    """The class of a prompt or of `label`, which must not name two."""
    names = model.bundle.manifest.class_names
    prompted = None
    if asked.prompt in names or asked.prompt not in ("", ANY):
        if not names:
            raise InvalidParameter("prompt", asked.prompt, f"{ANY}, or nothing", f"{model.title} has no classes")
        try:
            prompted = model.label_index(asked.prompt)
        except InvalidParameter as error:
            raise InvalidParameter("prompt", asked.prompt, f"{error.members['allowed']}, or {ANY}") from error
    label = model.label_index(asked.label)
    if None not in (label, prompted) and label != prompted:
        raise InvalidParameter("prompt", asked.prompt, f"{ANY}, or the class of label", "prompt and label differ")
    return prompted if label is None else label


def _scale(asked: ImagesRequest, manifest: Manifest, most: int) -> int:
    """How many times its own size the model is drawn."""
    width, height = manifest.width, manifest.height
    unscaled = asked.n * width * height
    largest = min(LARGEST_SCALE, math.isqrt(max(most, unscaled) // unscaled))
    largest = min(largest, LARGEST_SIDE[asked.output_format] // max(width, height))
    if largest < 1:
        raise InvalidParameter("output_format", asked.output_format, "png", f"it cannot hold {width}x{height} pixels")
    size = SIZE.fullmatch(asked.size)
    if size is None:
        return 1
    scale = int(size[1]) // width
    if (int(size[1]), int(size[2])) != (scale * width, scale * height) or not 1 <= scale <= largest:
        up_to = f"to {largest * width}x{largest * height} for n={asked.n}"
        raise InvalidParameter("size", asked.size, f"auto, or a multiple of {width}x{height} up {up_to}")
    return scale


def _quality(asked: ImagesRequest) -> int | None:
    """OpenAI's counts from 0, limner's from 1."""
    compression = asked.output_compression
    if asked.output_format in QUALITY_FORMATS:
        return None if compression is None else max(1, compression)
    if compression not in (None, 100):
        raise InvalidParameter("output_compression", compression, "100", f"a {asked.output_format} loses nothing")
    return None


def _body(order: _Order, made: Generated) -> bytes:
    manifest, label = order.model.bundle.manifest, order.images.label
    assert label is None or isinstance(label, int)
    how = {"scale": order.scale, "quality": order.quality}
    first = order.identity(order.images.seed, label, order.images.truncation)
    files = images.files(order.format, made.images, first, made.labels, **how)
    said = {
        "created": int(time.time()),
        "background": "opaque",
        "output_format": order.format,
        "size": f"{order.scale * manifest.width}x{order.scale * manifest.height}",
        "data": images.entries(files, "b64_json", manifest.class_names),
    }
    return json.dumps(said, ensure_ascii=False).encode()


async def list_models(request: Request) -> ModelList:
    """Every name that a request can give: each model, and each of its versions."""
    state: State = request.app.state.limner
    listed = []
    for name, versions in state.repository.versions().items():
        listed += [_named(name, versions[-1]), *(_named(model.title, model) for model in versions)]
    return ModelList(data=listed)


async def get_model(
    request: Request, model: Annotated[str, Path(description="A name of /v1/models.", examples=["digits@1"])]
) -> Model:
    """One of those names."""
    state: State = request.app.state.limner
    return _named(model, _model(state.repository, model))


def _named(name: str, model: LiveModel) -> Model:
    created = 0.0
    with suppress(OSError):  # it was read when the server started, and may have gone since
        created = (model.bundle.folder / GRAPH).stat().st_mtime
    return Model(id=name, created=int(created))


REFUSED: dict[int | str, dict[str, Any]] = {
    code: {"model": Envelope, "description": text}
    for code, text in {
        400: "The body is no JSON object, or a parameter of it is missing, unknown, repeated or out of range.",
        404: "No such model or version.",
        413: "The body is too large.",
        415: "The body is not JSON.",
        429: "The queue is full, or would take longer than the request may.",
        500: "The engine failed.",
        503: "Draining.",
        504: "No picture in time.",
    }.items()
}
PICTURES: dict[str, Any] = {
    "model": ImagesResponse,
    "description": "The pictures.",
    "headers": {name: {} for name in ("X-Limner-Seed", "X-Limner-Model", "Server-Timing", "Cache-Control")},
}
_ASKED = {"requestBody": {"required": True, "content": {"application/json": {"schema": schemas.body(ImagesRequest)}}}}

router.add_api_route(
    "/images/generations",
    generate,
    methods=["POST"],
    operation_id="openai_generate_images",
    response_class=JSONResponse,
    responses={200: PICTURES} | REFUSED,
    openapi_extra=_ASKED,
)
router.add_api_route(
    "/models", list_models, methods=["GET"], operation_id="openai_list_models", responses={500: REFUSED[500]}
)
router.add_api_route(
    "/models/{model}",
    get_model,
    methods=["GET"],
    operation_id="openai_get_model",
    responses={code: REFUSED[code] for code in (404, 500)},
)
