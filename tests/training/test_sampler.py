"""An epoch is every image once, or every class as often; and an order goes on exactly where it stopped."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.sampler import Sampler, is_balanced

Rows = list[list[int]]


def batches(sampler: Sampler, count: int) -> Rows:
    return [rows.tolist() for rows in islice(sampler, count)]


def flat(rows: Rows) -> list[int]:
    return [row for batch in rows for row in batch]


@given(st.integers(1, 60), st.integers(1, 70), st.integers(0, 2**63 - 1))
def test_an_epoch_shows_every_image_once_but_for_a_remainder(count: int, batch: int, seed: int) -> None:
    sampler = Sampler(count, batch, seed)
    steps = count // sampler.batch
    for _ in range(2):
        epoch = batches(sampler, steps)
        assert {len(rows) for rows in epoch} == {min(batch, count)}
        seen = flat(epoch)
        assert len(seen) == len(set(seen)) == steps * sampler.batch > count - sampler.batch
        assert set(seen) <= set(range(count))


def test_every_epoch_has_another_order_and_every_seed_others() -> None:
    first, second = (Sampler(50, 50, seed) for seed in (1, 2))
    orders = batches(first, 3) + batches(second, 3)
    assert len({tuple(order) for order in orders}) == 6
    assert batches(Sampler(50, 50, 1), 3) == orders[:3]


def test_what_is_left_out_is_others_each_time() -> None:
    sampler = Sampler(10, 4, 0)
    left = [frozenset(range(10)) - set(flat(batches(sampler, 2))) for _ in range(20)]
    assert {len(rows) for rows in left} == {2}
    assert set().union(*left) == set(range(10))


def test_rows_are_numbers_for_an_index() -> None:
    rows = next(Sampler(10, 4, 0))
    assert (rows.dtype, rows.shape) == (torch.int64, (4,))


LABELS = np.array([0] * 2 + [1] * 7 + [2] * 51)


def test_balanced_classes_are_drawn_equally_often_and_the_images_of_each_too() -> None:
    sampler = Sampler(len(LABELS), 20, 0, LABELS)
    for _ in range(3):
        drawn = Counter(flat(batches(sampler, 3)))
        of_class = [[drawn[row] for row in np.flatnonzero(label == LABELS).tolist()] for label in range(3)]
        assert [sum(times) for times in of_class] == [20, 20, 20]
        assert all(max(times) - min(times) <= 1 for times in of_class)  # of the large class 20 of 51 once
    everything = set(flat(batches(sampler, 90)))
    assert everything == set(range(60))


def test_a_balanced_batch_mixes_the_classes() -> None:
    for rows in batches(Sampler(len(LABELS), 20, 0, LABELS), 30):
        assert len(set(LABELS[rows].tolist())) == 3


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.integers(0, 1000))
def test_a_balanced_epoch_is_as_long_and_its_classes_differ_only_by_the_rest_of_the_division(
    classes: list[int], seed: int
) -> None:
    labels = np.array(classes)
    rows = flat(batches(Sampler(len(labels), 1, seed, labels), len(labels)))
    drawn = Counter(labels[rows].tolist())
    count = len(set(classes))
    quota = -(-len(classes) // count)
    assert sum(drawn.values()) == len(classes)
    assert max(drawn.values()) <= quota
    assert sum(quota - drawn[label] for label in set(classes)) == quota * count - len(classes) < count


@given(
    st.integers(1, 30), st.integers(1, 12), st.integers(0, 40), st.booleans(), st.integers(0, 2**32), st.integers(0, 99)
)
def test_a_sampler_goes_on_exactly_where_its_state_was_taken(
    count: int, batch: int, before: int, balanced: bool, seed: int, other_seed: int
) -> None:
    labels = np.arange(count) ** 2 % 7 if balanced else None
    first, second = Sampler(count, batch, seed, labels), Sampler(count, batch, other_seed, labels)
    batches(first, before)
    batches(second, other_seed % 5)
    state = first.state_dict()
    expected = batches(first, 12)
    for _ in range(2):  # and a state is not used up
        second.load_state_dict(state)
        assert batches(second, 12) == expected


@pytest.mark.parametrize(
    ("labels", "balanced"), [([0, 0, 1, 1], True), ([0, 0, 1], True), ([0, 0, 0, 2], False), ([3, 3], True)]
)
def test_classes_are_balanced_up_to_twice_the_smallest(labels: list[int], balanced: bool) -> None:
    assert is_balanced(np.array(labels)) is balanced
