"""On a GPU: plans of each TensorRT that is installed give ONNX Runtime's pictures, and so does CUDA."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, TensorProto, helper

from export.engines import NonFinite, obstacle, open_engine
from export.engines.flavours import FLAVOURS
from export.graph import to_graph
from export.invariance import invariant_buckets, probe
from export.precision import convert
from export.tensorrt.build import Plan, build
from training.config import ModelSpec
from training.networks import Generator

pytestmark = pytest.mark.gpu

BUCKETS = (1, 2, 4, 8, 16, 32, 64)
LATENT, CLASSES = 16, 3
SHAPES = {"cgan": (28, 1, ("a", "b", "c")), "vae": (32, 3, ())}
Latents = tuple[np.ndarray, np.ndarray | None]


@pytest.fixture(params=list(FLAVOURS))
def engine(request: pytest.FixtureRequest) -> str:
    missing = obstacle(request.param, "fp32")
    if missing is not None:
        pytest.skip(f"{request.param}: {missing}")
    return request.param


@pytest.fixture(params=list(SHAPES))
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def generator(kind: str) -> ModelProto:
    size, channels, class_names = SHAPES[kind]
    torch.manual_seed(0)
    spec = ModelSpec.model_validate(
        {"kind": kind, "latent": LATENT, "size": size, "channels": channels, "class_names": class_names, "width": 32}
    )
    return to_graph(Generator(spec).eval(), spec)


def with_nan_in_the_last_class(model: ModelProto) -> ModelProto:
    """Adds a number of its class to what goes into the Tanh: zero, and of the last class NaN."""
    [tanh] = [node for node in model.graph.node if node.op_type == "Tanh"]
    tints = [0.0] * (CLASSES - 1) + [float("nan")]
    model.graph.initializer.append(helper.make_tensor("tints", TensorProto.FLOAT, [CLASSES, 1, 1, 1], tints))
    place = list(model.graph.node).index(tanh)
    model.graph.node.insert(place, helper.make_node("Gather", ["tints", "label"], ["tint"]))
    model.graph.node.insert(place + 1, helper.make_node("Add", [tanh.input[0], "tint"], ["tinted"]))
    tanh.input[0] = "tinted"
    onnx.checker.check_model(model)
    return model


@pytest.fixture
def graph(tmp_path: Path) -> Callable[[ModelProto], Path]:
    def write(model: ModelProto) -> Path:
        onnx.save(model, tmp_path / "model.onnx")
        return tmp_path / "model.onnx"

    return write


def built(graph: Path, engine: str, precision: str = "fp32") -> tuple[Path, Plan]:
    plan = build(graph, "0" * 64, engine, precision, BUCKETS)
    path = graph.with_name(plan.file)
    path.write_bytes(plan.data)
    return path, plan


def latents(kind: str, count: int) -> Latents:
    return probe(count, LATENT, CLASSES if kind == "cgan" else 0)


def pictures(engine: str, path: Path, given: Latents, buckets: tuple[int, ...] = ()) -> np.ndarray:
    with closing(open_engine(engine, "fp32", path, buckets)) as opened:
        return opened.run(*given)


def levels(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(one.astype(int) - other.astype(int)).max())


def test_each_bucket_gives_the_pictures_of_onnx_runtime(
    engine: str, kind: str, graph: Callable[[ModelProto], Path]
) -> None:
    file = graph(generator(kind))
    path, plan = built(file, engine)
    with closing(open_engine(engine, "fp32", path, BUCKETS, requirements=plan.requirements)) as opened:
        assert opened.describe()["cuda_graphs"] == ", ".join(map(str, BUCKETS))
        for count in (*BUCKETS, 3, 63):
            given = latents(kind, count)
            images = opened.run(*given)
            assert images.shape == (count, *SHAPES[kind][:1] * 2, SHAPES[kind][1])
            assert levels(images, pictures("onnxruntime", file, given)) <= 1


def test_a_cuda_graph_gives_what_plain_calls_give(engine: str, kind: str, graph: Callable[[ModelProto], Path]) -> None:
    path, _ = built(graph(generator(kind)), engine)
    for count in (1, 8, 64):
        given = latents(kind, count)
        assert np.array_equal(pictures(engine, path, given, (count,)), pictures(engine, path, given))


def test_a_picture_stays_the_same_from_batch_to_batch_and_from_opening_to_opening(
    engine: str, kind: str, graph: Callable[[ModelProto], Path]
) -> None:
    path, _ = built(graph(generator(kind)), engine)
    given = latents(kind, 16)
    with closing(open_engine(engine, "fp32", path, (16, 64))) as opened:
        first = opened.run(*given)
        for _ in range(50):
            assert np.array_equal(opened.run(*given), first)
    assert np.array_equal(pictures(engine, path, given, (16, 64)), first)


def test_some_buckets_leave_each_row_alone(engine: str, kind: str, graph: Callable[[ModelProto], Path]) -> None:
    path, _ = built(graph(generator(kind)), engine)
    with closing(open_engine(engine, "fp32", path, BUCKETS)) as opened:
        assert invariant_buckets(opened, *latents(kind, 64))


def test_fp16_is_near_fp32(engine: str, kind: str, graph: Callable[[ModelProto], Path]) -> None:
    file = graph(generator(kind))
    given = latents(kind, 64)
    expected = pictures("onnxruntime", file, given)
    onnx.save(convert(generator(kind), "fp16"), file)
    path, _ = built(file, engine, "fp16")
    assert levels(pictures(engine, path, given, (64,)), expected) <= 8


def test_rows_that_are_not_finite_are_named_and_the_others_given(
    engine: str, graph: Callable[[ModelProto], Path]
) -> None:
    file = graph(with_nan_in_the_last_class(generator("cgan")))
    path, _ = built(file, engine)
    z, label = latents("cgan", 7)
    assert label is not None
    bad = np.flatnonzero(label == CLASSES - 1)
    with closing(open_engine(engine, "fp32", path, BUCKETS)) as opened, pytest.raises(NonFinite) as caught:
        opened.run(z, label)
    assert caught.value.rows == bad.tolist()
    good = np.flatnonzero(label != CLASSES - 1)
    assert levels(caught.value.images[good], pictures("onnxruntime", file, (z[good], label[good]))) <= 1


def test_two_engines_share_the_gpu_and_close_in_any_order(engine: str, graph: Callable[[ModelProto], Path]) -> None:
    path, _ = built(graph(generator("vae")), engine)
    given = latents("vae", 4)
    first, second = (open_engine(engine, "fp32", path, (1, 4)) for _ in range(2))
    expected = first.run(*given)
    first.close()
    assert np.array_equal(second.run(*given), expected)
    second.close()
    second.close()


@pytest.fixture
def _onnxruntime_cuda() -> None:
    missing = obstacle("onnxruntime-cuda", "fp32")
    if missing is not None:
        pytest.skip(str(missing))


@pytest.mark.usefixtures("_onnxruntime_cuda")
def test_onnx_runtime_on_cuda_draws_the_same_picture_again_also_when_opened_again(
    kind: str, graph: Callable[[ModelProto], Path]
) -> None:
    file, given = graph(generator(kind)), latents(kind, 16)
    with closing(open_engine("onnxruntime-cuda", "fp32", file, (16, 64))) as opened:
        first = opened.run(*given)
        for _ in range(50):
            assert np.array_equal(opened.run(*given), first)
    assert np.array_equal(pictures("onnxruntime-cuda", file, given, (16, 64)), first)


@pytest.mark.usefixtures("_onnxruntime_cuda")
def test_onnx_runtime_on_cuda_gives_the_pictures_of_the_cpu(kind: str, graph: Callable[[ModelProto], Path]) -> None:
    file = graph(generator(kind))
    for count in (1, 5, 64):
        given = latents(kind, count)
        images = pictures("onnxruntime-cuda", file, given, BUCKETS)
        assert levels(images, pictures("onnxruntime", file, given)) <= 1
