"""Features that somebody brings: pictures reach them as levels of their size; their distance has its own protocol."""

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from export.engines import EngineError
from export.features import Features, inception_fid
from training.evaluation.metrics import fid


def network(path: Path, shape: list[str | int], kind: int = TensorProto.FLOAT) -> Path:
    """The mean of each channel, of a graph with such an input."""
    image = helper.make_tensor_value_info("image", kind, shape)
    mean = helper.make_tensor_value_info("mean", kind, ["N", 3, 1, 1])
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3])
    node = helper.make_node("ReduceMean", ["image", "axes"], ["mean"])
    graph = helper.make_graph([node], "features", [image], [mean], [axes])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def colours(count: int, seed: int) -> np.ndarray:
    """Pictures of one colour each."""
    levels = np.random.default_rng(seed).integers(0, 256, (count, 1, 1, 3), dtype=np.uint8)
    return levels.repeat(8, 1).repeat(8, 2)


@pytest.mark.parametrize("side", [16, "H"])
def test_a_network_sees_levels_of_its_own_size(tmp_path: Path, side: str | int) -> None:
    shape = ["N", 3, side, side if isinstance(side, int) else "W"]
    features = Features(network(tmp_path / "net.onnx", shape))
    images = colours(70, 1)
    assert features.look(images) == pytest.approx(images[:, 0, 0].astype(float), abs=0.01)


def test_grey_is_repeated_to_three_channels(tmp_path: Path) -> None:
    features = Features(network(tmp_path / "net.onnx", ["N", 3, 12, 12]))
    grey = np.full((2, 28, 28, 1), 77, np.uint8)
    assert features.look(grey) == pytest.approx(np.full((2, 3), 77.0))


def test_the_distance_says_which_features_and_how_many_pictures(tmp_path: Path) -> None:
    path = network(tmp_path / "net.onnx", ["N", 3, 8, 8])
    drawn, real, told = colours(50, 1), colours(60, 2), list[float]()
    found = inception_fid(Features(path), drawn, real, lambda stage, fraction: told.append(fraction))
    expected = fid(drawn[:, 0, 0].astype(float), real[:, 0, 0].astype(float))
    assert found["fid"] == pytest.approx(expected, rel=1e-4)
    assert (found["samples"], found["reference"], found["features"]) == (50, 60, "net.onnx")
    assert found["features_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert told == sorted(told)
    assert told[0] == 0


def test_another_file_is_refused_with_what_is_needed(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no graph")
    grey = network(tmp_path / "grey.onnx", ["N", 1, 8, 8])
    counts = network(tmp_path / "counts.onnx", ["N", 3, 8, 8], TensorProto.INT64)
    for path, what in (
        (tmp_path / "text.onnx", r"ONNX Runtime cannot load .*text\.onnx"),
        (tmp_path / "missing.onnx", r"ONNX Runtime cannot load .*missing\.onnx"),
        (grey, r"grey\.onnx has an input tensor\(float\) \['N', 1, 8, 8\]"),
        (network(tmp_path / "one.onnx", [1, 3, 8, 8]), r"one\.onnx has an input tensor\(float\) \[1, 3, 8, 8\]"),
        (counts, r"counts\.onnx has an input tensor\(int64\) .*"),
    ):
        with pytest.raises(EngineError, match=rf"{what}\. A feature network has one input, float32 \[N, 3, H, W\]"):
            Features(path)


def test_features_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 8, 8])
    found = helper.make_tensor_value_info("found", TensorProto.FLOAT, ["N", 3, 8, 8])
    nodes = [
        helper.make_node("Sub", ["image", "image"], ["zero"]),
        helper.make_node("Div", ["zero", "zero"], ["found"]),
    ]
    graph = helper.make_graph(nodes, "features", [image], [found])
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), tmp_path / "nan.onnx")
    with pytest.raises(EngineError, match="the features brought are not finite"):
        Features(tmp_path / "nan.onnx").look(colours(3, 1))
