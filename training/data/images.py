"""What a set of images is: a Source of pictures not yet decoded, and the Dataset that becomes of it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

Raw = Path | bytes | np.ndarray | None  # a picture as it is stored: a file, its bytes, uint8 pixels, or nothing at all


@dataclass(frozen=True)
class Images:
    """images uint8 [N, H, W, C] with C 1 or 3; labels int64 [N], or None where the set has no classes."""

    images: np.ndarray
    labels: np.ndarray | None

    def __len__(self) -> int:
        return len(self.images)

    def take(self, index: np.ndarray | slice) -> "Images":
        """Those rows: copies for row numbers, views for a slice."""
        return Images(self.images[index], None if self.labels is None else self.labels[index])


@dataclass(frozen=True)
class Dataset:
    """A named set of images of one size, split once and for all (docs/design.md, Judge and splits)."""

    name: str
    train: Images
    val: Images
    test: Images
    class_names: tuple[str, ...]
    note: str = ""  # one line for the user: what was skipped

    @property
    def size(self) -> int:
        return self.train.images.shape[1]

    @property
    def channels(self) -> int:
        return self.train.images.shape[3]


@dataclass(frozen=True)
class Part:
    """`count` pictures; labels int64 [count] with -1 for none, or None where the set has no classes.

    `read` takes ascending rows and gives the picture of each, in that order, so that only what is taken is read.
    """

    count: int
    labels: np.ndarray | None
    read: Callable[[np.ndarray], Iterable[Raw]]


@dataclass(frozen=True)
class Source:
    """A set before it is decoded, sized and split.

    One part is cut 80/10/10; two are train, whose last tenth becomes val, and test; three are train, val and test.
    """

    name: str
    parts: tuple[Part, ...]
    class_names: tuple[str, ...]
    key: str  # of the bytes it is made of: another key where they may be others
    where: str  # as an error names it
    mend: str = "Take another set."  # for too few images
    size: int | None = None  # pixels, where all pictures are squares of one size
    tidy: bool = False  # drop pictures that repeat, and cut each class for itself: sets that nobody has split before
    left_out: dict[str, int] = field(default_factory=dict)  # reason -> pictures that are in no part
    remark: str = ""  # what else the user should know


def array_part(images: np.ndarray, labels: np.ndarray | None) -> Part:
    """images uint8 [N, H, W] or [N, H, W, C] in memory."""
    return Part(len(images), labels, lambda rows: (images[row] for row in rows))
