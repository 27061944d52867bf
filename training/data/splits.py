"""Counts and labels in, the rows of train, val and test out: the same on every machine."""

import numpy as np

Split = tuple[np.ndarray, np.ndarray, np.ndarray]


def permutation(count: int) -> np.ndarray:
    """A fixed permutation from raw Philox(key=1) bits: the same on every machine and NumPy version."""
    return np.argsort(np.random.Philox(key=1).random_raw(count), kind="stable")


def split(parts: list[np.ndarray], labels: np.ndarray | None, by_class: bool) -> Split:
    """parts: one, two or three arrays of candidates, as `images.Source` has them -> candidates of train, val and test.

    labels int64, indexed by candidate. No class is in val or test that is not in train.
    """
    if len(parts) == 3:
        train, val, test = parts
    elif len(parts) == 2:
        cut = len(parts[0]) * 9 // 10
        train, val, test = parts[0][:cut], parts[0][cut:], parts[1]
    else:
        train, val, test = _cut(parts[0], labels if by_class else None)
    if labels is None:
        return train, val, test
    seen = np.unique(labels[train])
    return train, val[np.isin(labels[val], seen)], test[np.isin(labels[test], seen)]


def _cut(whole: np.ndarray, labels: np.ndarray | None) -> Split:
    """80/10/10. By class, each class of at least 3 has one in each split, however rare it is."""
    if labels is not None:
        share = np.zeros(len(whole), np.int64)  # 0 train, 1 val, 2 test
        of_whole = labels[whole]
        owed = 0  # tenths of an image that the classes before were too small to give
        for label in np.unique(of_whole):
            mine = np.flatnonzero(of_whole == label)
            tenth, owed = divmod(owed + len(mine), 10)
            tenth = min(max(tenth, 1), (len(mine) - 1) // 2)  # never more than it leaves for train; 0 for 1 or 2 images
            share[mine[len(mine) - 2 * tenth :]] = 1
            share[mine[len(mine) - tenth :]] = 2
        train, val, test = (whole[share == number] for number in range(3))
        if len(val):
            return train, val, test
    first, second = len(whole) * 8 // 10, len(whole) * 9 // 10
    return whole[:first], whole[first:second], whole[second:]
