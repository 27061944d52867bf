"""What requests ask for in, the inputs of a batch out: seeds (Asked), or latents that somebody brings (Given)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.latents import Asked, draw_each
from training.prior import Prior


@dataclass(frozen=True, eq=False, slots=True)
class Given:
    """z float32 [n, latent], finite; of a conditional model, labels int64 [n] of its classes. Who takes them checks."""

    z: np.ndarray
    labels: np.ndarray | None = None

    @property
    def count(self) -> int:
        return len(self.z)

    def part(self, start: int, end: int) -> "Given":
        """Its rows start ... end - 1."""
        return Given(self.z[start:end], None if self.labels is None else self.labels[start:end])


Rows = Asked | Given


def compose(
    rows: Sequence[Rows], latent: int, classes: int, prior: Prior | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """All of them, one after the other: z float32 [n, latent], labels int64 [n] or None. What is given stays so."""
    asked = [one for one in rows if isinstance(one, Asked)]
    if len(asked) == len(rows):
        return draw_each(asked, latent, classes, prior)
    given = [one for one in rows if isinstance(one, Given)]
    seeded = np.repeat([isinstance(one, Asked) for one in rows], [one.count for one in rows])
    z = np.empty((len(seeded), latent), np.float32)
    labels = np.empty(len(seeded), np.int64) if classes else None
    z[~seeded] = np.concatenate([one.z for one in given])
    if labels is not None:
        labels[~seeded] = np.concatenate([one.labels for one in given if one.labels is not None])
    if asked:
        z[seeded], drawn = draw_each(asked, latent, classes, prior)
        if labels is not None and drawn is not None:
            labels[seeded] = drawn
    return z, labels
