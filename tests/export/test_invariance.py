"""Only batch sizes in which rows are left alone, and which agree with one another, may be served."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from export.engines import NonFinite
from export.invariance import BUCKETS, GateError, invariant_buckets, probe

Z, LABEL = probe(64, 4, 3)
Spoil = Callable[[np.ndarray, np.ndarray], Any]


class Fake:
    """An engine of 2 x 2 pixels in the middle of the range, by latent and label, spoilt by `spoil(images, z)`."""

    artifact = "fake-fp32"
    on_cpu = True
    buckets = BUCKETS

    def __init__(self, spoil: Spoil = lambda images, z: None) -> None:
        self.spoil = spoil

    def run(self, z: np.ndarray, label: np.ndarray | None) -> np.ndarray:
        assert label is not None
        images = (100 + 10 * z + label[:, None]).round().astype(np.uint8).reshape(-1, 2, 2, 1)
        self.spoil(images, z)
        return images

    def describe(self) -> dict[str, str]:
        return {}

    def close(self) -> None: ...


def test_a_row_that_stands_alone_may_be_served_in_every_bucket() -> None:
    assert invariant_buckets(Fake(), Z, LABEL) == (1, 2, 4, 8, 16, 32, 64)
    assert invariant_buckets(Fake(), Z, LABEL, buckets=(3, 2)) == (2, 3)


def colour_large_batches(images: np.ndarray, z: np.ndarray) -> None:
    """From 8 rows on, the batch colours each row."""
    if len(z) >= 8:
        images += np.uint8(abs(z[0, 0]) * 40)


def mind_the_neighbour(images: np.ndarray, z: np.ndarray) -> None:
    """A row suffers when a larger latent follows it."""
    images[:-1] += (z[1:, 0] > z[:-1, 0]).astype(np.uint8)[:, None, None, None]


def mind_the_place(images: np.ndarray, z: np.ndarray) -> None:
    """Only the third latent of the probe suffers, and only in the first place of four."""
    if len(z) == 4 and np.array_equal(z[0], Z[2]):
        images[0] += 1


def mind_any_order_but_rotation(images: np.ndarray, z: np.ndarray) -> None:
    """A row suffers in a batch of 32 that is no rotation of the probe's first rows."""
    places = [int(np.flatnonzero((row == Z).all(1))[0]) for row in z]
    if len(z) == 32 and sorted(places) == list(range(32)) and (np.diff(places) % 32 != 1).any():
        images[0] += 1


def mind_twins(images: np.ndarray, z: np.ndarray) -> None:
    """The second of two equal rows suffers, in batches of 16."""
    if len(z) == 16 and np.array_equal(z[0], z[1]):
        images[1] += 1


def sum_otherwise_alone(images: np.ndarray, z: np.ndarray) -> None:
    """A row alone is computed by another kernel, which rounds another way."""
    if len(z) == 1:
        images += 1


def sum_otherwise_in_small_batches(images: np.ndarray, z: np.ndarray) -> None:
    """Up to 4 rows take one kernel, more another: each is true to itself."""
    if len(z) <= 4:
        images += 1


def mind_one_row_when_alone(images: np.ndarray, z: np.ndarray) -> None:
    """One row of the probe, and it alone, differs between batches of one and others."""
    if len(z) == 1 and np.array_equal(z[0], Z[63]):
        images += 1


@pytest.mark.parametrize(
    ("spoil", "buckets"),
    [
        (colour_large_batches, (1, 2, 4)),
        (mind_the_neighbour, (1,)),
        (mind_the_place, (1, 2, 8, 16, 32, 64)),
        (mind_twins, (1, 2, 4, 8, 32, 64)),
        (sum_otherwise_alone, (2, 4, 8, 16, 32, 64)),
        (sum_otherwise_in_small_batches, (8, 16, 32, 64)),
        (mind_one_row_when_alone, (2, 4, 8, 16, 32, 64)),
    ],
)
def test_only_buckets_that_leave_rows_alone_and_agree_with_the_largest_are_served(
    spoil: Spoil, buckets: tuple[int, ...]
) -> None:
    assert invariant_buckets(Fake(spoil), Z, LABEL) == buckets


def test_rows_also_meet_in_an_order_that_is_no_rotation() -> None:
    assert invariant_buckets(Fake(mind_any_order_but_rotation), *probe(32, 4, 3), buckets=(16, 32)) == (16,)


def test_an_engine_that_does_not_repeat_itself_is_refused() -> None:
    numbers = itertools.count()

    def spoil(images: np.ndarray, z: np.ndarray) -> None:
        images += np.uint8(next(numbers) % 251)

    with pytest.raises(GateError, match="fake-fp32 gives other pixels for the same latent from run to run"):
        invariant_buckets(Fake(spoil), Z, LABEL)


def test_a_row_that_is_never_finite_disturbs_nobody_and_one_that_sometimes_is_not_does() -> None:
    numbers = itertools.count()

    def never(images: np.ndarray, z: np.ndarray) -> None:
        bad = np.flatnonzero((z == Z[1]).all(1))
        images[bad] = next(numbers) % 251  # what a cast makes of NaN may be anything
        if len(bad):
            raise NonFinite(bad.tolist(), images)

    def in_fours(images: np.ndarray, z: np.ndarray) -> None:
        if len(z) == 4:
            raise NonFinite([0], images)

    assert invariant_buckets(Fake(never), Z, LABEL) == BUCKETS
    assert invariant_buckets(Fake(in_fours), Z, LABEL) == (1, 2, 8, 16, 32, 64)


def test_the_full_check_stays_near_the_square_of_each_bucket() -> None:
    sizes: list[int] = []
    invariant_buckets(Fake(lambda images, z: sizes.append(len(z))), Z, LABEL)
    assert sum(sizes) <= sum(bucket**2 + 2 * 64 + bucket for bucket in BUCKETS)


@pytest.mark.parametrize("spoil", [colour_large_batches, mind_the_neighbour, sum_otherwise_in_small_batches])
def test_a_quick_check_runs_each_bucket_a_few_times_and_compares_them_all_the_same(spoil: Spoil) -> None:
    sizes: list[int] = []

    def counted(images: np.ndarray, z: np.ndarray) -> None:
        sizes.append(len(z))
        spoil(images, z)

    assert invariant_buckets(Fake(counted), Z, LABEL, shifts=2) == invariant_buckets(Fake(spoil), Z, LABEL)
    assert all(sizes.count(bucket) <= 7 for bucket in BUCKETS)


def test_the_probe_is_the_same_at_every_check() -> None:
    again, label = probe(64, 4, 3)
    assert np.array_equal(again, Z)
    assert np.array_equal(probe(1_024, 4, 3)[0][:64], Z)
    assert (Z.dtype, Z.shape) == (np.float32, (64, 4))
    assert LABEL is not None
    assert label is not None
    assert np.array_equal(label, LABEL)
    assert (label.dtype, set(label.tolist())) == (np.int64, {0, 1, 2})
    assert len(np.unique(Z, axis=0)) == 64  # no row could stand in for another
    assert probe(5, 4, 0)[1] is None
