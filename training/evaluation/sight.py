"""Images in, what a judge sees in them out."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from training.errors import EvaluationError


class Sees(Protocol):
    """A judge: torch's (`training.judge.Judge`) or an exported one (`export.judge`)."""

    def look(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """uint8 [N, H, W, C] -> logits float32 [N, classes], features float32 [N, 128]."""
        ...

    def sha256(self) -> str:
        """The hash of its weights, the same wherever it runs."""
        ...


@dataclass(frozen=True)
class Sight:
    """What the judge sees: logits float32 [N, classes], features float32 [N, 128]; the class of each image [N]."""

    logits: np.ndarray
    features: np.ndarray
    classes: np.ndarray

    @classmethod
    def of(cls, judge: Sees, images: np.ndarray, labels: np.ndarray | None) -> "Sight":
        """uint8 [N, H, W, C] -> what the judge sees; an image without a label belongs to the class it is taken for."""
        logits, features = judge.look(images)
        return cls(logits, features, logits.argmax(1) if labels is None else labels)

    def __len__(self) -> int:
        return len(self.features)

    def taken(self) -> "Sight":
        """The same, each image in the class that the judge takes it for."""
        return Sight(self.logits, self.features, self.logits.argmax(1))

    def take(self, rows: slice) -> "Sight":
        return Sight(self.logits[rows], self.features[rows], self.classes[rows])


def check(images: np.ndarray, size: int, channels: int) -> None:
    """Raises EvaluationError for pictures of another shape than the judge's."""
    if images.shape[1:] != (size, size, channels):
        height, width, found = images.shape[1:]
        raise EvaluationError(
            f"the judge looks at pictures of {size}x{size}x{channels}, these are of {width}x{height}x{found}",
            "Take the judge of their own data set.",
        )
