"""Structural similarity is that of torchmetrics and of scikit-image, and 1 for what is equal."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis.extra.numpy import arrays
from skimage.metrics import structural_similarity
from torch import Tensor
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from training.errors import EvaluationError
from training.evaluation import structure
from training.evaluation.structure import WEIGHTS, ms_ssim, ssim

Similarity = Callable[[np.ndarray, np.ndarray], np.ndarray]


def pairs(height: int, width: int, channels: int, seed: int = 1, count: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Blobs, and the same under noise that grows from pair to pair; the last is a pair of unlike pictures."""
    noise = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    waves = noise.uniform(0.05, 0.6, (count, 1, 1, 2)) * np.stack([rows, columns], -1)
    first = 127 * (1 + np.sin(waves.sum(-1)[..., None] + np.arange(channels)))
    second = first + noise.standard_normal(first.shape) * np.geomspace(2, 200, count)[:, None, None, None]
    second[-1] = first[0]
    return first.astype(np.uint8), second.clip(0, 255).astype(np.uint8)


def channels_first(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).double()


def oracle(first: np.ndarray, second: np.ndarray, scales: int) -> np.ndarray:
    betas = tuple(weight / sum(WEIGHTS[:scales]) for weight in WEIGHTS[:scales])
    similarity = multiscale_structural_similarity_index_measure(
        channels_first(first),
        channels_first(second),
        kernel_size=11,
        sigma=1.5,
        data_range=255.0,
        betas=betas,
        normalize="relu",
        reduction="none",
    )
    return similarity.numpy()


@pytest.mark.parametrize(
    ("height", "width", "channels", "scales"),
    [(11, 11, 1, 1), (28, 28, 1, 2), (32, 32, 3, 2), (29, 35, 2, 2), (64, 64, 3, 3), (64, 28, 1, 2), (176, 180, 1, 5)],
)
def test_the_multi_scale_similarity_is_that_of_torchmetrics(
    height: int, width: int, channels: int, scales: int
) -> None:
    """Wang et al. 2003, (7). torchmetrics has float32 weights."""
    first, second = pairs(height, width, channels)
    similarity = ms_ssim(first, second)
    assert similarity.min() < 0.5 < 0.9 < similarity.max()
    np.testing.assert_allclose(similarity, oracle(first, second, scales), rtol=1e-6)


@pytest.mark.parametrize(("size", "scales"), [(32, 2), (11, 1)])
def test_the_negative_of_a_picture_has_no_similarity(size: int, scales: int) -> None:
    first = np.random.default_rng(1).integers(0, 256, (3, size, size, 1), np.uint8)
    assert ssim(first, 255 - first).max() < 0
    np.testing.assert_array_equal(ms_ssim(first, 255 - first), 0)
    np.testing.assert_array_equal(oracle(first, 255 - first, scales), 0)


@pytest.mark.parametrize(("height", "width", "channels"), [(11, 11, 1), (28, 28, 1), (32, 40, 3)])
def test_the_similarity_of_one_scale_is_that_of_scikit_image(height: int, width: int, channels: int) -> None:
    """Wang et al. 2004, (13)."""
    first, second = pairs(height, width, channels)
    second[0] = 255 - first[0]
    expected = np.array(
        [
            structural_similarity(
                *pair, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255, channel_axis=-1
            )
            for pair in zip(first.astype(np.float64), second.astype(np.float64), strict=True)
        ]
    )
    assert expected.min() < 0
    np.testing.assert_allclose(ssim(first, second), expected, rtol=1e-9)


@pytest.mark.parametrize("similarity", [ssim, ms_ssim])
def test_equal_pictures_have_similarity_1_and_noise_takes_it_away(similarity: Similarity) -> None:
    first = np.repeat(pairs(28, 28, 1)[0][:1], 5, 0)
    noise = np.random.default_rng(3).standard_normal((28, 28, 1))
    second = (first + noise * np.array([0, 5, 20, 60, 150])[:, None, None, None]).clip(0, 255).astype(np.uint8)
    found = similarity(first, second)
    assert found[0] == pytest.approx(1)
    assert (np.diff(found) < 0).all()
    assert found[-1] < 0.7


@pytest.mark.parametrize("similarity", [ssim, ms_ssim])
def test_flat_pictures_differ_by_their_luminance_alone(similarity: Similarity) -> None:
    """Wang et al. 2004, (6): (2 μ₁ μ₂ + C₁) / (μ₁² + μ₂² + C₁)."""
    black, grey = (np.full((1, 11, 11, 1), level, np.uint8) for level in (0, 100))
    assert similarity(black, grey) == pytest.approx(6.5025 / (100**2 + 6.5025))


@given(arrays(np.uint8, (2, 2, 12, 11, 1)))
def test_the_similarity_is_within_its_range_and_the_same_both_ways(images: np.ndarray) -> None:
    for similarity, least in ((ssim, -1), (ms_ssim, 0)):
        found = similarity(*images)
        assert ((found >= least) & (found <= 1 + 1e-12)).all()
        np.testing.assert_allclose(found, similarity(*images[::-1]), rtol=1e-9)


def test_the_pairs_filtered_at_once_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = pairs(28, 28, 3)
    whole = ms_ssim(first, second)
    monkeypatch.setattr(structure, "PAIRS", 4)
    np.testing.assert_array_equal(ms_ssim(first, second), whole)


@pytest.mark.parametrize("similarity", [ssim, ms_ssim])
def test_a_picture_smaller_than_the_window_is_refused(similarity: Similarity) -> None:
    small = np.zeros((2, 20, 10, 1), np.uint8)
    with pytest.raises(EvaluationError, match="at least 11 x 11 pixels, these pictures have 10 x 20"):
        similarity(small, small)
