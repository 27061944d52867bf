"""A request's query and body in, one validated object out; what is unknown or repeated is refused by name."""

import json
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Self, TypeVar
from urllib.parse import parse_qsl

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema
from starlette.requests import Request

from server import animation, images
from server.errors import SHOWN, InvalidParameter, TooLarge, Unparsable, UnsupportedType, shorten
from server.fields import (
    ALLOWED,
    DECIMAL,
    LEAST_FPS,
    MOST_FPS,
    PRIORITIES,
    Label,
    Milliseconds,
    Model,
    Priority,
    Quality,
    Scale,
    Seed,
    Truncation,
    Version,
    flag,
    integer,
    listed,
    number,
    one_of,
)

AN_OBJECT = 'an object such as {"label": 3, "n": 4}'
FORMATS, ANIMATED = tuple(images.OFFERED.types), tuple(animation.OFFERED.types)


class Asking(BaseModel):
    """What somebody asks for. `allowed`: what the value of each name may be, in words."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    allowed: ClassVar[dict[str, str]]

    def checked(self) -> Self:
        """Itself. Raises InvalidParameter for values that do not go together."""
        return self


class GenerateRequest(Asking):
    """What is asked of `/generate`, in the query or in a JSON body."""

    allowed = ALLOWED | {"format": listed(FORMATS)}

    label: Label = Field(
        default=None, description="A class name, else a class index. Absent: a class for each image, from its seed."
    )
    n: Annotated[int, BeforeValidator(integer), WithJsonSchema({"type": "integer", "minimum": 1, "default": 1})] = (
        Field(
            default=1,
            ge=1,
            description="How many: image i is that of seed + i. At most 1,024; in a picture 256; npy, zip: 100,000.",
        )
    )
    seed: Seed = Field(
        default=None, description="Seed of the first image. Absent: the server draws one and returns it."
    )
    truncation: Truncation = None
    format: Annotated[str | None, one_of(FORMATS), WithJsonSchema({"type": "string", "enum": list(FORMATS)})] = Field(
        default=None, description="Absent: the best supported type in Accept, else png. A picture of n > 1 is a sheet."
    )
    scale: Scale = Field(
        default=1,
        description="Each pixel is drawn scale x scale. Not for npy; a sheet, all of a json and each picture of a zip "
        "have at most 16,777,216 pixels, if not set otherwise.",
    )
    quality: Quality = Field(default=None, description="Of jpeg (absent: 90) and of webp (absent: lossless).")
    model: Model = None
    version: Version = None
    timeout_ms: Milliseconds = None
    priority: Priority = PRIORITIES[0]


class InterpolateRequest(Asking):
    """What is asked of `/interpolate`, in the query or in a JSON body."""

    allowed = ALLOWED | {
        "from_seed": ALLOWED["seed"],
        "to_seed": ALLOWED["seed"],
        "from_label": ALLOWED["label"],
        "to_label": ALLOWED["label"],
        "frames": "an integer from 2",
        "loop": "true or false",
        "fps": f"a number from {LEAST_FPS:g} to {MOST_FPS:g}",
        "format": listed(ANIMATED),
    }

    from_seed: Seed = Field(
        default=None,
        description="Seed of the first frame, which is the image that /generate gives for it. Name both seeds, or "
        "neither: the server draws them and returns them.",
    )
    to_seed: Seed = Field(
        default=None,
        examples=["11"],
        description="Seed of the last frame, likewise. One seed with two labels is one latent seen as two classes.",
    )
    from_label: Label = Field(
        default=None,
        description="Class of the first frame: a name, else an index. Name both labels, or neither: each end has the "
        "class of its seed.",
    )
    to_label: Label = Field(
        default=None,
        examples=["8"],
        description="Class of the last frame. Where it is another one, every frame is made of both classes and "
        "cross-faded in pixels.",
    )
    frames: Annotated[
        int, BeforeValidator(integer), WithJsonSchema({"type": "integer", "minimum": 2, "default": 16})
    ] = Field(
        default=16,
        ge=2,
        description="How many from one end to the other, both included. At most 256, if not set otherwise.",
    )
    loop: Annotated[bool, BeforeValidator(flag), WithJsonSchema({"type": "boolean", "default": False})] = Field(
        default=False,
        description="There and back, without the end frames twice: 2 · frames - 2 in all; gif and webp repeat for "
        "ever. Otherwise they play once.",
    )
    fps: Annotated[
        float | None,
        BeforeValidator(number),
        WithJsonSchema({"type": "number", "minimum": LEAST_FPS, "maximum": MOST_FPS, "examples": [12]}),
    ] = Field(
        default=None, ge=LEAST_FPS, le=MOST_FPS, description="Frames a second, of gif and webp alone. Absent: 12."
    )
    truncation: Truncation = None
    format: Annotated[str | None, one_of(ANIMATED), WithJsonSchema({"type": "string", "enum": list(ANIMATED)})] = Field(
        default=None,
        description="gif and webp are animations, png is a strip: the frames in one row. zip: a png for each frame. "
        "Absent: the best supported type in Accept, else gif.",
    )
    scale: Scale = Field(
        default=1,
        description="Each pixel is drawn scale x scale. Not for npy; all frames together have at most 16,777,216 "
        "pixels, if not set otherwise.",
    )
    quality: Quality = Field(default=None, description="Of webp (absent: lossless).")
    model: Model = None
    version: Version = None
    timeout_ms: Milliseconds = None
    priority: Priority = PRIORITIES[0]

    def checked(self) -> Self:
        for what in ("seed", "label"):
            ends = [f"from_{what}", f"to_{what}"]
            given = [name for name in ends if getattr(self, name) is not None]
            if len(given) == 1:
                (missing,) = {*ends} - {*given}
                reason = f"{given[0]} is given and {missing} is not: give both, or neither"
                raise InvalidParameter(missing, None, self.allowed[missing], reason)
        return super().checked()


Kind = TypeVar("Kind", bound=Asking)


async def read(request: Request, max_body_bytes: int, kind: type[Kind]) -> Kind:
    """Query and JSON body of a request -> what it asks. Raises the RequestErrors of design section 5."""
    query = parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True)
    body = _parse(request.headers.get("content-type", ""), await read_body(request, max_body_bytes))
    return validate([*query, *body], kind)


def validate(pairs: Iterable[tuple[str, Any]], kind: type[Kind]) -> Kind:
    """Names and values, from wherever they came -> what they ask. Raises InvalidParameter."""
    pairs = list(pairs)
    names = [name for name, _ in pairs]
    for name in names:
        if name not in kind.model_fields:
            known = ", ".join(kind.model_fields)
            raise InvalidParameter(name, dict(pairs)[name], known, f"there is no parameter '{shorten(name)}'")
        if (times := names.count(name)) > 1:
            values = [value for other, value in pairs if other == name]
            raise InvalidParameter(name, values, f"{name} once", f"{name} is given {times} times")
    values = {name: value for name, value in pairs if value is not None}  # null in JSON = absent
    try:
        return kind.model_validate(values).checked()
    except ValidationError as error:
        field = str(error.errors()[0]["loc"][0])
        what = "" if field in values else f"{field} is missing"
        raise InvalidParameter(field, values.get(field), kind.allowed[field], what) from error


async def read_body(request: Request, limit: int) -> bytes:
    """Raises TooLarge, before anything is read where its length is announced."""
    if request.method not in ("POST", "PUT"):
        return b""
    announced = request.headers.get("content-length", "0")
    if DECIMAL.fullmatch(announced) and int(announced) > limit:
        raise _too_large(announced, limit)
    body = bytearray()  # which grows in place, however small the pieces are
    async for part in request.stream():
        body += part
        if len(body) > limit:
            raise _too_large(f"over {limit}", limit)
    return bytes(body)


def _too_large(value: str, limit: int) -> TooLarge:
    said, allowed = f"the body is over {limit} bytes", f"at most {limit}"
    return TooLarge(said, "Send a smaller one.", field="Content-Length", value=shorten(value), allowed=allowed)


def _parse(content_type: str, body: bytes) -> list[tuple[str, Any]]:
    if not body.strip():
        return []
    if content_type.partition(";")[0].strip().lower() != "application/json":
        shown = shorten(content_type) or "no Content-Type"
        raise UnsupportedType(
            f"a body of {shown} is not understood",
            "Send application/json.",
            field="Content-Type",
            value=shorten(content_type),
            allowed="application/json",
        )
    try:
        pairs = json.loads(body, object_pairs_hook=_Pairs, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise _unparsable("the body is no JSON", body) from error
    if not isinstance(pairs, _Pairs):
        raise _unparsable("the body is no JSON object", body)
    return list(pairs)


def _unparsable(what: str, body: bytes) -> Unparsable:
    shown = shorten(body[: 4 * SHOWN].decode(errors="replace"))
    return Unparsable(what, f"Send {AN_OBJECT}.", field="body", value=shown, allowed=AN_OBJECT)


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as it was written, so that a name given twice is seen."""


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def openapi(kind: type[Asking]) -> dict[str, Any]:
    """The documentation of what is asked, for FastAPI's `openapi_extra`: query parameters, and the same as a body."""
    return {
        "parameters": [
            {
                "name": name,
                "in": "query",
                "required": False,
                "description": schema["description"],
                "schema": {key: value for key, value in schema.items() if key != "description"},
            }
            for name, schema in _documented(kind)["properties"].items()
        ],
        "body": body(kind),
    }


def body(kind: type[Asking]) -> dict[str, Any]:
    """The JSON schema of what is asked, as an object; null is as good as absent."""
    schema = _documented(kind)
    for name in schema["properties"].keys() - schema.get("required", []):
        documented = schema["properties"][name]
        about = {key: documented.pop(key) for key in ("description", "default", "examples") if key in documented}
        schema["properties"][name] = {"anyOf": [*documented.get("anyOf", [documented]), {"type": "null"}]} | about
    kept = ("type", "additionalProperties", "required", "properties", "examples")
    return {name: schema[name] for name in kept if name in schema}


def _documented(kind: type[Asking]) -> dict[str, Any]:
    """pydantic's schema without what repeats names and says that absent is null."""
    schema = kind.model_json_schema()
    for documented in schema["properties"].values():
        documented.pop("title", None)
        if documented.get("default", 0) is None:
            documented.pop("default")
    return schema
