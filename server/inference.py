"""A request of the Open Inference Protocol and a model in, what is asked of that model out: rows, time, priority."""

from dataclasses import dataclass
from typing import Any

from server import schemas
from server.errors import InvalidParameter, shorten
from server.oip_schemas import IGNORED, OURS, PARAMETERS
from server.repository import LiveModel
from server.rows import Given, Rows
from server.settings import Settings
from server.tensors import Inference
from training.latents import Asked

LOW = {0: False, 1: False, 2: True}  # Triton's levels: 0 is the default, which is 1


@dataclass(frozen=True)
class Order:
    """`seconds` that it may take; whether it waits behind the others."""

    rows: Rows
    seconds: float
    low: bool


def understood(asked: Inference, model: LiveModel, settings: Settings) -> Order:
    """Raises InvalidParameter, which names the tensor or the parameter."""
    for name, value in asked.parameters.items():
        if name not in PARAMETERS and name not in IGNORED:
            what = f"there is no parameter '{shorten(name)}'"
            raise InvalidParameter(name, value, ", ".join(PARAMETERS), what)
    rows = _given(asked, model) if "z" in asked.inputs else _drawn(asked, model)
    if rows.count > settings.max_images:
        what = f"{shorten(rows.count)} images are too many for one request"
        raise InvalidParameter("n", rows.count, f"1 to {settings.max_images} rows", what)
    return Order(rows, _seconds(asked.parameters, settings.timeout_seconds), _low(asked.parameters))


def _given(asked: Inference, model: LiveModel) -> Given:
    z, label = asked.inputs["z"], _label(asked, model)
    for name in OURS:
        if name in asked.parameters:
            what = f"{name} is of latents that are drawn here, and 'z' is given"
            raise InvalidParameter(name, asked.parameters[name], f"{name} or 'z'", what)
    if model.bundle.manifest.classes and (label is None or len(label) != len(z)):
        what = "'label' is missing" if label is None else f"'label' has {len(label)} rows, and 'z' has {len(z)}"
        raise InvalidParameter("label", None, f"a class index for each row of 'z', INT64 [{len(z)}]", what)
    return Given(z, label)


def _drawn(asked: Inference, model: LiveModel) -> Asked:
    named = ((name, value) for name, value in asked.parameters.items() if name in OURS)
    ours = schemas.validate(named, schemas.GenerateRequest)
    label = _label(asked, model)
    if ours.seed is None:
        shape = f"FP32 [N, {model.bundle.manifest.latent}]"
        raise InvalidParameter("z", None, f"'z' as {shape}, or the parameter seed", "'z' is missing")
    count = ours.n if label is None else len(label)
    if "n" in asked.parameters and count != ours.n:
        raise InvalidParameter("n", ours.n, str(count), f"n is {shorten(ours.n)}, and 'label' has {count} rows")
    return Asked(ours.seed, count, label, ours.truncation)


def _label(asked: Inference, model: LiveModel) -> Any:
    """int64 [n] of the model's classes, or None."""
    label, classes = asked.inputs.get("label"), model.bundle.manifest.classes
    if label is None:
        return None
    bad = label[(label < 0) | (label >= classes)]
    if len(bad):
        what = f"'label' holds {bad[0]}, which is no class of {model.title}"
        raise InvalidParameter("label", int(bad[0]), f"a class index from 0 to {classes - 1}", what)
    return label


def _seconds(parameters: dict[str, Any], most: float) -> float:
    """As in Triton, a longer timeout than the server's own is the server's own, and so is 0."""
    timeout = parameters.get("timeout", 0)
    if type(timeout) is not int or timeout < 0:
        raise InvalidParameter("timeout", timeout, "a whole number of microseconds")
    return min(timeout, most * 1e6) / 1e6 if timeout else most


def _low(parameters: dict[str, Any]) -> bool:
    priority = parameters.get("priority", 0)
    if type(priority) is not int or priority not in LOW:
        raise InvalidParameter("priority", priority, "0 or 1 (normal), 2 (low)")
    return LOW[priority]
