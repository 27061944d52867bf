"""A generator's graph comes out in another precision: typed throughout, close to float32, the same bytes every time."""

import hashlib
import logging
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from export import precision
from export.graph import judge_to_graph, to_graph
from export.precision import PrecisionError, at_precision, convert, quantised
from training.config import ModelSpec
from training.judge import Judge
from training.networks import Generator

FLOAT = TensorProto.FLOAT
HALVES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
LATENT = 8
SHAPES = {"conditional": (28, 1, 3), "unconditional": (32, 3, 0), "embedded": (28, 1, 60)}  # size, channels, classes


def drawn(shape: str) -> ModelProto:
    """The graph of a generator with random weights, whose pictures use the whole range of grey levels."""
    size, channels, classes = SHAPES[shape]
    spec = ModelSpec.model_validate(
        {
            "kind": "cgan" if classes else "vae",
            "latent": LATENT,
            "size": size,
            "channels": channels,
            "class_names": [str(number) for number in range(classes)],
            "width": 8,
        }
    )
    torch.manual_seed(0)
    generator = Generator(spec)
    with torch.no_grad():
        for weight in generator.parameters():
            if weight.dim() > 1:
                torch.nn.init.normal_(weight, std=1.5 * weight[0].numel() ** -0.5)
            else:
                weight.add_(torch.randn_like(weight), alpha=0.05)
    return to_graph(generator.eval(), spec)


@pytest.fixture(scope="module")
def graphs() -> dict[str, ModelProto]:
    return {shape: drawn(shape) for shape in SHAPES}


@pytest.fixture(scope="module", params=SHAPES)
def graph(request: pytest.FixtureRequest, graphs: dict[str, ModelProto]) -> ModelProto:
    return graphs[request.param]


def latents(graph: ModelProto, count: int, seed: int = 0, scale: float = 1) -> dict[str, np.ndarray]:
    noise = np.random.default_rng(seed).standard_normal((count, LATENT))
    feed: dict[str, np.ndarray] = {"z": (scale * noise).astype(np.float32)}
    if len(graph.graph.input) == 2:
        feed["label"] = np.arange(count) % 3
    return feed


def batches(graph: ModelProto, scale: float = 1) -> list[dict[str, np.ndarray]]:
    return [latents(graph, 32, seed, scale) for seed in range(4)]


def arrays(graph: ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}


def weighted(graph: ModelProto) -> list[onnx.NodeProto]:
    return [node for node in graph.graph.node if node.op_type in ("Conv", "ConvTranspose", "Gemm")]


def pictures(graph: ModelProto, feed: dict[str, np.ndarray]) -> np.ndarray:
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    images, check = session.run(["image", "check"], feed)
    assert np.isfinite(np.asarray(check)).all()
    return np.asarray(images)


def difference(images: np.ndarray, reference: np.ndarray) -> tuple[int, float]:
    """Largest difference in grey levels, and PSNR in dB."""
    assert reference.std() > 15  # else closeness says nothing
    apart = images.astype(np.int16) - reference
    return int(np.abs(apart).max()), float(10 * np.log10(255**2 / np.square(apart, dtype=np.float64).mean()))


def types_of(graph: ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(graph, check_type=True, strict_mode=True, data_prop=True).graph
    values = [*inferred.input, *inferred.output, *inferred.value_info]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {tensor.name: tensor.data_type for tensor in inferred.initializer}


# fp16 and bf16


@pytest.mark.parametrize("name", HALVES)
def test_every_tensor_before_the_tanh_is_half_and_every_later_one_float(graph: ModelProto, name: str) -> None:
    made = convert(graph, name)
    types, half = types_of(made), HALVES[name]
    kept = {"bf16": ["ConvTranspose"]}.get(name, [])
    before = True
    for node in made.graph.node:
        before = before and node.op_type != "Tanh"
        floats = {types[tensor] for tensor in (*node.input, *node.output)} & {FLOAT, *HALVES.values()}
        if node.op_type == "Cast":
            continue
        assert len(floats) <= 1, f"{node.op_type} mixes types"
        if floats:
            assert floats == {half if before and node.op_type not in kept else FLOAT}, node.op_type
    assert {*types.values()} == {FLOAT, half, TensorProto.INT64, TensorProto.UINT8}
    used = {tensor for node in made.graph.node for tensor in node.input}
    assert {tensor.name for tensor in made.graph.initializer} <= used


@pytest.mark.parametrize("name", HALVES)
def test_inputs_outputs_and_versions_stay_and_metadata_goes(graph: ModelProto, name: str) -> None:
    marked = ModelProto()
    marked.CopyFrom(graph)
    helper.set_model_props(marked, {"built": "/home/somebody"})
    marked.graph.node[0].doc_string = "x"
    before = marked.SerializeToString()
    made = convert(marked, name)
    assert marked.SerializeToString() == before
    assert (list(made.graph.input), list(made.graph.output)) == (list(graph.graph.input), list(graph.graph.output))
    assert [(entry.domain, entry.version) for entry in made.opset_import] == [("", {"fp16": 20, "bf16": 22}[name])]
    assert (made.ir_version, made.producer_name) == (10, "limner")
    assert not made.metadata_props
    assert b"somebody" not in made.SerializeToString()


@pytest.mark.parametrize(("name", "casts"), [("fp16", 2), ("bf16", 4)])
def test_a_cast_stands_only_where_two_types_meet(graph: ModelProto, name: str, casts: int) -> None:
    """On z and before the Tanh; in bf16 also on both sides of the one transposed convolution."""
    made = convert(graph, name)
    types, makers = types_of(made), {tensor: node for node in made.graph.node for tensor in node.output}
    found = [node for node in made.graph.node if node.op_type == "Cast" and node.output[0] != "image"]
    assert [node.op_type for node in graph.graph.node].count("ConvTranspose") == 1
    assert len(found) == casts
    assert found[0].input[0] == "z"
    for node in found:
        assert types[node.input[0]] != types[node.output[0]]
        assert node.input[0] == "z" or makers[node.input[0]].op_type != "Cast"
    assert max(Counter(node.input[0] for node in found).values()) == 1


@pytest.mark.parametrize("shape", ["conditional", "unconditional"])
def test_fp16_draws_the_same_pictures(graphs: dict[str, ModelProto], shape: str) -> None:
    graph = graphs[shape]
    feed = latents(graph, 64)
    feed["z"][:3] = [[0], [6], [-6]]
    levels, psnr = difference(pictures(convert(graph, "fp16"), feed), pictures(graph, feed))
    assert (levels <= 8, psnr >= 40) == (True, True), (levels, psnr)


@pytest.mark.parametrize("name", HALVES)
def test_with_every_operation_rounded_the_pictures_are_still_the_same(graph: ModelProto, name: str) -> None:
    """ONNX Runtime's CPU computes fp16 in float32 and has no bf16; the standard's own evaluator rounds each result."""
    feed = latents(graph, 4)
    (images,) = ReferenceEvaluator(convert(graph, name)).run(["image"], feed)  # type: ignore[misc]
    levels, psnr = difference(np.asarray(images), pictures(graph, feed))
    assert (levels <= 8, psnr >= 40) == (True, True), (levels, psnr)


def enlarged(graph: ModelProto, value: float) -> ModelProto:
    made = ModelProto()
    made.CopyFrom(graph)
    name = weighted(made)[0].input[1]
    weight = next(tensor for tensor in made.graph.initializer if tensor.name == name)
    values = numpy_helper.to_array(weight).copy()
    values.flat[0] = value
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    return made


@pytest.mark.parametrize(("name", "value"), [("fp16", 7e4), ("fp16", -7e4), ("bf16", 3.4e38), ("fp16", float("nan"))])
def test_a_weight_too_large_for_the_precision_is_refused(
    graphs: dict[str, ModelProto], name: str, value: float
) -> None:
    with pytest.raises(PrecisionError, match=f"weight holds .*beyond the largest number of {name}") as refused:
        convert(enlarged(graphs["conditional"], value), name)
    assert "\n" not in str(refused.value)


def test_bf16_holds_what_fp16_cannot(graphs: dict[str, ModelProto]) -> None:
    convert(enlarged(graphs["conditional"], 7e4), "bf16")
    convert(enlarged(graphs["conditional"], 6.5e4), "fp16")


# int8


def test_int8_is_symmetric_and_per_channel_with_biases_in_float(graph: ModelProto) -> None:
    made = quantised(graph, batches(graph))
    makers = {tensor: node for node in made.graph.node for tensor in node.output}
    weights, originals = arrays(made), arrays(graph)
    first, *between, last = weighted(made)
    assert [node.op_type for node in (first, *between, last)] == ["Gemm", "ConvTranspose", "Conv", "Conv"]
    for node in (first, last):
        assert not any(makers[name].op_type == "DequantizeLinear" for name in node.input if name in makers)
    for node in between:
        value, weight, bias = node.input
        quantise = makers[makers[value].input[0]]
        assert [makers[value].op_type, quantise.op_type] == ["DequantizeLinear", "QuantizeLinear"]
        assert makers[quantise.input[0]].op_type == "Relu"
        assert weights[quantise.input[1]].shape == ()
        stored, scale, zero = (weights[name] for name in makers[weight].input)
        axis = {"Conv": 0, "ConvTranspose": 1}[node.op_type]
        assert [attribute.i for attribute in makers[weight].attribute] == [axis]
        assert (stored.dtype, scale.shape) == (np.int8, (stored.shape[axis],))
        largest = np.abs(originals[weight.removesuffix("_DequantizeLinear_Output")]).max(
            axis=tuple({0, 1, 2, 3} - {axis})
        )
        np.testing.assert_allclose(scale, largest / 127, rtol=0.01)
        assert weights[bias].dtype == np.float32
        assert not zero.any()
        assert not weights[quantise.input[2]].any()
    assert sum(node.op_type == "QuantizeLinear" for node in made.graph.node) == len(between)
    assert (list(made.graph.input), list(made.graph.output)) == (list(graph.graph.input), list(graph.graph.output))
    assert [(entry.domain, entry.version) for entry in made.opset_import] == [("", 20)]
    assert (made.ir_version, len(made.metadata_props)) == (10, 0)
    types_of(made)


@pytest.mark.parametrize("shape", ["conditional", "unconditional"])
def test_int8_draws_nearly_the_same_pictures(graphs: dict[str, ModelProto], shape: str) -> None:
    graph = graphs[shape]
    feed = latents(graph, 64, seed=99)
    _, psnr = difference(pictures(quantised(graph, batches(graph)), feed), pictures(graph, feed))
    assert 25 < psnr < 55  # fewer bits show, and do not spoil it


@pytest.mark.parametrize("scale", [1, 3])
def test_the_ranges_are_those_that_the_feeds_reach(graphs: dict[str, ModelProto], scale: float) -> None:
    graph = graphs["conditional"]
    made = quantised(graph, iter(batches(graph, scale)))
    scales = arrays(made)
    quantisers = [node for node in made.graph.node if node.op_type == "QuantizeLinear"]
    found = {node.input[0]: scales[node.input[1]] for node in quantisers}
    probed = ModelProto()
    probed.CopyFrom(graph)
    probed.graph.output.extend(helper.make_tensor_value_info(name, FLOAT, None) for name in found)
    session = onnxruntime.InferenceSession(probed.SerializeToString())
    runs = [session.run(list(found), feed) for feed in batches(graph, scale)]
    reached = [[np.asarray(value).max() for value in run] for run in runs]
    np.testing.assert_allclose(list(found.values()), np.max(reached, axis=0) / 127, rtol=0.01)


def test_quantising_says_nothing(
    graphs: dict[str, ModelProto], capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    handlers = logging.getLogger().handlers[:]
    with caplog.at_level(logging.WARNING):
        quantised(graphs["conditional"], batches(graphs["conditional"]))
    assert (capfd.readouterr(), caplog.records) == (("", ""), [])
    assert logging.getLogger().handlers == handlers


# files


@pytest.mark.parametrize("name", ["fp16", "bf16", "int8"])
def test_the_same_file_gives_the_same_bytes_in_every_process(
    graphs: dict[str, ModelProto], tmp_path: Path, name: str
) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(graphs["unconditional"], path)

    def digest() -> str:
        return hashlib.sha256(at_precision(path, name, lambda: feeds)).hexdigest()

    feeds = batches(graphs["unconditional"])
    first = digest()
    assert digest() == first
    if name == "int8":  # the quantiser works with sets of names, whose order differs from process to process
        np.savez(tmp_path / "feeds.npz", *(feed["z"] for feed in feeds))
        script = (
            "import sys, hashlib, pathlib, numpy; from export.precision import at_precision;"
            "feeds = [{'z': z} for z in numpy.load(sys.argv[2]).values()];"
            "print(hashlib.sha256(at_precision(pathlib.Path(sys.argv[1]), 'int8', lambda: feeds)).hexdigest())"
        )
        arguments = [sys.executable, "-c", script, str(path), str(tmp_path / "feeds.npz")]
        home = Path(precision.__file__).parents[1]
        for seed in ("1", "2"):
            environment = os.environ | {"PYTHONHASHSEED": seed}
            again = subprocess.run(arguments, env=environment, cwd=home, capture_output=True, text=True, check=True)
            assert again.stdout.strip() == first


def test_only_int8_asks_for_feeds(graphs: dict[str, ModelProto], tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(graphs["conditional"], path)

    def feeds() -> list[dict[str, np.ndarray]]:
        raise AssertionError("asked")

    assert onnx.load_from_string(at_precision(path, "fp16", feeds)) == convert(graphs["conditional"], "fp16")
    with pytest.raises(AssertionError, match="asked"):
        at_precision(path, "int8", feeds)


# refusals


def damaged(graph: ModelProto) -> ModelProto:
    made = ModelProto()
    made.CopyFrom(graph)
    made.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.zeros(3, np.int64), made.graph.initializer[0].name))
    return made


REFUSED: dict[str, Callable[[ModelProto], ModelProto]] = {
    "not float32 throughout": lambda graph: convert(graph, "fp16"),
    "not float32": lambda graph: quantised(graph, batches(graph)),
    "not one of limner's generators": lambda _: judge_to_graph(Judge(28, 1, 3).eval()),
    "not one of": lambda _: ModelProto(),
    "types in the graph do not fit": damaged,
}


@pytest.mark.parametrize("complaint", REFUSED)
def test_what_is_not_a_float32_generator_is_refused_in_one_line(graphs: dict[str, ModelProto], complaint: str) -> None:
    graph = REFUSED[complaint](graphs["conditional"])
    for attempt in (lambda: convert(graph, "bf16"), lambda: quantised(graph, [])):
        with pytest.raises(PrecisionError, match=complaint) as refused:
            attempt()
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", [None, b"PNG and so on"])
def test_a_file_that_is_no_graph_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PrecisionError, match=r"model\.onnx is no ONNX graph that can be read"):
        at_precision(path, "fp16", list)


@pytest.mark.parametrize("name", ["fp32", "fp8"])
def test_a_precision_that_needs_no_conversion_or_has_none_is_refused(graphs: dict[str, ModelProto], name: str) -> None:
    with pytest.raises(PrecisionError, match=f"converted to '{name}'.*fp16, bf16 and int8"):
        convert(graphs["conditional"], name)
