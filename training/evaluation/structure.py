"""Two pictures of equal size in, how alike their structure is out."""

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from training.errors import EvaluationError

WINDOW = 11  # pixels across the Gaussian window, and the least that a picture of any scale has
SIGMA = 1.5
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2  # keep flat or dark windows from dividing by nothing
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the scales, the finest first (Wang et al. 2003)
PAIRS = 128  # filtered at once: ten maps of float64 each


def ssim(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Structural similarity of each pair, float64 [N] in [-1, 1], 1 for equal pictures (Wang et al. 2004).

    first and second uint8 [N, H, W, C]. Gaussian window of 11 pixels, σ 1.5, K₁ 0.01, K₂ 0.03; the mean over the
    windows that lie within the picture, and over the channels. Raises EvaluationError for less than 11 x 11 pixels.
    """
    _scales(first)
    return _by_blocks(lambda one, other: _inside(np.prod(_compared(one, other), axis=0)), first, second)


def ms_ssim(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Multi-scale structural similarity of each pair, float64 [N] in [0, 1], 1 for equal pictures (Wang et al. 2003).

    first and second uint8 [N, H, W, C]. As many scales as leave 11 pixels, at most five: 2 for sides of 28 and 32, 3
    for 64. Their weights are the first of the paper's over their sum, so figures of other sizes do not compare. Each
    scale is the mean of 2 x 2 pixels of the one before. The contrast and structure of all scales but the last are the
    mean over the windows within the picture; the last scale, with its luminance, over windows at every pixel, the
    picture mirrored at its border, for of 14 pixels few windows lie within. That is what torchmetrics computes.
    A term below 0, pictures that are each other's negative, counts as 0, so that it has a power.
    Raises EvaluationError for less than 11 x 11 pixels.
    """
    weights = np.array(WEIGHTS[: _scales(first)])
    weights /= weights.sum()
    return _by_blocks(lambda one, other: _multiplied(one, other, weights), first, second)


def _scales(images: np.ndarray) -> int:
    height, width = images.shape[1:3]
    if min(height, width) < WINDOW:
        raise EvaluationError(
            f"structural similarity needs at least {WINDOW} x {WINDOW} pixels, these pictures have {width} x {height}",
            "Leave the figure out.",
        )
    return sum(min(height, width) >> scale >= WINDOW for scale in range(len(WEIGHTS)))


def _by_blocks(
    measure: Callable[[np.ndarray, np.ndarray], np.ndarray], first: np.ndarray, second: np.ndarray
) -> np.ndarray:
    starts = range(0, len(first), PAIRS)
    sides = ([side[start : start + PAIRS].astype(np.float64) for side in (first, second)] for start in starts)
    return np.concatenate([np.empty(0), *(measure(*pair) for pair in sides)])


def _multiplied(first: np.ndarray, second: np.ndarray, weights: np.ndarray) -> np.ndarray:
    product = np.ones(len(first))
    for weight in weights[:-1]:
        _, structure = _compared(first, second)
        product *= _inside(structure).clip(0) ** weight
        first, second = _halved(first), _halved(second)
    luminance, structure = _compared(first, second)
    return product * (luminance * structure).mean((1, 2, 3)).clip(0) ** weights[-1]


def _compared(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float64 [N, H, W, C] -> luminance, and contrast times structure, of the window at each pixel."""
    mean, other = _blurred(first), _blurred(second)
    variances = _blurred(first * first + second * second) - mean * mean - other * other
    covariance = _blurred(first * second) - mean * other
    luminance = (2 * mean * other + C1) / (mean * mean + other * other + C1)
    return luminance, (2 * covariance + C2) / (variances + C2)


def _blurred(images: np.ndarray) -> np.ndarray:
    return ndimage.gaussian_filter(images, SIGMA, mode="mirror", radius=WINDOW // 2, axes=(1, 2))


def _inside(windows: np.ndarray) -> np.ndarray:
    """[N, H, W, C] -> the mean over the windows that lie within the picture."""
    border = slice(WINDOW // 2, -(WINDOW // 2))
    return windows[:, border, border].mean((1, 2, 3))


def _halved(images: np.ndarray) -> np.ndarray:
    """The mean of 2 x 2 pixels; the last row or column of an odd size is left out."""
    count, height, width, channels = images.shape
    even = images[:, : height // 2 * 2, : width // 2 * 2]
    return even.reshape(count, height // 2, 2, width // 2, 2, channels).mean((2, 4))
