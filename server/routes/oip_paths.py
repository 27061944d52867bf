"""The handlers of the Open Inference Protocol in, its routes out, as OpenAPI documents them."""

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.responses import Response

from server import tensors
from server.oip_schemas import IndexRequest, InferenceError, InferenceRequest, InferenceResponse
from server.routes import oip

router = APIRouter(tags=["open inference protocol"])


REFUSED = {
    400: "The request is not what the protocol and the model have, or (ready) the server is draining.",
    404: "No such model or version.",
    413: "The body is too large, or would be once it is inflated.",
    415: "The body's Content-Encoding is not known.",
    429: "The queue is full, or would take longer than the request may.",
    500: "The engine failed.",
    503: "Draining.",
    504: "No picture in time.",
}
LATER = {"headers": {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}}}
HEADERS = ("X-Limner-Seed", "X-Limner-Label", "X-Limner-Model", "X-Request-Id", "Server-Timing")
IN_BODIES = (InferenceRequest, InferenceResponse, IndexRequest)
COMPONENTS: dict[str, Any] = models_json_schema(
    [(model, "validation") for model in IN_BODIES], ref_template="#/components/schemas/{model}"
)[1]["$defs"]


def _json(model: type[BaseModel], **more: Any) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}, **more}}


def _place(name: str, where: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": where, "required": where == "path", "description": description, "schema": schema}


MODEL = _place("model", "path", "A name of /v2/repository/index.", {"type": "string", "examples": ["digits"]})
VERSION = _place("version", "path", "Of the model.", {"type": "string", "pattern": "^[0-9]{1,18}$", "examples": ["1"]})
LENGTH = _place(
    tensors.HEADER,
    "header",
    "Bytes of the JSON at the body's beginning, where bytes of tensors follow it.",
    {"type": "integer", "minimum": 0},
)
CODING = _place("Content-Encoding", "header", "Of the body.", {"type": "string", "enum": ["gzip", "deflate"]})
BINARY = {oip.BYTES: {"schema": {"type": "string", "format": "binary"}}}
EXAMPLES = {
    "drawn by the server": {"value": {"inputs": [], "parameters": {"seed": 7, "n": 2}}},
    "of latents": {"value": {"inputs": [{"name": "z", "datatype": "FP32", "shape": [1, 2], "data": [0.5, -1.25]}]}},
}
INFER: dict[str, Any] = {
    "openapi_extra": {
        "parameters": [LENGTH, CODING],
        "requestBody": {
            "required": True,
            "content": _json(InferenceRequest, examples=EXAMPLES) | BINARY,
        },
    },
    "responses": {
        200: {
            "description": "The pictures: JSON, followed by bytes where they were asked for.",
            "headers": {
                tensors.HEADER: {"description": LENGTH["description"], "schema": LENGTH["schema"]},
                **{name: {"schema": {"type": "string"}} for name in HEADERS},
            },
            "content": _json(InferenceResponse) | BINARY,
        }
    },
    "response_class": Response,
}
CONFIG: dict[str, Any] = {
    "name": "digits",
    "platform": "onnxruntime_onnx",
    "backend": "onnxruntime",
    "max_batch_size": 1024,
    "input": [{"name": "z", "data_type": "TYPE_FP32", "dims": [64]}],
    "output": [{"name": "image", "data_type": "TYPE_UINT8", "dims": [28, 28, 1]}],
}
CONFIGURED: dict[int, dict[str, Any]] = {200: {"content": {"application/json": {"example": CONFIG}}}}
INDEX: dict[str, Any] = {"openapi_extra": {"requestBody": {"content": _json(IndexRequest)}}}


def _add(path: str, handler: Callable[..., Any], *refused: int, method: str = "GET", **more: Any) -> None:
    """Its route, with the refusals that it makes; what is of a model has a second one, of a version."""
    extra = more.pop("openapi_extra", {})
    responses: dict[int | str, dict[str, Any]] = {
        code: {"model": InferenceError, "description": REFUSED[code], **(LATER if code in (429, 503) else {})}
        for code in refused
    }
    responses |= more.pop("responses", {})
    for suffix, version in (("", []), ("/versions/{version}", [VERSION])):
        found = [MODEL, *version] if "{model}" in path else []
        router.add_api_route(
            path.replace("{model}", "{model}" + suffix),
            handler,
            methods=[method],
            operation_id=f"oip_{handler.__name__}{'_of_version' if version else ''}",
            responses=responses,
            response_model_exclude_none=True,
            openapi_extra=extra | {"parameters": [*found, *extra.get("parameters", [])]},
            **more,
        )
        if not found:
            return


_add("/v2/health/live", oip.live)
_add("/v2/health/ready", oip.ready, 400)
_add("/v2", oip.server_metadata)
_add("/v2/repository/index", oip.repository_index, 400, 413, method="POST", **INDEX)
_add("/v2/models/stats", oip.all_statistics)
_add("/v2/models/{model}/stats", oip.statistics, 404)
_add("/v2/models/{model}/config", oip.model_config, 404, responses=CONFIGURED)
_add("/v2/models/{model}/ready", oip.model_ready, 400, 404)
_add("/v2/models/{model}", oip.model_metadata, 404)
_add("/v2/models/{model}/infer", oip.infer, *REFUSED, method="POST", **INFER)
