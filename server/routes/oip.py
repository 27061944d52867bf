"""/v2: the Open Inference Protocol with Triton's extensions, so that Triton's own clients can ask limner.

What it asks for goes into the same batches as what /generate asks for. Refusals are {"error": text}.
"""

import re
import time
from functools import partial
from typing import Any

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import Response

from export.engines import NonFinite
from server import codings, inference, oip_schemas, schemas, tensors, triton
from server.answering import COPIED, PLAIN, VERSION, left, off_loop, timing
from server.batcher import Generated
from server.errors import InvalidParameter, NotFound, NotReady, RequestError, Unparsable, shorten
from server.repository import LiveModel
from server.state import State
from training.latents import Asked

BYTES = "application/octet-stream"
INLINE_BYTES = 1 << 16  # of a body that is understood in the event loop: 0.3 ms of JSON
WORTH = 1024  # bytes: less is not compressed
_DIGITS = re.compile(r"[0-9]{1,18}")


async def live() -> oip_schemas.Live:
    """The process answers. Also while it drains."""
    return oip_schemas.Live(live=True)


async def ready(request: Request) -> oip_schemas.Ready:
    """Every model is warmed up, and the server is not draining."""
    _refuse_draining(request)
    return oip_schemas.Ready(ready=True)


async def server_metadata() -> oip_schemas.ServerMetadata:
    """Which server this is, and which extensions of the protocol it has."""
    return oip_schemas.ServerMetadata(name="limner", version=VERSION, extensions=triton.EXTENSIONS)


async def repository_index(request: Request) -> list[oip_schemas.IndexEntry]:
    """Every version of every model."""
    state: State = request.app.state.limner
    body = await schemas.read_body(request, state.settings.max_body_bytes)
    try:
        asked = oip_schemas.IndexRequest.model_validate_json(body or b"{}")
    except ValueError as error:
        raise Unparsable("the body is no index request", 'Send {"ready": true}, or nothing.') from error
    models = [each for versions in state.repository.versions().values() for each in versions]
    return triton.index(models, state.drain.started, asked.ready)


async def all_statistics(request: Request) -> oip_schemas.AllStatistics:
    """What every version of every model has done."""
    versions = request.app.state.limner.repository.versions().values()
    return oip_schemas.AllStatistics(model_stats=[triton.statistics(each) for models in versions for each in models])


async def statistics(request: Request) -> oip_schemas.AllStatistics:
    """What a model has done: each of its versions, or the one that is named."""
    model, versions = _model(request)
    named = [model] if "version" in request.path_params else versions
    return oip_schemas.AllStatistics(model_stats=[triton.statistics(each) for each in named])


async def model_metadata(request: Request) -> oip_schemas.ModelMetadata:
    """Names, types and shapes of a model's inputs and outputs."""
    return triton.metadata(*_model(request))


async def model_ready(request: Request) -> oip_schemas.ModelReady:
    """The model is warmed up, and the server is not draining."""
    model, _ = _model(request)
    _refuse_draining(request)
    return oip_schemas.ModelReady(name=model.name, ready=True)


async def model_config(request: Request) -> dict[str, Any]:
    """Triton's ModelConfig, of how limner serves the model."""
    return triton.configuration(*_model(request), request.app.state.limner.settings)


async def infer(request: Request) -> Response:
    """Images of the latents `z` (and `label`), or of the parameter `seed`: image i is that of seed + i.

    By a seed, `label` says the class of each image, and so how many; without it the parameter `n` does, and each takes
    the class of its seed. `truncation` as in /generate; `priority` 2 waits behind the others; `timeout`: microseconds.
    """
    state: State = request.app.state.limner
    draining = state.drain.started  # before the body is read: what is in flight when a drain begins is answered
    model, _ = _model(request)
    asked = await _read(request, state, model)
    order = inference.understood(asked, model, state.settings)
    arrived = time.monotonic()
    with state.metrics.waiting(model.title):
        if draining:
            raise NotReady("the server is draining", "Ask another replica.", retry_after=1)
        try:
            made = await model.generate(order.rows, order.seconds, order.low, partial(left, request))
        except NonFinite as error:
            if isinstance(order.rows, Asked):
                raise
            raise InvalidParameter("z", None, "smaller values", "the pictures of this 'z' are not finite") from error
    body, headers = await _written(request, model, asked, made)
    headers |= {"X-Limner-Model": model.title} | _identity(order, made)
    if time.monotonic() > arrived + order.seconds:
        state.metrics.late.labels(model.title).inc()
    return Response(body, headers=headers, media_type=BYTES if tensors.HEADER in headers else "application/json")


def _refuse_draining(request: Request) -> None:
    """With 400, as the protocol has it."""
    if request.app.state.limner.drain.started:
        raise RequestError("the server is draining", "Ask another replica.")


def _model(request: Request) -> tuple[LiveModel, list[LiveModel]]:
    """The model that the path means, and all its versions. Raises NotFound."""
    repository = request.app.state.limner.repository
    name, version = request.path_params["model"], request.path_params.get("version")
    if version is not None and not _DIGITS.fullmatch(version):
        raise NotFound(f"there is no version '{shorten(version)}'", "A version is a whole number.")
    model = repository.get(name, None if version is None else int(version))
    return model, repository.versions()[model.name]


async def _read(request: Request, state: State, model: LiveModel) -> tensors.Inference:
    """A body may be as long as the largest request in JSON is; and so it may after it is inflated."""
    inputs, outputs = triton.tensors(model)
    numbers = state.settings.max_images * (model.bundle.manifest.latent + len(inputs) - 1)
    most = state.settings.max_body_bytes + numbers * tensors.LONGEST_NUMBER
    body = await schemas.read_body(request, most)
    coding, length = request.headers.get("content-encoding", ""), request.headers.get(tensors.HEADER)
    if length is not None and not _DIGITS.fullmatch(length):
        raise Unparsable(f"{tensors.HEADER} is {shorten(length)}", "It is the length of the JSON that comes first.")

    def work() -> tensors.Inference:
        whole = codings.inflate(body, coding, most)
        return tensors.read(whole, None if length is None else int(length), inputs, outputs)

    inline = len(body) <= INLINE_BYTES and not coding
    return work() if inline else await anyio.to_thread.run_sync(work)


async def _written(
    request: Request, model: LiveModel, asked: tensors.Inference, made: Generated
) -> tuple[bytes, dict[str, str]]:
    """The images in the form that was asked for, compressed if the client takes that; and what headers say of it."""
    coding = codings.accepted(request.headers.get("accept-encoding", ""))
    said = {"model_name": model.name, "model_version": str(model.version)}
    if asked.id is not None:
        said["id"] = asked.id

    def work() -> tuple[bytes, dict[str, str]]:
        body, length = tensors.write(said, [(name, made.images, binary) for name, binary in asked.outputs.items()])
        headers = {} if length is None else {tensors.HEADER: str(length)}
        if coding is None or len(body) < WORTH:
            return body, headers
        return codings.deflate(body, coding), headers | {"Content-Encoding": coding}

    began = time.perf_counter()
    plain = coding is None and all(asked.outputs.values())  # numbers as they are
    body, headers = await off_loop(work, made.images.size, COPIED if plain else PLAIN)
    seconds = time.perf_counter() - began
    request.app.state.limner.metrics.encoded(model.title, seconds)
    times = timing(made, seconds)
    return body, headers | {"Server-Timing": times}


def _identity(order: inference.Order, made: Generated) -> dict[str, str]:
    """What /generate says of the pictures, too."""
    said = {"X-Limner-Seed": str(order.rows.seed)} if isinstance(order.rows, Asked) else {}
    if made.labels is not None and len(made.labels) == 1:
        said["X-Limner-Label"] = str(int(made.labels[0]))
    return said
