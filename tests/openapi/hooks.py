"""Requests that schemathesis made up in, the same with values that mean something out: served models, their classes.

Values that a schema cannot hold against each other are made to go together, by the names of parameters: whatever route
has them. Requests that are meant to be refused are left as they are.
"""

# pyright: reportMissingImports=false, reportMissingModuleSource=false
# It runs in .tools/python.

import os
from collections.abc import Callable
from typing import Any

import requests
import schemathesis

MODELS = requests.get(f"{os.environ['LIMNER_URL']}/models", timeout=60).json()["models"]
MODEL = next(model for model in MODELS if model["versions"][-1]["class_names"])
VERSION = MODEL["versions"][-1]
TWICE = f"{2 * VERSION['width']}x{2 * VERSION['height']}"


def _class(value: Any) -> str:
    names = VERSION["class_names"]
    return names[len(str(value)) % len(names)]


def _at_most(most: int) -> Callable[[Any], Any]:
    return lambda value: min(int(value), most)


def _seed(value: Any) -> Any:
    return type(value)(min(int(value), 2**63 - 1))  # the pattern of its digits has no maximum


MEANINGFUL: dict[str, Callable[[Any], Any]] = {
    "model": lambda _: MODEL["name"],
    "version": lambda _: VERSION["version"],
    **dict.fromkeys(("label", "from_label", "to_label", "prompt"), _class),
    **dict.fromkeys(("seed", "from_seed", "to_seed"), _seed),
    "n": _at_most(20),
    "frames": _at_most(20),
    "scale": _at_most(3),
    "timeout_ms": lambda _: 30_000,
    "size": lambda value: value if value == "auto" else TWICE,
}
ONLY_OF = {  # parameter -> the formats that have it
    "quality": ("jpeg", "webp"),
    "output_compression": ("jpeg", "webp"),
    "fps": ("gif", "webp"),
}
TOGETHER = (("from_seed", "to_seed"), ("from_label", "to_label"))


def _mean(values: dict[str, Any]) -> None:
    for name, value in list(values.items()):
        if value is None and any(name in ends for ends in TOGETHER):
            del values[name]
        elif value is not None and name in MEANINGFUL:
            values[name] = MEANINGFUL[name](value)


def _agree(values: dict[str, Any], asked: dict[str, Any]) -> None:
    """`values` of a query or a body, with all that is `asked`."""
    format = asked.get("output_format") or asked.get("format")
    for name, formats in ONLY_OF.items():
        if format not in formats:
            values.pop(name, None)
    if format == "npy":
        values.pop("scale", None)
    for one, other in TOGETHER:
        for name, missing in ((one, other), (other, one)):
            if values.get(name) is not None and asked.get(missing) is None:
                values[missing] = asked[missing] = values[name]
    if values.get("to_seed") is not None and str(values["to_seed"]) == str(asked["from_seed"]):
        values["to_seed"] = str((int(values["to_seed"]) + 1) % 2**63)  # the ends of a path differ
    if values.get("label") is not None and "prompt" in values:
        values["label"] = values["prompt"]


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case, kwargs: dict[str, Any]) -> None:
    """Of every phase."""
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    for name in case.path_parameters or {}:
        if name in MEANINGFUL:
            case.path_parameters[name] = str(MEANINGFUL[name](case.path_parameters[name]))
    query, body = case.query or {}, case.body if isinstance(case.body, dict) else {}
    for name in set(query) & set(body):  # what is in both is refused
        del query[name]
    _mean(query)
    _mean(body)
    asked = {**query, **body}
    for values in (query, body):
        _agree(values, asked)


TRANSPORT = {"connection", "content-encoding", "content-length", "content-type", "date", "transfer-encoding"}


@schemathesis.check
def every_header_is_documented(
    context: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case
) -> None:
    """The other direction of response_headers_conformance."""
    documented = case.operation.definition.raw["responses"].get(str(response.status_code))
    if documented is None:  # which status_code_conformance tells
        return
    known = {name.lower() for name in documented.get("headers", {})} | TRANSPORT
    unknown = sorted({name.lower() for name in response.headers} - known)
    assert not unknown, f"undocumented headers of a {response.status_code}: {', '.join(unknown)}"
