"""Two seeds in, the latents and labels between them out; the pictures made of those in, the frames out."""

from dataclasses import dataclass

import numpy as np

from server.rows import Given
from training.latents import Asked, draw_each
from training.path import arc
from training.prior import Prior


@dataclass(frozen=True, eq=False)
class Path:
    """z float32 [frames, latent], whose ends are those of two seeds; `labels` of the ends, None without classes.

    Where the labels differ, every frame but the ends is made of both, and one fades into the other.
    """

    z: np.ndarray
    labels: tuple[int, int] | None

    @property
    def fades(self) -> bool:
        return self.labels is not None and self.labels[0] != self.labels[1]

    def rows(self) -> Given:
        """What the generator has to see. Of two labels, every frame but the last, then every frame but the first."""
        if self.labels is None:
            return Given(self.z)
        if not self.fades:
            return Given(self.z, np.full(len(self.z), self.labels[0], np.int64))
        z = np.concatenate([self.z[:-1], self.z[1:]])
        return Given(z, np.array(self.labels, np.int64).repeat(len(self.z) - 1))

    def frames(self, images: np.ndarray) -> np.ndarray:
        """uint8 [rows, H, W, C] of `rows` -> uint8 [frames, H, W, C].

        Of two labels, frame i of n is ((n - 1 - i) · a + i · b) / (n - 1), a half rounded up. In integers: the ends are
        the pictures themselves, and no machine sums otherwise.
        """
        if not self.fades:
            return images
        last = len(self.z) - 1
        faded = np.empty((last + 1, *images.shape[1:]), np.uint8)
        faded[0], faded[last] = images[0], images[-1]
        for frame in range(1, last):
            before, after = images[frame].astype(np.uint32), images[last + frame - 1]
            faded[frame] = ((last - frame) * before + frame * after.astype(np.uint32) + last // 2) // last
        return faded


def path(first: Asked, last: Asked, frames: int, latent: int, classes: int, prior: Prior | None) -> Path:
    """From one image to another, in as many `frames`. An absent label is the class of its seed."""
    z, labels = draw_each([first, last], latent, classes, prior)
    return Path(arc(z[0], z[1], frames), None if labels is None else (int(labels[0]), int(labels[1])))
