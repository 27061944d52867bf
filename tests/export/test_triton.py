"""config.pbtxt is what Triton's schema and rules allow, and says what the manifest and the graph say."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from export.bundle import Bundle, BundleError, Manifest
from export.engines import EngineError
from export.graph import to_graph
from export.triton import _quoted, config, edited, write
from training.config import ModelSpec
from training.networks import Generator

Config = Any  # of Triton's generated ModelConfig, which has no types
DTYPES = {"TYPE_FP32": np.float32, "TYPE_INT64": np.int64, "TYPE_UINT8": np.uint8}
GATES = {
    "parity": {"reference": "torch", "pictures": 1024, "max_levels": 0, "allowed_levels": 1, "most_levels": 1},
    "not_finite": 0,
}
LATENT = 8


def artifact(engine: str, precision: str = "fp32", file: str = "model.onnx", **other: Any) -> dict[str, Any]:
    """One that passed its gates, or with `buckets` empty was never tried."""
    buckets = other.pop("buckets", (1, 2, 4, 8))
    outcome = {"gates": GATES} if buckets else {"not_run": {"why": "no GPU", "command": "limner export"}}
    described = {"engine": engine, "precision": precision, "file": file, "sha256": "a" * 64, "buckets": buckets}
    return described | outcome | other


def plan(capability: str, precision: str = "fp32", buckets: tuple[int, ...] = (), **other: Any) -> dict[str, Any]:
    requirements = {"version": "10.16.0", "compute_capability": capability} | other
    file = f"model.sm{capability.replace('.', '').replace(', ', '-sm')}.trt10.16.0.{precision}.plan"
    return artifact("tensorrt", precision, file, requirements=requirements, buckets=buckets)


def manifest(*artifacts: dict[str, Any], **other: Any) -> Manifest:
    described = {
        "schema": 2,
        "name": "digits",
        "version": 3,
        "kind": "cgan",
        "latent": LATENT,
        "height": 28,
        "width": 28,
        "channels": 1,
        "class_names": ["a", "b", "c"],
        "inputs": [
            {"name": "z", "dtype": "float32", "shape": ["N", LATENT]},
            {"name": "label", "dtype": "int64", "shape": ["N"]},
        ],
        "outputs": [
            {"name": "image", "dtype": "uint8", "shape": ["N", 28, 28, 1]},
            {"name": "check", "dtype": "float32", "shape": ["N"]},
        ],
        "opset": 20,
        "source": {
            "run": "run", "checkpoint_sha256": "c" * 64, "data": "mnist-5k", "images_seen": 640, "code_version": "1",
        },
        "artifacts": artifacts or [artifact("onnxruntime")],
    }  # fmt: skip
    return Manifest.model_validate(described | other)


UNCONDITIONAL: dict[str, Any] = {
    "kind": "gan",
    "height": 32,
    "width": 32,
    "channels": 3,
    "class_names": [],
    "inputs": [{"name": "z", "dtype": "float32", "shape": ["N", LATENT]}],
    "outputs": [
        {"name": "image", "dtype": "uint8", "shape": ["N", 32, 32, 3]},
        {"name": "check", "dtype": "float32", "shape": ["N"]},
    ],
}


def read(text: str) -> Config:
    """As Triton reads it: its schema, then the rules of its `ValidateModelConfig` that the schema does not know."""
    made: Config = text_format.Parse(text, model_config_pb2.ModelConfig())  # type: ignore[attr-defined]
    assert made.name
    assert made.backend in ("onnxruntime", "tensorrt")
    assert made.platform == {"onnxruntime": "", "tensorrt": "tensorrt_plan"}[made.backend]
    assert made.max_batch_size >= 1
    assert all(0 < size <= made.max_batch_size for size in made.dynamic_batching.preferred_batch_size)
    for tensor in (*made.input, *made.output):
        assert tensor.dims, "the empty shape is not allowed"
        assert min(tensor.dims) > 0
        if tensor.HasField("reshape"):
            assert math.prod(tensor.reshape.shape) == math.prod(tensor.dims)
    for group in made.instance_group:
        assert not group.gpus
        assert not group.profile
    inputs = {tensor.name: tensor for tensor in made.input}
    for warm_up in made.model_warmup:
        assert warm_up.name
        assert 1 <= warm_up.batch_size <= made.max_batch_size
        assert set(warm_up.inputs) == set(inputs)
        for name, given in warm_up.inputs.items():
            assert given.WhichOneof("input_data_type") == "zero_data"  # random bytes are no latents and no classes
            assert (given.data_type, list(given.dims)) == (inputs[name].data_type, list(inputs[name].dims))
    assert all(re.fullmatch(r"\d+\.\d+", capability) for capability in made.cc_model_filenames)
    return made


def type_of(tensor: Config) -> str:
    return model_config_pb2.DataType.Name(tensor.data_type)  # type: ignore[attr-defined]


def kinds(made: Config) -> list[tuple[str, int]]:
    return [(type(group).Kind.Name(group.kind), group.count) for group in made.instance_group]


# onnxruntime


@pytest.mark.parametrize("other", [{}, UNCONDITIONAL])
def test_every_field_is_what_the_manifest_says(other: dict[str, Any]) -> None:
    described = manifest(**other)
    made = read(config(described))
    assert (made.name, made.backend, made.default_model_filename) == ("digits", "onnxruntime", "model.onnx")
    assert (made.max_batch_size, list(made.dynamic_batching.preferred_batch_size)) == (8, [2, 4, 8])
    assert 0 < made.dynamic_batching.max_queue_delay_microseconds <= 5000
    for specs, tensors in ((described.inputs, made.input), (described.outputs, made.output)):
        assert [tensor.name for tensor in tensors] == [spec.name for spec in specs]
        for spec, tensor in zip(specs, tensors, strict=True):
            assert np.dtype(DTYPES[type_of(tensor)]).name == spec.dtype
            assert tuple(tensor.dims) == (spec.shape[1:] or (1,))
            assert tensor.HasField("reshape") == (len(spec.shape) == 1)
            assert list(tensor.reshape.shape) == []
    assert [warm_up.batch_size for warm_up in made.model_warmup] == [1, 2, 4, 8]
    assert kinds(made) == [("KIND_AUTO", 1)]
    assert made.version_policy.latest.num_versions == 1
    assert made.parameters["limner"].string_value == f"digits@3 onnxruntime:fp32 sha256 {'a' * 64}"
    assert not made.cc_model_filenames


@pytest.mark.parametrize("size", [28, 32])
def test_a_batch_shaped_as_it_says_runs_through_the_graph(size: int) -> None:
    """What Triton does: rows of `dims` are put together, and `reshape` takes the place of `dims`, there and back."""
    classes = ("a", "b", "c") if size == 28 else ()
    kind, channels = ("cgan", 1) if classes else ("gan", 3)
    shape = {"latent": LATENT, "size": size, "channels": channels, "class_names": classes, "width": 4}
    spec = ModelSpec.model_validate({"kind": kind} | shape)
    torch.manual_seed(0)
    graph = to_graph(Generator(spec).eval(), spec)
    made = read(config(manifest(**({} if classes else UNCONDITIONAL))))

    def full(tensor: Config, batch: int) -> tuple[int, ...]:
        return (batch, *(tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims))

    sides = [("N", *full(tensor, 1)[1:]) for tensor in (*made.input, *made.output)]
    of_graph = [value.type.tensor_type for value in (*graph.graph.input, *graph.graph.output)]
    assert sides == [("N", *(side.dim_value for side in each.shape.dim[1:])) for each in of_graph]
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    for warm_up in made.model_warmup:
        batch = warm_up.batch_size
        feed = {tensor.name: np.zeros(full(tensor, batch), DTYPES[type_of(tensor)]) for tensor in made.input}
        outputs = session.run([tensor.name for tensor in made.output], feed)
        for tensor, output in zip(made.output, outputs, strict=True):
            output = np.asarray(output)
            assert output.dtype == DTYPES[type_of(tensor)]
            assert output.reshape(batch, *tensor.dims).shape == (batch, *tensor.dims)
            assert output.shape == full(tensor, batch)


def test_another_graph_is_named_and_pins_the_version_that_has_it() -> None:
    half = artifact("onnxruntime", "fp16", "model.fp16.onnx", buckets=(1, 2), sha256="b" * 64)
    described = manifest(artifact("onnxruntime"), artifact("openvino", "fp16"), half)
    made = read(config(described, "onnxruntime", "fp16"))
    assert (made.default_model_filename, made.max_batch_size) == ("model.fp16.onnx", 2)
    assert list(made.version_policy.specific.versions) == [3]
    assert made.parameters["limner"].string_value.startswith("digits@3 onnxruntime:fp16 sha256 bbb")
    assert read(config(described)).default_model_filename == "model.onnx"


def test_a_single_bucket_is_not_batched() -> None:
    made = read(config(manifest(artifact("onnxruntime", buckets=(1,)))))
    assert (made.max_batch_size, made.HasField("dynamic_batching")) == (1, False)


# tensorrt


def test_each_gpu_gets_its_plan() -> None:
    others = [artifact("onnxruntime"), artifact("tensorrt-rtx", "fp32", "model.rtx.plan", buckets=())]
    made = read(config(manifest(*others, plan("8.9"), plan("8.0, 8.6"), plan("9.0", "fp16")), "tensorrt"))
    assert (made.backend, made.platform) == ("tensorrt", "tensorrt_plan")
    assert dict(made.cc_model_filenames) == {
        "8.9": "model.sm89.trt10.16.0.fp32.plan",
        "8.0": "model.sm80-sm86.trt10.16.0.fp32.plan",
        "8.6": "model.sm80-sm86.trt10.16.0.fp32.plan",
    }
    assert made.default_model_filename == "model.sm89.trt10.16.0.fp32.plan"
    assert list(made.version_policy.specific.versions) == [3]  # the next version may have no plan of that name
    assert kinds(made) == [("KIND_GPU", 1)]
    assert made.max_batch_size == 64  # the profile that plans are built for, since nothing was tried


def test_a_plan_that_all_gpus_run_is_the_default() -> None:
    made = read(config(manifest(plan("8.9"), plan("8.6", compatible="version, compute_capability")), "tensorrt"))
    assert made.default_model_filename == "model.sm86.trt10.16.0.fp32.plan"


def test_only_sizes_that_every_tried_plan_serves_are_batched() -> None:
    made = read(
        config(manifest(plan("8.9", buckets=(1, 2, 4)), plan("9.0", buckets=(1, 4, 8)), plan("8.6")), "tensorrt")
    )
    assert [warm_up.batch_size for warm_up in made.model_warmup] == [1, 4]


@pytest.mark.parametrize(("precision", "expected"), [(None, "int8"), ("fp16", "fp16"), ("int8", "int8")])
def test_a_plan_that_failed_a_gate_is_taken_only_if_asked_for(precision: str | None, expected: str) -> None:
    failed = plan("8.9", "fp16", (1, 2)) | {"gates": GATES | {"failed": ["parity"]}}
    made = read(config(manifest(failed, plan("8.9", "int8", (1, 2))), "tensorrt", precision))
    assert made.default_model_filename == f"model.sm89.trt10.16.0.{expected}.plan"


@pytest.mark.parametrize(
    ("backend", "precision", "complaint"),
    [
        ("tensorrt", None, r"digits@3 has no tensorrt artifact\. Make it first: limner export BUNDLE --to tensorrt\."),
        ("tensorrt", "fp16", r"no tensorrt artifact at fp16\. .* --to tensorrt --precision fp16\."),
        ("onnxruntime", "int8", r"no onnxruntime artifact at int8\. .* --to onnx --precision int8\."),
        ("tensorrt-rtx", None, "no Triton backend 'tensorrt-rtx'"),
    ],
)
def test_what_the_bundle_has_not_is_refused_in_one_line(backend: str, precision: str | None, complaint: str) -> None:
    described = manifest(artifact("onnxruntime"), artifact("tensorrt-rtx", "fp32", "model.rtx.plan", buckets=()))
    with pytest.raises(EngineError, match=complaint) as refused:
        config(described, backend, precision)
    assert "\n" not in str(refused.value)


# text and file


@pytest.mark.parametrize("name", ['a "quoted" name', "back\\slash", "ß 字 🙂", "line\nbreak\ttab", "\x01\x7f", "8"])
def test_special_characters_come_back_as_they_were(name: str) -> None:
    made = read(config(manifest(artifact("onnxruntime", file=name))))
    assert made.default_model_filename == name
    assert _quoted(name).isascii()


@pytest.fixture
def bundle(tmp_path: Path) -> Callable[..., Bundle]:
    """Of the manifest alone: nothing else is read."""

    def make(*artifacts: dict[str, Any]) -> Bundle:
        folder = tmp_path / "digits" / "3"
        folder.mkdir(parents=True, exist_ok=True)
        return Bundle(folder, manifest(*artifacts), "d" * 64)

    return make


def test_it_is_written_beside_the_versions_and_by_the_backend_that_is_named(bundle: Callable[..., Bundle]) -> None:
    made = bundle(artifact("onnxruntime"), plan("8.9"))
    path = made.folder.parent / "config.pbtxt"
    assert write(made) == path
    assert path.read_text() == config(made.manifest)
    assert write(made, "tensorrt") == path
    assert path.read_text() == config(made.manifest, "tensorrt")
    assert write(made, "onnxruntime") == path
    assert path.read_text() == config(made.manifest)
    assert sorted(each.name for each in path.parent.iterdir()) == ["3", "config.pbtxt"]


def of_version(made: Bundle, version: int, **change: Any) -> Bundle:
    """Another version beside it, of which this is different."""
    folder = made.folder.with_name(str(version))
    folder.mkdir()
    return Bundle(folder, made.manifest.model_copy(update={"version": version} | change), "e" * 64)


def test_the_newest_version_s_takes_the_place_of_an_older_one_s(bundle: Callable[..., Bundle]) -> None:
    made = bundle(artifact("onnxruntime"))
    path = made.folder.parent / "config.pbtxt"
    write(made)
    newer = of_version(made, 4, inputs=made.manifest.inputs[:1])
    assert write(newer) == path
    assert "label" not in path.read_text()
    assert write(made) is None  # extended later
    assert path.read_text() == config(newer.manifest)
    assert write(made, "onnxruntime") == path
    assert "version_policy { specific { versions: [ 3 ] } }" in path.read_text()


@pytest.mark.parametrize("change", [lambda text: text.replace("1000", "2000"), lambda text: "mine", lambda text: ""])
def test_what_was_changed_by_hand_stays(bundle: Callable[..., Bundle], change: Callable[[str], str]) -> None:
    made = bundle(artifact("onnxruntime"))
    path = made.folder.parent / "config.pbtxt"
    write(made)
    assert not edited(made)
    mine = change(path.read_text())
    path.write_text(mine)
    assert write(of_version(made, 4)) is None
    assert edited(made)
    assert path.read_text() == mine


def test_what_names_plans_of_a_version_stays_until_another_has_plans(bundle: Callable[..., Bundle]) -> None:
    made = bundle(artifact("onnxruntime"), plan("8.9"))
    path = made.folder.parent / "config.pbtxt"
    write(made, "tensorrt")
    assert write(of_version(made, 4)) is None
    assert not edited(made)
    assert path.read_text() == config(made.manifest, "tensorrt")


def test_a_folder_that_is_not_called_as_its_version_gets_none(bundle: Callable[..., Bundle]) -> None:
    made = bundle(artifact("onnxruntime"))
    moved = Bundle(made.folder.rename(made.folder.with_name("copy")), made.manifest, made.digest)
    assert write(moved) is None
    with pytest.raises(EngineError, match=r"reads MODELS/NAME/VERSION.*is called copy\. Call it 3"):
        write(moved, "onnxruntime")
    assert [each.name for each in moved.folder.parent.iterdir()] == ["copy"]


def test_a_refusal_leaves_the_file_as_it_was(bundle: Callable[..., Bundle]) -> None:
    path = bundle().folder.parent / "config.pbtxt"
    write(bundle())
    before = path.read_bytes()
    with pytest.raises(EngineError, match="no tensorrt artifact"):
        write(bundle(), "tensorrt")
    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_written_is_refused(bundle: Callable[..., Bundle]) -> None:
    made = bundle()
    (made.folder.parent / "config.pbtxt").mkdir()
    with pytest.raises(BundleError, match=r"cannot write .*digits"):
        write(made, "onnxruntime")
