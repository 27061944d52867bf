"""An ONNX file in, an Engine on ONNX Runtime out: on the CPU, or on CUDA with bound inputs and outputs.

The CUDA provider is tested as far as a machine without a GPU goes: no run on a GPU has been seen.
"""

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from export.engines import Engine, EngineError, finite, labels_of, padded
from export.engines.session import CPU, CUDA, DOCTOR, onnxruntime, open_session

PRECISIONS = ("fp32", "fp16", "int8")


def obstacle(engine: str, precision: str, requirements: Mapping[str, str]) -> EngineError | None:
    """See `export.engines.obstacle`."""
    if precision not in PRECISIONS:
        return EngineError(f"ONNX Runtime has no {precision}", f"Take one of {', '.join(PRECISIONS)}.")
    try:
        runtime = onnxruntime()
    except EngineError as error:
        return error
    if engine == "onnxruntime":
        return None
    from export.engines.cuda import no_device

    found = no_device()
    if found is None and CUDA not in runtime.get_available_providers():
        return EngineError(
            "this ONNX Runtime has no CUDA provider",
            "In limner's folder: pip uninstall onnxruntime onnxruntime-gpu, then pip install '.[gpu]'.",
        )
    return found


def open_engine(
    engine: str,
    precision: str,
    path: Path,
    buckets: tuple[int, ...],
    threads: int | None,
    requirements: Mapping[str, str] | None = None,
) -> Engine:
    """See `export.engines.open_engine`."""
    kind = OnnxRuntimeCuda if engine == "onnxruntime-cuda" else OnnxRuntime
    return kind(path, precision, buckets, threads)


_UNITS = {
    "fp16": ("amx_fp16", "avx512_fp16", "asimdhp"),
    "bf16": ("amx_bf16", "avx512_bf16", "bf16"),
    "int8": ("amx_int8", "avx512_vnni", "avx_vnni", "i8mm"),
}


class OnnxRuntime:
    """See `export.engines.Engine`."""

    engine = "onnxruntime"
    provider = CPU
    on_cpu = True
    mend = "See the server's log."

    def __init__(
        self, path: Path, precision: str = "fp32", buckets: tuple[int, ...] = (), threads: int | None = None
    ) -> None:
        self._session: Any = open_session(path, threads, provider=self.provider)
        self._version = onnxruntime().__version__
        self._conditional = any(node.name == "label" for node in self._session.get_inputs())
        self.buckets = buckets
        self._precision = precision
        self._device = self._on()
        self.artifact = f"{self.engine}-{precision}-{self._version}-{self._device}"

    def run(self, z: np.ndarray, label: np.ndarray | None) -> np.ndarray:
        feed = {"z": padded(z, self.buckets)}
        if self._conditional:
            feed["label"] = padded(labels_of(z, label), self.buckets)
        try:
            images, check = self._infer(feed)
        except Exception as error:
            raise EngineError("ONNX Runtime failed on a batch", self.mend) from error
        return finite(np.asarray(images)[: len(z)], np.asarray(check)[: len(z)])

    def describe(self) -> dict[str, str]:
        return {
            "engine": self.engine,
            "precision": self._precision,
            "version": self._version,
            "device": self._device,
        }

    def close(self) -> None:
        self._session = None

    def _infer(self, feed: dict[str, np.ndarray]) -> Any:
        return self._session.run(["image", "check"], feed)

    def _on(self) -> str:
        return f"cpu-{instruction_set(self._precision)}"


class OnnxRuntimeCuda(OnnxRuntime):
    """See `export.engines.Engine`. Inputs are bound from the host, outputs are copied back once."""

    engine = "onnxruntime-cuda"
    provider = CUDA
    on_cpu = False
    mend = DOCTOR
    memory = "cuda"

    def _infer(self, feed: dict[str, np.ndarray]) -> Any:
        binding = self._session.io_binding()
        for name, array in feed.items():
            binding.bind_cpu_input(name, array)
        for name in ("image", "check"):
            binding.bind_output(name, self.memory)
        self._session.run_with_iobinding(binding)
        return binding.copy_outputs_to_cpu()

    def _on(self) -> str:
        from export.engines.cuda import devices

        return f"cuda-{devices()[0].capability}"


def instruction_set(precision: str = "fp32") -> str:
    """The widest set that CPU kernels choose by, and of fewer bits also the unit that multiplies them.

    They decide the order of sums, so the last bits.
    """
    flags = cpu_flags()
    known = ("avx512f", "avx2", "avx", "sve", "asimd")
    widest = [[flag for flag in names if flag in flags][:1] for names in (known, _UNITS.get(precision, ()))]
    return "-".join([platform.machine(), *widest[0], *widest[1]])


def cpu_flags() -> set[str]:
    """What the kernel says that this CPU can do; nothing where it does not say."""
    try:
        return set(Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").split())
    except OSError:
        return set()
