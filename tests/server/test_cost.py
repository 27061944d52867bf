"""What batches took says what the next ones will take."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.cost import Cost

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
    assert 0 <= cost.batch(1) <= cost.batch(2) <= cost.batch(64)
    assert cost.work(64) <= cost.work(65)


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
