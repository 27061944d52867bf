"""Artifact in, Engine out: one contract for everything that can run a generator. An engine is imported when opened."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from training.errors import LimnerError

ENGINES = ("tensorrt", "tensorrt-rtx", "onnxruntime-cuda", "openvino", "onnxruntime")  # as `auto` prefers them
PRECISIONS = ("fp32", "fp16", "bf16", "int8")


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

    on_cpu: bool
    """Whether `run` computes where it is called; else it waits for a device."""

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
    engine: str,
    precision: str,
    path: Path,
    buckets: tuple[int, ...] = (),
    threads: int | None = None,
    requirements: Mapping[str, str] | None = None,
) -> Engine:
    """Open an artifact's file. `threads`: CPU threads of one run, None = the engine's choice. Raises EngineError."""
    found = obstacle(engine, precision, requirements)
    if found is not None:
        raise found
    return _home(engine).open_engine(engine, precision, path, buckets, threads, requirements)


def obstacle(engine: str, precision: str, requirements: Mapping[str, str] | None = None) -> EngineError | None:
    """Why this machine cannot run such an artifact, with the mend; None where nothing speaks against it.

    Asks for packages, devices and versions alone: no file is opened.
    """
    if engine not in ENGINES:
        return EngineError(f"this limner has no engine '{engine}'", f"There is {', '.join(ENGINES)}.")
    return _home(engine).obstacle(engine, precision, requirements or {})


class _Home(Protocol):
    """A module of this package."""

    def open_engine(
        self,
        engine: str,
        precision: str,
        path: Path,
        buckets: tuple[int, ...],
        threads: int | None,
        requirements: Mapping[str, str] | None = None,
    ) -> Engine: ...

    def obstacle(self, engine: str, precision: str, requirements: Mapping[str, str]) -> EngineError | None: ...


def _home(engine: str) -> _Home:
    if engine.startswith("tensorrt"):
        from export.engines import tensorrt

        return tensorrt
    if engine == "openvino":
        from export.engines import openvino

        return openvino
    from export.engines import onnxruntime

    return onnxruntime


def labels_of(z: np.ndarray, label: np.ndarray | None) -> np.ndarray:
    """The label int64 [N] that a conditional graph needs with z [N, latent]. Raises EngineError if it does not fit."""
    if label is None:
        raise EngineError("a conditional graph was run without labels")
    if len(label) != len(z):  # padding would hide it
        raise EngineError(f"{len(z)} latents came with {len(label)} labels")
    return label


def padded(rows: np.ndarray, buckets: tuple[int, ...]) -> np.ndarray:
    """Repeat the last row up to the next bucket. [N, ...] -> [bucket, ...]."""
    size = next((bucket for bucket in buckets if bucket >= len(rows)), len(rows))
    return rows if size == len(rows) else np.concatenate([rows, rows[-1:].repeat(size - len(rows), axis=0)])


def finite(images: np.ndarray, check: np.ndarray) -> np.ndarray:
    """uint8 [N, H, W, C] as they are. Raises NonFinite for the rows whose check float32 [N] is not finite."""
    bad = np.flatnonzero(~np.isfinite(check))
    if len(bad):
        raise NonFinite(bad.tolist(), images)
    return images
