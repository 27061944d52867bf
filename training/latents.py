"""Seed in, latent out: the image identity (docs/image-identity.md). Image i of a request with seed S is image S + i.

Only raw Philox bits and fixed arithmetic are used, because NumPy's distribution methods may change between versions.
A row's numbers are its own: the same bit for bit in a draw of any requests, in any order, on any thread.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from scipy.special import ndtr, ndtri

from training.prior import Prior

SEEDS = 2**63  # seeds are 0 ... SEEDS - 1 and wrap around
DRAWN_SEEDS = 2**53  # seeds that the server draws itself: exact in a JavaScript number
WORD = 2**64


@dataclass(frozen=True, eq=False, slots=True)
class Asked:
    """The images seed ... seed + count - 1 of one request, 0 ≤ seed < SEEDS, wrapping.

    `label` is that of all of them, or int64 [count] of each; None leaves it to their uniforms. `truncation` is ψ in σ,
    0 < ψ ≤ 8, or None.
    """

    seed: int
    count: int
    label: int | np.ndarray | None = None
    truncation: float | None = None

    def part(self, start: int, end: int) -> "Asked":
        """Its images start ... end - 1, asked for alone."""
        label = self.label[start:end] if isinstance(self.label, np.ndarray) else self.label
        return Asked((self.seed + start) % SEEDS, end - start, label, self.truncation)


def uniforms(asked: Sequence[Asked], latent: int) -> np.ndarray:
    """float64 [sum of counts, latent + 2] strictly inside (0, 1): each row belongs to its seed alone.

    A seed owns B = ⌈(latent + 2) / 4⌉ Philox blocks of 4 words, from counter seed·B on, so consecutive seeds are one
    draw. u = ((word >> 12) + ½) · 2⁻⁵² is exact in float64.
    """
    blocks = -(-(latent + 2) // 4)
    rows = _words(asked, blocks).reshape(-1, 4 * blocks)[:, : latent + 2]
    return ((rows >> np.uint64(12)) + 0.5) * 2.0**-52


def _words(asked: Sequence[Asked], blocks: int) -> np.ndarray:
    """The raw words of all requests, one after the other: uint64 [sum of counts · 4 · blocks].

    One generator is set to the counter of each request in 1 µs, where making another takes 7.
    """
    runs: list[tuple[int, int]] = []  # first seed and count, without a wrap
    for one in asked:
        before_wrap = min(one.count, SEEDS - one.seed)
        runs.append((one.seed, before_wrap))
        if before_wrap < one.count:
            runs.append((0, one.count - before_wrap))
    philox = np.random.Philox(key=0)
    state = philox.state  # nothing is drawn yet, so the next word begins a block
    counter = state["state"]["counter"]
    words = []
    for seed, count in runs:
        counter[1], counter[0] = divmod(seed * blocks, WORD)
        philox.state = state
        words.append(philox.random_raw(4 * blocks * count))
    return np.concatenate(words)


def draw_each(
    asked: Sequence[Asked], latent: int, classes: int, prior: Prior | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """The inputs of one or more requests, one after the other: z float32 [n, latent], labels int64 [n] or None.

    n is the sum of their counts. Without a label, each image of a conditional model takes the class ⌊u·classes⌋ of its
    own next uniform. With a truncation ψ, ε is drawn from the normal truncated to [-ψ, ψ] (Brock et al. 2019). z is ε,
    or where `prior` places it in the component that the last uniform chooses; rounded to float32 once, at the end.
    """
    u = uniforms(asked, latent)
    counts = [one.count for one in asked]
    inner = u[:, :latent]
    if any(one.truncation is not None for one in asked):
        psi = np.array([math.inf if one.truncation is None else one.truncation for one in asked])
        low = ndtr(-psi)  # 0 without a truncation, and 0 + u · (1 - 0) is u
        width = ndtr(psi) - low
        inner = np.repeat(low, counts)[:, None] + inner * np.repeat(width, counts)[:, None]
    labels: np.ndarray | None = None
    if classes:
        labels = (u[:, latent] * classes).astype(np.int64)
        for one, end in zip(asked, accumulate(counts), strict=True):
            if one.label is not None:
                labels[end - one.count : end] = one.label
    z = ndtri(inner)
    if prior is not None:
        z = prior.place(z, u[:, latent + 1], labels)
    return z.astype(np.float32), labels


def draw(
    seed: int,
    count: int,
    latent: int,
    classes: int,
    label: int | np.ndarray | None = None,
    truncation: float | None = None,
    prior: Prior | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """The inputs of one request, as `draw_each` draws them: z float32 [count, latent], labels int64 [count] or None."""
    return draw_each([Asked(seed, count, label, truncation)], latent, classes, prior)
