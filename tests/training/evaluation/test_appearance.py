"""Blur lowers sharpness and noise raises it; pictures of one class are as alike as their pairs are."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from training.errors import EvaluationError
from training.evaluation import appearance
from training.evaluation.appearance import sharpness, within_class_similarity
from training.evaluation.structure import ms_ssim


def scenes(count: int, size: int, channels: int, seed: int = 1) -> np.ndarray:
    """Rectangles of random places and levels, with soft ground."""
    noise = np.random.default_rng(seed)
    images = noise.uniform(0, 60, (count, 1, 1, channels)) * np.ones((count, size, size, channels))
    for image in images:
        for _ in range(3):
            top, left = noise.integers(0, size - 6, 2)
            height, width = noise.integers(4, size // 2, 2)
            image[top : top + height, left : left + width] = noise.uniform(60, 200, channels)
    return images.astype(np.uint8)


# sharpness


def test_the_sharpness_of_one_bright_pixel() -> None:
    """The Laplacian is -4 v there and v at its four neighbours: a mean of 0, a mean square of 20 v² / pixels."""
    image = np.zeros((1, 5, 6, 1), np.uint8)
    image[0, 2, 3] = 30
    np.testing.assert_allclose(sharpness(image), [20 * 30**2 / 30])


@pytest.mark.parametrize("channels", [1, 3])
def test_the_sharpness_is_that_of_a_convolution(channels: int) -> None:
    images = np.random.default_rng(2).integers(0, 256, (5, 9, 12, channels), np.uint8)
    weights = torch.tensor([0.299, 0.587, 0.114] if channels == 3 else [1.0], dtype=torch.float64)
    luma = (torch.from_numpy(images).double() @ weights)[:, None]
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]], dtype=torch.float64)[None, None]
    edges = torch.nn.functional.conv2d(torch.nn.functional.pad(luma, (1, 1, 1, 1), "reflect"), kernel)
    np.testing.assert_allclose(sharpness(images), edges.var((1, 2, 3), correction=0).numpy(), rtol=1e-5)


def test_a_flat_picture_has_no_sharpness_and_brightness_adds_none() -> None:
    images = scenes(4, 28, 3)
    np.testing.assert_allclose(sharpness(np.full((2, 28, 28, 3), 77, np.uint8)), 0, atol=1e-6)
    np.testing.assert_allclose(sharpness(images + np.uint8(50)), sharpness(images), rtol=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_blur_lowers_sharpness_and_noise_raises_it(channels: int) -> None:
    images = scenes(20, 28, channels)
    blurred = [ndimage.gaussian_filter(images, (0, sigma, sigma, 0)) for sigma in (0.6, 1.2)]
    noisy = [
        (images + np.random.default_rng(3).normal(0, sigma, images.shape)).clip(0, 255).astype(np.uint8)
        for sigma in (10, 30)
    ]
    found = np.array([sharpness(side) for side in (blurred[1], blurred[0], images, *noisy)])
    assert (np.diff(found, axis=0) > 0).all()


def test_the_pictures_filtered_at_once_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    images = scenes(7, 12, 3)
    whole = sharpness(images)
    monkeypatch.setattr(appearance, "ROWS", 3)
    np.testing.assert_array_equal(sharpness(images), whole)


# similarity within classes


def test_a_repeated_picture_for_each_class_has_similarity_1_and_varied_ones_less() -> None:
    images = scenes(40, 28, 1)
    classes = np.arange(40) % 4
    assert within_class_similarity(images[classes], classes) == pytest.approx(1)
    assert within_class_similarity(images, classes) < 0.7


def test_a_picture_is_never_compared_with_itself() -> None:
    images = scenes(2, 28, 1)
    expected = ms_ssim(images[:1], images[1:])[0]
    assert expected < 0.9
    assert within_class_similarity(images, np.array([7, 7])) == pytest.approx(expected)


def test_the_pairs_are_of_one_class_and_spread_evenly_over_classes_of_any_size() -> None:
    """Class 3 is a picture 90 times, class 8 two unlike ones, class 5 a lone one: (1 + their similarity) / 2."""
    images = scenes(4, 28, 1)
    rows, classes = np.repeat([0, 1, 2, 3], [90, 1, 1, 1]), np.repeat([3, 8, 8, 5], [90, 1, 1, 1])
    shuffled = np.random.default_rng(4).permutation(93)
    found = within_class_similarity(images[rows][shuffled], classes[shuffled], pairs=100)
    assert found == pytest.approx((1 + ms_ssim(images[1:2], images[2:3])[0]) / 2)


def test_few_pairs_are_spread_over_many_classes() -> None:
    """Of classes 0 to 9 the upper five are of unlike pictures: two pairs see one of each kind."""
    images = scenes(20, 28, 1)
    rows = np.concatenate([np.repeat(np.arange(5), 2), np.arange(10, 20)])
    classes = np.repeat(np.arange(10), 2)
    assert within_class_similarity(images[rows], classes, pairs=2) == pytest.approx(
        (1 + ms_ssim(images[10:11], images[11:12])[0]) / 2
    )


def test_all_pairs_of_a_class_come_about_equally_often() -> None:
    first, second = appearance._pairs(np.zeros(4, np.int64), 12_000, seed=0)
    table = np.zeros((4, 4), int)
    np.add.at(table, (first, second), 1)
    assert (np.diag(table) == 0).all()
    assert (np.abs(table[~np.eye(4, dtype=bool)] - 1000) < 150).all()  # five standard deviations


def test_the_pairs_are_the_same_everywhere_and_others_for_another_seed() -> None:
    """As drawn once; raw Philox bits do not change between versions of NumPy."""
    first, second = appearance._pairs(np.arange(60) % 3, 6, seed=0)
    assert (first.tolist(), second.tolist()) == ([57, 54, 28, 49, 11, 17], [0, 36, 16, 31, 56, 41])
    assert appearance._pairs(np.arange(60) % 3, 6, seed=1)[0].tolist() != first.tolist()


@pytest.mark.parametrize("classes", [[0, 1, 2], []])
def test_without_a_class_of_two_pictures_there_is_no_similarity(classes: list[int]) -> None:
    with pytest.raises(EvaluationError, match="a class of at least 2 pictures"):
        within_class_similarity(scenes(len(classes), 28, 1), np.array(classes, np.int64))
