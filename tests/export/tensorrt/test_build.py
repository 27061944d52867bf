"""Graphs become plans by the real builder of TensorRT-RTX, without a GPU; what cannot be built is one line.

No plan runs here: `make test-gpu` is for that. TensorRT itself is met only where it is not there.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, helper

from export.engines import EngineError
from export.engines.cuda import Device
from export.engines.flavours import FLAVOURS, Flavour, load, logger, misfit
from export.graph import to_graph
from export.precision import convert, quantised
from export.tensorrt import build as builder
from export.tensorrt import network, timing_cache
from export.tensorrt.build import Options, Plan, build
from export.tensorrt.network import Build, configured, parsed, profile_over, serialized
from export.tensorrt.progress import monitor_for
from training.config import ModelSpec
from training.networks import Generator

BUCKETS = (1, 2, 4, 8, 16, 32, 64)
SOURCE = "5" * 64
FULL, RTX = FLAVOURS["tensorrt"], FLAVOURS["tensorrt-rtx"]
SHAPES = {"cgan": (28, 1, ("a", "b", "c")), "vae": (32, 3, ())}
trt = load(RTX)
version = trt.__version__
release = ".".join(version.split(".")[:3])


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also on a machine that has one: these tests are of the build that needs none."""
    monkeypatch.setattr(builder, "no_device", lambda: EngineError("no NVIDIA driver is installed"))


def on_a_gpu(monkeypatch: pytest.MonkeyPatch, capability: str) -> None:
    """What the driver would say; the plan's layers are not read."""
    monkeypatch.setattr(builder, "no_device", lambda: None)
    monkeypatch.setattr(builder, "devices", lambda: (Device(0, "GPU", capability),))
    monkeypatch.setattr(builder, "layers", lambda *about: "{}")
    monkeypatch.setattr(builder, "obstacle", lambda *about: None)


def graph(kind: str) -> ModelProto:
    size, channels, class_names = SHAPES[kind]
    torch.manual_seed(0)
    spec = ModelSpec.model_validate(
        {"kind": kind, "latent": 8, "size": size, "channels": channels, "class_names": class_names, "width": 4}
    )
    return to_graph(Generator(spec).eval(), spec)


def at(precision: str, model: ModelProto) -> ModelProto:
    if precision != "int8":
        return convert(model, precision)
    draw = np.random.default_rng(0)
    feed: dict[str, np.ndarray] = {"z": draw.standard_normal((16, 8), np.float32)}
    if len(model.graph.input) > 1:
        feed["label"] = draw.integers(0, 3, 16)
    return quantised(model, [feed])


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`graphs("cgan", "fp16")`: an ONNX file, made once."""
    home = tmp_path_factory.mktemp("graphs")

    def make(kind: str = "vae", precision: str = "fp32") -> Path:
        path = home / f"{kind}.{precision}.onnx"
        if not path.exists():
            onnx.save(graph(kind) if precision == "fp32" else at(precision, onnx.load(make(kind))), path)
        return path

    return make


Graphs = Callable[..., Path]


def of(path: Path, *targets: str) -> Build:
    return Build(path.read_bytes(), str(path), (1, 32, 64), targets or ("8.9",))


def rtx(path: Path, precision: str = "fp32", compute_capability: str | None = None) -> Plan:
    return build(path, SOURCE, "tensorrt-rtx", precision, BUCKETS, Options(compute_capability))


def malformed(plan: bytes) -> bool:
    """What TensorRT-RTX says of a plan's header, which is all that it reads here: a GPU it asks for later."""
    _, reasons = trt.Runtime(logger(RTX)).get_engine_validity(plan)
    logger(RTX).take()
    return bool(reasons & trt.EngineInvalidityDiagnostics.MALFORMED_ENGINE.value)


def test_what_is_no_plan_is_malformed() -> None:
    assert malformed(b"no plan " * 100)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
@pytest.mark.parametrize("kind", SHAPES)
def test_a_graph_of_each_precision_becomes_a_plan(graphs: Graphs, kind: str, precision: str) -> None:
    plan = rtx(graphs(kind, precision), precision)
    assert not malformed(plan.data)
    assert plan.file == f"model.sm86-sm89-sm120.rtx{release}.{precision}.plan"
    assert plan.requirements == {
        "version": version,
        "compute_capability": "8.6, 8.9, 12.0",
        "onnx_sha256": SOURCE,
        "profile": "1-32-64",
    }
    assert plan.layers is None


@pytest.mark.parametrize(
    ("precision", "inside"), [("fp32", None), ("fp16", "HALF"), ("bf16", "BF16"), ("int8", "INT8")]
)
@pytest.mark.parametrize("kind", SHAPES)
def test_the_network_has_the_precision_inside_and_the_contract_outside(
    graphs: Graphs, kind: str, precision: str, inside: str | None
) -> None:
    """Of what the builder is given: a plan cannot be opened without a GPU."""
    builder = trt.Builder(logger(RTX))
    network, _parser = parsed(RTX, builder, of(graphs(kind, precision)))
    assert network.get_flag(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    size, channels, class_names = SHAPES[kind]
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    label = [("label", "INT64", (-1,))] if class_names else []
    assert [(tensor.name, tensor.dtype.name, tuple(tensor.shape)) for tensor in [*inputs, *outputs]] == [
        ("z", "FLOAT", (-1, 8)),
        *label,
        ("image", "UINT8", (-1, size, size, channels)),
        ("check", "FLOAT", (-1,)),
    ]
    made = [network.get_layer(index).get_output(0).dtype.name for index in range(network.num_layers)]
    assert {"HALF", "BF16", "INT8"} & set(made) == {inside} - {None}


def test_one_profile_spans_the_buckets_of_every_input(graphs: Graphs) -> None:
    builder = trt.Builder(logger(RTX))
    network, _parser = parsed(RTX, builder, of(graphs("cgan")))
    profile = profile_over(builder, network, (1, 32, 64))
    assert profile.get_shape("z") == [(1, 8), (32, 8), (64, 8)]
    assert profile.get_shape("label") == [(1,), (32,), (64,)]


@pytest.mark.parametrize(
    ("buckets", "profile"),
    [((1,), "1-1-1"), ((8,), "8-8-8"), ((1, 2, 3), "1-1-3"), ((1, 4, 64), "1-4-64"), (BUCKETS, "1-32-64")],
)
def test_the_profile_is_tuned_for_half_of_the_largest_bucket(
    graphs: Graphs, buckets: tuple[int, ...], profile: str
) -> None:
    assert build(graphs(), SOURCE, "tensorrt-rtx", "fp32", buckets).requirements["profile"] == profile


def test_fp32_is_not_tf32_and_a_nan_stays_one(graphs: Graphs) -> None:
    config = configured(RTX, trt.Builder(logger(RTX)), of(graphs(), "8.6", "12.0"))
    assert not config.get_flag(trt.BuilderFlag.TF32)
    assert config.get_flag(trt.BuilderFlag.STRICT_NANS)
    assert config.profiling_verbosity == trt.ProfilingVerbosity.DETAILED
    targets = [config.get_compute_capability(index).name for index in range(config.num_compute_capabilities)]
    assert targets == ["SM86", "SM120"]


def test_named_compute_capabilities_are_built_for(graphs: Graphs) -> None:
    plan = rtx(graphs(), compute_capability="12.0,8.9, 8.9")
    assert plan.requirements["compute_capability"] == "8.9, 12.0"
    assert plan.file == f"model.sm89-sm120.rtx{release}.fp32.plan"
    assert rtx(graphs("vae", "fp16"), "fp16", compute_capability="7.5").file.startswith("model.sm75.")


def test_with_a_gpu_the_plan_is_for_it(graphs: Graphs, monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_gpu(monkeypatch, "8.9")
    plan = rtx(graphs())
    assert plan.requirements["compute_capability"] == "8.9"
    assert plan.layers == "{}"
    assert rtx(graphs(), compute_capability="8.6").layers is None  # which this GPU cannot load


def refused(work: Callable[[], Any]) -> str:
    """The one line."""
    with pytest.raises(EngineError) as caught:
        work()
    line = str(caught.value)
    assert "\n" not in line
    assert caught.value.mend
    return line


def test_a_compute_capability_that_rtx_has_not_is_refused(graphs: Graphs, monkeypatch: pytest.MonkeyPatch) -> None:
    line = refused(lambda: rtx(graphs(), compute_capability="8.9, 9.0"))
    assert line.startswith("TensorRT-RTX does not build for compute capability 9.0 here. ")
    assert "7.5, 8.0, 8.6, 8.9, 12.0, 12.1" in line
    on_a_gpu(monkeypatch, "9.0")
    assert refused(lambda: rtx(graphs())) == line


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_a_precision_that_a_compute_capability_has_not_is_refused(graphs: Graphs, precision: str) -> None:
    """And so it is by the builder, whose words would be of its own passes."""
    path = graphs("vae", precision)
    line = refused(lambda: rtx(path, precision, compute_capability="7.5"))
    assert line.startswith(f"TensorRT-RTX has no {precision} for compute capability 7.5. ")
    words = refused(lambda: serialized(RTX, of(path, "7.5"), lambda stage, share: None))
    assert "SM75" in words.upper()


@pytest.mark.parametrize("options", [Options(version_compatible=True), Options(hardware_compatible=True)])
def test_rtx_has_no_compatible_plans(graphs: Graphs, options: Options) -> None:
    line = refused(lambda: build(graphs(), SOURCE, "tensorrt-rtx", "fp32", BUCKETS, options))
    assert line.startswith("TensorRT-RTX has no version-compatible and no hardware-compatible plans. ")


def test_rtx_has_no_timing_cache(graphs: Graphs, tmp_path: Path) -> None:
    options = Options(timing_cache=tmp_path)
    line = refused(lambda: build(graphs(), SOURCE, "tensorrt-rtx", "fp32", BUCKETS, options))
    assert line.startswith("TensorRT-RTX has no timing cache. ")


@pytest.mark.parametrize("content", [b"", b"hello", None])
def test_a_file_that_is_no_graph_is_refused(graphs: Graphs, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(graphs().read_bytes()[:1000] if content is None else content)
    line = refused(lambda: rtx(path))
    assert str(path) in line
    assert line.endswith("Export the run again.")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert refused(lambda: rtx(tmp_path / "none.onnx")).startswith(f"cannot read {tmp_path / 'none.onnx'} (No such")


def test_an_operator_that_there_is_not_is_named(graphs: Graphs, tmp_path: Path) -> None:
    model = onnx.load(graphs())
    node = next(node for node in model.graph.node if node.op_type == "Tanh")
    node.op_type, node.name = "Tanhh", "the_last"
    onnx.save(model, tmp_path / "model.onnx")
    assert "Tanhh the_last: " in refused(lambda: rtx(tmp_path / "model.onnx"))


def test_a_graph_that_is_no_generator_is_refused(tmp_path: Path) -> None:
    z, out = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 8]) for name in ("z", "out"))
    graph = helper.make_graph([helper.make_node("Tanh", ["z"], ["out"])], "other", [z], [out])
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, ir_version=10, opset_imports=opset), tmp_path / "model.onnx")
    assert "is not the graph of a generator" in refused(lambda: rtx(tmp_path / "model.onnx"))


def test_nothing_is_printed(graphs: Graphs, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rtx(graphs())
    (tmp_path / "model.onnx").write_bytes(b"hello")
    refused(lambda: rtx(tmp_path / "model.onnx"))
    assert capfd.readouterr() == ("", "")


def test_progress_rises_to_the_end(graphs: Graphs) -> None:
    heard: list[tuple[str, float]] = []
    build(graphs(), SOURCE, "tensorrt-rtx", "fp32", BUCKETS, observe=lambda *step: heard.append(step))
    shares = [share for _, share in heard]
    assert len(set(shares)) > 5
    assert shares == sorted(shares)
    assert shares[0] < 0.5
    assert shares[-1] == 1
    assert all(stage for stage, _ in heard)


def test_nested_phases_are_shares_of_the_step_they_are_in() -> None:
    heard: list[float] = []
    monitor = monitor_for(trt, lambda stage, share: heard.append(share))
    monitor.phase_start("all", None, 2)
    monitor.phase_start("first", "all", 4)
    assert all(monitor.step_complete("first", step) for step in range(4))
    monitor.phase_finish("first")
    assert monitor.step_complete("all", 0)
    monitor.phase_start("second", "all", 1)
    assert monitor.step_complete("second", 0)
    assert heard == [0.125, 0.25, 0.375, 0.5, 0.5, 1]


def test_ctrl_c_ends_the_build(graphs: Graphs) -> None:
    heard: list[float] = []

    def observe(stage: str, share: float) -> None:
        heard.append(share)
        if len(heard) == 1:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)  # the other thread must hear it before the next step, in a build this short

    with pytest.raises(KeyboardInterrupt):
        build(graphs(), SOURCE, "tensorrt-rtx", "fp32", BUCKETS, observe=observe)
    assert len(heard) < 5
    assert rtx(graphs()).data  # and the next build is not disturbed


def test_a_target_that_the_builder_misses_is_tried_once_more(graphs: Graphs, monkeypatch: pytest.MonkeyPatch) -> None:
    missed = EngineError(
        "TensorRT-RTX could not build it: Myelin (Target SM 89 is not found in the accelerator list.)", "Mend."
    )
    once, faults = network._once, [missed]

    def faulty(*given: Any) -> bytes:
        if faults:
            raise faults.pop()
        return once(*given)

    monkeypatch.setattr(network, "_once", faulty)
    assert rtx(graphs()).data
    faults += [missed, missed]
    assert "accelerator list" in refused(lambda: rtx(graphs()))
    faults[:] = [missed, EngineError("another fault", "Mend.")]
    assert refused(lambda: rtx(graphs())) == "another fault. Mend."
    assert faults == [missed]  # not tried again


def test_an_error_of_the_observer_ends_the_build_and_comes_out(graphs: Graphs) -> None:
    def observe(stage: str, share: float) -> None:
        raise BrokenPipeError("the terminal is gone")

    with pytest.raises(BrokenPipeError, match="the terminal is gone"):
        build(graphs(), SOURCE, "tensorrt-rtx", "fp32", BUCKETS, observe=observe)


@pytest.mark.parametrize("engine", ["tensorrt", "tensorrt-rtx"])
def test_a_library_that_is_not_installed_is_named_with_its_extra(
    graphs: Graphs, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flavour = FLAVOURS[engine]
    monkeypatch.delitem(sys.modules, flavour.module, raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    on_a_gpu(monkeypatch, "8.9")
    line = refused(lambda: build(graphs(), SOURCE, engine, "fp32", BUCKETS))
    assert line == f"{flavour.module} is not installed. In limner's folder: pip install '.[{engine}]'."


STUBS = {
    "raise RuntimeError('a stub:\\nno libraries')": "TensorRT does not load (a stub: no libraries). ",
    "raise ImportError('libnvinfer.so.10: cannot open')": "TensorRT does not load (libnvinfer.so.10: cannot open). ",
    "raise OSError('libcudart')": "TensorRT does not load (libcudart). ",
    "import tensorrt_libs_": "TensorRT does not load (No module named 'tensorrt_libs_'). ",
    "__version__ = '10.9.0.34'": "TensorRT 10.9.0.34 is installed, not >=10.16,<12. ",
    "__version__ = '12.0.0.1'": "TensorRT 12.0.0.1 is installed, not >=10.16,<12. ",
    "": "TensorRT without a version is installed, not >=10.16,<12. ",
}


@pytest.mark.parametrize("stub", STUBS)
def test_a_library_that_does_not_load_or_is_of_another_version_is_one_line(
    graphs: Graphs, stub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tensorrt.py").write_text(stub)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    on_a_gpu(monkeypatch, "8.9")
    line = refused(lambda: build(graphs(), SOURCE, "tensorrt", "fp32", BUCKETS))
    assert line == STUBS[stub] + "In limner's folder: pip install '.[tensorrt]'."


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT-RTX's module under the name of TensorRT: the same classes and functions, as far as they are used."""
    module = ModuleType("tensorrt")
    vars(module).update(vars(trt) | {"__version__": "11.4.0.106"})
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.setattr(network, "logger", lambda flavour: logger(RTX))  # a process keeps the first of a module


def tensorrt_plan(path: Path, **options: Any) -> Plan:
    return build(path, SOURCE, "tensorrt", "fp32", BUCKETS, Options(**options))


def test_tensorrt_without_a_gpu_points_to_rtx(graphs: Graphs) -> None:
    """Before it says that it is not installed: to install gigabytes would mend nothing."""
    line = refused(lambda: tensorrt_plan(graphs()))
    assert line.startswith("TensorRT builds on the GPU that the plan is for, and no NVIDIA driver is installed. ")
    assert "--to tensorrt-rtx" in line


@pytest.mark.usefixtures("tensorrt")
def test_tensorrt_builds_only_for_the_gpu_that_is_there(graphs: Graphs, monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_gpu(monkeypatch, "9.0")
    line = refused(lambda: tensorrt_plan(graphs(), compute_capability="8.6"))
    assert line.startswith("TensorRT does not build for compute capability 8.6 here. ")


@pytest.mark.usefixtures("tensorrt")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # TensorRT-RTX has timing caches, which do nothing
def test_the_code_for_tensorrt_runs_on_the_objects_of_rtx(
    graphs: Graphs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_gpu(monkeypatch, "9.0")
    plan = tensorrt_plan(graphs(), timing_cache=tmp_path, hardware_compatible=True)
    assert plan.file == "model.sm90.trt11.4.0.fp32.any-capability.plan"
    assert plan.requirements["compatible"] == "compute_capability"
    assert plan.layers == "{}"
    assert timing_cache.read(tmp_path / "11.4.0.106-sm90.timings")


@pytest.mark.usefixtures("tensorrt")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_build_that_fails_says_what_the_builder_says(
    graphs: Graphs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked for a plan that brings its runtime, the builder misses the file of that runtime."""
    on_a_gpu(monkeypatch, "9.0")
    line = refused(lambda: tensorrt_plan(graphs(), timing_cache=tmp_path, version_compatible=True))
    assert line.startswith(f"TensorRT could not build {graphs()}: ")
    assert "Unable to load library" in line
    assert ".cpp" not in line


def test_a_builder_that_gives_nothing_is_one_line(graphs: Graphs, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the bindings say that CUDA cannot be used: no network, or no builder at all."""
    idle = SimpleNamespace(create_network=lambda flags: None)
    line = refused(lambda: parsed(RTX, idle, of(graphs())))
    assert line.startswith("TensorRT-RTX does not start (")

    def nothing(log: Any) -> None:
        raise TypeError("pybind11::init(): factory function returned nullptr")

    module = SimpleNamespace(Builder=nothing, IProgressMonitor=trt.IProgressMonitor)
    monkeypatch.setattr(network, "load", lambda flavour: module)
    assert refused(lambda: serialized(RTX, of(graphs()), lambda stage, share: None)) == line


class Settings:
    """A builder and its configuration that only remember."""

    def __init__(self) -> None:
        self.flags = set[str]()

    def create_builder_config(self) -> "Settings":
        return self

    def set_flag(self, flag: Any) -> None:
        self.flags.add(flag.name)

    def clear_flag(self, flag: Any) -> None:
        self.flags.discard(flag.name)


@pytest.mark.usefixtures("tensorrt")
def test_the_switches_of_tensorrt_reach_its_configuration(graphs: Graphs) -> None:
    """TensorRT-RTX takes the second without a word and does nothing."""
    plain = configured(FULL, Settings(), of(graphs()))
    wide = configured(FULL, Settings(), replace(of(graphs()), version_compatible=True, hardware_compatible=True))
    assert plain.flags == {"STRICT_NANS"}
    assert plain.hardware_compatibility_level == trt.HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY
    assert wide.flags == {"STRICT_NANS", "VERSION_COMPATIBLE"}
    assert wide.hardware_compatibility_level == trt.HardwareCompatibilityLevel.AMPERE_PLUS
    assert not hasattr(wide, "num_compute_capabilities")


def test_a_runtime_that_does_not_start_costs_the_layers_and_not_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(log: Any) -> None:
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(network, "load", lambda flavour: SimpleNamespace(Runtime=nothing))
    assert network.layers(RTX, b"plan", False) is None


@pytest.mark.parametrize(("taken", "asked"), [([b"kept"], [b"kept"]), ([b""], [b"kept", b""]), ([], [b"kept", b""])])
def test_timings_that_are_not_taken_are_measured_anew(taken: list[bytes], asked: list[bytes], tmp_path: Path) -> None:
    """Of another GPU of the same capability, say. TensorRT gives None, or refuses what it gave."""
    heard: list[bytes] = []

    class Config:
        def create_timing_cache(self, known: bytes) -> bytes | None:
            heard.append(known)
            return known

        def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
            return not ignore_mismatch and cache in taken

    timing_cache.write(tmp_path / "timings", b"kept")
    cache = network._attach(Config(), tmp_path / "timings")
    assert heard == asked
    assert cache == (taken[0] if taken else None)


@pytest.mark.parametrize("loads", [True, False])
@pytest.mark.parametrize("wide", [True, False])
def test_the_layers_are_the_inspector_s_json_where_the_plan_loads(
    loads: bool, wide: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a stand-in: the real one needs a GPU."""
    inspector = SimpleNamespace(get_engine_information=lambda form: f"[{form.name}]")
    engine = SimpleNamespace(create_engine_inspector=lambda: inspector)
    opened = SimpleNamespace(
        engine_host_code_allowed=False, deserialize_cuda_engine=lambda plan: engine if loads else None
    )
    stand_in = SimpleNamespace(Runtime=lambda log: opened, LayerInformationFormat=trt.LayerInformationFormat)
    monkeypatch.setattr(network, "load", lambda flavour: stand_in)
    monkeypatch.setattr(network, "logger", lambda flavour: None)
    assert network.layers(FULL, b"plan", wide) == ("[JSON]" if loads else None)
    assert opened.engine_host_code_allowed == wide


def test_timings_come_back_and_damaged_ones_do_not(tmp_path: Path) -> None:
    path = timing_cache.place(tmp_path / "new", "11.4.0.106", "12.0")
    assert path.name == "11.4.0.106-sm120.timings"
    assert timing_cache.read(path) == b""
    timing_cache.write(path, b"measured")
    assert timing_cache.read(path) == b"measured"
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    path.write_bytes(path.read_bytes()[:-1])
    assert timing_cache.read(path) == b""
    (tmp_path / "file").touch()
    timing_cache.write(tmp_path / "file" / "under", b"measured")  # no place for them: no error


@pytest.mark.parametrize(
    ("flavour", "requirements", "version", "capability", "fits"),
    [
        (RTX, {}, "1.7.1.116", "8.9", True),
        (RTX, {}, "1.7.2.1", "8.9", False),  # its plans run on the release that built them
        (RTX, {}, "1.7.1.116", "9.0", False),
        (RTX, {"compute_capability": "8.6, 8.9, 12.0"}, "1.7.1.116", "12.0", True),
        (RTX, {"compute_capability": "8.6, 8.9, 12.0"}, "1.7.1.116", "12.1", False),
        (FULL, {"version": "10.16.1.11"}, "10.16.1.12", "8.9", False),
        (FULL, {"version": "10.16.1.11", "compatible": "version"}, "10.17.0.1", "8.9", True),
        (FULL, {"version": "10.16.1.11", "compatible": "version"}, "10.16.0.1", "8.9", False),  # an older one
        (FULL, {"version": "10.16.1.11", "compatible": "version"}, "11.4.0.106", "8.9", True),
        (FULL, {"version": "11.4.0.106", "compatible": "version"}, "10.16.1.11", "8.9", False),
        (FULL, {"version": "9.3.0.1", "compatible": "version"}, "10.16.1.11", "8.9", False),
        (FULL, {"version": "10.16.1.11", "compatible": "version"}, "10.17.0.1", "9.0", False),
        (FULL, {"compatible": "compute_capability"}, "1.7.1.116", "9.0", True),
        (FULL, {"compatible": "compute_capability"}, "1.7.1.116", "12.0", True),
        (FULL, {"compatible": "compute_capability"}, "1.7.1.116", "7.5", False),
        (FULL, {"compatible": "version, compute_capability"}, "1.8.0.0", "9.0", True),
    ],
)
def test_a_plan_fits_its_version_and_its_compute_capability(
    flavour: Flavour, requirements: dict[str, str], version: str, capability: str, fits: bool
) -> None:
    plan = {"version": "1.7.1.116", "compute_capability": "8.9"} | requirements
    found = misfit(flavour, plan, version, capability)
    assert (found is None) == fits
    if found is not None:
        assert f"limner export BUNDLE --to {flavour.engine}" in found.mend


def test_the_requirements_of_a_plan_are_those_that_are_asked_for(graphs: Graphs) -> None:
    plan = rtx(graphs(), compute_capability="8.6")
    assert misfit(RTX, plan.requirements, version, "8.6") is None
    assert misfit(RTX, plan.requirements, version, "8.9") is not None
