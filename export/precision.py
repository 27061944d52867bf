"""A float32 graph in, the same graph in another precision out: fp16 or bf16, or int8 where calibration says how.

Inputs and outputs keep their types, and everything from the Tanh on is float32, so that what becomes a pixel is rounded
once. The graphs are strongly typed: no operation mixes types, and a Cast stands where two types meet.
"""

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from export.engines.session import onnxruntime
from training.errors import LimnerError

HALVES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
OPSETS = {"bf16": 22}  # the first in which Conv and ConvTranspose take bfloat16
KEPT = {
    "bf16": {"ConvTranspose"}
}  # TensorRT-RTX 1.7 builds none in bfloat16: it stays float32, with a Cast on each side
QUANTISED = ["Conv", "ConvTranspose"]  # but the last: with it and the Gemm, an eighth of the work, 4-6 dB are lost
PREPARED = ("onnx.quant.pre_process", "onnxruntime.quant")  # the mark without which the quantiser warns
FLOAT = TensorProto.FLOAT

Feeds = Iterable[dict[str, np.ndarray]]


class PrecisionError(LimnerError):
    """A graph cannot be had in a precision."""

    code = "precision"


def at_precision(graph: Path, precision: str, feeds: Callable[[], Feeds]) -> bytes:
    """The file of limner's float32 graph -> the bytes of its fp16, bf16 or int8 form, the same at every call.

    `feeds` is called for int8 alone: see `quantised`. Raises PrecisionError.
    """
    try:
        model = onnx.load(graph)
    except (OSError, DecodeError) as error:
        raise PrecisionError(f"{graph} is no ONNX graph that can be read", _NAME) from error
    made = quantised(model, feeds()) if precision == "int8" else convert(model, precision)
    return made.SerializeToString(deterministic=True)


def convert(model: ModelProto, precision: str) -> ModelProto:
    """limner's float32 graph -> the same graph in "fp16" (opset 20) or "bf16" (opset 22).

    Raises PrecisionError for another precision, another graph, and a weight beyond the largest number of `precision`.
    """
    if precision not in HALVES:
        raise PrecisionError(f"no graph is converted to '{precision}'", f"There is {', '.join(HALVES)} and int8.")
    types, graph, half = _types(model), model.graph, HALVES[precision]
    low = _before_tanh(model, KEPT.get(precision, set()))
    weights = {tensor.name: tensor for tensor in graph.initializer}
    used, nodes = dict[str, TensorProto](), dict[str, NodeProto]()
    for node in graph.node:
        typed = NodeProto()
        typed.CopyFrom(node)
        wanted = half if node.output[0] in low else FLOAT
        for place, name in enumerate(node.input):
            has = half if name in low else FLOAT
            if types.get(name) == FLOAT and has != wanted:
                typed.input[place] = f"{name}_{precision if wanted == half else 'fp32'}"
            new = typed.input[place]
            if name in weights:
                used[new] = weights[name] if new == name else _narrowed(weights[name], new, precision)
            elif new != name:
                nodes[new] = helper.make_node("Cast", [name], [new], name=f"cast_{new}", to=wanted)
        nodes[node.output[0]] = typed
    return _finished(model, nodes.values(), used.values(), OPSETS.get(precision))


def quantised(model: ModelProto, feeds: Feeds) -> ModelProto:
    """limner's float32 graph -> int8 weights and activations in QDQ form, symmetric, weights per channel.

    `feeds`: batches of latents (float32 [N, latent]) and labels (int64 [N]) by input name; the ranges are those they
    reach, and what exceeds them is cut off. Raises PrecisionError for another graph.
    """
    _types(model)
    onnxruntime()  # one line where it is missing
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        batches = iter(feeds)

        def get_next(self) -> dict[str, np.ndarray] | None:  # type: ignore[override]
            return next(self.batches, None)

    marked = ModelProto()
    marked.CopyFrom(model)
    helper.set_model_props(marked, dict([PREPARED]))
    last = [node.name for node in model.graph.node if node.op_type in QUANTISED][-1]
    with tempfile.TemporaryDirectory(prefix="limner-") as folder:
        path = Path(folder) / "int8.onnx"
        quantize_static(
            marked,
            path,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=QUANTISED,
            nodes_to_exclude=[last],
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "QuantizeBias": False,
                "OpTypesToExcludeOutputQuantization": QUANTISED,
            },
        )
        made = onnx.load(path)
    return _finished(model, made.graph.node, made.graph.initializer)


_NAME = "Name the model.onnx of a bundle, or export again."


def _types(model: ModelProto) -> dict[str, int]:
    """The type of each tensor by name. Raises PrecisionError for what is not limner's float32 graph."""
    names = [[value.name for value in values] for values in (model.graph.input, model.graph.output)]
    operations = [node.op_type for node in model.graph.node]
    if (
        names not in ([["z"], ["image", "check"]], [["z", "label"], ["image", "check"]])
        or operations.count("Tanh") != 1
        or any(node.domain for node in model.graph.node)
    ):
        raise PrecisionError("the graph is not one of limner's generators", _NAME)
    try:
        graph = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    except onnx.shape_inference.InferenceError as error:
        raise PrecisionError("the types in the graph do not fit together", _NAME) from error
    values = [*graph.input, *graph.output, *graph.value_info]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    if not {*types.values()} <= {FLOAT, TensorProto.INT64, TensorProto.UINT8}:
        raise PrecisionError("the graph is not float32 throughout", _NAME)
    return types


def _before_tanh(model: ModelProto, kept: set[str]) -> set[str]:
    """The tensors that the Tanh depends on, less the outputs of the `kept` operations."""
    found, wanted = set[str](), set[str]()
    for node in reversed(model.graph.node):
        if node.op_type == "Tanh" or wanted & {*node.output}:
            wanted.update(node.input)
            if node.op_type != "Tanh" and node.op_type not in kept:
                found.update(node.output)
    return found


def _narrowed(weight: TensorProto, name: str, precision: str) -> TensorProto:
    values = numpy_helper.to_array(weight)
    with np.errstate(over="ignore"):
        narrow = values.astype(helper.tensor_dtype_to_np_dtype(HALVES[precision]))
    if not np.isfinite(narrow.astype(np.float32)).all():
        what = f"{weight.name} holds {np.abs(values).max():.3g}, beyond the largest number of {precision}"
        raise PrecisionError(what, "Take another precision.")
    return numpy_helper.from_array(narrow, name)


def _finished(
    model: ModelProto, nodes: Iterable[NodeProto], weights: Iterable[TensorProto], opset: int | None = None
) -> ModelProto:
    """A graph with the inputs, outputs and versions of `model`, and nothing in it but what runs."""
    graph = helper.make_graph(list(nodes), model.graph.name, model.graph.input, model.graph.output, list(weights))
    opsets = [helper.make_opsetid("", opset or model.opset_import[0].version)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=model.ir_version, producer_name="limner")
    onnx.checker.check_model(made, full_check=True)
    return made
