"""A classifier that learns from pictures tells good ones from collapsed, blurred and wrongly labelled ones."""

import numpy as np
import pytest
from scipy import ndimage
from skimage.feature import hog

from training.data import load
from training.errors import EvaluationError
from training.evaluation.transfer import describe, transfer_accuracy

DIGITS = load("mnist-5k")


def learnt_from(images: np.ndarray, classes: np.ndarray) -> float:
    real = DIGITS.test.take(slice(0, 400))
    assert real.labels is not None
    return transfer_accuracy(describe(images), classes, describe(real.images), real.labels)


@pytest.fixture(scope="module")
def pictures() -> tuple[np.ndarray, np.ndarray]:
    train = DIGITS.train.take(slice(0, 1000))
    assert train.labels is not None
    return train.images, train.labels


@pytest.fixture(scope="module")
def honest(pictures: tuple[np.ndarray, np.ndarray]) -> float:
    return learnt_from(*pictures)


# descriptors


@pytest.mark.parametrize(("height", "width", "channels"), [(28, 28, 1), (32, 32, 3), (30, 35, 2), (4, 4, 1)])
def test_a_descriptor_is_gradients_and_colours_of_16_cells(height: int, width: int, channels: int) -> None:
    images = np.random.default_rng(1).integers(0, 256, (3, height, width, channels), np.uint8)
    found = describe(images)
    assert (found.dtype, found.shape) == (np.float16, (3, 128 + 16 * channels))
    assert found.min() >= 0
    assert found.max() <= 1
    cell = height // 4, width // 4
    for row, image in zip(found, images, strict=True):
        cut = image[: 4 * cell[0], : 4 * cell[1]]
        gradients = hog(cut, orientations=8, pixels_per_cell=cell, cells_per_block=(4, 4), channel_axis=-1)
        colours = [
            cut[top : top + cell[0], left : left + cell[1], channel].mean() / 255
            for top in range(0, 4 * cell[0], cell[0])
            for left in range(0, 4 * cell[1], cell[1])
            for channel in range(channels)
        ]
        np.testing.assert_allclose(row, np.concatenate([gradients, colours]), atol=5e-4)


# accuracy


def test_honest_pictures_teach_digits(honest: float) -> None:
    assert 0.88 < honest < 1


def test_the_accuracy_is_the_same_again(pictures: tuple[np.ndarray, np.ndarray], honest: float) -> None:
    assert learnt_from(*pictures) == honest


def test_the_accuracy_is_the_share_of_real_images_in_the_right_class() -> None:
    descriptors, classes = np.array([[0.0], [0.1], [1.0], [0.9]], np.float16), np.array([4, 4, 2, 2])
    real = np.array([[0.05], [0.0], [0.95], [0.1], [1.0]], np.float16)
    assert transfer_accuracy(descriptors, classes, real, np.array([4, 4, 2, 2, 9])) == pytest.approx(3 / 5)


def test_the_units_of_a_descriptor_do_not_count() -> None:
    noise = np.random.default_rng(1)
    sides, classes = noise.standard_normal((2, 200, 4)), noise.integers(0, 2, (2, 200))
    sides[..., 0] += 2 * classes
    plain, scaled = (
        transfer_accuracy(sides[0] * units, classes[0], sides[1] * units, classes[1])
        for units in (np.ones(4), np.array([1, 1, 1, 1000]))
    )
    assert 0.7 < plain < 1
    assert scaled == pytest.approx(plain, abs=0.01)


def test_shuffled_labels_bring_it_to_chance(pictures: tuple[np.ndarray, np.ndarray]) -> None:
    images, classes = pictures
    assert learnt_from(images, np.random.default_rng(1).permutation(classes)) < 0.25


def test_some_wrong_labels_cost_some(pictures: tuple[np.ndarray, np.ndarray], honest: float) -> None:
    images, classes = pictures
    wrong = np.where(np.random.default_rng(1).random(len(classes)) < 0.3, (classes + 1) % 10, classes)
    assert 0.5 < learnt_from(images, wrong) < honest - 0.04


def test_collapsed_classes_cost_accuracy(pictures: tuple[np.ndarray, np.ndarray], honest: float) -> None:
    """Each class is five pictures, repeated."""
    images, classes = pictures
    rows = np.concatenate([np.resize(np.flatnonzero(classes == label)[:5], 100) for label in range(10)])
    assert learnt_from(images[rows], classes[rows]) < honest - 0.15


def test_blur_costs_accuracy(pictures: tuple[np.ndarray, np.ndarray], honest: float) -> None:
    images, classes = pictures
    assert learnt_from(ndimage.gaussian_filter(images, (0, 2, 2, 0)), classes) < honest - 0.15


def test_noise_that_nobody_sees_costs_nothing(pictures: tuple[np.ndarray, np.ndarray], honest: float) -> None:
    """Of two levels in 255; with a block for each cell, each of the same norm, it costs 0.15."""
    images, classes = pictures
    faint = np.minimum(images, 253) + np.random.default_rng(1).integers(0, 3, images.shape, np.uint8)
    assert learnt_from(faint, classes) > honest - 0.03


def test_a_class_that_is_left_out_costs_its_share(pictures: tuple[np.ndarray, np.ndarray], honest: float) -> None:
    images, classes = pictures
    real = DIGITS.test.take(slice(0, 400)).labels
    assert real is not None
    share = float((real == 1).mean())
    found = learnt_from(images[classes != 1], classes[classes != 1])
    assert found <= 1 - share
    assert found == pytest.approx(honest - share, abs=0.03)


def test_one_picture_of_a_class_is_enough(pictures: tuple[np.ndarray, np.ndarray]) -> None:
    images, classes = pictures
    rows = [int(np.flatnonzero(classes == label)[0]) for label in range(10)]
    assert learnt_from(images[rows], classes[rows]) > 0.25


def test_pictures_that_are_all_the_same_are_no_error() -> None:
    descriptors, classes = np.full((6, 3), 0.5, np.float16), np.array([0, 1] * 3)
    assert transfer_accuracy(descriptors, classes, descriptors, classes) == 0.5


@pytest.mark.parametrize(("count", "there"), [(5, 1), (0, 0)])
def test_a_single_class_teaches_nothing(count: int, there: int) -> None:
    real = np.zeros((3, 2), np.float16)
    with pytest.raises(EvaluationError, match=f"at least 2 classes, these are of {there}"):
        transfer_accuracy(np.zeros((count, 2), np.float16), np.zeros(count, np.int64), real, np.zeros(3, np.int64))


def test_without_real_images_there_is_no_accuracy() -> None:
    with pytest.raises(EvaluationError, match="at least 1 real image"):
        transfer_accuracy(np.zeros((2, 2)), np.array([0, 1]), np.zeros((0, 2)), np.zeros(0, np.int64))
