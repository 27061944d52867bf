"""OpenVINO draws ONNX Runtime's pictures in fp32, and in another precision only where it was asked for and is there."""

import gc
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino
import pytest
import torch
from torch import nn

from export.engines import Engine, EngineError, obstacle, open_engine
from export.engines import openvino as module
from export.engines.cores import available
from export.engines.openvino import HINTS, OpenVino
from export.graph import to_graph
from training.config import ModelSpec
from training.networks import Generator

BUCKETS = (1, 2, 4, 8, 16, 32, 64)
NAMES = {"cgan": ("sky", "sea", "sand"), "gan": ()}
SHAPES = {"cgan": (28, 1), "gan": (32, 3)}
THERE = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
LOW = [precision for precision in ("bf16", "fp16") if precision.upper() in THERE]


@pytest.fixture(scope="session")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Generators with random weights and batch statistics: a conditional one of 28x28x1, another of 32x32x3."""
    home, paths = tmp_path_factory.mktemp("graphs"), {}
    for kind, (size, channels) in SHAPES.items():
        torch.manual_seed(0)
        spec = ModelSpec.model_validate(
            {"kind": kind, "latent": 6, "size": size, "channels": channels, "class_names": NAMES[kind], "width": 4}
        )
        generator, label = Generator(spec), torch.arange(16) % 3 if spec.classes else None
        for layer in generator.modules():
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.uniform_(layer.weight, 0.5, 2)
                nn.init.normal_(layer.bias)
        for _ in range(20):
            generator(3 * torch.randn(16, 6) + 1, label)
        paths[kind] = home / f"{kind}.onnx"
        onnx.save(to_graph(generator.eval(), spec), paths[kind])
    return paths


@pytest.fixture(scope="session")
def opened(graphs: dict[str, Path]) -> Callable[..., Any]:
    """`opened("openvino", "cgan")`: an engine of one thread, opened once."""
    engines: dict[tuple[Any, ...], Engine] = {}

    def once(engine: str, kind: str, precision: str = "fp32", buckets: tuple[int, ...] = BUCKETS) -> Engine:
        key = (engine, kind, precision, buckets)
        if key not in engines:
            engines[key] = open_engine(engine, precision, graphs[kind], buckets, threads=1)
        return engines[key]

    return once


def batch(kind: str, count: int) -> tuple[np.ndarray, np.ndarray | None]:
    z = np.random.Generator(np.random.Philox(key=count)).standard_normal((count, 6), np.float32)
    return z, np.arange(count, dtype=np.int64) % 3 if NAMES[kind] else None


def asked_of(engine: OpenVino, name: str) -> list[Any]:
    """A property of what was compiled, for each bucket or for every size."""
    requests = [fixed._request for fixed in engine._runs.values()] or [engine._any]
    return [request.get_compiled_model().get_property(name) for request in requests]


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("buckets", [BUCKETS, ()], ids=["in buckets", "as it comes"])
def test_fp32_draws_the_pictures_of_onnx_runtime_at_every_size(
    opened: Callable[..., Engine], kind: str, buckets: tuple[int, ...]
) -> None:
    engine, reference = opened("openvino", kind, buckets=buckets), opened("onnxruntime", kind, buckets=())
    for count in range(1, 65):
        drawn, expected = engine.run(*batch(kind, count)), reference.run(*batch(kind, count))
        assert (drawn.shape, drawn.dtype) == ((count, *expected.shape[1:]), np.uint8)
        assert np.abs(drawn.astype(int) - expected).max() <= 1, count
        assert (drawn == expected).mean() > 0.999  # one level apart is the rare tie
        assert expected.std() > 5  # pictures, not a plain grey on which everything agrees


@pytest.mark.parametrize("kind", NAMES)
def test_fp32_is_fp32_also_where_the_cpu_prefers_less(opened: Callable[..., Any], kind: str) -> None:
    """Left alone OpenVINO takes bf16 on a CPU that has it; there bf16 is seen to draw other pictures than fp32 does."""
    plain, z_label = opened("openvino", kind), batch(kind, 64)
    assert set(asked_of(plain, "INFERENCE_PRECISION_HINT")) == {openvino.Type.f32}
    expected = opened("onnxruntime", kind, buckets=()).run(*z_label)
    assert (plain.run(*z_label) != expected).mean() < 0.001
    assert LOW or all(obstacle("openvino", precision) is not None for precision in ("bf16", "fp16"))
    for precision in LOW:
        less = opened("openvino", kind, precision)
        assert set(asked_of(less, "INFERENCE_PRECISION_HINT")) == {getattr(openvino.Type, HINTS[precision])}
        assert (less.run(*z_label) != expected).mean() > 0.01


def test_every_precision_of_this_cpu_opens_and_names_itself(
    opened: Callable[..., Any], graphs: dict[str, Path]
) -> None:
    for precision in ("fp32", *LOW, "int8"):
        assert obstacle("openvino", precision) is None
        engine = opened("openvino", "gan", precision)
        told = engine.describe()
        assert told["precision"] == precision
        assert engine.artifact == f"openvino-{precision}-{told['version']}-{told['device']}"


def test_what_a_graph_of_int8_leaves_open_is_fp32(opened: Callable[..., Any]) -> None:
    assert set(asked_of(opened("openvino", "gan", "int8"), "INFERENCE_PRECISION_HINT")) == {openvino.Type.f32}


class Cpu:
    """An OpenVINO that says this of its CPU, or fails."""

    def __init__(self, says: list[str] | RuntimeError) -> None:
        self.says = says

    def get_property(self, device: str, name: str) -> list[str]:
        assert (device, name) == ("CPU", "OPTIMIZATION_CAPABILITIES")
        if isinstance(self.says, RuntimeError):
            raise self.says
        return self.says


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_precision_that_the_cpu_has_not_is_refused_in_one_line(
    graphs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    monkeypatch.setattr(module, "_core", lambda: Cpu(["FP32", "INT8", "BIN", "EXPORT_IMPORT"]))
    line = f"this CPU has no {precision} for OpenVINO. It has fp32, int8."
    assert str(obstacle("openvino", precision)) == line
    with pytest.raises(EngineError) as caught:
        open_engine("openvino", precision, graphs["gan"])
    assert str(caught.value) == line
    assert obstacle("openvino", "fp32") is None
    assert obstacle("openvino", "int8") is None


def test_an_openvino_that_does_not_find_the_cpu_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_core", lambda: Cpu(RuntimeError('Exception from src/core.cpp:1:\nDevice "CPU"\n')))
    line = str(obstacle("openvino", "fp32"))
    assert line.startswith("OpenVINO does not find the CPU (Exception from src/core.cpp:1: Device")
    assert "\n" not in line


def test_threads_are_the_cores_that_the_process_may_use(
    graphs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def threads(given: int | None, buckets: tuple[int, ...]) -> list[Any]:
        return asked_of(OpenVino(graphs["gan"], buckets=buckets, threads=given), "INFERENCE_NUM_THREADS")

    assert threads(None, (1,)) == [available()]
    assert threads(None, ()) == [available()]
    assert threads(1, (1, 2)) == [1, 1]
    monkeypatch.setattr(module, "available", lambda: 1)
    assert threads(None, (1,)) == [1]


def test_requests_keep_the_core_that_made_them(graphs: dict[str, Path]) -> None:
    engines = [OpenVino(graphs["gan"], buckets=buckets, threads=1) for buckets in ((4,), ())]
    gc.collect()
    first, second = (engine.run(*batch("gan", 3)) for engine in engines)
    assert np.abs(first.astype(int) - second).max() <= 1


def test_an_engine_that_another_thread_closes_leaves_a_process_that_takes_signals() -> None:
    """As a server does, whose engines are closed by the threads that run them."""
    code = (
        "import gc, os, signal, threading\n"
        "from export.doctor import PROBE\n"
        "from export.engines import open_engine\n"
        "opened = [open_engine('openvino', 'fp32', PROBE, (1, 2))]\n"
        "def close():\n"
        "    opened.pop().close()\n"
        "    gc.collect()\n"
        "thread = threading.Thread(target=close)\n"
        "thread.start()\n"
        "thread.join()\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == -signal.SIGINT, done.stderr
    assert done.stderr.splitlines()[-1] == "KeyboardInterrupt"
