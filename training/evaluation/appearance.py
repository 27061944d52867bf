"""Pixels in, figures of how pictures look out: no judge is asked."""

import numpy as np
from scipy import ndimage

from training.errors import EvaluationError
from training.evaluation.structure import ms_ssim

LUMA = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601)
LAPLACIAN = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]], np.float32)
ROWS = 1024  # pictures filtered at once


def sharpness(images: np.ndarray) -> np.ndarray:
    """Variance of the Laplacian of the luma of each picture, float64 [N], 0 or more (Pech-Pacheco et al. 2000).

    images uint8 [N, H, W, C] with C = 1, taken as it is, or 3. The four-neighbour Laplacian of levels 0 to 255,
    mirrored at the border as OpenCV has it. Edges and noise raise it, blur lowers it.
    """
    return np.concatenate([np.empty(0), *(_sharpness(images[at : at + ROWS]) for at in range(0, len(images), ROWS))])


def _sharpness(images: np.ndarray) -> np.ndarray:
    levels = images.astype(np.float32)
    luma = levels[..., 0] if images.shape[-1] == 1 else levels @ np.array(LUMA, np.float32)
    edges = ndimage.correlate(luma, LAPLACIAN[None], mode="mirror")
    return edges.var((1, 2), dtype=np.float64)


def within_class_similarity(images: np.ndarray, classes: np.ndarray, pairs: int = 1000, seed: int = 0) -> float:
    """Mean MS-SSIM of random pairs of different images of one class, in [0, 1]; 1 where each class is one picture.

    images uint8 [N, H, W, C], classes int [N] (Odena et al. 2017). The pairs are spread evenly over the classes of two
    images or more, and the same for a `seed` everywhere. Raises EvaluationError where no class has two images, and for
    less than 11 x 11 pixels.
    """
    first, second = _pairs(classes, pairs, seed)
    return float(ms_ssim(images[first], images[second]).mean())


def _pairs(classes: np.ndarray, pairs: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the first and of the second of each pair: raw Philox bits, as NumPy may change how it draws numbers."""
    _, starts, counts = np.unique(np.sort(classes), return_index=True, return_counts=True)
    several = np.flatnonzero(counts > 1)
    if not len(several):
        raise EvaluationError(
            "similarity within classes needs a class of at least 2 pictures", "Take more: --samples 1000."
        )
    by_class = np.argsort(classes, kind="stable")
    spread = several[np.arange(pairs) * len(several) // pairs]  # evenly, also over more classes than pairs
    start, count = starts[spread].astype(np.uint64), counts[spread].astype(np.uint64)
    one, step = np.random.Philox(key=seed).random_raw(2 * pairs).reshape(2, pairs)
    first = one % count
    second = (first + 1 + step % (count - 1)) % count  # at least one further, and never round to itself
    return by_class[start + first], by_class[start + second]
