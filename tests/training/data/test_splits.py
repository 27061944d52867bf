"""Splits hold everything once, and every class that can be is in each."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.splits import permutation, split


def test_the_permutation_is_the_same_everywhere() -> None:
    # figures on another split are other figures, so this must never change
    assert permutation(10).tolist() == [3, 5, 2, 9, 7, 0, 8, 6, 1, 4]


@pytest.mark.parametrize("count", [20, 21, 99, 1000])
def test_a_set_without_a_split_is_cut_80_10_10(count: int) -> None:
    train, val, test = split([permutation(count)], None, by_class=True)
    assert [len(train), len(val), len(test)] == [
        count * 8 // 10,
        count * 9 // 10 - count * 8 // 10,
        count - count * 9 // 10,
    ]
    assert sorted([*train, *val, *test]) == list(range(count))


def test_a_set_with_a_test_split_gives_a_tenth_of_train_as_val() -> None:
    train, val, test = split([permutation(100), np.arange(100, 130)], None, by_class=False)
    assert (len(train), len(val), test.tolist()) == (90, 10, list(range(100, 130)))
    assert np.array_equal([*train, *val], permutation(100))


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12).filter(lambda sizes: sum(sizes) >= 20))
def test_by_class_each_class_of_three_is_in_each_split(sizes: list[int]) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)[permutation(sum(sizes))]
    parts = split([np.arange(len(labels))], labels, by_class=True)
    if max(sizes) < 3:
        return
    together = np.concatenate(parts)
    assert len(set(together.tolist())) == len(together) == len(labels)
    for label, size in enumerate(sizes):
        counts = [int((labels[part] == label).sum()) for part in parts]
        assert counts[0] >= 1
        assert counts[0] >= counts[1] == counts[2]
        assert counts[1] >= (size >= 3)
        assert abs(counts[1] - size / 10) <= 1


def test_by_class_the_shares_stay_a_tenth_over_many_small_classes() -> None:
    labels = np.repeat(np.arange(100), 15)
    assert [len(part) for part in split([np.arange(1500)], labels, by_class=True)] == [1200, 150, 150]


def test_a_class_that_is_not_trained_on_is_not_judged_by() -> None:
    labels = np.array([0] * 50 + [0, 0, 1, 1])
    train, val, test = split([np.arange(50), np.arange(50, 54)], labels, by_class=False)
    assert (len(train), len(val), test.tolist()) == (45, 5, [50, 51])


def test_twenty_classes_of_one_image_still_leave_val_and_test() -> None:
    parts = split([np.arange(20)], None, by_class=True)
    assert [len(part) for part in parts] == [16, 2, 2]
