"""Two pictures in, how near they are to each other out: by structure, signal, colour, texture, edges, shape, a judge.

A measure describes each picture for itself and then compares descriptions, so that a picture that is compared with
thousands is described once. scikit-image, which only the texture needs, comes with the extra `evaluate`.
"""

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage

from training.errors import EvaluationError
from training.evaluation import structure
from training.evaluation.sight import Sees

JUDGE = "judge"  # the name of the measure that only a judge can give
SMALLEST = 11  # pixels of a side: the window of SSIM
COLOUR_BINS, GREY_BINS = 8, 32  # for each of three channels, 512 in all; for the only one
NEIGHBOURS, RADIUS = 8, 1  # of a local binary pattern
ORIENTATIONS = 9  # of the half circle
CELLS, SMALLEST_CELL = 8, 4  # cells along the shorter side, as in the paper's 64-pixel window; pixels of a cell
FAINT = 16  # levels: blocks of weaker gradients, as JPEG and resizing leave them in flat areas, count little
ROUNDING = 1e-9  # by which a figure may leave its range

Describe = Callable[[np.ndarray], np.ndarray]
Between = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Measure:
    """`describe`: uint8 [N, H, W, C] -> [N, ...]; `between`: two of those -> float64 [N], in `range`.

    `looks_at` is a clause short enough for a table. Where the range is endless, equal pictures have no figure.
    """

    title: str
    nearer: Literal["high", "low"]
    range: tuple[float, float]
    looks_at: str
    paper: str
    describe: Describe
    between: Between
    digits: int = 3
    unit: str = ""

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Descriptions [1, ...] or [N, ...], and [N, ...] -> float64 [N]; infinite only where the range is.

        Raises EvaluationError for a figure that is not finite, or out of range: it would sort and print like any other.
        """
        low, high = self.range
        values = self.between(np.broadcast_to(first, second.shape), second)
        sound = (low - ROUNDING <= values) & (values <= high + ROUNDING)
        if not sound.all():
            raise EvaluationError(f"{self.title} came out as {values[~sound][0]:g}, not from {low:g} to {high:g}")
        return values.clip(low, high)

    def scale(self) -> str:
        """Its range and direction, for people: "0 to 1, higher is nearer"."""
        low, high = self.range
        reach = f"{low:g}{self.unit} up" if math.isinf(high) else f"{low:g} to {high:g}"
        return f"{reach}, {self.nearer}er is nearer"

    def text(self, value: float | None) -> str:
        return "equal" if value is None else f"{value:.{self.digits}f}{self.unit}"


def similarities(first: np.ndarray, second: np.ndarray, judge: Sees | None = None) -> dict[str, float | None]:
    """uint8 [H, W, C] and [H, W, C] with C 1 or 3 -> the figure of each measure, by name; None: no figure, as equal.

    A grey and a colour picture are compared in colour. Raises EvaluationError for pictures of two sizes or under 11
    pixels, for a judge of another size, and for a figure that is not finite.
    """
    if first.shape[:2] != second.shape[:2]:
        sizes = " and ".join(f"{picture.shape[1]}x{picture.shape[0]}" for picture in (first, second))
        raise EvaluationError(f"pictures of {sizes} cannot be compared", "Bring them to one size.")
    channels = max(first.shape[2], second.shape[2])
    pair = [with_channels(picture, channels)[None] for picture in (first, second)]
    return {
        name: finite(measure(*(measure.describe(picture) for picture in pair)).item())
        for name, measure in measures(judge).items()
    }


def measures(judge: Sees | None = None) -> dict[str, Measure]:
    """MEASURES, and that of the judge where there is one."""
    return MEASURES if judge is None else MEASURES | {JUDGE: judged(judge)}


def finite(value: float) -> float | None:
    """None for the figure that equal pictures do not have."""
    return None if math.isinf(value) else value


def with_channels(picture: np.ndarray, channels: int) -> np.ndarray:
    """uint8 [H, W, 1] or [H, W, channels] -> uint8 [H, W, channels]: grey is repeated."""
    return np.repeat(picture, channels, axis=2) if picture.shape[2] < channels else picture


# one description for each picture: uint8 [N, H, W, C] -> [N, ...]


def pixels(pictures: np.ndarray) -> np.ndarray:
    """The pictures themselves."""
    return pictures


def colours(pictures: np.ndarray) -> np.ndarray:
    """float64 [N, 512] for colour, [N, 32] for grey: the share of pixels in each bin of the joint RGB histogram."""
    channels = pictures.shape[3]
    bins = GREY_BINS if channels == 1 else COLOUR_BINS
    places = (pictures.astype(np.int64) * bins // 256) @ bins ** np.arange(channels)
    return _shares(places.reshape(len(pictures), -1), bins**channels)


def textures(pictures: np.ndarray) -> np.ndarray:
    """float64 [N, 10]: how often each uniform local binary pattern comes (Ojala et al. 2002, P = 8, R = 1).

    Patterns are of brightness, the sum of the channels, and do not tell in which direction they lie. The outermost
    pixels lack neighbours and are not counted.
    """
    from skimage.feature import local_binary_pattern

    brightness = pictures.sum(axis=3, dtype=np.uint16)
    found = [local_binary_pattern(picture, NEIGHBOURS, RADIUS, "uniform")[1:-1, 1:-1] for picture in brightness]
    return _shares(np.stack(found).astype(np.int64).reshape(len(pictures), -1), NEIGHBOURS + 2)


def edges(pictures: np.ndarray) -> np.ndarray:
    """float64 [N, H * W]: the magnitude of Sobel's gradient over all channels, as a vector of length 1; 0 if flat.

    Over all channels, because two colours of one brightness have an edge between them too.
    """
    levels = pictures.astype(np.float64)
    down, right = (
        ndimage.correlate1d(ndimage.correlate1d(levels, (-1, 0, 1), axis=step), (1, 2, 1), axis=along)
        for step, along in ((1, 2), (2, 1))  # ndimage.sobel would smooth along pictures and channels as well
    )
    return _unit(np.sqrt(np.sum(down**2 + right**2, axis=3)))


def shapes(pictures: np.ndarray) -> np.ndarray:
    """float64 [N, D]: histograms of oriented gradients (Dalal & Triggs 2005), as a vector of length 1; 0 if flat.

    9 orientations, blocks of 2x2 cells, about 8 cells along the shorter side: what a shape is does not change with the
    number of pixels it is drawn with. As in the paper, a pixel has the gradient of its strongest channel and votes for
    the two orientations next to its own; scikit-image lets it vote for one, so that an upright edge, on the border of
    two, falls to either by a grain of noise.
    """
    levels = pictures.astype(np.float64)
    down, right = np.zeros_like(levels), np.zeros_like(levels)
    down[:, 1:-1] = levels[:, 2:] - levels[:, :-2]
    right[:, :, 1:-1] = levels[:, :, 2:] - levels[:, :, :-2]
    strongest = (down**2 + right**2).argmax(axis=3, keepdims=True)
    down, right = (np.take_along_axis(step, strongest, axis=3)[..., 0] for step in (down, right))
    strength, angle = np.hypot(down, right), np.arctan2(down, right) * ORIENTATIONS / np.pi
    votes = (strength * _nearness(angle, orientation + 0.5) for orientation in range(ORIENTATIONS))
    cells = np.stack([_cells(vote) for vote in votes], axis=3)
    corners = [cells[:, :-1, :-1], cells[:, :-1, 1:], cells[:, 1:, :-1], cells[:, 1:, 1:]]
    blocks = np.concatenate(corners, axis=3)
    return _unit(blocks / np.sqrt((blocks**2).sum(axis=3, keepdims=True) + FAINT**2))


def _nearness(angle: np.ndarray, centre: float) -> np.ndarray:
    """1 at the centre of an orientation, 0 at that of its neighbours, all round the half circle."""
    half = ORIENTATIONS / 2
    return (1 - np.abs((angle - centre + half) % ORIENTATIONS - half)).clip(0)


def _cells(maps: np.ndarray) -> np.ndarray:
    """[N, H, W] -> the mean of each square cell; rows and columns that fill none are left out."""
    count, height, width = maps.shape
    cell = max(SMALLEST_CELL, min(height, width) // CELLS)
    rows, columns = height // cell, width // cell
    whole = maps[:, : rows * cell, : columns * cell]
    return whole.reshape(count, rows, cell, columns, cell).mean(axis=(2, 4))


def judged(judge: Sees) -> Measure:
    """The measure that looks through a judge. Describing raises EvaluationError where pictures do not fit the judge."""

    def seen(pictures: np.ndarray) -> np.ndarray:
        try:
            return _unit(judge.look(pictures)[1])
        except EvaluationError as error:
            if pictures.shape[3] == 1:
                with suppress(EvaluationError):  # its training repeated the grey pictures of a colour set as well
                    return _unit(judge.look(np.repeat(pictures, 3, axis=3))[1])
            raise EvaluationError(error.what, "Use --size, or the judge of their own data set.") from error

    return Measure(
        "judge",
        "high",
        (-1, 1),
        "what a classifier sees in them",
        "Zhang et al. 2018, The Unreasonable Effectiveness of Deep Features as a Perceptual Metric",
        seen,
        cosine,
    )


def _shares(places: np.ndarray, bins: int) -> np.ndarray:
    """int64 [N, K] below `bins` -> float64 [N, bins], rows summing to 1."""
    return np.stack([np.bincount(row, minlength=bins) for row in places]) / places.shape[1]


def _unit(vectors: np.ndarray) -> np.ndarray:
    """[N, ...] -> float64 [N, D] of length 1; what is all zero stays so."""
    flat = vectors.reshape(len(vectors), -1).astype(np.float64)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):  # what is not finite stays so, to be refused
        return flat / np.where(length == 0, 1, length)


# descriptions of N pairs -> float64 [N]


def psnr(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio in dB of uint8 [N, H, W, C]: 0 of black and white, infinite where they are equal."""
    error = np.mean((first.astype(np.float64) - second) ** 2, axis=(1, 2, 3))
    with np.errstate(divide="ignore"):
        return 10 * np.log10(255**2 / error)


def hellinger(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Distance of shares: 0 where they are equal, 1 where no bin is in both."""
    return np.linalg.norm(np.sqrt(first) - np.sqrt(second), axis=1) / math.sqrt(2)


def cosine(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Of vectors of length 1; of one that is 0 (nothing there) with another such 1, with anything else 0.

    By the distance of the two rather than their product, which rounds to less than 1 for equal ones.
    """
    apart = np.sum((first - second) ** 2, axis=1)
    return np.where(first.any(axis=1) == second.any(axis=1), 1 - apart / 2, 0.0)


MEASURES: dict[str, Measure] = {
    "ssim": Measure(
        "SSIM", "high", (-1, 1),
        "pattern in windows of 11 pixels",
        "Wang et al. 2004, Image Quality Assessment: From Error Visibility to Structural Similarity",
        pixels, structure.ssim,
    ),
    "ms_ssim": Measure(
        "MS-SSIM", "high", (0, 1),
        "the same at several scales",
        "Wang et al. 2003, Multiscale Structural Similarity for Image Quality Assessment",
        pixels, structure.ms_ssim,
    ),
    "psnr": Measure(
        "PSNR", "high", (0, math.inf),
        "the difference of each pixel",
        "Huynh-Thu & Ghanbari 2008, Scope of Validity of PSNR in Image/Video Quality Assessment",
        pixels, psnr, 1, " dB",
    ),
    "colour": Measure(
        "colour", "low", (0, 1),
        "how much of each colour, not where",
        "Swain & Ballard 1991, Color Indexing",
        colours, hellinger,
    ),
    "texture": Measure(
        "texture", "low", (0, 1),
        "how fine and rough the surface is",
        "Ojala et al. 2002, Multiresolution Gray-Scale and Rotation Invariant Texture Classification",
        textures, hellinger,
    ),
    "edges": Measure(
        "edges", "high", (0, 1),
        "where outlines lie, and how strong",
        "Sobel & Feldman 1968, A 3x3 Isotropic Gradient Operator for Image Processing",
        edges, cosine,
    ),
    "shape": Measure(
        "shape", "high", (0, 1),
        "which way outlines run, by cells",
        "Dalal & Triggs 2005, Histograms of Oriented Gradients for Human Detection",
        shapes, cosine,
    ),
}  # fmt: skip
