"""FastAPI's OpenAPI in, the same with what all answers have out: headers, forms of errors, an example of each."""

import json
from collections.abc import Iterator
from typing import Any

from server.errors import (
    PROBLEM,
    Expired,
    Hopeless,
    InvalidParameter,
    NotAcceptable,
    NotFound,
    NotReady,
    Overloaded,
    TooLarge,
    Unparsable,
    UnsupportedType,
    answer,
    unexpected,
)
from training.errors import LimnerError

TEXT = """\
Every answer has an `X-Request-Id`: that of the request, if it has one that is fit to be written down. Errors have the
form of their protocol: RFC 9457 problem details, under `/v1` OpenAI's envelope, under `/v2` that of the Open Inference
Protocol; an unknown path is 404, another method 405 with `Allow`, in the same form. `Retry-After` is computed from what
waits."""

HEADERS: dict[str, dict[str, Any]] = {
    "X-Request-Id": {
        "required": True,
        "description": "That of the request, or another: what the server's log calls it.",
        "schema": {"type": "string", "pattern": "^[\\x21-\\x7e]{1,128}$"},
        "example": "6f1d0c9ab3e84d5f8f3b0c5a7d9e1f24",
    },
    "X-Limner-Seed": {
        "description": "Seed of the first image; of a path between two, of both.",
        "schema": {"type": "string", "pattern": "^[0-9]+(, [0-9]+)?$"},
        "example": "7",
    },
    "X-Limner-Label": {
        "description": "Class index of the only image; of a path between two, of both.",
        "schema": {"type": "string", "pattern": "^[0-9]+(, [0-9]+)?$"},
        "example": "3",
    },
    "X-Limner-Model": {
        "description": "The model that made it, as name@version.",
        "schema": {"type": "string"},
        "example": "digits@1",
    },
    "Server-Timing": {
        "description": "Milliseconds in the queue, in the engine, and from pixels to the body; images of its batch.",
        "schema": {"type": "string"},
        "example": "queue;dur=0.412, compute;dur=0.803, encode;dur=0.012, batch;desc=1",
    },
    "ETag": {
        "description": "Of a GET that names its seed: equal tags are equal bytes.",
        "schema": {"type": "string"},
        "example": '"9c1185a5c5e9fc54612808977ee8f548"',
    },
    "Cache-Control": {
        "description": "no-store, unless the same request makes the same bytes.",
        "schema": {"type": "string"},
        "example": "no-store",
    },
    "Vary": {"description": "What else decides the body.", "schema": {"type": "string"}, "example": "Accept"},
    "Retry-After": {
        "description": "Seconds until there is room, computed from what waits.",
        "schema": {"type": "integer", "minimum": 1},
        "example": 2,
    },
    "retry-after-ms": {
        "description": "The same in milliseconds.",
        "schema": {"type": "integer", "minimum": 0},
        "example": 1250,
    },
}
SAMPLES: tuple[LimnerError, ...] = (
    Unparsable("the body is no JSON object", 'Send an object such as {"label": 3, "n": 4}.'),
    InvalidParameter("n", 0, "an integer from 1"),
    NotFound("there is no model 'cat'", "Allowed: digits.", field="model", value="cat", allowed="digits"),
    NotAcceptable("Accept names none of image/png, application/json", "Name one of them, or */*."),
    TooLarge("the body is over 1048576 bytes", "Send a smaller one."),
    UnsupportedType("a body of text/plain is not understood", "Send application/json."),
    Overloaded("4090 of 4096 places in the queue are taken, 16 more do not fit", "Come back later.", retry_after=1.25),
    Hopeless("the queue would take 1.5 s, 0.5 s more than this request has", "Come back later.", retry_after=0.5),
    NotReady("the server is draining", "Ask another replica.", retry_after=1),
    Expired("no picture after 30 s", "Ask for fewer images, or later."),
)


def documented(schema: dict[str, Any]) -> dict[str, Any]:
    """Completes `schema`, whatever routes there are."""
    schema["info"]["description"] = TEXT
    components = schema["components"]
    components["headers"] = HEADERS
    for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's own, which no route answers
        components["schemas"].pop(name, None)
    for path, operation in _operations(schema):
        responses = operation["responses"]
        if "HTTPValidationError" in json.dumps(responses.get("422", {})):
            del responses["422"]
        responses.setdefault("500", {"description": "limner failed. Its log says why."})
        for code, response in responses.items():
            if int(code) >= 400:
                _refusal(schema, path, int(code), response)
            headers = response.setdefault("headers", {})
            headers["X-Request-Id"] = {}
            for name in headers:
                if name in HEADERS:
                    headers[name] = {"$ref": f"#/components/headers/{name}"}
    return schema


def _operations(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in schema["paths"].items():
        for operation in item.values():
            yield path, operation


def _refusal(schema: dict[str, Any], path: str, status: int, response: dict[str, Any]) -> None:
    """What such a refusal of this path says, and with which headers: as the server would really answer it."""
    answers = {LimnerError.code: unexpected(path)} | {error.code: answer(path, error) for error in SAMPLES}
    for code, said in answers.items():
        if said.status_code != status:
            continue
        media_type = said.media_type or ""
        content = response.setdefault("content", {}).setdefault(media_type, {})
        content.setdefault("schema", _form(schema, path, media_type))
        content.setdefault("examples", {})[code] = {"value": json.loads(bytes(said.body))}
        for name in HEADERS:
            if name in said.headers:
                response.setdefault("headers", {})[name] = {}


def _form(schema: dict[str, Any], path: str, media_type: str) -> dict[str, Any]:
    """The schema of a refusal: limner's own, or that of any other refusal of the path's protocol."""
    if media_type == PROBLEM:
        return {"$ref": "#/components/schemas/Problem"}
    protocol = path.split("/")[1]
    for other, operation in _operations(schema):
        for code, response in operation["responses"].items():
            known = response.get("content", {}).get(media_type, {}).get("schema")
            if known and int(code) >= 400 and other.split("/")[1] == protocol:
                return known
    return {}
