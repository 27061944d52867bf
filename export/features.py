"""A feature network that somebody brought in, as an ONNX file; the Fréchet distance in its features out.

limner ships no Inception weights. Figures of such features never stand in one table with domain figures.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from export.bundle import hash_file
from export.engines import EngineError
from export.engines.session import open_session
from training.evaluation.metrics import fid
from training.pictures import picture

SIDE = 299  # pixels that pictures are brought to where the graph leaves it open: Inception v3's
BATCH = 32
NEEDED = "A feature network has one input, float32 [N, 3, H, W] with N open, of levels from 0 to 255."
STAGE = "looking through the features brought"

Observe = Callable[[str, float], None]


class Features:
    """An ONNX graph with one input float32 [N, 3, H, W] of levels from 0 to 255; its first output is [N, F]."""

    def __init__(self, path: Path) -> None:
        """Raises EngineError for a file that is no such graph."""
        self._session = open_session(path, mend=NEEDED)
        self._input, *others = self._session.get_inputs()
        shape = self._input.shape
        fixed = len(shape) != 4 or isinstance(shape[0], int)  # the batch: the last one is seldom full
        if others or self._input.type != "tensor(float)" or fixed or shape[1] != 3:
            raise EngineError(f"{path} has an input {self._input.type} {shape}", NEEDED)
        _, _, height, width = shape
        self._size = (width if isinstance(width, int) else SIDE, height if isinstance(height, int) else SIDE)
        self.name, self.sha256 = path.name, hash_file(path)

    def look(self, images: np.ndarray, observe: Callable[[int], None] = lambda done: None) -> np.ndarray:
        """uint8 [N, H, W, C] -> float32 [N, F]; resized by antialiased bicubic interpolation (Parmar et al. 2022)."""
        parts = []
        for start in range(0, len(images), BATCH):
            levels = np.stack([self._level(image) for image in images[start : start + BATCH]])
            observe(start)
            try:
                parts.append(np.asarray(self._session.run(None, {self._input.name: levels})[0]))
            except Exception as error:  # onnxruntime raises many types, none of them documented
                raise EngineError(f"the feature network failed on {len(levels)} pictures", NEEDED) from error
        found = np.concatenate(parts).reshape(len(images), -1)
        if not np.isfinite(found).all():
            raise EngineError("the features brought are not finite", "Check the network on pictures of its own.")
        return found

    def _level(self, image: np.ndarray) -> np.ndarray:
        resized = picture(image).convert("RGB").resize(self._size, Image.Resampling.BICUBIC)
        return np.asarray(resized, np.float32).transpose(2, 0, 1)


def inception_fid(
    features: Features, pictures: np.ndarray, real: np.ndarray, observe: Observe = lambda stage, fraction: None
) -> dict[str, Any]:
    """uint8 [N, H, W, C] and [M, H, W, C] -> the distance and its own protocol. Raises EngineError."""
    count = len(pictures) + len(real)
    observe(STAGE, 0.0)
    drawn = features.look(pictures, lambda done: observe(STAGE, done / count))
    known = features.look(real, lambda done: observe(STAGE, (len(pictures) + done) / count))
    distance = fid(drawn, known)
    counts = {"samples": len(pictures), "reference": len(real)}
    return {"fid": round(distance, 4)} | counts | {"features": features.name, "features_sha256": features.sha256}
