"""The figures are those that a person gets by hand, the papers' closed forms, and those of another implementation."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from training import metrics
from training.metrics import agreement, class_histogram_distance, fid, precision_recall, within_class_variance


def drawn(count: int, width: int, seed: int, rank: int | None = None) -> np.ndarray:
    """Correlated features, of a covariance of `rank`."""
    noise = np.random.default_rng(seed)
    return noise.standard_normal((count, rank or width)) @ noise.standard_normal((rank or width, width))


def test_agreement_is_the_share_of_labels_that_the_judge_finds() -> None:
    logits = np.array([[2.0, 1, 0], [0, 3, 1], [5, 1, 9], [1, 2, 0]])  # 0, 1, 2, 1
    assert agreement(logits, np.array([0, 1, 2, 0])) == 0.75


# variance within classes


def test_the_variance_is_summed_over_features_and_averaged_over_classes() -> None:
    features = np.array([[0.0, 0], [2, 4], [7, 7], [7, 7], [7, 10]], np.float32)
    # class 0: variances 1 and 4, so 5; class 4: variances 0 and 2, so 2
    assert within_class_variance(features, np.array([0, 0, 4, 4, 4])) == pytest.approx(3.5)


def test_a_class_of_one_image_is_left_out() -> None:
    features = np.array([[0.0], [2.0], [100.0]])
    assert within_class_variance(features, np.array([0, 0, 1])) == 1
    assert math.isnan(within_class_variance(features, np.array([0, 1, 2])))


def test_the_distance_between_classes_does_not_count() -> None:
    features = np.array([[0.0], [2.0], [1000.0], [1002.0]])
    assert within_class_variance(features, np.array([0, 0, 1, 1])) == 1


# the Fréchet distance


class _Flat(nn.Module):
    """Pictures [N, 1, 1, F] are their own features."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, image: Tensor) -> Tensor:
        return image.flatten(1)


def oracle(features: np.ndarray, reference: np.ndarray) -> float:
    width = features.shape[1]
    metric = FrechetInceptionDistance(feature=_Flat(width), normalize=True, input_img_size=(1, 1, width))
    metric.set_dtype(torch.float64)
    for real, side in ((False, features), (True, reference)):
        metric.update(torch.from_numpy(side.astype(np.float64))[:, None, None], real=real)
    return float(metric.compute())


@pytest.mark.parametrize(
    ("features", "reference"),
    [
        (drawn(200, 8, 1), drawn(150, 8, 2)),
        (drawn(200, 8, 1) + 3, drawn(150, 8, 2)),
        (drawn(200, 8, 1, rank=3), drawn(150, 8, 2)),
        (drawn(200, 8, 1, rank=3), drawn(150, 8, 2, rank=2)),
        (drawn(5, 8, 1), drawn(6, 8, 2)),  # fewer images than features
        (np.maximum(drawn(200, 8, 1), 0) * (np.arange(8) < 6), np.maximum(drawn(200, 8, 2), 0)),  # dead ReLUs
        (drawn(300, 64, 1).astype(np.float32), drawn(300, 64, 2).astype(np.float32)),
    ],
    ids=["plain", "shifted", "one singular", "both singular", "few", "dead", "wide"],
)
def test_the_fid_is_that_of_torchmetrics(features: np.ndarray, reference: np.ndarray) -> None:
    """Heusel et al. 2017, (6)."""
    assert fid(features, reference) == pytest.approx(oracle(features, reference), rel=1e-6)


def cross(scales: list[float], centre: float = 0.0) -> np.ndarray:
    """Points ± s on each axis: a mean of `centre`, a covariance of exactly diag(2 s² / (2 F - 1))."""
    axes = np.diag(scales)
    return np.concatenate([axes, -axes]) + centre


def test_the_fid_of_two_diagonal_gaussians_is_the_distance_of_means_and_deviations() -> None:
    """Dowson & Landau 1982: ‖μ₁ - μ₂‖² + Σ (σ₁ - σ₂)² where the covariances commute."""
    one, other = [1.0, 2.0, 0.0, 4.0], [3.0, 0.5, 2.0, 4.0]
    gaps = [(2 / 7) * (a - b) ** 2 for a, b in zip(one, other, strict=True)]
    assert fid(cross(one), cross(other, centre=0.5)) == pytest.approx(4 * 0.25 + sum(gaps))


@pytest.mark.parametrize("rank", [8, 3])
def test_a_set_has_no_distance_from_itself_and_the_same_both_ways(rank: int) -> None:
    features, reference = drawn(100, 8, 1, rank), drawn(90, 8, 2)
    assert fid(features, features) == pytest.approx(0, abs=1e-5)
    assert fid(features, features[::-1]) >= 0
    assert fid(features, reference) == pytest.approx(fid(reference, features))


def test_one_picture_repeated_has_a_finite_fid() -> None:
    reference = drawn(100, 8, 1)
    expected = reference.mean(0) @ reference.mean(0) + np.cov(reference, rowvar=False).trace()
    assert fid(np.zeros((7, 8), np.float32), reference) == pytest.approx(expected)


# precision and recall


def naive(features: np.ndarray, reference: np.ndarray, k: int) -> tuple[float, float]:
    """Kynkäänniemi et al. 2019, (1) and (2), word by word."""

    def apart(one: np.ndarray, other: np.ndarray) -> float:
        return sum((float(a) - float(b)) ** 2 for a, b in zip(one, other, strict=True))

    def manifold(points: np.ndarray) -> list[float]:
        radii = []
        for i, point in enumerate(points):
            others = sorted(apart(point, other) for j, other in enumerate(points) if j != i)
            radii.append(others[k - 1])
        return radii

    def covered(points: np.ndarray, centres: np.ndarray, radii: list[float]) -> float:
        inside = [any(apart(p, c) <= r for c, r in zip(centres, radii, strict=True)) for p in points]
        return sum(inside) / len(points)

    precision = covered(features, reference, manifold(reference))
    return precision, covered(reference, features, manifold(features))


WHOLE = st.integers(-6, 6).map(float)  # whole numbers have ties and repetitions, and exact squares


@given(st.data(), st.integers(1, 3), st.integers(1, 3))
def test_precision_and_recall_are_those_of_the_definition(data: st.DataObject, width: int, k: int) -> None:
    sides = [data.draw(arrays(np.float32, (data.draw(st.integers(k + 1, 10)), width), elements=WHOLE)) for _ in "12"]
    assert precision_recall(sides[0], sides[1], k) == pytest.approx(naive(sides[0], sides[1], k))


def test_precision_and_recall_of_points_on_a_line() -> None:
    real = np.array([[0.0], [1.0], [3.0], [10.0]])  # k = 1: balls of 1, 1, 2 and 7, so covered from -1 to 17
    fake = np.array([[-1.5], [0.5], [4.0], [20.0]])  # balls of 2, 2, 3.5 and 16: all but 3 between 2.5 and 4
    assert precision_recall(fake, real, k=1) == (0.5, 1.0)
    near = np.array([[0.4], [0.5], [0.6], [0.9]])  # balls of 0.1, 0.1, 0.1 and 0.3: from 0.3 to 1.2
    assert precision_recall(near, real, k=1) == (1.0, 0.25)


def modes(*centres: float, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed)
    return np.concatenate([noise.standard_normal((100, 4)) + centre for centre in centres])


def test_a_dropped_mode_costs_recall_and_not_precision() -> None:
    """Kynkäänniemi et al. 2019, figure 3: what is left out is seen in recall alone."""
    real = modes(0, 50, seed=1)
    whole, dropped = precision_recall(modes(0, 50, seed=2), real), precision_recall(modes(0, 0, seed=2), real)
    assert min(whole) > 0.85
    assert dropped[0] > 0.85
    assert 0.4 < dropped[1] <= 0.5


def test_an_invented_mode_costs_precision_and_not_recall() -> None:
    real = modes(0, 0, seed=1)
    precision, recall = precision_recall(modes(0, 50, seed=2), real)
    assert 0.4 < precision <= 0.5
    assert recall > 0.85


def test_a_set_covers_itself_and_nothing_far_away() -> None:
    features = drawn(60, 4, 1)
    assert precision_recall(features, features) == (1, 1)
    assert precision_recall(features, features + 1000) == (0, 0)


def test_one_picture_repeated_is_precise_and_recalls_only_itself() -> None:
    real = drawn(60, 4, 1).astype(np.float32)
    assert precision_recall(np.repeat(real[:1], 60, 0), real) == (1, pytest.approx(1 / 60))


def test_the_rows_held_at_once_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    features, reference = drawn(50, 4, 1), drawn(40, 4, 2)
    whole = precision_recall(features, reference)
    assert 0 < whole[0] < 1
    monkeypatch.setattr(metrics, "ROWS", 7)
    assert precision_recall(features, reference) == whole


# classes


def test_the_distance_of_histograms_is_the_share_that_would_have_to_change() -> None:
    reference = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    assert class_histogram_distance(np.array([3, 2, 1, 0]), reference, 5) == 0
    assert class_histogram_distance(np.array([0, 0, 1, 1]), reference, 5) == pytest.approx(0.5)
    assert class_histogram_distance(np.array([4, 4]), reference, 5) == 1
    assert class_histogram_distance(np.array([0, 1, 2, 2]), reference, 5) == pytest.approx(0.25)
