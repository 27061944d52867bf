"""Two latents in, the latents on the way from one to the other out."""

import math

import numpy as np

ON_A_LINE = 1e-6  # sine of the angle between two float32 latents that are taken for parallel, or for opposite


def arc(first: np.ndarray, last: np.ndarray, steps: int) -> np.ndarray:
    """float32 [L] and [L] -> float32 [steps, L], in equal steps of angle and of length, both ends bit for bit.

    With t = i / (steps - 1), û the directions of the ends and θ the angle between them,

        z(t) = ((1 - t)‖z₀‖ + t‖z₁‖) · (sin((1 - t)θ) û₀ + sin(tθ) û₁) / sin θ

    is slerp (Shoemake 1985), by which White 2016 ("Sampling Generative Networks") goes from latent to latent, with the
    length interpolated beside it. Half way on a straight line latents are much shorter than any that is drawn.

    Parallel latents are joined by that straight line. Between opposite ones every half circle is as good: it goes by
    the axis along which the first is smallest (the first such axis). From or to the origin, and in one dimension, there
    is only the straight line. Sums are rounded once, whatever their order, so a path is the same on every machine as
    far as its sines are; backwards it has the same latents, but between opposite ends. `steps` ≥ 2.
    """
    one, other = first.astype(np.float64), last.astype(np.float64)
    shares = [((steps - 1 - step) / (steps - 1), step / (steps - 1)) for step in range(steps)]
    lengths = _length(one), _length(other)
    turned = None if 0.0 in lengths else _turned(one / lengths[0], other / lengths[1], shares)
    before, after = np.array(shares).T[:, :, None]
    path = before * one + after * other if turned is None else (before * lengths[0] + after * lengths[1]) * turned
    path = path.astype(np.float32)
    path[0], path[-1] = first, last
    return path


def _length(vector: np.ndarray) -> float:
    return math.sqrt(math.fsum(vector * vector))


def _turned(start: np.ndarray, end: np.ndarray, shares: list[tuple[float, float]]) -> np.ndarray | None:
    """Two directions [L] -> those between them [steps, L]; None where there is no turning from one to the other."""
    angle = 2 * math.atan2(_length(start - end), _length(start + end))  # exact where an arc cosine is not: at 0 and π
    sine = math.sin(angle)
    if sine >= ON_A_LINE:
        weights = [(math.sin(before * angle) / sine, math.sin(after * angle) / sine) for before, after in shares]
    elif angle < 1 or len(start) == 1:
        return None
    else:
        axis = np.abs(start).argmin()
        end = -start[axis] * start
        end[axis] += 1
        end /= _length(end)
        weights = [(math.cos(after * math.pi), math.sin(after * math.pi)) for _, after in shares]
    before, after = np.array(weights).T[:, :, None]
    return before * start + after * end
