"""A fault planted in a real graph is refused by the gate that is there for it, on a real ONNX Runtime."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from export.bundle import Gates
from export.engines import open_engine
from export.gates import findings, hold
from export.graph import to_graph
from export.invariance import BUCKETS
from export.original import Original
from export.precision import convert
from training.config import TrainConfig
from training.data import Dataset, Images
from training.loop import train
from training.run import RunFolder
from training.run_subject import run_subject
from training.sampling import load_generator

CLASSES = ("high", "middle", "low")
FAULTY = 1  # the class that a fault of one class is planted in


def bars(count: int) -> Images:
    """Pictures of a bright bar whose height tells its class; its place, length and brightness vary within that."""
    noise = np.random.Generator(np.random.Philox(key=5))
    images, labels = noise.integers(0, 30, (count, 28, 28, 1), np.uint8), np.arange(count) % len(CLASSES)
    for image, label, (x, y), light in zip(
        images, labels, noise.integers(0, (6, 2), (count, 2)), noise.integers(120, 220, count), strict=True
    ):
        top = 2 + 8 * label + y
        image[top : top + 6, 2 + x : 18 + x] += np.uint8(light)
    return Images(images, labels.astype(np.int64))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CVAE that draws bars, with a prior and a judge that knows them."""
    home, whole = tmp_path_factory.mktemp("faults"), bars(900)
    training, val, test = (whole.take(rows) for rows in np.split(np.arange(900), [600, 750]))
    config = TrainConfig(
        model="cvae", out=home / "bars", epochs=6, batch=16, width=4, latent=6, device="cpu",
        evaluate_every=10**6,  # once, at the end
    )  # fmt: skip
    train(config, Dataset("bars", training, val, test, CLASSES), cache=home / "judges")
    return config.out


@pytest.fixture(scope="module")
def original(run: Path) -> Original:
    subject = run_subject(run)
    return Original("torch", subject.model, subject.judge, subject.reference)


@pytest.fixture(scope="module")
def sound(run: Path) -> ModelProto:
    generator, spec, _ = load_generator(RunFolder(run).exported_checkpoint())
    return to_graph(generator, spec)


Held = Callable[..., tuple[Gates, tuple[int, ...]]]


@pytest.fixture
def held(original: Original, sound: ModelProto, tmp_path: Path) -> Held:
    """`held(fault)`: the gates of a copy of the sound graph into which `fault` was planted."""

    def planted(fault: Callable[[ModelProto], ModelProto | None], precision: str = "fp32") -> tuple:
        graph = ModelProto()
        graph.CopyFrom(sound)
        graph = fault(graph) or graph
        onnx.checker.check_model(graph, full_check=True)
        onnx.save(graph, tmp_path / "model.onnx")
        with closing(open_engine("onnxruntime", precision, tmp_path / "model.onnx", BUCKETS, threads=1)) as engine:
            return hold(engine, original, precision)

    return planted


def layers(graph: ModelProto) -> Iterator[TensorProto]:
    """The weights of each layer, from the first to the last."""
    weights = {tensor.name: tensor for tensor in graph.graph.initializer}
    for node in graph.graph.node:
        if node.op_type in ("Gemm", "MatMul", "Conv", "ConvTranspose"):
            yield weights[node.input[1]]


def rewrite(tensor: TensorProto, change: Callable[[np.ndarray], np.ndarray]) -> None:
    array = change(numpy_helper.to_array(tensor)).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def insert(graph: ModelProto, tensor: str, nodes: list[NodeProto]) -> None:
    """Send `tensor` through nodes, whose last output is "planted", on its way to everything that reads it."""
    for node in graph.graph.node:
        node.input[:] = ["planted" if name == tensor else name for name in node.input]
    made = [index for index, node in enumerate(graph.graph.node) if tensor in node.output]
    for place, node in enumerate(nodes, made[0] + 1 if made else 0):
        graph.graph.node.insert(place, node)


def constant(graph: ModelProto, name: str, value: np.ndarray) -> str:
    graph.graph.initializer.append(numpy_helper.from_array(value, name))
    return name


def of_class(graph: ModelProto, rank: int) -> list[NodeProto]:
    """Nodes whose last output, "chosen", is true for the rows of the faulty class: bool [N, 1, ...]."""
    constant(graph, "faulty", np.array(FAULTY, np.int64))
    axes = constant(graph, "axes", np.arange(1, rank, dtype=np.int64))
    return [
        helper.make_node("Equal", ["label", "faulty"], ["equal"]),
        helper.make_node("Unsqueeze", ["equal", axes], ["chosen"]),
    ]


# sound


def test_the_sound_graph_passes_every_gate_and_draws_what_the_judge_knows(held: Held) -> None:
    found, buckets = held(lambda graph: None)
    assert (found.failed, buckets) == ((), BUCKETS)
    assert found.parity.max_levels <= 1
    assert found.drift is not None
    assert found.drift.samples == 1_000
    assert findings(found, buckets) == []


def test_the_original_is_good_enough_to_lose_something(original: Original) -> None:
    sight = original.sight
    assert (sight.logits.argmax(1) == sight.classes).mean() > 0.9
    assert all(sight.features[sight.classes == label].var(axis=0).sum() > 0 for label in range(3))


def test_the_same_graph_in_fp16_passes_the_limits_of_fewer_bits(held: Held) -> None:
    found, buckets = held(lambda graph: convert(graph, "fp16"), "fp16")
    assert (found.failed, buckets) == ((), BUCKETS)
    assert found.parity.psnr_db is not None
    assert found.parity.psnr_db > 50


# faults


@pytest.mark.parametrize("layer", [0, 1, -1])
def test_a_flipped_sign_in_a_layer_is_refused_by_parity_and_seen_by_the_judge(held: Held, layer: int) -> None:
    found, buckets = held(lambda graph: rewrite(list(layers(graph))[layer], np.negative))
    assert (found.failed, buckets) == (("parity", "drift"), BUCKETS)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_weights_of_3_bits_are_refused_by_parity_and_seen_by_the_judge(held: Held, precision: str) -> None:
    def fault(graph: ModelProto) -> None:
        for tensor in layers(graph):
            step = float(np.abs(numpy_helper.to_array(tensor)).max()) / 3  # -3 ... 3
            rewrite(tensor, lambda weights, step=step: np.round(weights / step) * step)

    found, buckets = held(fault, precision)
    assert (found.failed, buckets) == (("parity", "drift"), BUCKETS)
    assert found.parity.psnr_db is not None
    assert found.parity.psnr_db < 40


def mixing(share: float) -> Callable[[ModelProto], None]:
    """A row's latent takes a share of the mean of its batch."""

    def fault(graph: ModelProto) -> None:
        part = constant(graph, "part", np.array(share, np.float32))
        axis = constant(graph, "axis", np.array([0], np.int64))
        nodes = [
            helper.make_node("ReduceMean", ["z", axis], ["mean"], keepdims=1),
            helper.make_node("Mul", ["mean", part], ["mixed"]),
            helper.make_node("Add", ["z", "mixed"], ["planted"]),
        ]
        insert(graph, "z", nodes)

    return fault


def test_a_graph_that_mixes_rows_is_refused_by_batch_invariance(held: Held) -> None:
    found, buckets = held(mixing(-1.0))
    assert "batch invariance" in found.failed
    assert buckets == (1,)


def test_rows_that_are_mixed_too_little_for_any_other_gate_are_refused_all_the_same(held: Held) -> None:
    found, buckets = held(mixing(2e-4))
    assert (found.failed, buckets) == (("batch invariance",), (1,))


def test_nan_for_one_class_is_refused_as_not_finite_and_spoils_no_other_class(held: Held) -> None:
    def fault(graph: ModelProto) -> None:
        image = next(node.input[0] for node in graph.graph.node if "check" in node.output)
        constant(graph, "nan", np.array(np.nan, np.float32))
        insert(graph, image, [*of_class(graph, 4), helper.make_node("Where", ["chosen", "nan", image], ["planted"])])

    found, buckets = held(fault)
    assert (found.failed, buckets) == (("finite",), BUCKETS)
    assert found.drift is not None
    assert found.not_finite == (1_024 + 3 * 3) - found.parity.pictures + 1_000 - found.drift.samples
    assert found.not_finite == pytest.approx((1_033 + 1_000) / 3, abs=30)


def test_a_class_that_collapsed_to_one_picture_is_refused_by_parity_and_by_drift_of_its_variance(held: Held) -> None:
    def fault(graph: ModelProto) -> None:
        constant(graph, "one", np.full((1, 6), 0.1, np.float32))
        insert(graph, "z", [*of_class(graph, 2), helper.make_node("Where", ["chosen", "one", "z"], ["planted"])])

    found, buckets = held(fault)
    assert (found.failed, buckets) == (("parity", "drift"), BUCKETS)
    assert found.drift is not None
    assert found.drift.figures["class_variance"] < -0.5
    assert any(row[1].startswith("class variance -") for row in findings(found, buckets))
