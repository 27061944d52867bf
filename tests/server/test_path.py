"""Two seeds and the way between: what the generator sees, and how two classes fade into each other."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays

from server.path import Path, path
from training.latents import SEEDS, Asked, draw
from training.path import arc
from training.prior import Prior

LATENT, CLASSES = 5, 3
NOISE = np.random.Generator(np.random.Philox(key=4))
PRIOR = Prior.from_state(
    {
        "weights": np.full((CLASSES, 2), 0.5),
        "mean": NOISE.standard_normal((CLASSES, 2, LATENT)),
        "scale_tril": np.tril(NOISE.standard_normal((CLASSES, 2, LATENT, LATENT)), -1) + np.eye(LATENT),
    }
)
pixels = arrays(np.uint8, (4, 3, 3, 1))


@pytest.mark.parametrize("prior", [None, PRIOR])
@pytest.mark.parametrize("labels", [(None, None), (2, 2), (0, 1)])
@pytest.mark.parametrize("seeds", [(7, 8), (SEEDS - 1, 0), (7, 7)])
@pytest.mark.parametrize("truncation", [None, 0.5])
def test_the_ends_are_what_their_seeds_are_drawn_as(
    prior: Prior | None, labels: tuple[int | None, int | None], seeds: tuple[int, int], truncation: float | None
) -> None:
    first, last = (Asked(seed, 1, label, truncation) for seed, label in zip(seeds, labels, strict=True))
    found = path(first, last, 4, LATENT, CLASSES, prior)
    rows = found.rows()
    assert found.labels is not None
    assert rows.labels is not None
    for row, end, label in ((0, first, found.labels[0]), (-1, last, found.labels[1])):
        z, drawn = draw(end.seed, 1, LATENT, CLASSES, end.label, truncation, prior)
        assert drawn is not None
        assert np.array_equal(rows.z[row], z[0])
        assert rows.labels[row] == drawn[0] == label
    assert np.array_equal(found.z, arc(found.z[0], found.z[-1], 4))


def test_one_class_is_seen_once_and_two_classes_are_seen_side_by_side() -> None:
    z = np.arange(8, dtype=np.float32).reshape(4, 2)
    assert Path(z, None).rows().labels is None
    same = Path(z, (1, 1)).rows()
    assert np.array_equal(same.z, z)
    assert same.labels is not None
    assert same.labels.tolist() == [1] * 4
    both = Path(z, (1, 2)).rows()
    assert np.array_equal(both.z, z[[0, 1, 2, 1, 2, 3]])
    assert both.labels is not None
    assert both.labels.tolist() == [1, 1, 1, 2, 2, 2]


@given(pixels, pixels)
def test_a_fade_goes_evenly_from_picture_to_picture_and_rounds_a_half_up(before: np.ndarray, after: np.ndarray) -> None:
    z = np.zeros((5, 2), np.float32)
    faded = Path(z, (0, 1)).frames(np.concatenate([before, after]))
    assert (faded.shape, faded.dtype) == ((5, 3, 3, 1), np.uint8)
    assert np.array_equal(faded[0], before[0])
    assert np.array_equal(faded[4], after[3])
    for frame in (1, 2, 3):
        for one, other, found in zip(before[frame].flat, after[frame - 1].flat, faded[frame].flat, strict=True):
            exact = Fraction(4 - frame, 4) * int(one) + Fraction(frame, 4) * int(other)
            assert found == int(exact + Fraction(1, 2))


@given(pixels, pixels)
def test_a_fade_backwards_is_the_same_frames(before: np.ndarray, after: np.ndarray) -> None:
    z = np.zeros((5, 2), np.float32)
    there = Path(z, (0, 1)).frames(np.concatenate([before, after]))
    back = Path(z, (1, 0)).frames(np.concatenate([after[::-1], before[::-1]]))
    assert np.array_equal(there, back[::-1])


def test_without_two_classes_the_frames_are_the_pictures() -> None:
    made = np.arange(12, dtype=np.uint8).reshape(3, 2, 2, 1)
    for labels in (None, (1, 1)):
        assert Path(np.zeros((3, 2), np.float32), labels).frames(made) is made


def test_two_frames_are_the_ends() -> None:
    made = np.arange(8, dtype=np.uint8).reshape(2, 2, 2, 1)
    found = Path(np.zeros((2, 2), np.float32), (0, 1))
    assert found.rows().count == 2
    assert np.array_equal(found.frames(made), made)
