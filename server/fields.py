"""One value of a query or a JSON body in, the same of its type out: what each parameter may be, once for all routes."""

import re
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from training.latents import SEEDS

PRIORITIES = ("normal", "low")
LARGEST_TRUNCATION = 8.0  # σ: beyond, a float32 normal is not truncated at all
LARGEST_SCALE = 16
LEAST_FPS, MOST_FPS = 0.1, 50.0  # browsers show a frame of less than 20 ms for 100
DECIMAL = re.compile(r"[0-9]{1,40}")
_NUMBER = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?(e[+-]?[0-9]{1,3})?", re.IGNORECASE)


def integer(value: Any) -> int:
    """An integer, or its decimal digits in a string; no booleans, fractions, signs or spaces.

    4.0 is one, as in JSON Schema, while every integer of its size is a float: beyond, another may have been meant.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, str) and DECIMAL.fullmatch(value):
        return int(value)
    raise ValueError("not an integer")


def number(value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9:
        return float(value)
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value)
    raise ValueError("not a number")


def _label(value: Any) -> int | str:
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise ValueError("not a class name or index")


def flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return value == "true"
    raise ValueError("not true or false")


def listed(names: Sequence[str]) -> str:
    """`a, b or c`."""
    return " or ".join([", ".join(names[:-1]), names[-1]])


def one_of(names: Sequence[str]) -> AfterValidator:
    def known(value: str | None) -> str | None:
        if value is None or value in names:
            return value
        raise ValueError(f"none of {names}")

    return AfterValidator(known)


Label = Annotated[
    int | str | None,
    BeforeValidator(_label),
    WithJsonSchema({"type": ["string", "integer"], "minimum": 0, "examples": ["3"]}),
]
Seed = Annotated[
    int | None,
    BeforeValidator(integer),
    WithJsonSchema(
        {
            "type": ["integer", "string"],
            "minimum": 0,
            "maximum": SEEDS - 1,
            "pattern": "^[0-9]{1,19}$",
            "examples": ["7"],
        }
    ),
    Field(ge=0, lt=SEEDS),
]
Truncation = Annotated[
    float | None,
    BeforeValidator(number),
    WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "maximum": LARGEST_TRUNCATION, "examples": [0.7]}),
    Field(gt=0, le=LARGEST_TRUNCATION, description="Latents within ±ψ σ: less variety, more typical pictures."),
]
Scale = Annotated[
    int,
    BeforeValidator(integer),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": LARGEST_SCALE, "default": 1}),
    Field(ge=1, le=LARGEST_SCALE),
]
Quality = Annotated[
    int | None,
    BeforeValidator(integer),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 100}),
    Field(ge=1, le=100),
]
Model = Annotated[
    str | None,
    WithJsonSchema({"type": "string", "examples": ["digits"]}),
    Field(description="Absent: the only model, or the server's default."),
]
Version = Annotated[
    int | None,
    BeforeValidator(integer),
    WithJsonSchema({"type": "integer", "minimum": 1}),
    Field(ge=1, description="Absent: the highest."),
]
Milliseconds = Annotated[
    int | None,
    BeforeValidator(integer),
    WithJsonSchema({"type": "integer", "minimum": 1, "examples": [1000]}),
    Field(
        ge=1,
        description="Milliseconds from arrival to pixels. Refused at once where the queue would take longer; "
        "absent: 30,000, which is the most, if not set otherwise.",
    ),
]
Priority = Annotated[
    str,
    one_of(PRIORITIES),
    WithJsonSchema({"type": "string", "enum": list(PRIORITIES), "default": PRIORITIES[0]}),
    Field(description="low: waits behind the others, which leave it an eighth of each batch."),
]

ALLOWED = {
    "label": "a class name or a class index",
    "n": "an integer from 1",
    "seed": "an integer from 0 to 2^63 - 1",
    "truncation": f"a number over 0, at most {LARGEST_TRUNCATION:g}",
    "model": "the name of a model",
    "version": "an integer from 1",
    "scale": f"an integer from 1 to {LARGEST_SCALE}",
    "quality": "an integer from 1 to 100",
    "timeout_ms": "an integer from 1",
    "priority": listed(PRIORITIES),
}
