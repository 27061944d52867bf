"""TensorRT's engine refuses in one line what cannot run here, and drives a stand-in of TensorRT as the real one asks.

The stand-in shows that the calls are right and in order, not that TensorRT does what is expected of it: tests/gpu does.
"""

import ctypes
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tensorrt_rtx
from cuda.bindings import runtime as real  # pyright: ignore[reportAttributeAccessIssue]

from export.engines import EngineError, NonFinite, flavours, obstacle, open_engine

BUCKETS = (1, 4, 8)
VERSIONS = {"tensorrt": "10.16.1.11", "tensorrt-rtx": "1.7.1.116"}
PLAN = {"conditional": True, "largest": 8, "dtype": "float32", "capturable": True, "rejects": [], "allocates": []}


def requirements(**changed: str) -> dict[str, str]:
    return {"version": VERSIONS["tensorrt-rtx"], "compute_capability": "8.6, 8.9", **changed}


class Names:
    """Part of a TensorRT module: each class is compared with the real one of the same name."""

    class ILogger:
        ERROR, INTERNAL_ERROR = "error", "internal error"

        def __init__(self) -> None: ...

    class DynamicShapesKernelSpecializationStrategy:
        LAZY, EAGER = "lazy", "eager"

    class IRuntimeConfig:
        dynamic_shapes_kernel_specialization_strategy = "lazy"

    class IExecutionContext:
        """One batch of `plan`: image [N, 2, 2, 1] = z + label, check = the mean of z, when the stream comes to it."""

        def __init__(self, engine: Any, lazy: bool) -> None:
            self._engine, self._plan, self._cuda, self._lazy = engine, engine._plan, engine._cuda, lazy
            self._addresses: dict[str, int] = {}
            self._shapes: dict[str, tuple[int, ...]] = {}
            self._settled: dict[str, tuple[int, ...]] = {}
            self._runs, self._spoilt = 0, False

        def set_tensor_address(self, name: str, memory: int) -> bool:
            self._addresses[name] = memory
            return name in self._engine._shapes

        def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
            self._shapes[name] = shape
            return shape[0] <= self._plan["largest"] and shape[0] not in self._plan["rejects"]

        def is_stream_capturable(self, stream: int) -> bool:
            return self._plan["capturable"]

        def execute_async_v3(self, stream_handle: int) -> bool:
            names, count = set(self._engine._shapes), self._shapes["z"][0]
            if set(self._addresses) != names or set(self._shapes) != names - {"image", "check"}:
                return self._engine._refuse("an address or a shape is not set")
            for name, shape in self._engine._shapes.items():
                size = int(np.prod((count, *shape))) * np.dtype(self._engine._types[name]).itemsize
                if self._cuda.where(self._addresses[name], size) != "device":
                    return self._engine._refuse(f"{name} has no room for {count}")
            if count in self._plan["allocates"] and self._cuda.captured:
                self._cuda.cudaMalloc(8)
                self._spoilt = True
                return self._engine._refuse("it allocates")
            if self._spoilt:
                return self._engine._refuse("it is left half captured")
            if stream_handle in self._cuda.captured and self._settled != self._shapes:
                return self._engine._refuse("shapes changed since the last run")
            self._settled = shapes = dict(self._shapes)

            def work() -> None:
                if self._shapes != shapes:
                    self._cuda.violations.append("a graph was replayed after its context took another shape")
                self._runs += 1
                z, label = self._rows("z", count), self._rows("label", count) if "label" in names else 0
                pixels = z + np.reshape(label, (-1, 1)) + (self._lazy and self._runs > 1)
                self._rows("image", count)[...] = pixels.astype(np.uint8)
                self._rows("check", count)[...] = z.mean(1)

            self._cuda.enqueue(stream_handle, work)
            return True

        def _rows(self, name: str, count: int) -> np.ndarray:
            dtype, width = np.dtype(self._engine._types[name]), int(np.prod(self._engine._shapes[name]))
            memory = (ctypes.c_ubyte * (count * width * dtype.itemsize)).from_address(self._addresses[name])
            rows = np.frombuffer(memoryview(memory), dtype)
            return rows if name in ("label", "check") else rows.reshape(count, width)

    class ICudaEngine:
        def __init__(self, trt: Any, cuda: Any, plan: dict[str, Any], logger: Any) -> None:
            self._trt, self._cuda, self._plan, self._logger = trt, cuda, plan, logger
            self._types = {"z": plan["dtype"], "image": "uint8", "check": "float32"}
            self._shapes = {"z": (4,), "image": (2, 2, 1), "check": ()}
            if plan["conditional"]:
                self._types["label"], self._shapes["label"] = "int64", ()
            self.num_io_tensors = len(self._types)

        def get_tensor_name(self, index: int) -> str:
            return list(self._types)[index]

        def get_tensor_dtype(self, name: str) -> str:
            return getattr(self._trt, self._types[name])

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            return (-1, *self._shapes[name])

        def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
            return [(size, *self._shapes[name]) for size in (1, self._plan["largest"], self._plan["largest"])]

        def create_runtime_config(self) -> Any:
            return self._trt.IRuntimeConfig()

        def create_execution_context(self, runtime_config: Any = None) -> Any:
            self._cuda.calls.append("create_execution_context")
            jit = hasattr(self._trt, "DynamicShapesKernelSpecializationStrategy")
            told = runtime_config and runtime_config.dynamic_shapes_kernel_specialization_strategy
            return self._trt.IExecutionContext(self, lazy=jit and told != "eager")

        def _refuse(self, why: str) -> bool:
            self._logger.log("error", why)
            return False

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self._logger = logger

        def deserialize_cuda_engine(self, serialized_engine: bytes) -> Any:
            try:
                plan = json.loads(serialized_engine)
            except ValueError:
                self._logger.log("error", "the plan's magic tag does not match")
                return None
            return self._trt.ICudaEngine(self._trt, self._cuda, plan, self._logger)  # type: ignore[attr-defined]


@pytest.fixture(params=["tensorrt", "tensorrt-rtx"])
def engine(request: pytest.FixtureRequest, cuda: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An engine whose library is the stand-in."""
    flavour = flavours.FLAVOURS[request.param]
    trt: Any = ModuleType(flavour.module)
    for name in ("ILogger", "IRuntimeConfig", "IExecutionContext", "ICudaEngine", "Runtime"):
        setattr(trt, name, type(name, (getattr(Names, name),), {"_trt": trt, "_cuda": cuda}))
    if flavour.engine == "tensorrt-rtx":
        trt.DynamicShapesKernelSpecializationStrategy = Names.DynamicShapesKernelSpecializationStrategy
    else:
        monkeypatch.delattr(Names.IExecutionContext, "is_stream_capturable")
    trt.__version__, trt.float32, trt.int64, trt.uint8, trt.float16 = VERSIONS[flavour.engine], *"fiuh"
    monkeypatch.setitem(sys.modules, flavour.module, trt)
    flavours.logger.cache_clear()
    yield flavour.engine
    flavours.logger.cache_clear()


@pytest.fixture
def plan(tmp_path: Path) -> Callable[..., Path]:
    """`plan(conditional=False)`: a file that the stand-in loads."""

    def write(**changed: Any) -> Path:
        (tmp_path / "model.plan").write_text(json.dumps({**PLAN, **changed}))
        return tmp_path / "model.plan"

    return write


def latents(count: int) -> np.ndarray:
    return np.arange(4 * count, dtype=np.float32).reshape(count, 4)


@pytest.mark.parametrize("name", ["ILogger", "IRuntimeConfig", "IExecutionContext", "ICudaEngine", "Runtime"])
def test_the_stand_in_has_no_name_that_tensorrt_rtx_has_not(name: str) -> None:
    public = {part for part in vars(getattr(Names, name)) if not part.startswith("_")}
    assert public <= set(dir(getattr(tensorrt_rtx, name)))


def test_the_real_enum_has_what_the_stand_in_has() -> None:
    strategy = vars(tensorrt_rtx)["DynamicShapesKernelSpecializationStrategy"]
    assert {"LAZY", "EAGER"} <= set(strategy.__members__)


@pytest.mark.parametrize(("count", "bucket"), [(1, 1), (2, 4), (3, 4), (4, 4), (5, 8), (8, 8)])
def test_a_batch_comes_back_in_its_own_size_with_its_own_bytes(
    engine: str, plan: Callable[..., Path], cuda: Any, count: int, bucket: int
) -> None:
    opened = open_engine(engine, "fp32", plan(), BUCKETS)
    cuda.calls.clear()
    cuda.moved.clear()
    label = 100 + np.arange(count)
    for shift in (0, 1):
        images = opened.run(latents(count) + shift, label)
        assert (images.shape, images.dtype) == ((count, 2, 2, 1), np.uint8)
        assert np.array_equal(images.reshape(count, 4), latents(count) + shift + label[:, None])
    assert cuda.calls == 2 * ["cudaSetDevice", "cudaGraphLaunch", "cudaStreamSynchronize"]
    assert cuda.moved == 2 * [16 * bucket, 8 * bucket, 4 * bucket, 4 * bucket]  # bytes of z, label, image, check
    opened.close()


def test_each_bucket_is_captured_once_and_replayed(engine: str, plan: Callable[..., Path], cuda: Any) -> None:
    opened = open_engine(engine, "fp16", plan(), BUCKETS)
    assert cuda.calls.count("cudaStreamBeginCapture") == len(BUCKETS)
    assert cuda.calls.count("create_execution_context") == len(BUCKETS)
    assert opened.describe()["cuda_graphs"] == "1, 4, 8"
    cuda.calls.clear()
    for count in (8, 1, 4, 3, 8):
        assert np.array_equal(opened.run(latents(count), np.zeros(count, np.int64)).reshape(count, 4), latents(count))
    assert set(cuda.calls) == {"cudaSetDevice", "cudaGraphLaunch", "cudaStreamSynchronize"}  # and nothing is allocated
    opened.close()


def test_memory_is_taken_once_for_the_largest_bucket(engine: str, plan: Callable[..., Path], cuda: Any) -> None:
    opened = open_engine(engine, "fp32", plan(), (1, 4))
    sizes = sorted((kind, len(memory)) for kind, memory in cuda.memory.values())
    per_tensor = sorted([4 * 4 * 4, 4 * 8, 4 * 4, 4 * 4])  # z, label, image, check of four rows
    assert sizes == [(kind, size) for kind in ("device", "host") for size in per_tensor]
    opened.close()


def test_without_buckets_every_size_runs_plainly(engine: str, plan: Callable[..., Path], cuda: Any) -> None:
    opened = open_engine(engine, "fp32", plan(conditional=False))
    held = set(cuda.memory)
    for count in (3, 8, 1):
        for _ in range(2):
            assert np.array_equal(opened.run(latents(count), None).reshape(count, 4), latents(count))
    assert set(cuda.memory) == held
    assert cuda.calls.count("create_execution_context") == 1
    assert "cudaGraphLaunch" not in cuda.calls
    assert opened.describe()["cuda_graphs"] == "none"
    opened.close()


@pytest.mark.parametrize(
    ("step", "before"),
    [("cudaStreamBeginCapture", 1), ("cudaMemcpyAsync", 12), ("cudaGraphInstantiate", 1), ("TensorRT", 0)],
)
def test_a_bucket_that_cannot_be_captured_runs_plainly(
    engine: str, plan: Callable[..., Path], cuda: Any, step: str, before: int
) -> None:
    error = real.cudaError_t
    cuda.fail(step, *before * [error.cudaSuccess], error.cudaErrorStreamCaptureUnsupported)
    opened = open_engine(engine, "fp32", plan(allocates=[4] if step == "TensorRT" else []), BUCKETS)
    for count in (1, 4, 8, 4):
        cuda.calls.clear()
        images = opened.run(latents(count), np.zeros(count, np.int64))
        assert np.array_equal(images.reshape(count, 4), latents(count))
        assert ("cudaGraphLaunch" in cuda.calls) == (count != 4)
    graphs = opened.describe()["cuda_graphs"]
    assert graphs.startswith("1, 8; not 4: ")
    assert ("it allocates" if step == "TensorRT" else "cudaErrorStreamCaptureUnsupported") in graphs
    opened.close()


def test_a_context_that_says_it_cannot_be_captured_is_not(plan: Callable[..., Path], cuda: Any, engine: str) -> None:
    opened = open_engine(engine, "fp32", plan(capturable=False), (1, 4))
    graphs = opened.describe()["cuda_graphs"]
    expected = "1, 4" if engine == "tensorrt" else "none; not 1: TensorRT-RTX cannot be captured"
    assert graphs.startswith(expected)
    opened.close()


@pytest.mark.parametrize("rows", [[0], [2, 4], [4]])  # the last row is the one that fills the bucket
def test_rows_that_are_not_finite_are_named_and_the_others_given(
    engine: str, plan: Callable[..., Path], cuda: Any, rows: list[int]
) -> None:
    opened = open_engine(engine, "fp32", plan(conditional=False), BUCKETS)
    z = latents(5)
    z[rows, 1] = np.nan
    with np.errstate(invalid="ignore"), pytest.raises(NonFinite) as caught:
        opened.run(z, None)
    good = [row for row in range(5) if row not in rows]
    assert caught.value.rows == rows
    assert np.array_equal(caught.value.images.reshape(5, 4)[good], latents(5)[good])
    assert np.array_equal(opened.run(latents(5), None).reshape(5, 4), latents(5))  # nothing of it is left
    opened.close()


def test_pictures_outlive_the_next_batch_and_the_engine(engine: str, plan: Callable[..., Path], cuda: Any) -> None:
    opened = open_engine(engine, "fp32", plan(conditional=False), BUCKETS)
    first = opened.run(latents(2), None)
    opened.run(latents(2) + 50, None)
    opened.close()
    assert np.array_equal(first.reshape(2, 4), latents(2))


def test_any_thread_may_run_a_batch(engine: str, plan: Callable[..., Path], cuda: Any) -> None:
    opened = open_engine(engine, "fp32", plan(conditional=False), BUCKETS)
    images: list[np.ndarray] = []
    thread = threading.Thread(target=lambda: images.append(opened.run(latents(3), None)))
    thread.start()
    thread.join()
    assert np.array_equal(images[0].reshape(3, 4), latents(3))
    opened.close()


def test_a_cuda_error_fails_the_batch_and_not_the_next(engine: str, plan: Callable[..., Path], cuda: Any) -> None:
    opened = open_engine(engine, "fp32", plan(conditional=False), BUCKETS)
    cuda.fail("cudaGraphLaunch", real.cudaError_t.cudaErrorMemoryAllocation)
    with pytest.raises(EngineError, match=r"cudaErrorMemoryAllocation.*Free memory"):
        opened.run(latents(3), None)
    assert np.array_equal(opened.run(latents(3), None).reshape(3, 4), latents(3))
    opened.close()


def test_an_error_after_which_cuda_is_lost_says_so_each_time(engine: str, plan: Callable[..., Path], cuda: Any) -> None:
    opened = open_engine(engine, "fp32", plan(conditional=False), BUCKETS)
    cuda.fail("cudaGraphLaunch", real.cudaError_t.cudaErrorLaunchFailure)
    for _ in range(2):
        with pytest.raises(EngineError, match=r"cudaErrorLaunchFailure.*start it again"):
            opened.run(latents(3), None)
    opened.close()


def test_a_closed_engine_says_so(engine: str, plan: Callable[..., Path], cuda: Any) -> None:
    opened = open_engine(engine, "fp32", plan(conditional=False), BUCKETS)
    opened.close()
    with pytest.raises(EngineError, match="after its engine was closed"):
        opened.run(latents(3), None)


@pytest.mark.parametrize(
    ("z", "label", "said"),
    [
        (np.zeros((3, 5), np.float32), np.zeros(3, np.int64), r"takes z float32 \[8 or less, 4\]"),
        (np.zeros((3, 4), np.float64), np.zeros(3, np.int64), "not float64"),
        (np.zeros((9, 4), np.float32), np.zeros(9, np.int64), r"8 or less.*\[9, 4\]"),
        (np.zeros((3, 4), np.float32), np.zeros(3, np.int32), "takes label int64"),
        (np.zeros((3, 4), np.float32), None, "without labels"),
    ],
)
def test_a_batch_that_the_plan_does_not_take_is_refused(
    engine: str, plan: Callable[..., Path], cuda: Any, z: np.ndarray, label: np.ndarray | None, said: str
) -> None:
    opened = open_engine(engine, "fp32", plan(), BUCKETS)
    with pytest.raises(EngineError, match=said):
        opened.run(z, label)
    opened.close()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"largest": 4}, r"runs batches of 1 to 4, not 8.*limner export"),
        ({"dtype": "float16"}, "no plan of limner's"),
        ({"rejects": [4]}, "refused 4 rows of z"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_and_leaves_nothing_behind(
    engine: str, plan: Callable[..., Path], cuda: Any, changed: dict[str, Any], said: str
) -> None:
    with pytest.raises(EngineError, match=said):
        open_engine(engine, "fp32", plan(**changed), BUCKETS)


@pytest.mark.parametrize("content", [None, b"", b"foreign"], ids=["missing", "empty", "foreign"])
def test_a_file_that_is_no_plan_is_refused_with_the_mend(
    engine: str, tmp_path: Path, cuda: Any, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "model.plan").write_bytes(content)
    with pytest.raises(EngineError, match=r"cannot (read|load) .*model\.plan.*limner export BUNDLE --to") as caught:
        open_engine(engine, "fp32", tmp_path / "model.plan")
    assert ("magic tag" in str(caught.value)) == (content is not None)  # TensorRT's own words


@pytest.mark.parametrize("name", ["cudaStreamCreateWithFlags", "cudaHostAlloc", "cudaMalloc", "cudaStreamSynchronize"])
def test_a_gpu_that_is_full_fails_the_opening_and_leaves_nothing_behind(
    engine: str, plan: Callable[..., Path], cuda: Any, name: str
) -> None:
    cuda.fail(name, real.cudaError_t.cudaErrorMemoryAllocation)
    with pytest.raises(EngineError, match=r"out of memory\. Free memory"):
        open_engine(engine, "fp32", plan(), BUCKETS)


def test_an_engine_says_what_its_pixels_depend_on_and_closes_twice(
    engine: str, plan: Callable[..., Path], cuda: Any
) -> None:
    opened = open_engine(engine, "fp16", plan(), BUCKETS)
    told = opened.describe()
    assert opened.artifact == "-".join(told[part] for part in ("engine", "precision", "version", "device"))
    assert opened.artifact == f"{engine}-fp16-{VERSIONS[engine]}-cuda-8.9"
    assert (told["gpu"], opened.buckets) == ("NVIDIA L4", BUCKETS)
    opened.close()
    opened.close()


def test_nothing_speaks_against_a_plan_of_this_version_and_gpu(engine: str) -> None:
    needed = requirements(version=VERSIONS[engine])
    assert obstacle(engine, "fp16", needed) is None
    assert obstacle(engine, "fp16") is None


@pytest.mark.parametrize(
    ("changed", "said"),
    [({"version": "1.4.0.76"}, "the plan is of .* 1.4.0.76"), ({"compute_capability": "12.0"}, "this GPU has 8.9")],
)
def test_a_plan_of_another_version_or_gpu_is_refused_unopened(
    engine: str, tmp_path: Path, changed: dict[str, str], said: str
) -> None:
    needed = {**requirements(version=VERSIONS[engine]), **changed}
    with pytest.raises(EngineError, match=said):
        open_engine(engine, "fp16", tmp_path / "absent.plan", requirements=needed)


def test_a_driver_older_than_cuda_bindings_is_an_obstacle(engine: str, cuda: Any) -> None:
    cuda.fail("cudaGetDeviceCount", real.cudaError_t.cudaErrorInsufficientDriver)
    assert "Update the NVIDIA driver" in str(obstacle(engine, "fp32"))


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-rtx"])
def test_a_missing_library_or_missing_cuda_bindings_is_an_obstacle(
    gpus: Callable[..., None], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    gpus(("NVIDIA L4", 8, 9))
    module = flavours.FLAVOURS[name].module
    monkeypatch.setitem(sys.modules, module, None)
    assert "pip install" in str(obstacle(name, "fp32"))
    trt = ModuleType(module)
    trt.__version__ = VERSIONS[name]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module, trt)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    assert "cuda-bindings does not load" in str(obstacle(name, "fp32"))


def test_without_a_gpu_the_library_is_not_even_loaded(
    gpus: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(None)
    monkeypatch.setattr(flavours.importlib, "import_module", lambda name: pytest.fail(f"{name} was loaded"))
    assert "no NVIDIA driver" in str(obstacle("tensorrt-rtx", "fp16", requirements()))


@pytest.mark.parametrize("door", ["export.engines", "export.engines.tensorrt"])
def test_without_a_gpu_the_real_library_is_left_in_peace_and_the_process_lives(tmp_path: Path, door: str) -> None:
    """Opening a plan there crashes TensorRT-RTX 1.7, so this is a process of its own."""
    (tmp_path / "model.plan").write_bytes(b"ptrt" + bytes(4096))
    script = (
        f"import sys, pathlib; from {door} import open_engine; from export.engines import EngineError\n"
        f"try: open_engine('tensorrt-rtx', 'fp32', pathlib.Path({str(tmp_path / 'model.plan')!r}), (), None)\n"
        "except EngineError as error: print(error); sys.exit(error.exit_code)"
    )
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (1, "")
    assert len(done.stdout.splitlines()) == 1
    assert "NVIDIA driver" in done.stdout
