"""Logits, features and labels in, figures about pictures out. Pure functions on NumPy arrays."""

import numpy as np


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
