"""Each engine is tried in a process of its own, and whatever becomes of that process is one line."""

import importlib.metadata
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import tensorrt_rtx
from onnx import TensorProto, helper, numpy_helper

from export import doctor
from export.doctor import PROBE, Finding, rivals, tried
from export.engines import ENGINES, PRECISIONS, cuda, obstacle
from export.engines.cuda import Device


def probe(scale: float = 20) -> onnx.ModelProto:
    """z [N, 4] -> image [N, 2, 2, 1] = z * scale + 128, rounded and clipped to a level; check = the mean of z."""
    nodes = [
        helper.make_node("Mul", ["z", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "middle"], ["level"]),
        helper.make_node("Round", ["level"], ["rounded"]),
        helper.make_node("Clip", ["rounded", "low", "high"], ["clipped"]),
        helper.make_node("Reshape", ["clipped", "shape"], ["picture"]),
        helper.make_node("Cast", ["picture"], ["image"], to=TensorProto.UINT8),
        helper.make_node("ReduceMean", ["z", "axes"], ["check"], keepdims=0),
    ]
    constants = {
        "scale": np.float32(scale),
        "middle": np.float32(128),
        "low": np.float32(0),
        "high": np.float32(255),
        "shape": np.array([-1, 2, 2, 1]),
        "axes": np.array([1]),
    }
    graph = helper.make_graph(
        nodes,
        "probe",
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 4])],
        [
            helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 2, 2, 1]),
            helper.make_tensor_value_info("check", TensorProto.FLOAT, ["N"]),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opset = helper.make_opsetid("", 20)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=10, producer_name="limner")
    onnx.checker.check_model(model, full_check=True)
    return model


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that the processes of engines import from before any other."""
    folder = tmp_path / "planted"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


# the probe


def test_the_probe_is_byte_for_byte_what_is_written_here() -> None:
    assert PROBE.read_bytes() == probe().SerializeToString()


@pytest.mark.parametrize(
    ("engine", "version"), [("onnxruntime", onnxruntime.__version__), ("openvino", openvino.__version__)]
)
def test_an_engine_of_the_cpu_runs_it_and_says_its_version_and_device(engine: str, version: str) -> None:
    found = tried(engine)
    precisions = tuple(precision for precision in PRECISIONS if obstacle(engine, precision) is None)
    assert found == Finding(engine, True, version.partition("-")[0], found.device, precisions)
    assert found.device.startswith("cpu-")
    assert {"fp32", "int8"} <= set(precisions)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_wrong_pictures_are_noticed(engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx.save(probe(scale=20.5), tmp_path / "probe.onnx")
    monkeypatch.setattr(doctor, "PROBE", tmp_path / "probe.onnx")
    found = tried(engine)
    assert (found.runs, found.why) == (False, "it runs, but gives wrong pictures")
    assert found.mend


def test_an_engine_that_is_not_there_is_a_finding_with_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert tried("openvino") == Finding(
        "openvino", runs=False, why="openvino is not installed", mend="In limner's folder: pip install '.[openvino]'."
    )


@pytest.mark.parametrize(("capability", "builds_for"), [("9.0", "8.6, 8.9, 12.0"), ("7.5", "7.5"), ("8.9", "8.9")])
def test_tensorrt_rtx_is_tried_with_what_it_has_for_the_gpu(
    capability: str, builds_for: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to the build: of an RTX 2080 Ti it has fp16 alone, of an H100 nothing."""
    monkeypatch.setattr(cuda, "_asked", lambda: ((Device(0, "NVIDIA", capability),), "", ""))
    precision, plan = doctor._plan("tensorrt-rtx")
    assert plan.data
    assert plan.requirements["compute_capability"] == builds_for
    assert precision == ("fp16" if capability == "7.5" else "fp32")


def test_what_is_installed_is_told_without_loading_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert {doctor.installed(engine) for engine in ENGINES} == {""}
    installed(tmp_path, "tensorrt-cu13")
    installed(tmp_path, "onnxruntime-gpu")
    found = {engine: doctor.installed(engine) for engine in ENGINES}
    assert {engine for engine, version in found.items() if version} == {"tensorrt", "onnxruntime-cuda", "onnxruntime"}


# processes


def test_every_engine_is_tried_and_without_a_gpu_tensorrt_rtx_still_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # where there are GPUs
    found = {finding.engine: finding for finding in doctor.examine()}
    assert tuple(found) == ENGINES
    assert {name for name, finding in found.items() if finding.runs} == {"openvino", "onnxruntime"}
    assert all(bool(finding.why and finding.mend) != finding.runs for finding in found.values())
    rtx = found["tensorrt-rtx"]
    assert (rtx.builds, rtx.version) == (True, tensorrt_rtx.__version__)
    assert "NVIDIA" in rtx.why
    assert (found["tensorrt"].builds, found["tensorrt"].version) == (False, "")  # not installed
    assert found["onnxruntime"].builds is None


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import os; os.kill(os.getpid(), 11)", "its process was ended by signal 11 (Segmentation fault)"),
        ("import os; os.kill(os.getpid(), 4)", "its process was ended by signal 4 (Illegal instruction)"),
        ("import os; print('{}\\n[]\\nnull\\n\\n\\udcff'); os._exit(0)", "its process gave no answer"),
        ("import os; os.write(1, bytes(range(256))); os._exit(0)", "its process gave no answer"),
        ("import os; os._exit(3)", "its process ended with exit code 3"),
        ("raise OSError('libtbb.so:\\x1b[31m no\\nsuch file.')", "its process ended with exit code 1: such file"),
    ],
)
def test_a_library_that_takes_its_process_down_is_a_line(planted: Path, code: str, why: str) -> None:
    (planted / "openvino.py").write_text(code)
    assert doctor._apart("openvino") == Finding("openvino", runs=False, why=why, mend="Install it anew.")


def test_a_library_that_crashes_at_the_end_is_not_fine(planted: Path) -> None:
    crash = "import atexit, os; atexit.register(os.kill, os.getpid(), 11)"
    (planted / "sitecustomize.py").write_text(crash)
    found = doctor._apart("onnxruntime")
    assert (found.runs, found.why) == (False, "its process was ended by signal 11 (Segmentation fault)")


def test_a_library_that_hangs_is_a_line(planted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (planted / "openvino.py").write_text("import time; time.sleep(100)")
    monkeypatch.setattr(doctor, "SECONDS", 0.7)
    found = doctor._apart("openvino")
    assert (found.runs, found.why) == (False, "it did not answer within 0.7 s")


def test_what_a_library_prints_before_and_after_is_not_the_answer(planted: Path) -> None:
    noise = "import atexit, sys; print('[]'); print('é', file=sys.stderr); atexit.register(print, 'unloaded')"
    (planted / "sitecustomize.py").write_text(noise)
    assert doctor._apart("onnxruntime").runs


def test_files_of_the_folder_where_it_is_called_are_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("export.py", "json.py", "numpy.py", "onnxruntime.py"):
        (tmp_path / name).write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    found = doctor._apart("onnxruntime")
    assert found.runs, found.why


# distributions


def installed(folder: Path, name: str, *files: str) -> None:
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))


def test_two_distributions_of_onnxruntime_are_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert rivals() is None
    shared = "onnxruntime/__init__.py"
    installed(tmp_path, "onnxruntime", "onnxruntime/LICENSE", shared)
    installed(tmp_path, "onnxruntime-extensions", "onnxruntime_extensions/__init__.py")  # shares no file
    installed(tmp_path, "onnxruntime-genai", "onnxruntime_genai/onnxruntime/__init__.py")
    assert rivals() is None
    installed(tmp_path, "onnxruntime-gpu", shared)
    assert rivals() == "onnxruntime, onnxruntime-gpu"
    installed(tmp_path, "ort-nightly", shared)
    assert rivals() == "onnxruntime, onnxruntime-gpu, ort-nightly"


def test_a_distribution_that_is_found_twice_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("a", "b"):
        installed(tmp_path / place, "onnxruntime", "onnxruntime/__init__.py")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "a"), str(tmp_path / "b")])
    assert len(list(importlib.metadata.distributions())) == 2
    assert rivals() is None


def test_a_distribution_without_a_list_of_its_files_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(tmp_path, "bare")
    next(tmp_path.glob("*/RECORD")).unlink()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert rivals() is None


def test_there_is_one_onnxruntime_here() -> None:
    assert rivals() is None
