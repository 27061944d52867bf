"""The real Fashion-MNIST, where Debian's package has put it."""

import os

import numpy as np
import pytest

from training.data import FASHION_CLASSES, FASHION_FOLDER, load


def test_debians_fashion_mnist_is_read_whole() -> None:
    if not FASHION_FOLDER.is_dir():
        missing = "Debian's package dataset-fashion-mnist is not installed"
        if os.environ.get("LIMNER_TEST_ALL") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    dataset = load("fashion-mnist")
    assert [len(part) for part in (dataset.train, dataset.val, dataset.test)] == [54_000, 6_000, 10_000]
    assert (dataset.size, dataset.channels, dataset.class_names) == (28, 1, FASHION_CLASSES)
    assert dataset.test.labels is not None
    assert np.bincount(dataset.test.labels).tolist() == [1_000] * 10
