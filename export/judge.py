"""judge.onnx in, what it sees out: the judge of a bundle, without torch."""

from pathlib import Path

import numpy as np

from export.engines import EngineError
from export.engines.session import open_session
from training.evaluation.sight import check

BATCH = 512  # pictures looked at at once
HASH = "judge_sha256"  # of the graph's metadata: its weights may be folded, the hash is that of the trained ones


class OnnxJudge:
    """See `training.evaluation.sight.Sees`."""

    def __init__(self, path: Path) -> None:
        """Raises EngineError where ONNX Runtime is missing or cannot load the file."""
        self._session = open_session(path)
        try:
            _, self.size, _, self.channels = self._session.get_inputs()[0].shape
            self._sha256 = self._session.get_modelmeta().custom_metadata_map[HASH]
        except (ValueError, KeyError) as error:
            raise EngineError(f"{path} is no judge", "Export the run again.") from error

    def look(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Raises EvaluationError for pictures of another shape."""
        check(images, self.size, self.channels)
        parts = [
            self._session.run(["logits", "features"], {"image": images[start : start + BATCH]})
            for start in range(0, max(1, len(images)), BATCH)
        ]
        logits, features = (np.concatenate([np.asarray(part) for part in side]) for side in zip(*parts, strict=True))
        return logits, features

    def sha256(self) -> str:
        return self._sha256
