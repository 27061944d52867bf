"""Bodies of the Open Inference Protocol <-> NumPy arrays: a JSON object, then the bytes of the tensors that are binary.

Pure: knows tensors and what a model expects of them, neither models nor HTTP. Sources: KServe's "Predict Protocol -
Version 2" and Triton's "Binary Tensor Data Extension".
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from pydantic import ValidationError

from export.bundle import TensorSpec
from server.errors import InvalidParameter, Unparsable, shorten
from server.oip_schemas import InferenceRequest, RequestInput, RequestOutput

HEADER = "Inference-Header-Content-Length"
DATATYPES = {"float32": "FP32", "int64": "INT64", "uint8": "UINT8"}
LONGEST_NUMBER = 26  # characters of a float64 in JSON with its comma and space: -2.2250738585072014e-308
ELSEWHERE = ("shared_memory_region", "shared_memory_offset", "shared_memory_byte_size", "classification")
LEVELS = np.array([f"{level:3d}," for level in range(256)], "S4")  # a uint8 and its comma as JSON, all of one length


@dataclass(frozen=True)
class Inference:
    """A request that was understood: arrays by name, and which outputs are wanted, each as bytes or as JSON."""

    id: str | None
    parameters: dict[str, Any]
    inputs: dict[str, np.ndarray]
    outputs: dict[str, bool]


def read(
    body: bytes, header_length: int | None, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> Inference:
    """A body, of which the first `header_length` bytes are JSON (None: all), for a model of these inputs and outputs.

    An input of shape [N] may be sent as [N, 1]. No output named means all of them. With a header of 0 bytes, the body
    is the only input, and the outputs are sent as bytes. Raises Unparsable, and InvalidParameter, which names the
    tensor.
    """
    names = [spec.name for spec in outputs]
    if header_length == 0:
        return Inference(None, {}, _raw(body, inputs), dict.fromkeys(names, True))
    head, behind = _split(body, header_length)
    known, arrays = {spec.name: spec for spec in inputs}, dict[str, np.ndarray]()
    for tensor in head.inputs:
        if tensor.name not in known or tensor.name in arrays:
            how = "is given twice" if tensor.name in arrays else "is no input of this model"
            raise InvalidParameter("inputs", tensor.name, ", ".join(known), f"'{shorten(tensor.name)}' {how}")
        arrays[tensor.name], behind = _array(tensor, known[tensor.name], behind)
    if len(behind):
        raise Unparsable(f"{len(behind)} bytes follow the last tensor", "See binary_data_size of each input.")
    parameters = head.parameters or {}
    return Inference(head.id, parameters, arrays, _wanted(head.outputs, parameters, names))


def _raw(body: bytes, inputs: Sequence[TensorSpec]) -> dict[str, np.ndarray]:
    if len(inputs) > 1:
        names = ", ".join(spec.name for spec in inputs)
        raise Unparsable(f"{HEADER} is 0, and the model has the inputs {names}", "Name them in JSON that comes first.")
    (spec,) = inputs
    row = math.prod(_sides(spec)) * np.dtype(spec.dtype).itemsize
    if not body or len(body) % row:
        what = f"'{spec.name}' has {len(body)} bytes"
        raise InvalidParameter(spec.name, len(body), f"a multiple of {row}, which a row takes", what)
    array = np.frombuffer(body, _little(spec.dtype)).reshape(-1, *_sides(spec))
    _refuse_infinite(spec.name, array)
    return {spec.name: array}


def _split(body: bytes, header_length: int | None) -> tuple[InferenceRequest, memoryview]:
    """The JSON, and what follows it."""
    end = len(body) if header_length is None else header_length
    mend = f"Where bytes follow the JSON, {HEADER} says how long it is."
    if end > len(body):
        raise Unparsable(f"{HEADER} is {end}, and the body has {len(body)} bytes", mend)
    try:
        return InferenceRequest.model_validate_json(body[:end]), memoryview(body)[end:]
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        if not place:
            raise Unparsable(f"the body is no JSON object ({first['msg']})", mend) from error
        what = f"{shorten(place)}{_named(body[:end], first['loc'])}: {first['msg']}"
        raise Unparsable(what, "See /docs.") from error


def _named(text: bytes, place: tuple[int | str, ...]) -> str:
    """The name of the tensor that is wrong, where it has one."""
    try:
        name = json.loads(text)[place[0]][place[1]]["name"]
    except (ValueError, RecursionError, LookupError, TypeError):
        return ""
    return f" of '{shorten(name)}'" if isinstance(name, str) else ""


def _array(tensor: RequestInput, spec: TensorSpec, behind: memoryview) -> tuple[np.ndarray, memoryview]:
    """The tensor in its spec's shape, and what is left of the binary part."""
    name, shape, sides = spec.name, tensor.shape, _sides(spec)
    if tensor.datatype != DATATYPES[spec.dtype]:
        what = f"'{name}' has datatype {shorten(tensor.datatype)}"
        raise InvalidParameter(name, tensor.datatype, DATATYPES[spec.dtype], what)
    if not shape or shape[0] < 1 or tuple(shape[1:]) not in ({sides} if sides else {(), (1,)}):
        allowed = f"[N, {', '.join(map(str, sides))}]" if sides else "[N] or [N, 1]"
        raise InvalidParameter(name, shape, f"{allowed} of N from 1", f"'{name}' has shape {shorten(shape)}")
    count, parameters = math.prod(shape), tensor.parameters or {}
    _refuse_unknown(name, parameters, "binary_data_size")
    size = parameters.get("binary_data_size")
    if (size is None) == (tensor.data is None):
        how = "no data" if size is None else "both data and binary_data_size"
        raise InvalidParameter(name, None, "data, or binary_data_size and bytes", f"'{name}' has {how}")
    if tensor.data is not None:
        array = _from_json(tensor.data, name, np.dtype(spec.dtype), count)
    else:
        array, behind = _from_bytes(size, name, _little(spec.dtype), count, behind)
    _refuse_infinite(name, array)
    return array.reshape(shape[0], *sides), behind


def _sides(spec: TensorSpec) -> tuple[int, ...]:
    """Of a row."""
    return tuple(side for side in spec.shape[1:] if isinstance(side, int))


def _little(dtype: str) -> np.dtype[Any]:
    return np.dtype(dtype).newbyteorder("<")


def _from_bytes(
    size: Any, name: str, kind: np.dtype[Any], count: int, behind: memoryview
) -> tuple[np.ndarray, memoryview]:
    takes = count * kind.itemsize
    if type(size) is not int or size != takes:
        what = f"'{name}' has binary_data_size {shorten(size)}, and its shape takes {takes} bytes"
        raise InvalidParameter(name, size, str(takes), what)
    if takes > len(behind):
        what = f"'{name}' is cut short: {len(behind)} of its {takes} bytes follow the JSON"
        raise InvalidParameter(name, len(behind), f"{takes} bytes", what)
    return np.frombuffer(behind, kind, count), behind[takes:]


def _from_json(data: list[Any], name: str, kind: np.dtype[Any], count: int) -> np.ndarray:
    """Nested or flat, in row-major order. Integers may be written into a tensor of floats, not the reverse."""
    kinds = set(map(type, data))
    while kinds == {list}:
        data = list(chain.from_iterable(data))
        kinds = set(map(type, data))
    allowed = {int, float} if kind.kind == "f" else {int}
    if not kinds <= allowed:
        spelt = "numbers" if kind.kind == "f" else "integers"
        raise InvalidParameter(name, None, f"{spelt}, nested or flat", f"'{name}' holds what are no {spelt}")
    if len(data) != count:
        raise InvalidParameter(name, len(data), str(count), f"'{name}' has {len(data)} values, its shape takes {count}")
    try:
        with np.errstate(over="ignore"):  # whatever is beyond float32 becomes infinite, and is refused as that
            return np.array(data, np.float64 if kind.kind == "f" else kind).astype(kind)
    except OverflowError as error:
        raise InvalidParameter(name, None, f"values of {kind}", f"'{name}' holds a value beyond {kind}") from error


def _refuse_infinite(name: str, array: np.ndarray) -> None:
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return
    place = int(np.flatnonzero(~np.isfinite(array))[0])
    what = f"'{name}' holds a value that is not finite, at {place} of {array.size}"
    raise InvalidParameter(name, None, "finite numbers of float32", what)


def _refuse_unknown(name: str, parameters: Mapping[str, Any], known: str) -> None:
    refused = next((each for each in parameters if each != known), None)
    if refused is not None:
        how = "is not served" if refused in ELSEWHERE else "is unknown"
        raise InvalidParameter(name, refused, known, f"'{name}': parameter '{shorten(refused)}' {how}")


def _wanted(asked: Sequence[RequestOutput], parameters: Mapping[str, Any], names: Sequence[str]) -> dict[str, bool]:
    """Name -> whether it is sent as bytes."""
    binary = _flag(parameters, "binary_data_output", False)
    wanted = dict[str, bool]()
    for output in asked:
        if output.name not in names or output.name in wanted:
            how = "is asked for twice" if output.name in wanted else "is no output that is served"
            raise InvalidParameter("outputs", output.name, ", ".join(names), f"'{shorten(output.name)}' {how}")
        own = output.parameters or {}
        _refuse_unknown(output.name, own, "binary_data")
        wanted[output.name] = _flag(own, "binary_data", binary)
    return wanted or dict.fromkeys(names, binary)


def _flag(parameters: Mapping[str, Any], name: str, absent: bool) -> bool:
    value = parameters.get(name, absent)
    if not isinstance(value, bool):
        raise InvalidParameter(name, value, "true or false")
    return value


def write(said: Mapping[str, Any], outputs: Sequence[tuple[str, np.ndarray, bool]]) -> tuple[bytes, int | None]:
    """The answer that says so, with these outputs: (name, array, as bytes). Its body, and the length of the JSON where
    bytes follow.
    """
    written, behind = list[bytes](), list[bytes]()
    for name, array, binary in outputs:
        spec = {"name": name, "datatype": DATATYPES[array.dtype.name], "shape": array.shape}
        if binary:
            behind.append(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
            written.append(_json(spec | {"parameters": {"binary_data_size": len(behind[-1])}}))
        else:
            written.append(_json(spec)[:-1] + b',"data":[' + _values(array) + b"]}")
    body = _json(said)[:-1] + (b"," if said else b"") + b'"outputs":[' + b",".join(written) + b"]}"
    return (b"".join([body, *behind]), len(body)) if behind else (body, None)


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def _values(array: np.ndarray) -> bytes:
    """Flat, with commas. Of uint8 a table knows them all, 20 times as fast as a list of Python's integers."""
    if array.dtype == np.uint8:
        return LEVELS[array.ravel()].tobytes()[:-1]
    return json.dumps(array.ravel().tolist(), separators=(",", ":")).encode("ascii")[1:-1]
