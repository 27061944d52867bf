"""Logits, features and labels in, figures about pictures out. Pure functions on NumPy arrays.

Features are the judge's (float32 [N, F]), so a distance here is a *domain* FID or KID: comparable under the same judge
and the same number of images, never with figures of Inception features.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.special import log_softmax, logsumexp
from scipy.stats import rankdata

from training.errors import EvaluationError

NEIGHBOURS = 5  # of the k-nearest-neighbour balls of precision, recall, density and coverage (Naeem et al. 2020)
ROWS = 256  # of a distance matrix held at once: against 10,000 others 20 MB, which costs less time than more
SAME = 1e-13  # of the squares that a squared distance is the difference of: what is below is their rounding


class Neighbourhood(NamedTuple):
    """Precision, recall and coverage are shares in [0, 1]; density is 0 or more, about 1 for real images."""

    precision: float
    recall: float
    density: float
    coverage: float


def agreement(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share of images that the judge puts into the class that was asked for. logits [N, classes], labels [N].

    Raises EvaluationError for no image at all.
    """
    _enough("label agreement", 1, logits)
    return float((logits.argmax(1) == labels).mean())


def class_histogram_distance(classes: np.ndarray, reference: np.ndarray, count: int) -> float:
    """Total variation of two sets of class numbers [N], [M] below `count`: the share that would have to change.

    Raises EvaluationError for no image on either side.
    """
    _enough("class histogram distance", 1, classes, reference)
    first, second = (np.bincount(side, minlength=count) / len(side) for side in (classes, reference))
    return float(0.5 * np.abs(first - second).sum())


def inception_score(logits: np.ndarray, splits: int = 1) -> float:
    """exp of the mean KL(p(y|x) ‖ p(y)) of the judge's classes (Salimans et al. 2016), in [1, classes].

    logits [N, classes]. With `splits`, the mean of the scores of so many parts of consecutive rows, each with a p(y)
    of its own: fewer pictures, a lower score. Raises EvaluationError for N < splits.
    """
    _enough("inception score", splits, logits)
    parts = np.array_split(log_softmax(np.asarray(logits, np.float64), axis=1), splits)
    return float(np.mean([_exponential_of_information(part) for part in parts]))


def _exponential_of_information(given: np.ndarray) -> np.float64:
    """log p(y|x) [N, classes] -> exp of what a picture tells of its class."""
    marginal = logsumexp(given, axis=0) - np.log(len(given))
    return np.exp((np.exp(given) * (given - marginal)).sum(1).mean())


def within_class_variance(features: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the classes present of the summed variance of the judge's features. features [N, F], labels [N].

    Each without bias (over n - 1), so that classes of few images compare with classes of many. A class of one image
    has no variance and is left out; NaN where that leaves none. The ratio of generated to real tells collapse within
    classes, which agreement and precision do not show.
    """
    classes = [features[labels == label] for label in np.unique(labels)]
    spreads = [rows.var(axis=0, dtype=np.float64, ddof=1).sum() for rows in classes if len(rows) > 1]
    return float(np.mean(spreads)) if spreads else float("nan")


# distances of sets


def fid(features: np.ndarray, reference: np.ndarray) -> float:
    """Fréchet distance of two Gaussians fitted to features [N, F] and [M, F] (Heusel et al. 2017), N, M ≥ 2.

    ‖μ₁ - μ₂‖² + tr(Σ₁ + Σ₂ - 2 (Σ₁ Σ₂)^½), in float64. The trace of the root is the sum of the square roots of the
    eigenvalues of Σ₁^½ Σ₂ Σ₁^½: symmetric, so a singular covariance (features behind a ReLU) is no trouble.
    Raises EvaluationError for fewer than 2 images on either side.
    """
    _enough("FID", 2, features, reference)
    first, second = np.asarray(features, np.float64), np.asarray(reference, np.float64)
    gap = first.mean(0) - second.mean(0)
    sigma, other = (np.atleast_2d(np.cov(side, rowvar=False)) for side in (first, second))
    values, vectors = np.linalg.eigh(sigma)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    mixed = np.sqrt(np.linalg.eigvalsh(root @ other @ root).clip(0)).sum()
    return float(np.maximum(0, gap @ gap + np.trace(sigma) + np.trace(other) - 2 * mixed))  # which keeps a NaN


def kid(features: np.ndarray, reference: np.ndarray) -> float:
    """Kernel distance of features [N, F] and [M, F]: the unbiased MMD² of (x·y / F + 1)³ (Bińkowski et al. 2018).

    Over all rows at once rather than over random subsets, in float64. Its mean does not depend on N and M, so that
    small sets can be compared; without bias it is now and then slightly below 0 for sets that are alike.
    Raises EvaluationError for fewer than 2 images on either side.
    """
    _enough("KID", 2, features, reference)
    first, second = np.asarray(features, np.float64), np.asarray(reference, np.float64)
    crossed = _kernel_sum(first, second) / (len(first) * len(second))
    return float(_kernel_mean(first) + _kernel_mean(second) - 2 * crossed)


def _kernel_mean(features: np.ndarray) -> float:
    """Of all pairs of different rows: a row with itself is what would make the estimate biased."""
    width = features.shape[1]
    itself = (((features * features).sum(1) / width + 1) ** 3).sum()
    return (_kernel_sum(features, features) - itself) / (len(features) * (len(features) - 1))


def _kernel_sum(first: np.ndarray, second: np.ndarray) -> float:
    total = 0.0
    for _, rows in _blocks(first):
        kernel = (rows / first.shape[1]) @ second.T
        kernel += 1
        total += np.vdot(kernel * kernel, kernel)
    return float(total)


# neighbourhoods


def neighbourhood(features: np.ndarray, reference: np.ndarray, k: int = NEIGHBOURS) -> Neighbourhood:
    """Four figures of k-th-neighbour balls around generated features [N, F] and real ones [M, F]; N, M > k.

    The ball of a feature reaches to its k-th neighbour among the others of its own side, and holds its border.
    Precision: the share of generated features within the ball of some real one. Recall: the share of real ones within
    that of some generated one; it tells a generator that leaves out what is rare (both Kynkäänniemi et al. 2019).
    Density: in how many real balls a generated feature lies, on average, over k; an outlier's wide ball counts but as
    one. Coverage: the share of real balls with a generated feature in them (both Naeem et al. 2020).
    All depend on the number of features, so compare only equal N and M.
    Raises EvaluationError for N or M ≤ k.
    """
    _enough("recall", k + 1, features, reference)
    features, reference = np.asarray(features, np.float64), np.asarray(reference, np.float64)
    reach, real_reach = _reach(features, k), _reach(reference, k)
    precise, inside = 0, 0
    recalled, covered = np.zeros(len(reference), bool), np.zeros(len(reference), bool)
    for start, rows in _blocks(features):
        apart = _squared(rows, reference)
        held = apart <= real_reach
        precise += int(np.count_nonzero(held.any(1)))
        inside += int(np.count_nonzero(held))
        covered |= held.any(0)
        recalled |= (apart <= reach[start : start + len(rows), None]).any(0)
    count = len(features)
    return Neighbourhood(precise / count, float(recalled.mean()), inside / (k * count), float(covered.mean()))


def _reach(features: np.ndarray, k: int) -> np.ndarray:
    """Squared distance of each feature to its k-th neighbour among the others: the feature itself is the 0-th."""
    parts = []
    for _, rows in _blocks(features):
        apart = _squared(rows, features)
        apart.partition(k, axis=1)
        parts.append(apart[:, k].copy())  # a view would keep the whole block
    return np.concatenate(parts)


# copies


def nearest(features: np.ndarray, training: np.ndarray, apart: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Euclidean distance of each of features [N, F] to the nearest of training [M, F], and which that is.

    -> float64 [N], int64 [N]. `apart`: `features` is `training` itself, and a row is no neighbour of its own.
    Raises EvaluationError for no image on either side; where `apart`, for fewer than 2.
    """
    _enough("distance to the nearest training image", 2 if apart else 1, features, training)
    features, training = np.asarray(features, np.float64), np.asarray(training, np.float64)
    parts = []
    for start, rows in _blocks(features):
        squared = _squared(rows, training)
        if apart:
            itself = np.arange(len(rows))
            squared[itself, start + itself] = np.inf
        parts.append(squared.argmin(1))
    index = np.concatenate(parts)
    # from the rows themselves, for what the product leaves of a small distance is mostly rounding
    return np.linalg.norm(features - training[index], axis=1), index


def copying(distances: np.ndarray, held_out: np.ndarray) -> float:
    """The chance that a picture is nearer to a training image than an unseen real image is, in [0, 1].

    P(d < d') + ½ P(d = d') of distances [N] of pictures and held_out [M] of unseen real images, each to its `nearest`
    training image: the Mann-Whitney U over NM (Meehan et al. 2020). 0.5 for an honest generator, 1 for one that
    copies, near 0 for one whose pictures are far from everything.
    Raises EvaluationError for no image on either side.
    """
    _enough("copying", 1, distances, held_out)
    count = len(held_out)
    ranks = rankdata(np.concatenate([held_out, distances]))[:count]
    return float((ranks.sum() - count * (count + 1) / 2) / (count * len(distances)))


def copies(distances: np.ndarray, held_out: np.ndarray, quantile: float = 0.01) -> float:
    """Share of pictures nearer to a training image than all but the `quantile` of unseen real images, in [0, 1].

    distances [N] of pictures and held_out [M] of unseen real images, each to its `nearest` training image. A distance
    of 0 counts whatever that quantile is: a data set may have images twice.
    Raises EvaluationError for no image on either side.
    """
    _enough("share of near copies", 1, distances, held_out)
    return float(((distances < np.quantile(held_out, quantile)) | (distances == 0)).mean())


# what they share


def _enough(figure: str, needed: int, *sides: np.ndarray) -> None:
    """Raise EvaluationError where a side, pictures first and real images last, has fewer rows than `needed`."""
    counts = [len(side) for side in sides]
    if min(counts) >= needed:
        return
    where = " on either side" if len(sides) > 1 else ""
    there = f"there {'is' if counts[0] == 1 else 'are'} {' and '.join(map(str, counts))}"
    pictures = f"{needed} picture{'s' * (needed != 1)}"
    mend = (
        "Take more: --samples 1000." if counts[0] < needed else "Measure against more: a larger set, or another split."
    )
    raise EvaluationError(f"{figure} needs at least {pictures}{where}, {there}", mend)


def _blocks(features: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """The number of its first row, and ROWS rows at a time."""
    return ((start, features[start : start + ROWS]) for start in range(0, len(features), ROWS))


def _squared(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Squared distances float64 [N, M] by one matrix product; 0 for equal rows, of which rounding would leave more.

    Without that a ball of repeated pictures, of radius 0, would by chance not hold them.
    """
    squares = (one * one).sum(1)[:, None] + (other * other).sum(1)
    squared = one @ other.T
    squared *= -2
    squared += squares
    squares *= SAME
    squared[squared < squares] = 0
    return squared
