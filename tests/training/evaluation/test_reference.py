"""The real side of an evaluation: which images it is, and that a file of it gives the same figures back."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from training import arrays
from training.data import Dataset, Images
from training.errors import EvaluationError
from training.evaluation.reference import FEWEST, Pixels, Reference
from training.judge import Judge, judge_for

Synthetic = Callable[..., Dataset]


@pytest.fixture
def dataset(synthetic: Synthetic) -> Dataset:
    return synthetic(held=FEWEST)


@pytest.fixture
def judge(dataset: Dataset, cache: Path) -> Judge:
    return judge_for(dataset, cache)


def alike(one: Reference, other: Reference) -> bool:
    sides = [(one.real, other.real)]
    if one.training is not None and other.training is not None:
        sides.append((one.training, other.training))
    same = replace(one, real=other.real, training=other.training) == other
    for mine, theirs in sides:
        assert mine.pixels is not None
        assert theirs.pixels is not None
        pairs = [
            (mine.sight.logits, theirs.sight.logits),
            (mine.sight.features, theirs.sight.features),
            (mine.sight.classes, theirs.sight.classes),
            (mine.pixels.sharpness, theirs.pixels.sharpness),
            (mine.pixels.descriptors, theirs.pixels.descriptors),
        ]
        same = same and all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in pairs)
        same = same and mine.pixels.similarity == theirs.pixels.similarity
    return same and (one.training is None) == (other.training is None)


@pytest.mark.parametrize("held", [FEWEST, 6])
def test_a_file_gives_the_reference_back(synthetic: Synthetic, cache: Path, tmp_path: Path, held: int) -> None:
    dataset = synthetic(held=held)
    reference = Reference.of(judge_for(dataset, cache), dataset, "test", limit=7)
    assert (reference.split, reference.training is None) == (("test", False) if held == FEWEST else ("all", True))
    reference.save(tmp_path / "judge.npz")
    assert alike(Reference.load(tmp_path / "judge.npz"), reference)
    assert [path.name for path in tmp_path.iterdir()] == ["judge.npz"]


def test_the_same_reference_gives_the_same_bytes(judge: Judge, dataset: Dataset, tmp_path: Path) -> None:
    for name in ("one", "other"):
        Reference.of(judge, dataset, "test").save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_it_holds_what_the_judge_sees_and_no_pixels(judge: Judge, dataset: Dataset) -> None:
    reference = Reference.of(judge, dataset, "test")
    real, training = reference.real, reference.training
    assert training is not None
    assert (len(real), len(training)) == (FEWEST, 48)
    assert (reference.data, reference.size, reference.channels) == ("bars", 28, 1)
    assert reference.judge_sha256 == judge.sha256()
    logits, features = judge.look(dataset.train.images)
    assert np.array_equal(training.sight.features, features)
    assert np.array_equal(training.sight.logits, logits)
    assert dataset.train.labels is not None
    assert np.array_equal(training.sight.classes, dataset.train.labels)
    assert training.pixels is not None
    assert training.pixels.descriptors.shape == (48, 144)


def test_to_a_model_without_classes_an_image_is_of_the_class_it_is_taken_for(judge: Judge, dataset: Dataset) -> None:
    labels = dataset.test.labels
    assert labels is not None
    mislabelled = replace(dataset, test=replace(dataset.test, labels=(labels + 1) % 3))
    real = Reference.of(judge, mislabelled, "test").real
    assert np.array_equal(real.known(conditional=True).sight.classes, real.sight.classes)
    assert np.array_equal(real.known(conditional=False).sight.classes, real.sight.logits.argmax(1))
    assert not np.array_equal(real.sight.classes, real.sight.logits.argmax(1))


def test_the_floor_is_of_training_images_or_of_halves(synthetic: Synthetic, cache: Path) -> None:
    dataset = synthetic(held=FEWEST)
    reference = Reference.of(judge_for(dataset, cache), dataset, "test")
    seen, real = reference.floor(20)
    assert (len(seen), len(real)) == (20, FEWEST)
    assert reference.training is not None
    assert np.array_equal(seen.sight.features, reference.training.sight.features[:20])
    dataset = synthetic(held=6)
    reference = Reference.of(judge_for(dataset, cache), dataset, "test")
    first, second = reference.floor(1000)
    assert (len(first), len(second)) == (30, 30)
    whole = np.concatenate([first.sight.features, second.sight.features])
    assert np.array_equal(whole, reference.real.sight.features)


def test_another_split_has_the_same_training_images(judge: Judge, dataset: Dataset) -> None:
    reference = Reference.of(judge, dataset, "test")
    other = reference.instead(judge, dataset, "val")
    assert (other.split, other.training) == ("val", reference.training)
    assert np.array_equal(np.sort(other.real.sight.features, 0), np.sort(judge.look(dataset.val.images)[1], 0))


def test_a_class_without_a_pair_has_no_similarity_and_raises_nothing() -> None:
    images = np.zeros((3, 28, 28, 1), np.uint8)
    assert np.isnan(Pixels.of(images, np.arange(3)).similarity)
    assert Pixels.of(images, np.zeros(3, np.int64)).similarity == 1


def test_images_without_labels_are_all_pairs(synthetic: Synthetic, cache: Path) -> None:
    dataset = synthetic(classes=0, held=FEWEST)
    assert dataset.train.labels is None
    reference = Reference.of(judge_for(dataset, cache), dataset, "test")
    assert reference.real.pixels is not None
    assert np.isfinite(reference.real.pixels.similarity)


# files that are wrong


@pytest.fixture
def saved(judge: Judge, dataset: Dataset, tmp_path: Path) -> Path:
    Reference.of(judge, dataset, "test").save(tmp_path / "judge.npz")
    return tmp_path / "judge.npz"


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"there is no .*judge\.npz.*Train again"):
        Reference.load(tmp_path / "judge.npz")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def other_schema(path: Path) -> None:
    found = arrays.load(path)
    about = json.loads(str(found["about"])) | {"schema": 99}
    arrays.save(path, found | {"about": np.array(json.dumps(about))})


def forget_an_array(path: Path) -> None:
    found = arrays.load(path)
    del found["real_sharpness"]
    arrays.save(path, found)


def shorten_an_array(path: Path) -> None:
    found = arrays.load(path)
    arrays.save(path, found | {"real_classes": found["real_classes"][:-1]})


def break_a_number(path: Path) -> None:
    found = arrays.load(path)
    found["real_features"][0, 0] = np.nan
    arrays.save(path, found)


def pickle(path: Path) -> None:
    np.savez(path, about=np.array([{"schema": 1}], object))


@pytest.mark.parametrize("damage", [cut, other_schema, forget_an_array, shorten_an_array, break_a_number, pickle])
def test_a_damaged_file_is_said_in_one_line(saved: Path, damage: Callable[[Path], None]) -> None:
    damage(saved)
    path = saved if saved.is_file() else saved.with_suffix(".npz")
    with pytest.raises(
        EvaluationError, match=r"judge\.npz is damaged \(.*\)\. Restore it, or train again\.$"
    ) as caught:
        Reference.load(path)
    assert "\n" not in str(caught.value)


def test_images_of_another_shape_are_refused(judge: Judge) -> None:
    with pytest.raises(EvaluationError, match="the judge looks at pictures of 28x28x1, these are of 32x32x3"):
        judge.look(Images(np.zeros((2, 32, 32, 3), np.uint8), None).images)
