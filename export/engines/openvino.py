"""An ONNX file in, an Engine on OpenVINO's CPU device out: each bucket compiled for its own fixed size.

Fixed sizes are what makes it fast (docs/decisions.md has the figures). The precision is a hint at compile time, so that
one file serves fp32, bf16 and fp16; int8 is a file of its own.
"""

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from export.engines import Engine, EngineError, finite, labels_of
from export.engines.cores import available
from export.engines.onnxruntime import instruction_set

HINTS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", "int8": "f32"}
_CAPABILITIES = {"fp32": "FP32", "fp16": "FP16", "bf16": "BF16", "int8": "INT8"}
ANEW = "In limner's folder: pip uninstall openvino, then pip install '.[openvino]'."


def obstacle(engine: str, precision: str, requirements: Mapping[str, str]) -> EngineError | None:
    """See `export.engines.obstacle`. A hint that the CPU has no instructions for would silently be passed over."""
    try:
        there = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    except EngineError as error:
        return error
    except RuntimeError as error:  # its CPU plug-in is missing, or has no kernels for this CPU
        return EngineError(f"OpenVINO does not find the CPU ({error})", ANEW)
    if _CAPABILITIES.get(precision) in there:
        return None
    has = ", ".join(name for name, capability in _CAPABILITIES.items() if capability in there)
    return EngineError(f"this CPU has no {precision} for OpenVINO", f"It has {has}.")


def open_engine(
    engine: str,
    precision: str,
    path: Path,
    buckets: tuple[int, ...],
    threads: int | None,
    requirements: Mapping[str, str] | None = None,
) -> Engine:
    """See `export.engines.open_engine`."""
    return OpenVino(path, precision, buckets, threads)


class OpenVino:
    """See `export.engines.Engine`."""

    on_cpu = True

    def __init__(
        self, path: Path, precision: str = "fp32", buckets: tuple[int, ...] = (), threads: int | None = None
    ) -> None:
        core = _core()
        import openvino

        options = {
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "INFERENCE_NUM_THREADS": threads or available(),
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # several processes pinned to one core would share it
        }
        try:
            model = core.read_model(path)
            self._runs = {size: _Fixed(core, model, size, options) for size in buckets}
            self._any = None if buckets else core.compile_model(model, "CPU", options).create_infer_request()
        except Exception as error:  # openvino raises RuntimeError and its own types, with paragraphs of text
            raise EngineError(f"OpenVINO cannot load {path}", "Export the run again.") from error
        self._conditional = len(model.inputs) > 1
        self.buckets = buckets
        self._precision = precision
        self._version = openvino.get_version().partition("-")[0]
        self._device = f"cpu-{instruction_set(precision)}"
        self.artifact = f"openvino-{precision}-{self._version}-{self._device}"

    def run(self, z: np.ndarray, label: np.ndarray | None) -> np.ndarray:
        feed = {"z": z, "label": labels_of(z, label)} if self._conditional else {"z": z}
        try:
            images, check = self._infer(feed, len(z))
        except Exception as error:
            raise EngineError("OpenVINO failed on a batch", "See the server's log.") from error
        return finite(images[: len(z)], check[: len(z)])

    def describe(self) -> dict[str, str]:
        return {
            "engine": "openvino",
            "precision": self._precision,
            "version": self._version,
            "device": self._device,
        }

    def close(self) -> None:
        self._runs.clear()
        self._any = None

    def _infer(self, feed: dict[str, Any], count: int) -> tuple[np.ndarray, np.ndarray]:
        if self._any is None:
            size = next(size for size in self.buckets if size >= count)
            return self._runs[size](feed, count)
        self._any.infer(feed)
        return self._any.get_tensor("image").data.copy(), self._any.get_tensor("check").data.copy()


class _Fixed:
    """One bucket: compiled for its size, with inputs that OpenVINO reads where they lie."""

    def __init__(self, core: Any, model: Any, size: int, options: dict[str, Any]) -> None:
        import openvino

        fixed = model.clone()
        fixed.reshape({port.any_name: [size, *list(port.partial_shape)[1:]] for port in fixed.inputs})
        self._request = core.compile_model(fixed, "CPU", options).create_infer_request()
        self._inputs: dict[str, np.ndarray] = {}
        for port in fixed.inputs:
            array = np.zeros(tuple(port.shape), port.element_type.to_dtype())
            self._request.set_tensor(port.any_name, openvino.Tensor(array, shared_memory=True))
            self._inputs[port.any_name] = array

    def __call__(self, feed: dict[str, np.ndarray], count: int) -> tuple[np.ndarray, np.ndarray]:
        for name, array in self._inputs.items():
            rows = feed[name]
            if rows.shape != array[:count].shape:  # or one row would be drawn for all
                raise ValueError(f"{name} {list(rows.shape)}")
            array[:count] = rows
            array[count:] = rows[-1]
        self._request.infer()
        return self._request.get_tensor("image").data.copy(), self._request.get_tensor("check").data.copy()


@cache
def _only_core(openvino: ModuleType) -> Any:
    """The process's one Core, which lives as long as the process.

    OpenVINO's CPU plug-in gives the thread that loads it another stack for signals. If the last Core goes in another
    thread, that stack goes too, and the next Ctrl-C is a segmentation fault (seen with 2026.4.1).
    """
    return openvino.Core()


def _core() -> Any:
    try:
        return _only_core(import_module("openvino"))
    except (ImportError, RuntimeError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "openvino":
            raise EngineError("openvino is not installed", "In limner's folder: pip install '.[openvino]'.") from error
        raise EngineError(f"openvino does not load ({error})", ANEW) from error
