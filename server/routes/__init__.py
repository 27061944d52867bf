"""One file for each subject that the server answers about; here, what they share in OpenAPI."""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from server import schemas
from server.accept import Offer
from server.answering import HEADERS
from server.errors import PROBLEM

_STRING = {"type": "string"}
_NULLABLE_STRING = {"type": ["string", "null"]}
_PNG = {**_STRING, "contentEncoding": "base64", "contentMediaType": "image/png"}

COMPONENTS: dict[str, Any] = {
    "Problem": {
        "description": "RFC 9457 problem details; the last three where one thing that was sent is to blame.",
        "type": "object",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {**_STRING, "examples": ["urn:limner:problem:invalid-parameter"]},
            "title": {**_STRING, "examples": ["A parameter is not valid"]},
            "status": {"type": "integer", "examples": [422]},
            "detail": {**_STRING, "examples": ["n=0 is not allowed. Allowed: an integer from 1."]},
            "field": _STRING,
            "value": _STRING,
            "allowed": _STRING,
        },
    },
    "Images": {
        "description": "The json format of /generate. Seeds are decimal strings.",
        "examples": [
            {
                "model": "digits",
                "version": 1,
                "digest": "5d0f9c3e",
                "images": [{"seed": "7", "label": 3, "class": "3", "png": "iVBORw0KGgo="}],
            }
        ],
        "type": "object",
        "required": ["model", "version", "digest", "images"],
        "properties": {
            "model": _STRING,
            "version": {"type": "integer"},
            "digest": _STRING,
            "images": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["seed", "label", "class", "png"],
                    "properties": {
                        "seed": _STRING,
                        "label": {"type": ["integer", "null"]},
                        "class": _NULLABLE_STRING,
                        "png": _PNG,
                    },
                },
            },
        },
    },
}

_END = {
    "type": "object",
    "required": ["seed", "label", "class"],
    "properties": {"seed": _STRING, "label": {"type": ["integer", "null"]}, "class": _NULLABLE_STRING},
}
COMPONENTS["Frames"] = {
    "description": "The json format of /interpolate: every frame that is shown, and its place on the path.",
    "examples": [
        {
            "model": "digits",
            "version": 1,
            "digest": "5d0f9c3e",
            "artifact": "onnxruntime-fp32-1.32.0-cpu-x86_64-avx512f",
            "truncation": None,
            "from": {"seed": "7", "label": 3, "class": "3"},
            "to": {"seed": "11", "label": 8, "class": "8"},
            "frames": 2,
            "images": [{"frame": 0, "png": "iVBORw0KGgo="}, {"frame": 1, "png": "iVBORw0KGgo="}],
        }
    ],
    "type": "object",
    "required": ["model", "version", "digest", "artifact", "truncation", "from", "to", "frames", "images"],
    "properties": {
        "model": _STRING,
        "version": {"type": "integer"},
        "digest": _STRING,
        "artifact": _STRING,
        "truncation": {"type": ["number", "null"]},
        "from": _END,
        "to": _END,
        "frames": {"type": "integer", "minimum": 2},
        "images": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["frame", "png"],
                "properties": {"frame": {"type": "integer", "minimum": 0}, "png": _PNG},
            },
        },
    },
}


def add_routes(
    router: APIRouter,
    handler: Callable[[Request], Awaitable[Response]],
    asking: type[schemas.Asking],
    offered: Offer,
    description: str,
    json: str,
) -> None:
    """POST, GET and HEAD of a path of the handler's own name, which answers what is `asking` with what is `offered`.

    `json` names the component that application/json is.
    """
    name = handler.__name__
    documented = schemas.openapi(asking)
    query = {"parameters": documented["parameters"]}
    body = {"requestBody": {"required": False, "content": {"application/json": {"schema": documented["body"]}}}}
    common: dict[str, Any] = {"response_class": Response, "tags": [name]}
    responses = _responses(description, offered, json)
    posted = {code: response for code, response in responses.items() if code != 304}  # what is posted has no ETag
    asked = {code: response for code, response in responses.items() if code not in (400, 413, 415)}  # of bodies
    router.add_api_route(
        f"/{name}", handler, methods=["POST"], operation_id=name, openapi_extra=query | body, responses=posted, **common
    )
    router.add_api_route(
        f"/{name}",
        handler,
        methods=["GET"],
        operation_id=f"{name}_by_query",
        openapi_extra=query,
        responses=asked,
        **common,
    )
    router.add_api_route(f"/{name}", handler, methods=["HEAD"], include_in_schema=False)


def _responses(description: str, offered: Offer, json: str) -> dict[int | str, dict[str, Any]]:
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
        "description": description,
        "headers": {name: {} for name in (*HEADERS, "Cache-Control", "Vary")},
        "content": {
            media_type: {"schema": {"type": "string", "format": "binary"}}
            for media_type in offered.types.values()
            if media_type != "application/json"
        }
        | {
            "application/json": {"schema": {"$ref": f"#/components/schemas/{json}"}},
        },
    }
    unchanged = {
        "description": "The asker has it already: If-None-Match names its ETag.",
        "headers": {name: {} for name in ("X-Limner-Seed", "X-Limner-Model", "ETag", "Cache-Control", "Vary")},
    }
    return {200: pictures, 304: unchanged, **{code: {"description": text, **problem} for code, text in refused.items()}}
