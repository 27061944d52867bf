"""Artifact in, Engine out: one contract for everything that can run a generator. An engine is imported when opened."""

from pathlib import Path
from typing import Protocol

import numpy as np

from training.errors import LimnerError


class EngineError(LimnerError):
    """An engine is missing, cannot load its artifact, or failed while running."""

    code = "engine"


class NonFinite(EngineError):
    """Some rows of a batch came out NaN or infinite.

    `rows` are their numbers; `images` uint8 [N, H, W, C] is right in every other row.
    """

    code = "non-finite"

    def __init__(self, rows: list[int], images: np.ndarray) -> None:
        super().__init__("the engine gave pictures that are not finite", "Ask with another seed, or export again.")
        self.rows = rows
        self.images = images


class Engine(Protocol):
    """Runs batches. Callable from any thread, one call at a time."""

    artifact: str
    """engine-precision-version-device: within one artifact the pixels of an image are bit-exact."""
    buckets: tuple[int, ...]
    """Batch sizes that it may run, ascending; a batch is padded to the next one. () runs every size as it comes."""

    def run(self, z: np.ndarray, label: np.ndarray | None) -> np.ndarray:
        """z float32 [N, latent], label int64 [N] or None, N ≤ the largest bucket -> uint8 [N, H, W, C].

        Raises NonFinite, or EngineError where the whole batch failed.
        """
        ...

    def describe(self) -> dict[str, str]:
        """Engine, precision, version and device, for people."""
        ...

    def close(self) -> None: ...


def open_engine(
    engine: str, precision: str, path: Path, buckets: tuple[int, ...] = (), threads: int | None = None
) -> Engine:
    """Open an artifact's file. `threads`: CPU threads of one run, None = the engine's choice. Raises EngineError."""
    if engine == "onnxruntime":
        from export.engines.onnxruntime import OnnxRuntime

        return OnnxRuntime(path, precision, buckets, threads)
    raise EngineError(f"this limner has no engine '{engine}'", "Serve an artifact for onnxruntime.")


def padded(rows: np.ndarray, buckets: tuple[int, ...]) -> np.ndarray:
    """Repeat the last row up to the next bucket. [N, ...] -> [bucket, ...]."""
    size = next((bucket for bucket in buckets if bucket >= len(rows)), len(rows))
    return rows if size == len(rows) else np.concatenate([rows, rows[-1:].repeat(size - len(rows), axis=0)])
