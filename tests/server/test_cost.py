"""What batches took says what the next ones will take."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import nnls

from server.cost import Cost, _fitted

SIZES = (1, 2, 4, 8, 16, 32, 64)


@given(a=st.floats(1e-6, 1e-2), b=st.floats(0, 1e-2))
def test_a_straight_line_is_found_again(a: float, b: float) -> None:
    cost = Cost({size: a * size + b for size in SIZES})
    for size in SIZES:
        assert cost.batch(size) == pytest.approx(a * size + b, rel=1e-6)


@given(st.dictionaries(st.sampled_from(SIZES), st.floats(0, 10), min_size=1))
def test_whatever_was_measured_no_batch_costs_less_than_a_smaller_one_or_less_than_nothing(
    measured: dict[int, float],
) -> None:
    cost = Cost(measured)
    costs = [cost.batch(images) for images in range(1, max(measured) + 1)]
    assert costs[0] >= 0
    assert costs == sorted(costs)
    assert cost.work(64) <= cost.work(65)


@given(st.dictionaries(st.sampled_from(SIZES), st.floats(1e-6, 10), min_size=1))
def test_a_and_b_are_those_of_least_squares_without_negative_ones(measured: dict[int, float]) -> None:
    seconds = np.array(list(measured.values()))
    table = np.stack([np.array(list(measured)), np.ones(len(measured))], axis=1) / seconds[:, None]

    def residual(a: float, b: float) -> float:
        return float(np.linalg.norm(table @ (a, b) - 1))

    ours, (theirs, _) = _fitted(table), nnls(table, np.ones(len(measured)))
    assert min(ours) >= 0
    assert residual(*ours) <= residual(*theirs) + 1e-6


def test_more_than_a_batch_is_several() -> None:
    cost = Cost({size: 0.001 * size + 0.01 for size in (1, 2, 4)})
    assert cost.work(4) == pytest.approx(0.014)
    assert cost.work(10) == pytest.approx(0.01 + 3 * 0.01)
    assert cost.work(0) == 0


def test_a_batch_costs_what_the_engine_runs_for_it() -> None:
    """Also where it has no small batches: one row is filled up to eight."""
    cost = Cost({size: 0.001 * size + 0.01 for size in (8, 64)})
    assert [cost.rows(images) for images in (1, 8, 9, 64)] == [8, 8, 64, 64]
    assert cost.batch(1) == cost.batch(8) == pytest.approx(0.018)
    assert cost.work(65) == pytest.approx(0.074 + 0.018)
    cost.learn(1, 2 * 0.018)  # of which it learns as of eight
    assert cost.batch(8) == pytest.approx(1.1 * 0.018)


def test_a_batch_takes_what_costs_least_with_those_that_are_left() -> None:
    cost = Cost({size: 0.1 * size + 0.05 for size in SIZES})
    taken = {images: cost.fitting(images) for images in (0, 1, 3, 5, 8, 33, 40, 63, 64, 65, 1000)}
    assert taken == {0: 0, 1: 1, 3: 2, 5: 4, 8: 8, 33: 32, 40: 32, 63: 63, 64: 64, 65: 64, 1000: 64}


def test_where_a_run_costs_more_than_rows_everything_is_taken_at_once() -> None:
    cost = Cost({size: 0.001 * size + 1 for size in SIZES})
    assert [cost.fitting(images) for images in range(66)] == [*range(65), 64]


@given(
    a=st.floats(1e-6, 1),
    b=st.floats(0, 1),
    sizes=st.sets(st.sampled_from(SIZES), min_size=1),
    images=st.integers(1, 64),
)
def test_no_other_way_of_splitting_is_cheaper(a: float, b: float, sizes: set[int], images: int) -> None:
    cost = Cost({size: a * size + b for size in sizes})
    images = min(images, max(sizes))

    def seconds(left: int) -> float:
        """As the batcher goes on, if nobody else comes."""
        total = 0.0
        while left:
            taken = cost.fitting(left)
            assert 1 <= taken <= left
            total += cost.batch(taken)
            left -= taken
        return total

    assert seconds(images) <= cost.batch(images) * (1 + 1e-6)
    for size in sizes:
        if size < images:
            assert seconds(images) <= (cost.batch(size) + seconds(images - size)) * (1 + 1e-6)


def test_it_follows_an_engine_that_becomes_slower_or_quicker() -> None:
    cost = Cost({size: 0.001 * size for size in SIZES})
    for _ in range(60):
        cost.learn(64, 0.128)
    assert cost.batch(64) == pytest.approx(0.128, rel=0.01)
    assert cost.batch(1) == pytest.approx(0.002, rel=0.01)
    for _ in range(60):
        cost.learn(1, 0.0005)
    assert cost.batch(64) == pytest.approx(0.032, rel=0.01)


def test_one_pause_is_not_a_slow_engine() -> None:
    cost = Cost({size: 0.001 * size for size in SIZES})
    cost.learn(1, 10.0)
    assert cost.batch(1) <= 0.0011


def test_what_is_done_beside_the_engine_comes_to_every_batch_and_not_to_every_image() -> None:
    cost = Cost({size: 0.001 * size for size in SIZES})
    for _ in range(200):
        cost.learn(1, 0.001, 0.01)
    assert cost.batch(1) == pytest.approx(0.011, rel=0.01)
    assert cost.batch(64) == pytest.approx(0.074, rel=0.01)
    assert cost.work(128) == pytest.approx(0.148, rel=0.01)
    cost.learn(1, 0.001, 100.0)  # a pause
    assert cost.batch(1) <= 0.0125
    for _ in range(200):
        cost.learn(1, 0.001)
    assert cost.batch(64) == pytest.approx(0.064, rel=0.01)
