"""What a report shows is real: the seeds' pictures, the split's images, the nearest training image, hidden answers."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from training.data import Dataset
from training.errors import EvaluationError
from training.evaluation.examine import Examined, examine
from training.evaluation.gather import BLIND, NEAREST, gather
from training.evaluation.reference import FEWEST, Reference
from training.evaluation.report.contents import Contents
from training.evaluation.subject import Model, Subject
from training.judge import judge_for
from training.prior import Prior

Synthetic = Callable[..., Dataset]


def painted(z: np.ndarray, label: np.ndarray | None) -> np.ndarray:
    """Pictures that tell their latent and label: a bar at the class, as bright as the latent."""
    images = np.zeros((len(z), 28, 28, 1), np.uint8)
    for image, row, one in zip(images, z, np.zeros(len(z), int) if label is None else label, strict=True):
        image[:, 4 + 6 * one : 8 + 6 * one] = int(np.clip(128 + 40 * row[0], 0, 255))
        image[0, 0] = int(np.clip(128 + 40 * row[1], 0, 255))
    return images


def subject_of(dataset: Dataset, cache: Path, conditional: bool = True, prior: Prior | None = None) -> Subject:
    judge = judge_for(dataset, cache)
    model = Model(4, dataset.class_names if conditional else (), prior, painted)
    return Subject("bars", {"kind": "cgan"}, model, judge, Reference.of(judge, dataset, "test"))


@pytest.fixture
def dataset(synthetic: Synthetic) -> Dataset:
    return synthetic(held=FEWEST)


@pytest.fixture
def subject(dataset: Dataset, cache: Path) -> Subject:
    return subject_of(dataset, cache)


@pytest.fixture
def examined(subject: Subject) -> Examined:
    return examine(subject, samples=60, repeats=1, seed=3)


@pytest.fixture
def contents(subject: Subject, examined: Examined, dataset: Dataset) -> Contents:
    return gather(subject, examined, dataset)


def test_each_row_is_a_class_of_the_seeds_pictures_beside_real_ones(
    subject: Subject, contents: Contents, dataset: Dataset
) -> None:
    assert [name for name, _ in contents.generated] == list("abc")
    drawn = np.concatenate([row for _, row in contents.generated])
    assert np.array_equal(drawn, subject.model.pictures(3, 30, np.arange(3).repeat(10)))
    assert contents.real is not None
    for label, (_, row) in enumerate(contents.real):
        of_class = dataset.test.images[dataset.test.labels == label]
        assert len(row) == 10
        assert all((of_class == picture).all((1, 2, 3)).any() for picture in row)


def test_a_model_without_classes_has_rows_without_names(dataset: Dataset, cache: Path) -> None:
    subject = subject_of(dataset, cache, conditional=False)
    found = gather(subject, examine(subject, samples=60, repeats=1), dataset)
    assert [name for name, _ in found.generated] == [""] * 10
    assert found.real is not None
    assert {len(row) for _, row in [*found.generated, *found.real]} == {10}


def test_without_images_what_needs_them_is_left_out(subject: Subject, examined: Examined) -> None:
    found = gather(subject, examined, None, missing=["no images"])
    assert (found.real, found.neighbours, found.blind, found.reconstructions) == (None, None, None, None)
    assert found.missing == ["no images"]
    assert found.generated
    assert found.interpolations


def test_neighbours_are_the_nearest_pairs_each_training_image_once(
    contents: Contents, examined: Examined, dataset: Dataset
) -> None:
    found = contents.neighbours
    assert found is not None
    assert 1 <= len(found.generated) == len(found.training) == len(found.distances) <= NEAREST
    assert found.distances[0] == examined.distances.min()
    assert (np.diff(found.distances) >= 0).all()
    first = examined.distances.argmin()
    assert np.array_equal(found.generated[0], examined.pictures[first])
    assert np.array_equal(found.training[0], dataset.train.images[examined.nearest[first]])
    assert len({picture.tobytes() for picture in found.training}) == len(found.training)
    assert found.all_generated is examined.distances
    assert found.held_out is examined.held_out


def test_the_blind_test_is_half_real_and_mixed(contents: Contents, examined: Examined, dataset: Dataset) -> None:
    found = contents.blind
    assert found is not None
    assert len(found.images) == len(found.real) == BLIND
    assert found.real.sum() == BLIND / 2
    assert 0 < found.real[:20].sum() < 20
    for picture, is_real in zip(found.images, found.real, strict=True):
        side = dataset.test.images if is_real else examined.pictures
        assert (side == picture).all((1, 2, 3)).any()


def test_reconstructions_are_of_real_images_in_their_order(
    subject: Subject, examined: Examined, dataset: Dataset
) -> None:
    asked: list[np.ndarray | None] = []
    encoder = replace(subject, reconstruct=lambda images, labels: asked.append(labels) or 255 - images)
    found = gather(encoder, examined, dataset).reconstructions
    assert found is not None
    assert np.array_equal(found.reconstructions, 255 - found.originals)
    (labels,) = asked
    assert labels is not None
    for image, label in zip(found.originals, labels, strict=True):
        assert (dataset.test.images[dataset.test.labels == label] == image).all((1, 2, 3)).any()


@pytest.mark.parametrize("what", ["other images", "another size", "fewer", "other training images"])
def test_images_of_another_set_are_refused(
    subject: Subject, examined: Examined, synthetic: Synthetic, dataset: Dataset, what: str
) -> None:
    other = {
        "other images": replace(dataset, test=replace(dataset.test, images=255 - dataset.test.images)),
        "another size": synthetic(size=32, held=FEWEST),
        "other training images": replace(dataset, train=replace(dataset.train, images=dataset.train.images[::-1])),
        "fewer": synthetic(held=FEWEST + 10),
    }[what]
    with pytest.raises(
        EvaluationError,
        match=r"the images of bars, \d+ of test, are not those that bars is judged by, 100 of test",
    ):
        gather(subject, examined, other)


# paths


def test_interpolations_are_one_path_for_each_class(contents: Contents) -> None:
    assert [name for name, _ in contents.interpolations] == list("abc")
    for label, (_, row) in enumerate(contents.interpolations):
        bars = row[:, 5, 4 + 6 * label]
        assert len(row) == 10
        assert np.abs(np.diff(bars[:, 0].astype(int))).max() < 60  # no jump
        assert not np.array_equal(row[0], row[-1])
