"""A request's query and body in, one validated GenerateRequest out; what is unknown or repeated is refused by name."""

import json
import re
from collections.abc import Iterable
from typing import Annotated, Any
from urllib.parse import parse_qsl

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema
from starlette.requests import Request

from server.errors import InvalidParameter, NotAcceptable, TooLarge, Unparsable, UnsupportedType, shorten
from server.images import MEDIA_TYPES
from server.pictures import PICTURE_FORMATS
from training.latents import SEEDS

PRIORITIES = ("normal", "low")
LARGEST_TRUNCATION = 8.0  # σ: beyond, a float32 normal is not truncated at all
LARGEST_SCALE = 16
WILDCARDS = {
    "*/*": tuple(MEDIA_TYPES),
    "image/*": PICTURE_FORMATS,
    "application/*": tuple(name for name in MEDIA_TYPES if name not in PICTURE_FORMATS),
}
_DECIMAL = re.compile(r"[0-9]{1,40}")
_NUMBER = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?")


def _integer(value: Any) -> int:
    """An integer, or its decimal digits in a string; no booleans, fractions, signs or spaces."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        return int(value)
    raise ValueError("not an integer")


def _number(value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9:
        return float(value)
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value)
    raise ValueError("not a number")


def _label(value: Any) -> int | str:
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise ValueError("not a class name or index")


class GenerateRequest(BaseModel):
    """What is asked of `/generate`, in the query or in a JSON body."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: Annotated[
        int | str | None,
        BeforeValidator(_label),
        WithJsonSchema({"type": ["string", "integer"], "minimum": 0, "examples": ["3"]}),
    ] = Field(
        default=None, description="A class name, else a class index. Absent: a class for each image, from its seed."
    )
    n: Annotated[int, BeforeValidator(_integer), WithJsonSchema({"type": "integer", "minimum": 1, "default": 1})] = (
        Field(
            default=1,
            ge=1,
            description="How many: image i is that of seed + i. At most 1,024; in a picture 256; npy, zip: 100,000.",
        )
    )
    seed: Annotated[
        int | None,
        BeforeValidator(_integer),
        WithJsonSchema(
            {
                "type": ["integer", "string"],
                "minimum": 0,
                "maximum": SEEDS - 1,
                "pattern": "^[0-9]{1,19}$",
                "examples": ["7"],
            }
        ),
    ] = Field(
        default=None,
        ge=0,
        lt=SEEDS,
        description="Seed of the first image. Absent: the server draws one and returns it.",
    )
    truncation: Annotated[
        float | None,
        BeforeValidator(_number),
        WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "maximum": LARGEST_TRUNCATION}),
    ] = Field(
        default=None,
        gt=0,
        le=LARGEST_TRUNCATION,
        description="Latents within ±ψ σ: less variety, more typical pictures.",
    )
    format: Annotated[str | None, WithJsonSchema({"type": "string", "enum": list(MEDIA_TYPES)})] = Field(
        default=None, description="Absent: the best supported type in Accept, else png. A picture of n > 1 is a sheet."
    )
    scale: Annotated[
        int,
        BeforeValidator(_integer),
        WithJsonSchema({"type": "integer", "minimum": 1, "maximum": LARGEST_SCALE, "default": 1}),
    ] = Field(
        default=1,
        ge=1,
        le=LARGEST_SCALE,
        description="Each pixel is drawn scale x scale. Not for npy; a sheet, all of a json and each picture of a zip "
        "have at most 16,777,216 pixels, if not set otherwise.",
    )
    quality: Annotated[
        int | None, BeforeValidator(_integer), WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 100})
    ] = Field(default=None, ge=1, le=100, description="Of jpeg (absent: 90) and of webp (absent: lossless).")
    model: Annotated[str | None, WithJsonSchema({"type": "string"})] = Field(
        default=None, description="Absent: the only model, or the server's default."
    )
    version: Annotated[int | None, BeforeValidator(_integer), WithJsonSchema({"type": "integer", "minimum": 1})] = (
        Field(default=None, ge=1, description="Absent: the highest.")
    )
    timeout_ms: Annotated[
        int | None, BeforeValidator(_integer), WithJsonSchema({"type": "integer", "minimum": 1, "examples": [1000]})
    ] = Field(
        default=None,
        ge=1,
        description="Milliseconds from arrival to pixels. Refused at once where the queue would take longer; "
        "absent: 30,000, which is the most, if not set otherwise.",
    )
    priority: Annotated[str, WithJsonSchema({"type": "string", "enum": list(PRIORITIES), "default": PRIORITIES[0]})] = (
        Field(
            default=PRIORITIES[0],
            description="low: waits behind the others, which leave it an eighth of each batch.",
        )
    )


ALLOWED = {
    "label": "a class name or a class index",
    "n": "an integer from 1",
    "seed": "an integer from 0 to 2^63 - 1",
    "truncation": f"a number over 0, at most {LARGEST_TRUNCATION:g}",
    "format": " or ".join([", ".join([*MEDIA_TYPES][:-1]), [*MEDIA_TYPES][-1]]),
    "model": "the name of a model",
    "version": "an integer from 1",
    "scale": f"an integer from 1 to {LARGEST_SCALE}",
    "quality": "an integer from 1 to 100",
    "timeout_ms": "an integer from 1",
    "priority": " or ".join(PRIORITIES),
}


async def read(request: Request, max_body_bytes: int) -> GenerateRequest:
    """Query and JSON body of a request -> GenerateRequest. Raises the RequestErrors of design section 5."""
    query = parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True)
    body = _parse(request.headers.get("content-type", ""), await read_body(request, max_body_bytes))
    return validate([*query, *body])


def validate(pairs: Iterable[tuple[str, Any]]) -> GenerateRequest:
    """Names and values, from wherever they came -> GenerateRequest. Raises InvalidParameter."""
    pairs = list(pairs)
    names = [name for name, _ in pairs]
    for name in names:
        if name not in GenerateRequest.model_fields:
            known = ", ".join(GenerateRequest.model_fields)
            raise InvalidParameter(name, dict(pairs)[name], known, f"there is no parameter '{shorten(name)}'")
        if (times := names.count(name)) > 1:
            values = [value for other, value in pairs if other == name]
            raise InvalidParameter(name, values, f"{name} once", f"{name} is given {times} times")
    values = {name: value for name, value in pairs if value is not None}  # null in JSON = absent
    try:
        asked = GenerateRequest.model_validate(values)
    except ValidationError as error:
        field = str(error.errors()[0]["loc"][0])
        raise InvalidParameter(field, values[field], ALLOWED[field]) from error
    if asked.format is not None and asked.format not in MEDIA_TYPES:
        raise InvalidParameter("format", asked.format, ALLOWED["format"])
    if asked.priority not in PRIORITIES:
        raise InvalidParameter("priority", asked.priority, ALLOWED["priority"])
    return asked


async def read_body(request: Request, limit: int) -> bytes:
    """Raises TooLarge, before anything is read where its length is announced."""
    if request.method not in ("POST", "PUT"):
        return b""
    announced = request.headers.get("content-length", "0")
    if _DECIMAL.fullmatch(announced) and int(announced) > limit:
        raise TooLarge(f"the body is over {limit} bytes", "Send a smaller one.")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > limit:
            raise TooLarge(f"the body is over {limit} bytes", "Send a smaller one.")
    return bytes(body)


def _parse(content_type: str, body: bytes) -> list[tuple[str, Any]]:
    if not body.strip():
        return []
    if content_type.partition(";")[0].strip().lower() != "application/json":
        shown = shorten(content_type) or "no Content-Type"
        raise UnsupportedType(f"a body of {shown} is not understood", "Send application/json, or use the query.")
    try:
        pairs = json.loads(body, object_pairs_hook=_Pairs, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise Unparsable("the body is no JSON", 'Send an object such as {"label": 3, "n": 4}.') from error
    if not isinstance(pairs, _Pairs):
        raise Unparsable("the body is no JSON object", 'Send an object such as {"label": 3, "n": 4}.')
    return list(pairs)


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as it was written, so that a name given twice is seen."""


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def choose_format(asked: str | None, accept: str | None) -> str:
    """`format` if given, else the supported type of highest q in Accept (first on ties), else what a wildcard covers.

    Without an Accept header: png. Raises NotAcceptable where Accept names neither a supported type nor a wildcard.
    """
    if asked is not None:
        return asked
    if not accept or not accept.strip():
        return "png"
    named = {media_type: (name,) for name, media_type in MEDIA_TYPES.items()}
    ranges = sorted(weighted(accept), key=lambda pair: -pair[1])
    refused = _refused(ranges)
    for choices in (named, WILDCARDS):
        for media_type, q in ranges:
            left = [name for name in choices.get(media_type, ()) if name not in refused]
            if left and q > 0:
                return _of_pictures(left[0], q, ranges, refused)
    supported = ", ".join(named)
    raise NotAcceptable(f"Accept names none of {supported}", "Name one of them, or */*.", allowed=supported)


def _refused(ranges: list[tuple[str, float]]) -> set[str]:
    """Formats of q = 0. What names a format counts before a wildcard, and image/* before */*."""
    given = dict(ranges)
    refused = set()
    for name, media_type in MEDIA_TYPES.items():
        about = (media_type, f"{media_type.partition('/')[0]}/*", "*/*")
        if next((given[key] for key in about if key in given), 1.0) == 0:
            refused.add(name)
    return refused


def _of_pictures(found: str, q: float, ranges: list[tuple[str, float]], refused: set[str]) -> str:
    """png, where another picture format was found and png is as welcome: browsers name all that they know."""
    as_welcome = any(name in ("image/png", "image/*") and other >= q for name, other in ranges)
    return "png" if found in PICTURE_FORMATS and as_welcome and "png" not in refused else found


def weighted(accept: str) -> list[tuple[str, float]]:
    """`image/png;q=0.5, */*` -> [("image/png", 0.5), ("*/*", 1.0)], without those whose q is no number."""
    ranges = []
    for part in accept.split(","):
        media_type, *parameters = (piece.strip().lower() for piece in part.split(";"))
        weights = [piece[2:] for piece in parameters if piece.startswith("q=")] or ["1"]
        if _NUMBER.fullmatch(weights[0]):
            ranges.append((media_type, float(weights[0])))
    return ranges


def openapi() -> dict[str, Any]:
    """The documentation of GenerateRequest for FastAPI's `openapi_extra`: query parameters, and the same as a body."""
    properties = GenerateRequest.model_json_schema()["properties"]
    for schema in properties.values():
        schema.pop("title", None)
        if schema.get("default", 0) is None:
            schema.pop("default")
    return {
        "parameters": [
            {
                "name": name,
                "in": "query",
                "required": False,
                "description": schema["description"],
                "schema": {key: value for key, value in schema.items() if key != "description"},
            }
            for name, schema in properties.items()
        ],
        "body": {"type": "object", "additionalProperties": False, "properties": properties},
    }
