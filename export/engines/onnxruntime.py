"""model.onnx in, an Engine on ONNX Runtime's CPU provider out.

The CUDA provider is not used yet, also where onnxruntime-gpu is installed.
"""

import platform
from pathlib import Path

import numpy as np

from export.engines import EngineError, NonFinite, padded
from export.engines.session import open_session


class OnnxRuntime:
    """See `export.engines.Engine`."""

    def __init__(
        self, path: Path, precision: str = "fp32", buckets: tuple[int, ...] = (), threads: int | None = None
    ) -> None:
        self._session = open_session(path, threads)
        import onnxruntime  # that it is installed is known now

        self._version = onnxruntime.__version__
        self._conditional = any(node.name == "label" for node in self._session.get_inputs())
        self.buckets = buckets
        self._precision = precision
        self._device = f"cpu-{_instruction_set()}"
        self.artifact = f"onnxruntime-{precision}-{self._version}-{self._device}"

    def run(self, z: np.ndarray, label: np.ndarray | None) -> np.ndarray:
        feed = {"z": padded(z, self.buckets)}
        if self._conditional:
            if label is None:
                raise EngineError("a conditional graph was run without labels")
            feed["label"] = padded(label, self.buckets)
        try:
            images, check = self._session.run(["image", "check"], feed)
        except Exception as error:
            raise EngineError("ONNX Runtime failed on a batch", "See the server's log.") from error
        images = np.asarray(images)[: len(z)]
        bad = np.flatnonzero(~np.isfinite(np.asarray(check)[: len(z)]))
        if len(bad):
            raise NonFinite(bad.tolist(), images)
        return images

    def describe(self) -> dict[str, str]:
        return {
            "engine": "onnxruntime",
            "precision": self._precision,
            "version": self._version,
            "device": self._device,
        }

    def close(self) -> None:
        del self._session


def _instruction_set() -> str:
    """The widest set that ONNX Runtime's kernels choose by: it decides the order of their sums, so the last bits."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").split())
    except OSError:
        flags = set()
    known = ("avx512f", "avx2", "avx", "sve", "asimd")
    return "-".join([platform.machine(), *[flag for flag in known if flag in flags][:1]])
