"""Every figure with its floor and spread, of the pictures that a server would give; and refusals in one line."""

import io
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from training.data import Dataset, Images
from training.errors import EvaluationError
from training.evaluation.evaluate import closing, labels_for, samples_for
from training.evaluation.examine import Examined, examine
from training.evaluation.figures import MEANINGS, number
from training.evaluation.metrics import inception_score
from training.evaluation.reference import FEWEST, Reference
from training.evaluation.subject import Model, Subject
from training.evaluation.table import as_json, as_table
from training.judge import judge_for
from training.latents import SEEDS, draw

Synthetic = Callable[..., Dataset]
OF_CLASSES = {"agreement", "transfer_accuracy"}
OF_NONE = {"class_histogram_distance"}


class Noisy:
    """A model whose pictures are those of `dataset` under noise from their latents, of the class asked for."""

    def __init__(self, dataset: Dataset) -> None:
        self.images, labels = dataset.val.images, dataset.val.labels
        self.labels = np.zeros(len(self.images), np.int64) if labels is None else labels
        self.asked: list[tuple[np.ndarray, np.ndarray | None]] = []

    def __call__(self, z: np.ndarray, label: np.ndarray | None) -> np.ndarray:
        self.asked.append((z, label))
        wanted = np.zeros(len(z), np.int64) if label is None else label
        drawn = []
        for row, one in zip(z, wanted, strict=True):
            of_class = self.images[self.labels == one] if label is not None else self.images
            picture = of_class[int(abs(row[0]) * 1000) % len(of_class)].astype(int)
            drawn.append((picture + int(row[1] * 3)).clip(0, 255).astype(np.uint8))
        return np.stack(drawn)


def subject_of(dataset: Dataset, cache: Path, conditional: bool = True, **others: Any) -> Subject:
    judge = judge_for(dataset, cache)
    names = dataset.class_names if conditional else ()
    model = Model(4, names, None, Noisy(dataset))
    return replace(Subject("bars", {"kind": "cgan"}, model, judge, Reference.of(judge, dataset, "test")), **others)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    noise = np.random.default_rng(7)
    labels = np.arange(320, dtype=np.int64) % 3
    images = noise.integers(0, 60, (320, 28, 28, 1), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        top = noise.integers(0, 14)
        image[top : top + 14, 3 + 8 * label : 9 + 8 * label] += noise.integers(100, 190, dtype=np.uint8)
    train, val, test = (Images(images[rows], labels[rows]) for rows in np.split(np.arange(320), [100, 200]))
    return Dataset("bars", train, val, test, ("a", "b", "c"))


@pytest.fixture(scope="module")
def subject(dataset: Dataset, cache: Path) -> Subject:
    return subject_of(dataset, cache)


@pytest.fixture(scope="module")
def examined(subject: Subject) -> Examined:
    return examine(subject, samples=120, repeats=3, seed=7)


def test_every_figure_is_there_with_its_floor_and_spread(examined: Examined) -> None:
    assert list(examined.figures) == [name for name in MEANINGS if name not in OF_NONE]
    for figure in examined.figures.values():
        assert figure.floor is not None
        assert figure.spread is not None
        assert all(math.isfinite(value) for value in (figure.value, figure.spread, figure.floor))
    assert examined.figures["copying"].floor == 0.5
    assert examined.figures["copies"].floor == pytest.approx(0.01, abs=0.02)


def test_the_floors_of_verdicts_are_of_images_that_the_judge_never_saw(
    subject: Subject, examined: Examined, dataset: Dataset
) -> None:
    logits = subject.judge.look(dataset.test.images)[0]
    assert examined.figures["agreement"].floor == (logits.argmax(1) == dataset.test.labels).mean()
    assert examined.figures["inception_score"].floor == pytest.approx(inception_score(logits))


def test_a_small_sets_floor_is_of_as_many_images_as_there_are_pictures(synthetic: Synthetic, cache: Path) -> None:
    few, more = (examine(subject_of(synthetic(), cache), samples, 1).figures["fid"].floor for samples in (8, 30))
    assert few is not None
    assert more is not None
    assert few > 1.5 * more


def test_seeds_wrap_around(subject: Subject, dataset: Dataset) -> None:
    model = Noisy(dataset)
    examine(replace(subject, model=Model(4, ("a", "b", "c"), None, model)), 30, 2, SEEDS - 40)
    z = np.concatenate([part for part, _ in model.asked])
    label = labels_for(subject.reference, 30)
    assert np.array_equal(z[30:40], draw(SEEDS - 10, 10, 4, 3, label[:10])[0])
    assert np.array_equal(z[40:], draw(0, 20, 4, 3, label[10:])[0])


def test_a_model_without_classes_has_a_histogram_instead(dataset: Dataset, cache: Path) -> None:
    found = examine(subject_of(dataset, cache, conditional=False), samples=60, repeats=1)
    assert list(found.figures) == [name for name in MEANINGS if name not in OF_CLASSES]
    assert all(figure.spread is None for figure in found.figures.values())
    assert found.labels is None


def test_a_set_without_classes_has_neither_nor_an_inception_score(synthetic: Synthetic, cache: Path) -> None:
    found = examine(subject_of(synthetic(classes=0, held=FEWEST), cache), samples=60, repeats=1)
    assert list(found.figures) == [name for name in MEANINGS if name not in OF_CLASSES | OF_NONE | {"inception_score"}]


def test_the_pictures_are_those_of_seeds_one_block_after_the_other(dataset: Dataset, cache: Path) -> None:
    model = Noisy(dataset)
    subject = subject_of(dataset, cache, model=Model(4, dataset.class_names, None, model, batch=64))
    found = examine(subject, samples=100, repeats=2, seed=7)
    assert [len(z) for z, _ in model.asked] == [64, 36, 64, 36]
    label = labels_for(subject.reference, 100)
    for block in range(2):
        parts = model.asked[2 * block :][:2]
        assert np.array_equal(np.concatenate([z for z, _ in parts]), draw(7 + 100 * block, 100, 4, 3, label)[0])
        assert np.concatenate([labels for _, labels in parts if labels is not None]).tolist() == label.tolist()
    assert np.array_equal(found.pictures, subject.model.pictures(7, 100, label))


def test_the_value_is_the_mean_of_the_blocks_and_the_spread_their_deviation(
    subject: Subject, examined: Examined
) -> None:
    alone = [examine(subject, samples=120, repeats=1, seed=7 + 120 * block).figures["fid"] for block in range(3)]
    values = [figure.value for figure in alone]
    assert examined.figures["fid"].value == pytest.approx(np.mean(values))
    assert examined.figures["fid"].spread == pytest.approx(np.std(values, ddof=1))
    assert examined.figures["fid"].floor == alone[0].floor


def test_what_a_training_says_at_its_end_is_what_an_examination_finds(subject: Subject) -> None:
    said = closing(subject.judge, subject.reference, True, 7, subject.model)
    found = examine(subject, repeats=1, seed=7)
    floor, protocol = said.pop("floor"), said.pop("protocol")
    assert said == {name: round(found.figures[name].value, 4) for name in said}
    assert floor == {name: round(found.figures[name].floor or 0, 4) for name in floor}
    assert protocol.items() <= found.protocol.items()


def test_the_nearest_training_image_is_told(subject: Subject, examined: Examined, dataset: Dataset) -> None:
    seen = subject.judge.look(examined.pictures[:1])[1]
    apart = np.linalg.norm(subject.judge.look(dataset.train.images)[1] - seen, axis=1)
    assert examined.nearest[0] == apart.argmin()
    assert examined.distances[0] == pytest.approx(apart.min(), rel=1e-3)
    assert (len(examined.distances), len(examined.held_out)) == (120, 120)


def test_where_all_images_are_the_reference_none_is_its_own_neighbour(synthetic: Synthetic, cache: Path) -> None:
    found = examine(subject_of(synthetic(), cache), samples=30, repeats=1)
    assert found.protocol["split"] == "all"
    assert (found.protocol["training"], found.protocol["reference"]) == (0, 60)
    assert found.held_out.min() > 0


def test_progress_goes_forward_to_the_end(subject: Subject) -> None:
    told: dict[str, list[float]] = {}
    examine(subject, samples=60, repeats=2, observe=lambda stage, done: told.setdefault(stage, []).append(done))
    assert set(told) == {"looking at real images", "drawing pictures", "measuring"}
    assert all(fractions == sorted(fractions) for fractions in told.values())
    assert {fractions[-1] for fractions in told.values()} == {1}


@pytest.mark.parametrize(("reference", "samples"), [(60, 1000), (1500, 1500), (70_000, 10_000)])
def test_there_are_as_many_pictures_as_real_ones_within_bounds(reference: int, samples: int) -> None:
    assert samples_for(reference) == samples


# refusals


def test_too_few_pictures_are_refused_with_the_number_needed(subject: Subject) -> None:
    with pytest.raises(EvaluationError, match=r"needs at least 6 pictures.*there are 5 and 120\. .*--samples"):
        examine(subject, samples=5, repeats=1)


def test_features_of_another_judge_are_refused(subject: Subject) -> None:
    other = replace(subject.reference, judge_sha256="0" * 64)
    with pytest.raises(EvaluationError, match="another judge's \\(000000000000, not "):
        examine(replace(subject, reference=other), samples=60)


def test_a_reference_of_other_classes_is_refused(subject: Subject) -> None:
    other = replace(subject.reference, class_names=("x", "y"))
    with pytest.raises(EvaluationError, match="the model's 3 classes are not the 2 of bars"):
        examine(replace(subject, reference=other), samples=60)


def test_a_figure_that_is_not_finite_is_an_error(dataset: Dataset, cache: Path) -> None:
    same = replace(dataset, test=replace(dataset.test, images=np.repeat(dataset.test.images[:1], 120, 0)))
    with pytest.raises(EvaluationError, match="variance within classes of the pictures is not finite"):
        examine(subject_of(same, cache), samples=60)


# what people and programs get


def test_the_table_has_every_figure_beside_that_of_real_images(subject: Subject, examined: Examined) -> None:
    file = io.StringIO()
    Console(width=200, file=file).print(as_table(subject, examined))
    text = file.getvalue()
    for name, figure in examined.figures.items():
        (line,) = [line for line in text.splitlines() if line.strip().startswith(MEANINGS[name].title + " ")]
        digits = MEANINGS[name].digits
        assert line.split("  ")[0].strip() == MEANINGS[name].title
        shown = [number(value, digits) for value in (figure.value, figure.spread, figure.floor)]
        assert line.removeprefix(MEANINGS[name].title).split()[:3] == shown
    assert "120 pictures from seed 7 on, 3 times with other seeds" in text
    assert "against 120 images of the split test and 100 of training; judge" in text


def test_json_has_the_whole_protocol(subject: Subject, examined: Examined) -> None:
    found = as_json(subject, examined, {"fid": 3.0})
    assert found["figures"]["fid"]["value"] == round(examined.figures["fid"].value, 6)
    assert found["protocol"]["judge_sha256"] == subject.judge.sha256()
    counts = {
        name: found["protocol"][name] for name in ("samples", "repeats", "seed", "split", "reference", "training")
    }
    assert counts == {"samples": 120, "repeats": 3, "seed": 7, "split": "test", "reference": 120, "training": 100}
    assert "inception" not in found["figures"]
    assert found["inception"] == {"fid": 3.0}
