"""From latent to latent: the ends themselves, an even turn, an even change of length, and no way lost."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from training.latents import draw
from training.path import arc

numbers = st.floats(-8, 8, width=32)
latents = st.integers(2, 12).flatmap(lambda size: st.tuples(*[arrays(np.float32, size, elements=numbers)] * 2))


def angle(one: np.ndarray, other: np.ndarray) -> float:
    """Between two vectors, in [0, π]."""
    one, other = (vector.astype(np.float64) / np.linalg.norm(vector.astype(np.float64)) for vector in (one, other))
    return 2 * math.atan2(float(np.linalg.norm(one - other)), float(np.linalg.norm(one + other)))


def lengths(path: np.ndarray) -> np.ndarray:
    return np.linalg.norm(path.astype(np.float64), axis=1)


def long_enough(*ends: np.ndarray) -> None:
    assume(min(lengths(np.stack(ends))) > 1e-3)


@given(latents, st.integers(2, 40))
def test_the_ends_are_there_bit_for_bit_and_nothing_is_nan(ends: tuple[np.ndarray, np.ndarray], steps: int) -> None:
    path = arc(*ends, steps)
    assert (path.shape, path.dtype) == ((steps, len(ends[0])), np.float32)
    assert (path[0].tobytes(), path[-1].tobytes()) == (ends[0].tobytes(), ends[1].tobytes())
    assert np.isfinite(path).all()


@given(latents, st.integers(2, 40))
def test_the_length_changes_evenly(ends: tuple[np.ndarray, np.ndarray], steps: int) -> None:
    long_enough(*ends)
    path = arc(*ends, steps)
    one, other = lengths(np.stack(ends))
    assert lengths(path) == pytest.approx(np.linspace(one, other, steps), rel=1e-5)


@given(latents, st.integers(3, 40))
def test_each_step_turns_by_the_same_angle(ends: tuple[np.ndarray, np.ndarray], steps: int) -> None:
    long_enough(*ends)
    path = arc(*ends, steps)
    turned = np.array([angle(ends[0], z) for z in path])
    assert turned == pytest.approx(np.linspace(0, angle(*ends), steps), abs=2e-5)


@given(latents, st.integers(2, 40))
def test_the_way_back_has_the_same_latents(ends: tuple[np.ndarray, np.ndarray], steps: int) -> None:
    long_enough(*ends)
    assume(angle(*ends) < math.pi - 1e-3)
    assert np.array_equal(arc(ends[1], ends[0], steps), arc(*ends, steps)[::-1])


def test_a_latent_does_not_depend_on_how_many_steps_there_are() -> None:
    ends, _ = draw(3, 2, 64, 0)
    assert np.array_equal(arc(ends[0], ends[1], 9)[::2], arc(ends[0], ends[1], 5))


def test_half_way_between_drawn_latents_is_as_long_as_they_are_and_not_as_their_mean() -> None:
    ends, _ = draw(5, 2, 100, 0)
    half = lengths(arc(ends[0], ends[1], 3))[1]
    assert half == pytest.approx(lengths(ends).mean(), rel=1e-6)
    assert lengths(ends.mean(axis=0)[None])[0] < 0.8 * half


@pytest.mark.parametrize(
    ("first", "last", "path"),
    [
        ([1, 2], [3, 6], [[1, 2], [2, 4], [3, 6]]),  # parallel
        ([1, 2], [1, 2], [[1, 2], [1, 2], [1, 2]]),
        ([0, 0], [2, 0], [[0, 0], [1, 0], [2, 0]]),  # from the origin
        ([2, 0], [0, 0], [[2, 0], [1, 0], [0, 0]]),
        ([3], [-1], [[3], [1], [-1]]),  # in one dimension
        ([2, 0], [-4, 0], [[2, 0], [0, 3], [-4, 0]]),  # opposite: by the axis along which the first is smallest
        ([0, 2, 0], [0, -2, 0], [[0, 2, 0], [2, 0, 0], [0, -2, 0]]),
        ([3, 0], [0, 3], [[3, 0], [3 / math.sqrt(2), 3 / math.sqrt(2)], [0, 3]]),
    ],
)
def test_every_two_latents_have_a_way(first: list[float], last: list[float], path: list[list[float]]) -> None:
    found = arc(np.array(first, np.float32), np.array(last, np.float32), 3)
    assert found == pytest.approx(np.array(path), abs=1e-6)


@given(arrays(np.float32, 16, elements=st.floats(0.5, 8, width=32)), st.sampled_from([-1.0, -1.5, 2.5]))
def test_nearly_parallel_and_nearly_opposite_latents_have_an_even_way(first: np.ndarray, factor: float) -> None:
    last = np.nextafter(first * np.float32(factor), np.float32(0))
    path = arc(first, last, 9)
    one, other = lengths(np.stack([first, last]))
    assert lengths(path) == pytest.approx(np.linspace(one, other, 9), rel=1e-5)
    steps = [angle(z, following) for z, following in pairwise(path)]
    assert steps == pytest.approx([angle(first, last) / 8] * 8, abs=1e-5)
