"""The figures are those that a person gets by hand."""

import math

import numpy as np
import pytest

from training.metrics import agreement, within_class_variance


def test_agreement_is_the_share_of_labels_that_the_judge_finds() -> None:
    logits = np.array([[2.0, 1, 0], [0, 3, 1], [5, 1, 9], [1, 2, 0]])  # 0, 1, 2, 1
    assert agreement(logits, np.array([0, 1, 2, 0])) == 0.75


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
