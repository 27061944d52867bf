"""ONNX Runtime runs a graph in its buckets and says which rows are not finite."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from export.engines import EngineError, NonFinite, open_engine, padded

BUCKETS = (1, 4, 8)


def write_graph(path: Path, conditional: bool) -> Path:
    """image [N, 2, 2, 1] = z + N (+ label), so that a picture tells the size of its batch; check = the mean of z."""
    inputs = [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 4])]
    nodes = [
        helper.make_node("Shape", ["z"], ["rows"], start=0, end=1),
        helper.make_node("Cast", ["rows"], ["batch"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["z", "batch"], ["sum"]),
        helper.make_node("ReduceMean", ["z", "axis"], ["check"], keepdims=0),
    ]
    if conditional:
        inputs += [helper.make_tensor_value_info("label", TensorProto.INT64, ["N"])]
        nodes += [
            helper.make_node("Cast", ["label"], ["flat"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["flat", "axis"], ["column"]),
            helper.make_node("Add", ["sum", "column"], ["labelled"]),
        ]
    nodes += [
        helper.make_node("Reshape", ["labelled" if conditional else "sum", "shape"], ["pixels"]),
        helper.make_node("Cast", ["pixels"], ["image"], to=TensorProto.UINT8),
    ]
    outputs = [
        helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 2, 2, 1]),
        helper.make_tensor_value_info("check", TensorProto.FLOAT, ["N"]),
    ]
    constants = [
        helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
        helper.make_tensor("shape", TensorProto.INT64, [4], [-1, 2, 2, 1]),
    ]
    graph = helper.make_graph(nodes, "rows", inputs, outputs, constants)
    onnx.save(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)]), path)
    return path


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return write_graph(tmp_path / "plain.onnx", conditional=False)


@pytest.fixture
def conditional(tmp_path: Path) -> Path:
    return write_graph(tmp_path / "conditional.onnx", conditional=True)


def latents(count: int) -> np.ndarray:
    return np.arange(4 * count, dtype=np.float32).reshape(count, 4)


@pytest.mark.parametrize(("count", "bucket"), [(1, 1), (2, 4), (3, 4), (4, 4), (5, 8), (8, 8)])
def test_a_batch_runs_in_the_next_bucket_and_comes_back_in_its_own_size(plain: Path, count: int, bucket: int) -> None:
    images = open_engine("onnxruntime", "fp32", plain, BUCKETS).run(latents(count), None)
    assert (images.shape, images.dtype) == ((count, 2, 2, 1), np.uint8)
    assert np.array_equal(images.reshape(count, 4), latents(count) + bucket)


def test_without_buckets_a_batch_runs_as_it_comes(plain: Path) -> None:
    images = open_engine("onnxruntime", "fp32", plain).run(latents(3), None)
    assert np.array_equal(images.reshape(3, 4), latents(3) + 3)


def test_labels_are_padded_with_their_latents(conditional: Path) -> None:
    images = open_engine("onnxruntime", "fp32", conditional, BUCKETS).run(latents(3), np.array([10, 20, 30]))
    assert np.array_equal(images.reshape(3, 4), latents(3) + 4 + [[10], [20], [30]])


def test_a_conditional_graph_needs_labels(conditional: Path) -> None:
    with pytest.raises(EngineError, match="without labels"):
        open_engine("onnxruntime", "fp32", conditional).run(latents(3), None)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rows", [[0], [2, 4], [4]])  # the last row is the one that fills the bucket
def test_rows_that_are_not_finite_are_named_and_the_others_given(plain: Path, value: float, rows: list[int]) -> None:
    z = latents(5)
    z[rows, 1] = value
    with pytest.raises(NonFinite) as caught:
        open_engine("onnxruntime", "fp32", plain, BUCKETS).run(z, None)
    good = [row for row in range(5) if row not in rows]
    assert caught.value.rows == rows
    assert caught.value.images.shape == (5, 2, 2, 1)
    assert np.array_equal(caught.value.images.reshape(5, 4)[good], latents(5)[good] + 8)


@pytest.mark.parametrize("content", [None, b"", b"no graph"], ids=["missing", "empty", "corrupt"])
def test_a_file_that_is_no_graph_is_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(EngineError, match=r"cannot load .*model\.onnx"):
        open_engine("onnxruntime", "fp32", tmp_path / "model.onnx")


def test_a_graph_that_is_cut_off_is_refused(plain: Path) -> None:
    plain.write_bytes(plain.read_bytes()[:-20])
    with pytest.raises(EngineError, match="cannot load"):
        open_engine("onnxruntime", "fp32", plain)


def test_a_batch_that_fails_is_an_engine_error(plain: Path) -> None:
    engine = open_engine("onnxruntime", "fp32", plain)
    with pytest.raises(EngineError, match="failed on a batch") as caught:
        engine.run(np.zeros((3, 5), np.float32), None)
    assert caught.value.__cause__ is not None
    assert not isinstance(caught.value, NonFinite)
    engine.run(latents(1), None)  # and the next batch runs


def test_an_unknown_engine_is_refused(plain: Path) -> None:
    with pytest.raises(EngineError, match="no engine 'tensorrt'"):
        open_engine("tensorrt", "fp16", plain)


def test_an_engine_says_what_its_pixels_depend_on(plain: Path) -> None:
    engine = open_engine("onnxruntime", "fp16", plain)
    told = engine.describe()
    assert (told["engine"], told["precision"], told["version"]) == ("onnxruntime", "fp16", onnxruntime.__version__)
    assert told["device"].startswith("cpu-")
    assert engine.artifact == "-".join(told[part] for part in ("engine", "precision", "version", "device"))


@pytest.mark.parametrize(
    ("count", "buckets", "expected"),
    [(3, (1, 4), [0, 1, 2, 2]), (3, (2, 8), [0, 1, 2, 2, 2, 2, 2, 2]), (4, (1, 4), [0, 1, 2, 3]), (3, (), [0, 1, 2])],
)
def test_padding_repeats_the_last_row(count: int, buckets: tuple[int, ...], expected: list[int]) -> None:
    assert padded(np.arange(count), buckets).tolist() == expected
