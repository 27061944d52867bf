"""Seed in, latent out: the image identity (docs/image-identity.md). Image i of a request with seed S is image S + i.

Only raw Philox bits and fixed arithmetic are used, because NumPy's distribution methods may change between versions.
"""

import numpy as np
from scipy.special import ndtr, ndtri

from training.prior import Prior

SEEDS = 2**63  # seeds are 0 ... SEEDS - 1 and wrap around
DRAWN_SEEDS = 2**53  # seeds that the server draws itself: exact in a JavaScript number


def uniforms(seed: int, count: int, latent: int) -> np.ndarray:
    """float64 [count, latent + 2] strictly inside (0, 1): row i belongs to seed + i alone.

    A seed owns B = ⌈(latent + 2) / 4⌉ Philox blocks of 4 words, from counter seed·B on, so consecutive seeds are one
    draw. u = ((word >> 12) + ½) · 2⁻⁵² is exact in float64.
    """
    blocks = -(-(latent + 2) // 4)
    before_wrap = min(count, SEEDS - seed)
    words = np.random.Philox(key=0, counter=seed * blocks).random_raw(4 * blocks * before_wrap)
    if before_wrap < count:
        wrapped = np.random.Philox(key=0, counter=0).random_raw(4 * blocks * (count - before_wrap))
        words = np.concatenate([words, wrapped])
    rows = words.reshape(count, 4 * blocks)[:, : latent + 2]
    return ((rows >> np.uint64(12)) + 0.5) * 2.0**-52


def draw(
    seed: int,
    count: int,
    latent: int,
    classes: int,
    label: int | np.ndarray | None = None,
    truncation: float | None = None,
    prior: Prior | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """The inputs of images seed ... seed + count - 1: z float32 [count, latent], labels int64 [count] or None.

    `label` is that of all images, or int64 [count] of each; without one, each image of a conditional model takes the
    class ⌊u·classes⌋ of its own next uniform. `truncation` ψ in σ: ε is drawn from the normal truncated to [-ψ, ψ]
    (Brock et al. 2019). z is ε, or where `prior` places it in the component that the last uniform chooses; rounded to
    float32 once, at the end.
    """
    u = uniforms(seed, count, latent)
    inner = u[:, :latent]
    if truncation is not None:
        low = ndtr(-truncation)
        inner = low + inner * (ndtr(truncation) - low)
    labels: np.ndarray | None = None
    if classes:
        labels = (u[:, latent] * classes).astype(np.int64) if label is None else np.full(count, label, np.int64)
    z = ndtri(inner)
    if prior is not None:
        z = prior.place(z, u[:, latent + 1], labels)
    return z.astype(np.float32), labels
