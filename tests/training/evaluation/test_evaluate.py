"""Figures beside those of real images: each way for pictures to be wrong moves its own figure, the right way."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from training.data import Dataset, Images
from training.data.splits import permutation
from training.evaluation import evaluate, reference
from training.evaluation.evaluate import Evaluation, closing
from training.evaluation.reference import FEWEST, Reference
from training.evaluation.sight import Sight
from training.evaluation.subject import Model
from training.judge import Judge, judge_for
from training.prior import Prior

Figures = dict[str, float]
CLASSES = ("a", "b", "c")


def bars(count: int, seed: int) -> Images:
    """A bright bar on noise: its place tells the class, its height and its brightness are the image's own."""
    noise = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % 3
    images = noise.integers(0, 60, (count, 28, 28, 1), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        top, left = noise.integers(0, 14), 3 + 8 * label
        image[top : top + 14, left : left + 6] += noise.integers(100, 190, dtype=np.uint8)
    return Images(images, labels)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return Dataset("bars", bars(360, 1), bars(150, 2), bars(240, 3), CLASSES)


@pytest.fixture(scope="module")
def judge(dataset: Dataset, cache: Path) -> Judge:
    return judge_for(dataset, cache)


def asking(
    judge: Judge, dataset: Dataset, conditional: bool = True, split: str = "test", samples: int = 240, seed: int = 0
) -> Evaluation:
    return Evaluation(judge, Reference.of(judge, dataset, split, thorough=False), conditional, samples, seed)


@pytest.fixture(scope="module")
def conditional(judge: Judge, dataset: Dataset) -> Evaluation:
    return asking(judge, dataset)


@pytest.fixture(scope="module")
def unconditional(judge: Judge, dataset: Dataset) -> Evaluation:
    return asking(judge, dataset, conditional=False)


class Copier:
    """Pictures that are real ones: each the next of its class, or the next of all."""

    def __init__(self, images: Images) -> None:
        self.images, self.asked, self.latents = images, [], []
        rows = range(len(images))
        labels = np.zeros(len(images), int) if images.labels is None else images.labels
        of_class = {label: np.flatnonzero(labels == label).tolist() for label in range(3)}
        self._next = {label: itertools.cycle(found) for label, found in of_class.items()}
        self._any = itertools.cycle(rows)

    def __call__(self, z: np.ndarray, label: np.ndarray | None) -> np.ndarray:
        self.latents.append(z)
        if label is None:
            return self.images.images[[next(self._any) for _ in z]]
        self.asked += label.tolist()
        return self.images.images[[next(self._next[one]) for one in label.tolist()]]

    def model(self, conditional: bool, prior: Prior | None = None) -> Model:
        return Model(4, CLASSES if conditional else (), prior, self)


def labelled(images: Images) -> Model:
    return Copier(images).model(conditional=True)


def plain(images: Images) -> Model:
    return Copier(images).model(conditional=False)


# the floor


@pytest.mark.parametrize("kind", ["conditional", "unconditional"])
def test_real_images_are_near_the_floor(request: pytest.FixtureRequest, kind: str) -> None:
    evaluation: Evaluation = request.getfixturevalue(kind)
    figures, floor = evaluation(Copier(bars(240, 9)).model(kind == "conditional")), evaluation.floor
    assert figures.keys() == floor.keys()
    for name in ("precision", "recall", "within_class_variance_ratio", "agreement"):
        if name in floor:
            assert figures[name] == pytest.approx(floor[name], abs=0.15)
            assert floor[name] > 0.8
    noise = evaluation.pictures(np.random.default_rng(0).integers(0, 255, (240, 28, 28, 1), dtype=np.uint8), None)
    assert max(figures["fid"], floor["fid"]) < noise["fid"] / 20


def test_the_reference_itself_has_no_distance(conditional: Evaluation, dataset: Dataset) -> None:
    figures = conditional.pictures(dataset.test.images, dataset.test.labels)
    assert figures["fid"] == pytest.approx(0, abs=1e-3)
    assert (figures["precision"], figures["recall"], figures["within_class_variance_ratio"]) == (1, 1, 1)


def test_the_floor_is_of_as_many_training_images(judge: Judge, dataset: Dataset) -> None:
    evaluation = asking(judge, dataset, split="test", samples=150, seed=0)
    first = dataset.train.take(np.arange(150))
    assert evaluation.floor == evaluation.pictures(first.images, first.labels)
    everything = asking(judge, dataset, split="test", samples=5000, seed=0)
    assert everything.floor == evaluation.pictures(dataset.train.images, dataset.train.labels)


# what goes wrong


@pytest.fixture(scope="module")
def healthy(unconditional: Evaluation) -> Figures:
    return unconditional(plain(bars(240, 9)))


def test_a_missing_class_is_seen_in_the_histogram_and_the_recall(unconditional: Evaluation, healthy: Figures) -> None:
    whole = bars(360, 9)
    figures = unconditional(plain(whole.take(np.flatnonzero(whole.labels != 2))))
    assert figures["class_histogram_distance"] == pytest.approx(1 / 3, abs=0.03)
    assert healthy["class_histogram_distance"] < 0.03
    assert figures["recall"] < healthy["recall"] - 0.2
    assert figures["precision"] > healthy["precision"] - 0.1
    assert figures["fid"] > 5 * healthy["fid"]


def test_one_picture_repeated_has_no_variance_and_no_recall(unconditional: Evaluation, healthy: Figures) -> None:
    one = bars(1, 9)
    figures = unconditional(plain(one.take(np.zeros(240, np.int64))))
    assert figures["within_class_variance_ratio"] == 0
    assert figures["recall"] < 0.1 < healthy["recall"]
    assert figures["fid"] > 5 * healthy["fid"]


def test_one_picture_for_each_class_agrees_and_has_collapsed(conditional: Evaluation) -> None:
    figures = conditional(labelled(bars(3, 9)))
    assert figures["agreement"] > 0.9
    assert figures["within_class_variance_ratio"] == 0
    assert figures["recall"] < 0.2


def test_noise_is_neither_precise_nor_near(unconditional: Evaluation, healthy: Figures) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (240, 28, 28, 1), dtype=np.uint8)
    figures = unconditional(plain(Images(noise, None)))
    assert figures["precision"] < 0.1 < healthy["precision"]
    assert figures["fid"] > 20 * healthy["fid"]


def test_pictures_of_another_class_than_asked_do_not_agree(conditional: Evaluation) -> None:
    other = bars(240, 9)
    assert other.labels is not None
    figures = conditional(labelled(replace(other, labels=(other.labels + 1) % 3)))
    assert figures["agreement"] < 0.1
    assert conditional(labelled(other))["agreement"] > 0.9


# the question


def test_the_labels_asked_for_are_those_of_the_permuted_reference_in_turn(judge: Judge, dataset: Dataset) -> None:
    rare = dataset.test.take(np.flatnonzero((dataset.test.labels != 1) | (np.arange(240) % 4 == 0)))
    assert rare.labels is not None
    evaluation = asking(judge, replace(dataset, test=rare), split="test", samples=400, seed=0)
    copier = Copier(bars(30, 9))
    evaluation(copier.model(True))
    assert copier.asked == np.resize(rare.labels[permutation(len(rare))], 400).tolist()


def test_a_part_of_a_split_that_lies_sorted_by_class_has_all_classes(
    judge: Judge, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "MOST", 60)
    assert dataset.test.labels is not None
    ordered = dataset.test.take(np.argsort(dataset.test.labels, kind="stable"))
    evaluation = asking(judge, replace(dataset, test=ordered), split="test", samples=60, seed=0)
    copier = Copier(bars(30, 9))
    evaluation(copier.model(True))
    assert min(copier.asked.count(label) for label in range(3)) > 10


def test_every_call_asks_with_the_same_latents_and_another_seed_with_others(judge: Judge, dataset: Dataset) -> None:
    asked = []
    for seed in (0, 0, 1):
        copier = Copier(bars(30, 9))
        asking(judge, dataset, split="test", samples=60, seed=seed)(copier.model(True))
        asked.append(np.concatenate(copier.latents))
    assert np.array_equal(asked[0], asked[1])
    assert not np.array_equal(asked[0], asked[2])


def test_a_prior_places_the_latents(conditional: Evaluation) -> None:
    prior = Prior(np.ones((3, 1)), np.full((3, 1, 4), 100.0), np.eye(4).reshape(1, 1, 4, 4).repeat(3, 0))
    copier = Copier(bars(30, 9))
    conditional(copier.model(True, prior))
    assert np.concatenate(copier.latents).mean() == pytest.approx(100, abs=0.5)


def test_asking_leaves_the_random_state_alone(conditional: Evaluation) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    conditional(labelled(bars(240, 9)))
    assert torch.equal(torch.rand(3), expected)


def test_the_protocol_says_what_was_asked(judge: Judge, dataset: Dataset) -> None:
    for split, count in (("val", 150), ("test", 240)):
        assert asking(judge, dataset, split=split, samples=70, seed=0).protocol == {
            "samples": 70,
            "reference": count,
            "split": split,
            "judge_sha256": judge.sha256(),
        }


def test_a_variance_has_two_pictures_of_each_class(judge: Judge, dataset: Dataset) -> None:
    assert asking(judge, dataset, split="val", samples=1, seed=0).protocol["samples"] == 6


def test_neither_side_is_above_its_limit(judge: Judge, dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (reference, evaluate):
        monkeypatch.setattr(module, "MOST", 120)
    evaluation = asking(judge, dataset, split="test", samples=500, seed=0)
    assert (evaluation.protocol["samples"], evaluation.protocol["reference"]) == (120, 120)
    first = dataset.test.take(permutation(240)[:120])
    assert evaluation.pictures(first.images, first.labels)["fid"] == pytest.approx(0, abs=1e-3)


def test_a_small_split_falls_back_to_all_images(judge: Judge, dataset: Dataset) -> None:
    small = replace(dataset, val=dataset.val.take(np.arange(FEWEST - 1)))
    evaluation = asking(judge, small, split="val", samples=60, seed=0)
    assert (evaluation.protocol["split"], evaluation.protocol["reference"]) == ("all", 360 + 99 + 240)
    enough = replace(dataset, val=dataset.val.take(np.arange(FEWEST)))
    assert asking(judge, enough, split="val", samples=60, seed=0).protocol["split"] == "val"


def test_all_images_are_the_reference_where_that_is_asked(judge: Judge, dataset: Dataset) -> None:
    evaluation = asking(judge, dataset, split="all", samples=60, seed=0)
    assert (evaluation.protocol["split"], evaluation.protocol["reference"]) == ("all", 360 + 150 + 240)
    parts = (dataset.train, dataset.val, dataset.test)
    labels = np.concatenate([part.labels for part in parts if part.labels is not None])
    figures = evaluation.pictures(np.concatenate([part.images for part in parts]), labels)
    assert figures["fid"] == pytest.approx(0, abs=1e-3)


# which figures there are

NEAR = {"precision", "recall", "density", "coverage"}
ALWAYS = {"fid", "within_class_variance_ratio"} | NEAR


def test_a_model_with_classes_has_agreement_one_without_a_histogram(
    conditional: Evaluation, unconditional: Evaluation
) -> None:
    assert conditional(labelled(bars(240, 9))).keys() == ALWAYS | {"agreement"}
    assert unconditional(plain(bars(240, 9))).keys() == ALWAYS | {"class_histogram_distance"}


@pytest.fixture(scope="module")
def unlabelled(dataset: Dataset) -> Dataset:
    train, val, test = (Images(part.images[:120], None) for part in (dataset.train, dataset.val, dataset.test))
    return Dataset("bars", train, val, test, ())


@pytest.mark.parametrize("few", [False, True])
def test_a_set_without_classes_has_neither(unlabelled: Dataset, cache: Path, few: bool) -> None:
    if few:  # of all three splits together
        unlabelled = replace(unlabelled, test=unlabelled.test.take(np.arange(9)))
    evaluation = asking(judge_for(unlabelled, cache), unlabelled, conditional=False, samples=120)
    assert evaluation(plain(bars(120, 9))).keys() == evaluation.floor.keys() == ALWAYS


def test_a_set_of_one_picture_raises_nothing(synthetic: Callable[..., Dataset], cache: Path) -> None:
    dataset = synthetic()
    same = {
        name: replace(part, images=np.repeat(dataset.train.images[:1], len(part), 0))
        for name, part in (("train", dataset.train), ("val", dataset.val), ("test", dataset.test))
    }
    evaluation = asking(judge_for(dataset, cache), replace(dataset, **same), conditional=False, samples=100)
    figures = evaluation(plain(Images(np.repeat(dataset.train.images[:1], 100, 0), None)))
    assert figures == {"fid": 0, "class_histogram_distance": 0} | dict.fromkeys(NEAR, 1) | {
        "density": figures["density"]
    }
    assert all(np.isfinite(list(evaluation(plain(bars(100, 9))).values())))


def test_a_handful_of_pictures_has_no_precision(judge: Judge, dataset: Dataset) -> None:
    evaluation = asking(judge, dataset, split="test", samples=5, seed=0)
    few = dataset.test.take(np.arange(5))
    assert evaluation.pictures(few.images, few.labels).keys() == ALWAYS - NEAR | {"agreement"}


def test_an_image_without_a_label_is_of_the_class_it_is_taken_for(judge: Judge, dataset: Dataset) -> None:
    given, taken = (Sight.of(judge, dataset.test.images, labels) for labels in (np.zeros(240, np.int64), None))
    assert given.classes.tolist() == [0] * 240
    assert (taken.classes == dataset.test.labels).mean() > 0.95
    assert (taken.logits.shape, taken.features.shape) == ((240, 3), (240, 128))


def test_the_closing_figures_are_of_the_test_split_with_their_floor_and_protocol(
    judge: Judge, dataset: Dataset
) -> None:
    copier = Copier(bars(30, 9))
    figures = closing(judge, Reference.of(judge, dataset, "test", thorough=False), True, 0, copier.model(True))
    assert figures.keys() == ALWAYS | {"agreement", "floor", "protocol"}
    assert figures["protocol"] == {
        "samples": 1000,
        "reference": 240,
        "split": "test",
        "judge_sha256": judge.sha256(),
    }
    assert len(copier.asked) == 1000
    assert figures["floor"]["fid"] < 20
