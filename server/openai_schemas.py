"""OpenAI's image generation as JSON: what may be asked, and what is answered."""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, Strict, WithJsonSchema

from server.fields import ALLOWED, LARGEST_SCALE, Label, Seed, Truncation, integer, listed, one_of
from server.pictures import PICTURE_FORMATS
from server.schemas import Asking

ANY = "any"  # the prompt that names no class
SIZE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")
Ignored = Annotated[str | None, Strict(), WithJsonSchema({"type": "string"})]
IGNORED = ("background", "complexity", "moderation", "quality", "safety_identifier", "style", "user")
_IGNORED = "Accepted and ignored."


def _false(value: Any) -> bool:
    if value is False:
        return value
    raise ValueError("not false")


def _size(value: Any) -> str:
    if isinstance(value, str) and (value == "auto" or SIZE.fullmatch(value)):
        return value
    raise ValueError("not a size")


class ImagesRequest(Asking):
    """What is asked of `/v1/images/generations`, as OpenAI's clients send it, with `seed`, `truncation` and `label`."""

    allowed = ALLOWED | {
        "prompt": f"a class name, a class index or {ANY}",
        "model": "the name of a model, or name@version",
        "size": "auto, or width x height such as 56x56",
        "response_format": "b64_json",
        "output_format": listed(PICTURE_FORMATS),
        "output_compression": "an integer from 0 to 100",
        "stream": "false",
        "partial_images": "an integer from 0 to 3",
        **dict.fromkeys(IGNORED, "text"),
    }

    prompt: Annotated[str, Strict()] = Field(
        examples=["3"],
        description="A class name, else a class index. `any` or nothing: a class for each image, from its seed; the "
        "only prompts of a model without classes.",
    )
    model: Annotated[str | None, Strict(), WithJsonSchema({"type": "string", "examples": ["digits"]})] = Field(
        default=None,
        description="A served name (its highest version) or name@version. Absent: the only model, or the default.",
    )
    n: Annotated[int, BeforeValidator(integer), WithJsonSchema({"type": "integer", "minimum": 1})] = Field(
        default=1, ge=1, description="How many: image i is that of seed + i. At most 1,024, if not set otherwise."
    )
    size: Annotated[
        str, BeforeValidator(_size), WithJsonSchema({"type": "string", "pattern": f"^(auto|{SIZE.pattern})$"})
    ] = Field(
        default="auto",
        description=f"`auto`: the model's own; or an integer multiple of it, to {LARGEST_SCALE} times, such as 56x56.",
    )
    response_format: Annotated[str, one_of(("b64_json",)), WithJsonSchema({"type": "string", "enum": ["b64_json"]})] = (
        Field(default="b64_json", description="No images are kept, so there is no url.")
    )
    output_format: Annotated[
        str, one_of(PICTURE_FORMATS), WithJsonSchema({"type": "string", "enum": list(PICTURE_FORMATS)})
    ] = Field(default="png", description="Of each picture.")
    output_compression: Annotated[
        int | None, BeforeValidator(integer), WithJsonSchema({"type": "integer", "minimum": 0, "maximum": 100})
    ] = Field(
        default=None,
        ge=0,
        le=100,
        description="The quality of jpeg (absent: 90) and webp (absent: lossless). Of png it can only be 100.",
    )
    stream: Annotated[bool, BeforeValidator(_false), WithJsonSchema({"type": "boolean", "const": False})] = Field(
        default=False, description="Images are made in one go: there is nothing to stream."
    )
    seed: Seed = Field(
        default=None, description="Seed of the first image. Absent: the server draws one and returns it."
    )
    truncation: Truncation = None
    label: Label = Field(
        default=None,
        description="As in /generate, for those whose prompt is not theirs to choose: it may be `any` or nothing then.",
    )
    background: Ignored = Field(default=None, description=_IGNORED)
    complexity: Ignored = Field(default=None, description=_IGNORED)
    moderation: Ignored = Field(default=None, description=_IGNORED)
    partial_images: Annotated[
        int | None, BeforeValidator(integer), WithJsonSchema({"type": "integer", "minimum": 0, "maximum": 3})
    ] = Field(default=None, ge=0, le=3, description=f"{_IGNORED} Of streams alone.")
    quality: Ignored = Field(default=None, description=_IGNORED)
    safety_identifier: Ignored = Field(default=None, description=_IGNORED)
    style: Ignored = Field(default=None, description=_IGNORED)
    user: Ignored = Field(default=None, description=_IGNORED)


class Image(BaseModel):
    """One picture, and which it is: the same `seed`, `label`, `truncation` and model make it again."""

    b64_json: Annotated[
        str, WithJsonSchema({"type": "string", "contentEncoding": "base64", "examples": ["iVBORw0KGgo="]})
    ]
    seed: str = Field(examples=["7"], description="A decimal string: it may not fit a JavaScript number.")
    label: int | None = Field(examples=[3], description="The index of its class; null without classes.")
    class_: str | None = Field(
        alias="class", examples=["3"], description="The name of its class; null without classes."
    )


class ImagesResponse(BaseModel):
    """No `usage`, because no token is used, and no `quality`, because there is one."""

    created: int = Field(examples=[1795888195], description="Unix time of the answer, in seconds.")
    background: Literal["opaque"]
    output_format: Literal["png", "jpeg", "webp"]
    size: str = Field(examples=["56x56"])
    data: list[Image]


class Model(BaseModel):
    """A name that requests can give: that of a model, or of one of its versions."""

    id: str = Field(examples=["digits@1"])
    object: Literal["model"] = "model"
    created: int = Field(
        examples=[1795888195], description="Unix time at which the bundle's graph was written here, in seconds."
    )
    owned_by: Literal["limner"] = "limner"


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]


class Fault(BaseModel):
    message: str = Field(examples=["n=0 is not allowed. Allowed: an integer from 1."])
    type: Literal["invalid_request_error", "rate_limit_error", "server_error"]
    param: str | None = Field(examples=["n"])
    code: str = Field(examples=["invalid_parameter"])


class Envelope(BaseModel):
    """OpenAI's form of an error."""

    error: Fault
