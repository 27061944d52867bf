"""The figures are those that a person gets by hand, the papers' closed forms, and those of another implementation."""

import math
import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import entropy, mannwhitneyu
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

from training.errors import EvaluationError
from training.evaluation import metrics
from training.evaluation.metrics import (
    Neighbourhood,
    agreement,
    class_histogram_distance,
    copies,
    copying,
    fid,
    inception_score,
    kid,
    nearest,
    neighbourhood,
    within_class_variance,
)


def drawn(count: int, width: int, seed: int, rank: int | None = None) -> np.ndarray:
    """Correlated features, of a covariance of `rank`."""
    noise = np.random.default_rng(seed)
    return noise.standard_normal((count, rank or width)) @ noise.standard_normal((rank or width, width))


def test_agreement_is_the_share_of_labels_that_the_judge_finds() -> None:
    logits = np.array([[2.0, 1, 0], [0, 3, 1], [5, 1, 9], [1, 2, 0]])  # 0, 1, 2, 1
    assert agreement(logits, np.array([0, 1, 2, 0])) == 0.75


# the inception score


@pytest.mark.filterwarnings("ignore::UserWarning:torchmetrics")
@pytest.mark.parametrize("scale", [0.1, 2, 30], ids=["unsure", "plain", "sure"])
def test_the_inception_score_is_that_of_torchmetrics(scale: float) -> None:
    """Salimans et al. 2016, (1)."""
    logits = scale * drawn(300, 10, 1)
    metric = InceptionScore(feature=nn.Identity(), splits=1)
    metric.update(torch.from_numpy(logits))
    assert inception_score(logits) == pytest.approx(float(metric.compute()[0]), rel=1e-9)


def test_logits_beyond_the_range_of_exp_give_the_score_of_sure_pictures() -> None:
    logits = 1e6 * drawn(300, 10, 1)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        found = inception_score(logits.astype(np.float32))
    assert found == pytest.approx(np.exp(entropy(np.bincount(logits.argmax(1)))))


@given(st.integers(1, 6), st.integers(1, 5))
def test_sure_pictures_of_so_many_classes_have_that_score_and_unsure_ones_1(classes: int, each: int) -> None:
    sure = np.tile(1e4 * np.eye(classes, 8), (each, 1))
    assert inception_score(sure) == pytest.approx(classes)
    assert inception_score(np.full((each, 8), 3.0)) == pytest.approx(1)


def test_each_split_has_its_own_marginal() -> None:
    sure = 1e4 * np.eye(4)[[0, 1, 2, 3, 0, 0, 1, 1]]
    assert inception_score(sure, splits=2) == pytest.approx((4 + 2) / 2)


# variance within classes


def test_the_variance_is_summed_over_features_and_averaged_over_classes() -> None:
    features = np.array([[0.0, 0], [2, 4], [7, 7], [7, 7], [7, 10]], np.float32)
    # over n - 1: class 0: variances 2 and 8, so 10; class 4: variances 0 and 3, so 3
    assert within_class_variance(features, np.array([0, 0, 4, 4, 4])) == pytest.approx(6.5)


@pytest.mark.parametrize("count", [2, 3, 12])
def test_the_variance_expects_the_same_of_small_classes_as_of_large_ones(count: int) -> None:
    features = np.random.default_rng(count).standard_normal((600 * count, 4))
    assert within_class_variance(features, np.arange(len(features)) % 600) == pytest.approx(4, rel=0.08)


def test_a_class_of_one_image_is_left_out() -> None:
    features = np.array([[0.0], [2.0], [100.0]])
    assert within_class_variance(features, np.array([0, 0, 1])) == 2
    assert math.isnan(within_class_variance(features, np.array([0, 1, 2])))


def test_the_distance_between_classes_does_not_count() -> None:
    features = np.array([[0.0], [2.0], [1000.0], [1002.0]])
    assert within_class_variance(features, np.array([0, 0, 1, 1])) == 2


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


# the kernel distance


def kernel_oracle(features: np.ndarray, reference: np.ndarray) -> float:
    metric = KernelInceptionDistance(feature=nn.Identity(), subsets=1, subset_size=len(features))
    for real, side in ((False, features), (True, reference)):
        metric.update(torch.from_numpy(side.astype(np.float64)), real=real)
    return float(metric.compute()[0])


@pytest.mark.filterwarnings("ignore::UserWarning:torchmetrics")
@pytest.mark.parametrize(
    ("features", "reference"),
    [
        (drawn(200, 8, 1), drawn(200, 8, 2)),
        (drawn(300, 8, 1) + 3, drawn(300, 8, 2)),  # more than the rows held at once
        (np.maximum(drawn(40, 64, 1), 0).astype(np.float32), np.maximum(drawn(40, 64, 1), 0).astype(np.float32)[::-1]),
        (drawn(2, 8, 1), drawn(2, 8, 2)),
    ],
    ids=["plain", "shifted", "the same", "two"],
)
def test_the_kid_is_that_of_torchmetrics(features: np.ndarray, reference: np.ndarray) -> None:
    """Bińkowski et al. 2018, (4); its one subset is a permutation of all."""
    assert kid(features, reference) == pytest.approx(kernel_oracle(features, reference), rel=1e-9)


def test_the_kid_of_sides_of_other_lengths_is_that_of_the_definition() -> None:
    first, second = np.array([[1.0, 0], [0, 2], [1, 1]]), np.array([[2.0, 0], [0, 0]])
    # kernels: among the first 1, (1/2 + 1)³ and (2/2 + 1)³; among the second 1; across 8, 1, 1, 1, 8, 1
    assert kid(first, second) == pytest.approx((1 + 1.5**3 + 2**3) / 3 + 1 - 2 * (8 + 1 + 1 + 1 + 8 + 1) / 6)


def test_the_kid_has_no_bias_by_the_number_of_pictures_as_the_fid_has() -> None:
    """Of sets that are alike: the mean over many is 0 within its error, and single ones are below it."""
    noise = np.random.default_rng(5)
    sides = noise.standard_normal((400, 2, 6, 4))
    found = np.array([kid(*pair) for pair in sides])
    assert abs(found.mean()) < 4 * found.std() / 20
    assert found.min() < 0
    assert np.mean([fid(*pair) for pair in sides]) > 1


# neighbourhoods


def distance(one: np.ndarray, other: np.ndarray) -> float:
    return sum((float(a) - float(b)) ** 2 for a, b in zip(one, other, strict=True))


def radii(points: np.ndarray, k: int) -> list[float]:
    return [
        sorted(distance(point, other) for j, other in enumerate(points) if j != i)[k - 1]
        for i, point in enumerate(points)
    ]


def naive(fake: np.ndarray, real: np.ndarray, k: int) -> Neighbourhood:
    """Kynkäänniemi et al. 2019, (1) and (2), and Naeem et al. 2020, (4) and (5), word by word."""
    around_real, around_fake = radii(real, k), radii(fake, k)
    inside = [[distance(x, y) <= radius for x, radius in zip(real, around_real, strict=True)] for y in fake]
    precision = sum(any(row) for row in inside) / len(fake)
    recall = sum(
        any(distance(x, y) <= radius for y, radius in zip(fake, around_fake, strict=True)) for x in real
    ) / len(real)
    density = sum(sum(row) for row in inside) / (k * len(fake))
    coverage = sum(any(row[i] for row in inside) for i in range(len(real))) / len(real)
    return Neighbourhood(precision, recall, density, coverage)


WHOLE = st.integers(-6, 6).map(float)  # whole numbers have ties and repetitions, and exact squares


@given(st.data(), st.integers(1, 3), st.integers(1, 3))
def test_the_neighbourhood_is_that_of_the_definitions(data: st.DataObject, width: int, k: int) -> None:
    fake, real = (
        data.draw(arrays(np.float32, (data.draw(st.integers(k + 1, 10)), width), elements=WHOLE)) for _ in "12"
    )
    found = neighbourhood(fake, real, k)
    assert found == pytest.approx(naive(fake, real, k))
    assert (found.density == 0) == (found.precision == 0) == (found.coverage == 0)
    assert found.precision <= k * found.density * len(fake)
    assert (found.precision, found.recall) == neighbourhood(real, fake, k)[1::-1]  # each is the other seen from there


def test_the_neighbourhood_of_features_is_that_of_the_definitions() -> None:
    fake, real = drawn(40, 16, 1).astype(np.float32), drawn(30, 16, 1).astype(np.float32) * np.float32(1.2)
    found = neighbourhood(fake, real, 3)
    assert found == pytest.approx(naive(fake, real, 3))
    assert min(found) > 0
    assert max(found[:2]) < 1


def test_the_neighbourhood_of_points_on_a_line() -> None:
    real = np.array([[0.0], [1.0], [3.0], [10.0]])  # k = 1: balls of 1, 1, 2 and 7: [-1, 1], [0, 2], [1, 5] and [3, 17]
    fake = np.array([[-1.5], [0.5], [4.0], [20.0]])  # balls of 2, 2, 3.5 and 16: all but 3 between 2.5 and 4
    assert neighbourhood(fake, real, k=1) == (0.5, 1.0, 4 / 4, 1.0)  # in no ball, two, two and none
    near = np.array([[0.4], [0.5], [0.6], [0.9]])  # balls of 0.1, 0.1, 0.1 and 0.3: from 0.3 to 1.2
    assert neighbourhood(near, real, k=1) == (1.0, 0.25, 8 / 4, 0.5)


def modes(*centres: float, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed)
    return np.concatenate([noise.standard_normal((100, 4)) + centre for centre in centres])


def test_a_dropped_mode_costs_recall_and_coverage_and_not_precision() -> None:
    """Kynkäänniemi et al. 2019, figure 3: what is left out is not seen in precision."""
    real = modes(0, 50, seed=1)
    whole, dropped = neighbourhood(modes(0, 50, seed=2), real), neighbourhood(modes(0, 0, seed=2), real)
    assert min(whole) > 0.85
    assert dropped.precision > 0.85
    assert dropped.density > 0.8
    assert 0.4 < dropped.recall <= 0.5
    assert 0.4 < dropped.coverage <= 0.5


def test_an_invented_mode_costs_precision_and_density_and_not_recall() -> None:
    found = neighbourhood(modes(0, 50, seed=2), modes(0, 0, seed=1))
    assert 0.4 < found.precision <= 0.5
    assert 0.3 < found.density < 0.7
    assert found.recall > 0.85


def test_an_outlier_among_the_real_lifts_precision_and_hardly_density() -> None:
    """Naeem et al. 2020, figure 3: pictures between all real images and one far from them lie in its ball alone."""
    noise = np.random.default_rng(1)
    fake = noise.standard_normal((100, 4)) + 20
    real = np.concatenate([noise.standard_normal((100, 4)), np.full((1, 4), 40.0)])
    found = neighbourhood(fake, real)
    assert found.precision > 0.9
    assert found.density <= 1 / 5
    assert found.coverage == pytest.approx(1 / 101)


def test_a_set_covers_itself_and_nothing_far_away() -> None:
    features = drawn(60, 4, 1)
    assert neighbourhood(features, features) == (1, 1, pytest.approx(6 / 5), 1)  # k others and itself
    assert neighbourhood(features, features + 1000) == (0, 0, 0, 0)


def test_one_picture_repeated_is_precise_and_recalls_only_itself() -> None:
    real = drawn(60, 4, 1).astype(np.float32)
    found = neighbourhood(np.repeat(real[:1], 60, 0), real)
    assert (found.precision, found.recall) == (1, pytest.approx(1 / 60))
    assert found.coverage < 0.4


@pytest.mark.parametrize(("count", "width"), [(100, 128), (501, 128), (333, 17)])
def test_the_balls_of_repeated_pictures_hold_them_whatever_the_rounding(count: int, width: int) -> None:
    """Seven of each, so that every ball has a radius of 0: the sums of a product are not those of a square."""
    noise = np.random.default_rng(0)
    once = (30 * np.maximum(noise.standard_normal((count, width)), 0)).astype(np.float32)
    repeated = np.repeat(once, 7, 0)[noise.permutation(7 * count)]
    assert (metrics._reach(repeated.astype(np.float64), 5) == 0).all()
    assert neighbourhood(once, repeated)[::3] == (1, 1)
    assert neighbourhood(repeated, repeated) == (1, 1, pytest.approx(7 / 5), 1)


def test_the_rows_held_at_once_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    features, reference = drawn(50, 4, 1), drawn(40, 4, 2)
    near, far, own = (
        neighbourhood(features, reference),
        kid(features, reference),
        nearest(features, features, apart=True),
    )
    assert 0 < near.precision < 1
    monkeypatch.setattr(metrics, "ROWS", 7)
    assert neighbourhood(features, reference) == pytest.approx(near)
    assert kid(features, reference) == pytest.approx(far)
    np.testing.assert_array_equal(nearest(features, features, apart=True), own)


# copies


@given(st.data(), st.integers(1, 3), st.booleans())
def test_the_nearest_is_the_least_of_all_distances(data: st.DataObject, width: int, apart: bool) -> None:
    training = data.draw(arrays(np.float32, (data.draw(st.integers(2, 8)), width), elements=WHOLE))
    features = (
        training if apart else data.draw(arrays(np.float32, (data.draw(st.integers(1, 8)), width), elements=WHOLE))
    )
    distances, index = nearest(features, training, apart)
    assert (distances.dtype, index.dtype) == (np.float64, np.int64)
    for row, feature in enumerate(features):
        all_of_them = [math.sqrt(distance(feature, other)) for other in training]
        if apart:
            all_of_them[row] = math.inf
        assert distances[row] == min(all_of_them)
        assert index[row] == all_of_them.index(min(all_of_them))


@pytest.mark.parametrize("scale", [1e-4, 1, 1e4])
def test_an_exact_copy_is_found_at_distance_0(scale: float) -> None:
    training = (scale * (drawn(600, 128, 1) + 50)).astype(np.float32)
    rows = np.random.default_rng(2).permutation(600)[:300]
    distances, index = nearest(training[rows], training)
    np.testing.assert_array_equal(index, rows)
    np.testing.assert_array_equal(distances, 0)


def test_a_near_copy_is_at_its_distance_and_not_at_that_of_rounding() -> None:
    training = drawn(100, 128, 1) + 50
    features = training.copy()
    features[:, 3] += 1e-5
    distances, index = nearest(features, training)
    np.testing.assert_array_equal(index, np.arange(100))
    np.testing.assert_allclose(distances, 1e-5, rtol=1e-6)


def test_apart_a_picture_that_the_set_has_twice_is_near_to_the_other() -> None:
    training = np.array([[0.0], [5.0], [0.0], [7.0]])
    distances, index = nearest(training, training, apart=True)
    assert (distances.tolist(), index.tolist()) == ([0, 2, 0, 2], [2, 3, 0, 1])


DISTANCES = arrays(np.float64, st.integers(1, 12), elements=st.integers(0, 5).map(float))


@given(DISTANCES, DISTANCES)
def test_copying_is_the_share_of_pairs_and_that_of_scipy(distances: np.ndarray, held_out: np.ndarray) -> None:
    """Meehan et al. 2020, (3)."""
    pairs = [(d < other) + 0.5 * (d == other) for d in distances for other in held_out]
    assert copying(distances, held_out) == pytest.approx(np.mean(pairs))
    statistic = mannwhitneyu(held_out, distances, method="asymptotic").statistic
    assert copying(distances, held_out) == pytest.approx(statistic / len(pairs))
    assert copying(distances, held_out) + copying(held_out, distances) == pytest.approx(1)


def test_an_honest_generator_a_copier_and_a_stray_one_are_told_apart() -> None:
    training, held_out, honest = np.split(np.random.default_rng(1).standard_normal((3000, 8)), 3)
    floor, _ = nearest(held_out, training)
    found = [
        (copying(distances, floor), copies(distances, floor))
        for distances, _ in (nearest(side, training) for side in (honest, training + 1e-3, honest + 20))
    ]
    assert found[0] == (pytest.approx(0.5, abs=0.04), pytest.approx(0.01, abs=0.01))
    assert found[1] == (1, 1)
    assert found[2] == (0, 0)


def test_copies_are_below_the_quantile_or_exact() -> None:
    held_out = np.arange(101.0)  # its quantiles are its own numbers: 0.01 is 1
    assert copies(np.array([0.5, 0.999, 1.0, 2.0]), held_out) == 0.5
    assert copies(np.array([0.5, 9.0, 11.0, 12.0]), held_out, quantile=0.1) == 0.5
    assert copies(np.array([0.0, 0.001]), np.zeros(50)) == 0.5  # a set with each image twice


# too few


NONE, ONE, MANY = (np.zeros((count, 4)) for count in (0, 1, 500))


@pytest.mark.parametrize(
    ("ask", "what"),
    [
        (lambda: agreement(NONE, NONE[:, 0]), "label agreement needs at least 1 picture, there are 0"),
        (lambda: inception_score(ONE, splits=2), "inception score needs at least 2 pictures, there is 1"),
        (lambda: fid(ONE, MANY), "FID needs at least 2 pictures on either side, there is 1 and 500"),
        (lambda: kid(MANY, ONE), "KID needs at least 2 pictures on either side, there are 500 and 1"),
        (lambda: neighbourhood(MANY[:4], MANY), "recall needs at least 6 pictures on either side, there are 4 and 500"),
        (lambda: neighbourhood(MANY, MANY[:5]), "recall needs at least 6 pictures on either side, there are 500 and 5"),
        (lambda: nearest(MANY, NONE), "distance to the nearest training image needs at least 1 picture on either side"),
        (lambda: nearest(ONE, ONE, apart=True), "nearest training image needs at least 2 pictures on either side"),
        (
            lambda: copying(MANY[:, 0], NONE[:, 0]),
            "copying needs at least 1 picture on either side, there are 500 and 0",
        ),
        (
            lambda: copies(NONE[:, 0], MANY[:, 0]),
            "share of near copies needs at least 1 picture on either side, there are 0",
        ),
        (
            lambda: class_histogram_distance(NONE[:, 0], MANY[:, 0], 3),
            "class histogram distance needs at least 1 picture",
        ),
    ],
)
def test_too_few_pictures_are_one_line_that_says_how_many(ask: Callable[[], object], what: str) -> None:
    with pytest.raises(EvaluationError, match=re.escape(what)) as raised:
        ask()
    assert raised.value.mend


def test_the_mend_is_for_the_side_that_is_short() -> None:
    with pytest.raises(EvaluationError) as few_pictures:
        fid(ONE, ONE)
    with pytest.raises(EvaluationError) as few_real_images:
        fid(MANY, ONE)
    assert "--samples" in few_pictures.value.mend
    assert "--samples" not in few_real_images.value.mend


@pytest.mark.parametrize("figure", [fid, kid])
def test_the_least_number_is_enough(figure: Callable[[np.ndarray, np.ndarray], float]) -> None:
    assert math.isfinite(figure(drawn(2, 4, 1), drawn(2, 4, 2)))
    assert neighbourhood(drawn(6, 4, 1), drawn(6, 4, 1)).coverage == 1


# classes


def test_the_distance_of_histograms_is_the_share_that_would_have_to_change() -> None:
    reference = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    assert class_histogram_distance(np.array([3, 2, 1, 0]), reference, 5) == 0
    assert class_histogram_distance(np.array([0, 0, 1, 1]), reference, 5) == pytest.approx(0.5)
    assert class_histogram_distance(np.array([4, 4]), reference, 5) == 1
    assert class_histogram_distance(np.array([0, 1, 2, 2]), reference, 5) == pytest.approx(0.25)
