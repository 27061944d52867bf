"""The gates let through the model's own pictures and refuse everything else."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from export.engines import NonFinite
from export.gates import GateError, invariant_buckets, parity, probe, same_sight

Z, LABEL = probe(64, 4, 3)


def reference(z: np.ndarray, label: np.ndarray | None) -> np.ndarray:
    """2 x 2 pixels in the middle of the range, by latent and label."""
    assert label is not None
    return (100 + 10 * z + label[:, None]).round().astype(np.uint8).reshape(-1, 2, 2, 1)


class Fake:
    """An engine: the reference, spoilt by `spoil(images, z)`."""

    artifact = "fake-fp32"
    buckets = ()

    def __init__(self, spoil: Callable[[np.ndarray, np.ndarray], Any] = lambda images, z: None) -> None:
        self.spoil = spoil

    def run(self, z: np.ndarray, label: np.ndarray | None) -> np.ndarray:
        images = reference(z, label)
        self.spoil(images, z)
        return images

    def describe(self) -> dict[str, str]:
        return {}

    def close(self) -> None: ...


def one_pixel(change: int, sizes: tuple[int, ...] = (1, 5, 64)) -> Fake:
    """Off in the last pixel of the last image, in batches of these sizes."""

    def spoil(images: np.ndarray, z: np.ndarray) -> None:
        if len(images) in sizes:
            images[-1, -1, -1, -1] = int(images[-1, -1, -1, -1]) + change

    return Fake(spoil)


@pytest.mark.parametrize("change", [-1, 0, 1])
def test_one_grey_level_passes_and_is_written_down(change: int) -> None:
    found = parity(one_pixel(change), reference, "torch", Z, LABEL)
    assert (found.reference, found.batches, found.max_levels, found.allowed_levels) == (
        "torch",
        (1, 5, 64),
        abs(change),
        1,
    )


@pytest.mark.parametrize(("change", "size"), [(2, 1), (-2, 1), (2, 5), (-2, 64), (100, 1), (-50, 64)])
def test_two_grey_levels_anywhere_are_refused(change: int, size: int) -> None:
    with pytest.raises(GateError, match=f"fake-fp32 differs from torch by {abs(change)} grey levels"):
        parity(one_pixel(change, (size,)), reference, "torch", Z, LABEL)


def test_pictures_that_are_not_finite_are_refused() -> None:
    def spoil(images: np.ndarray, z: np.ndarray) -> None:
        if len(z) > 3:
            raise NonFinite([1, 3], images)

    with pytest.raises(GateError, match="not finite in 2 of 5 rows"):
        parity(Fake(spoil), reference, "torch", Z, LABEL)


def test_a_row_that_stands_alone_may_be_served_in_every_bucket() -> None:
    assert invariant_buckets(Fake(), Z, LABEL) == (1, 2, 4, 8, 16, 32, 64)
    assert invariant_buckets(Fake(), Z, LABEL, buckets=(2, 3)) == (2, 3)


def mix(images: np.ndarray, z: np.ndarray) -> None:
    """From 8 rows on, the batch colours each row."""
    if len(z) >= 8:
        images += np.uint8(z.mean() > -9)


def mind_the_neighbour(images: np.ndarray, z: np.ndarray) -> None:
    """A row suffers when a larger latent follows it."""
    images[:-1] += (z[1:, 0] > z[:-1, 0]).astype(np.uint8)[:, None, None, None]


def mind_the_place(images: np.ndarray, z: np.ndarray) -> None:
    """Only the third latent of the probe suffers, and only in the first place of four."""
    if len(z) == 4 and np.array_equal(z[0], Z[2]):
        images[0] += 1


@pytest.mark.parametrize(
    ("spoil", "buckets"),
    [(mix, (1, 2, 4)), (mind_the_neighbour, (1,)), (mind_the_place, (1, 2, 8, 16, 32, 64))],
)
def test_an_engine_loses_the_buckets_in_which_rows_are_not_alone(
    spoil: Callable[[np.ndarray, np.ndarray], None], buckets: tuple[int, ...]
) -> None:
    assert invariant_buckets(Fake(spoil), Z, LABEL) == buckets


def test_an_engine_that_does_not_repeat_itself_is_refused() -> None:
    numbers = itertools.count()

    def spoil(images: np.ndarray, z: np.ndarray) -> None:
        images += np.uint8(next(numbers) % 251)

    with pytest.raises(GateError, match="from run to run"):
        invariant_buckets(Fake(spoil), Z, LABEL)


def test_a_quick_check_runs_each_bucket_that_often() -> None:
    sizes: list[int] = []
    invariant_buckets(Fake(lambda images, z: sizes.append(len(z))), Z, LABEL, buckets=(1, 4, 8), shifts=2)
    assert sizes == [1] * 8 + [1, 4, 4, 8, 8]


def test_the_probe_is_the_same_at_every_check() -> None:
    again, label = probe(64, 4, 3)
    assert np.array_equal(again, Z)
    assert (Z.dtype, Z.shape) == (np.float32, (64, 4))
    assert LABEL is not None
    assert label is not None
    assert np.array_equal(label, LABEL)
    assert (label.dtype, set(label.tolist())) == (np.int64, {0, 1, 2})
    assert len(np.unique(Z, axis=0)) == 64  # no row could stand in for another
    assert probe(5, 4, 0)[1] is None


# the judge


class Sees:
    def __init__(self, change: float) -> None:
        self.change = change

    def look(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        seen = images.reshape(len(images), -1).astype(np.float32)
        return seen[:, :3] + self.change, seen

    def sha256(self) -> str:
        return ""


@pytest.mark.parametrize(("change", "passes"), [(0, True), (0.1, True), (1.0, False), (float("nan"), False)])
def test_an_exported_judge_must_see_the_same(change: float, passes: bool) -> None:
    images = np.full((4, 2, 2, 1), 200, np.uint8)
    if passes:
        same_sight(Sees(change), Sees(0), images)
        return
    with pytest.raises(GateError, match="the exported judge sees other things than the trained one"):
        same_sight(Sees(change), Sees(0), images)
