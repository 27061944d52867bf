"""Logits, features and labels in, figures about pictures out. Pure functions on NumPy arrays.

Features are the judge's (float32 [N, F]), so a distance here is a *domain* FID: comparable under the same judge and the
same number of images, never with figures of Inception features.
"""

import numpy as np

NEIGHBOURS = 5  # of the k-nearest-neighbour balls of precision and recall (Naeem et al. 2020)
ROWS = 1024  # of a distance matrix held at once


def agreement(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share of images that the judge puts into the class that was asked for. logits [N, classes], labels [N]."""
    return float((logits.argmax(1) == labels).mean())


def within_class_variance(features: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the classes present of the summed variance of the judge's features. features [N, F], labels [N].

    A class of one image has no variance and is left out; NaN where that leaves none.
    The ratio of generated to real tells collapse within classes, which agreement and precision do not show.
    """
    classes = [features[labels == label] for label in np.unique(labels)]
    spreads = [rows.var(axis=0, dtype=np.float64).sum() for rows in classes if len(rows) > 1]
    return float(np.mean(spreads)) if spreads else float("nan")


def fid(features: np.ndarray, reference: np.ndarray) -> float:
    """Fréchet distance of two Gaussians fitted to features [N, F] and [M, F] (Heusel et al. 2017), N, M ≥ 2.

    ‖μ₁ - μ₂‖² + tr(Σ₁ + Σ₂ - 2 (Σ₁ Σ₂)^½), in float64. The trace of the root is the sum of the square roots of the
    eigenvalues of Σ₁^½ Σ₂ Σ₁^½: symmetric, so a singular covariance (features behind a ReLU) is no trouble.
    """
    first, second = np.asarray(features, np.float64), np.asarray(reference, np.float64)
    gap = first.mean(0) - second.mean(0)
    sigma, other = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    values, vectors = np.linalg.eigh(sigma)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    mixed = np.sqrt(np.linalg.eigvalsh(root @ other @ root).clip(0)).sum()
    return max(0.0, float(gap @ gap + np.trace(sigma) + np.trace(other) - 2 * mixed))


def precision_recall(features: np.ndarray, reference: np.ndarray, k: int = NEIGHBOURS) -> tuple[float, float]:
    """Improved precision and recall (Kynkäänniemi et al. 2019): generated features [N, F], real ones [M, F].

    Precision: the share of generated features within the k-th-neighbour ball of some real one. Recall: the share of
    real ones within that of some generated one; it tells a generator that leaves out what is rare. Both depend on the
    number of features, so compare only equal N and M; N, M > k.
    """
    reach, real_reach = _reach(features, k), _reach(reference, k)
    precise, recalled = [], np.zeros(len(reference), bool)
    for start in range(0, len(features), ROWS):
        apart = _squared(features[start : start + ROWS], reference)
        precise.append((apart <= real_reach).any(1))
        recalled |= (apart <= reach[start : start + ROWS, None]).any(0)
    return float(np.concatenate(precise).mean()), float(recalled.mean())


def _reach(features: np.ndarray, k: int) -> np.ndarray:
    """Squared distance of each feature to its k-th neighbour among the others: the feature itself is the 0-th."""
    parts = [
        np.partition(_squared(features[start : start + ROWS], features), k, axis=1)[:, k]
        for start in range(0, len(features), ROWS)
    ]
    return np.concatenate(parts)


def _squared(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Squared distances [N, M] by one matrix product, in float64 so that the difference of large squares is near."""
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    apart = (one * one).sum(1)[:, None] + (other * other).sum(1) - 2 * one @ other.T
    return apart.clip(0)


def class_histogram_distance(classes: np.ndarray, reference: np.ndarray, count: int) -> float:
    """Total variation of two sets of class numbers [N], [M] below `count`: the share that would have to change."""
    first, second = (np.bincount(side, minlength=count) / len(side) for side in (classes, reference))
    return float(0.5 * np.abs(first - second).sum())
