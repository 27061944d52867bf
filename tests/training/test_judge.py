"""A judge is the same for the same images, with classes or without, wherever it comes from, and changes nothing."""

import hashlib
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from training import judge as judges
from training.checkpoint import load, save
from training.data import Dataset, Images
from training.judge import Judge, digest, judge_for

Synthetic = Callable[..., Dataset]


@pytest.mark.parametrize(("size", "channels"), [(28, 1), (32, 3), (64, 1)])
def test_a_judge_learns_its_classes(synthetic: Synthetic, cache: Path, size: int, channels: int) -> None:
    dataset = synthetic(size, channels)
    logits, features = judge_for(dataset, cache).look(dataset.test.images)
    assert (logits.shape, features.shape) == ((6, 3), (6, 128))
    assert (logits.dtype, features.dtype) == (np.float32, np.float32)
    assert dataset.test.labels is not None
    assert logits.argmax(1).tolist() == dataset.test.labels.tolist()


def test_a_cached_judge_is_the_trained_one(synthetic: Synthetic, tmp_path: Path) -> None:
    heard: list[float] = []
    trained = judge_for(synthetic(), tmp_path, heard.append)
    assert (heard[0], heard[-1]) == (0, 1)
    assert heard == sorted(heard)
    cached = judge_for(synthetic(), tmp_path, lambda fraction: pytest.fail("trained again"))
    assert cached.sha256() == trained.sha256()
    images = synthetic().test.images
    assert np.array_equal(cached.look(images)[0], trained.look(images)[0])


def test_other_images_or_labels_have_another_judge(synthetic: Synthetic, tmp_path: Path) -> None:
    dataset = synthetic()
    assert dataset.train.labels is not None
    relabelled = replace(dataset.train, labels=dataset.train.labels[::-1].copy())
    brighter = replace(dataset.train, images=dataset.train.images + 1)
    for train in (dataset.train, relabelled, brighter):
        judge_for(replace(dataset, train=train), tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("channels", [1, 3])
def test_images_without_classes_have_a_judge_that_knows_how_far_they_are_turned(
    synthetic: Synthetic, cache: Path, channels: int
) -> None:
    """Gidaris et al. 2018: the turns of an image are labels that need nobody to write them."""
    dataset = synthetic(32, channels, classes=0)
    images = dataset.train.images
    judge = judge_for(dataset, cache)
    told = [judge.look(np.rot90(images, turns, axes=(1, 2)).copy())[0].argmax(1) == turns for turns in range(4)]
    assert judge.look(images)[0].shape == (48, 4)
    assert np.mean(told) > 0.9


def test_the_same_images_with_and_without_classes_have_two_judges(synthetic: Synthetic, tmp_path: Path) -> None:
    dataset = synthetic()
    unlabelled = replace(dataset, train=Images(dataset.train.images, None), class_names=())
    assert judge_for(dataset, tmp_path).head.out_features == 3
    assert judge_for(unlabelled, tmp_path).head.out_features == 4
    assert len(list(tmp_path.iterdir())) == 2


def test_the_digest_tells_images_labels_and_their_shape_apart() -> None:
    images, labels = np.arange(48, dtype=np.uint8).reshape(4, 2, 2, 3), np.array([0, 1, 0, 1])
    brighter = images.copy()
    brighter[3, 1, 1, 2] += 1
    sets = [
        Images(images, labels),
        Images(images, labels[::-1]),
        Images(images, None),
        Images(brighter, labels),
        Images(images[::-1], labels),
        Images(images.reshape(4, 4, 1, 3), labels),
        Images(images[:2], labels[:2]),
    ]
    assert len({digest(one) for one in sets}) == len(sets)
    assert digest(Images(np.asfortranarray(images), labels.astype(np.int32))) == digest(sets[0])


def test_of_a_large_set_the_first_images_are_the_lessons(
    synthetic: Synthetic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert judges.LESSONS == 60_000
    monkeypatch.setattr(judges, "LESSONS", 30)
    dataset = synthetic()
    first, later = dataset.train.images.copy(), dataset.train.images.copy()
    first[29] += 1
    later[30:] += 1
    hashes = [
        judge_for(replace(dataset, train=replace(dataset.train, images=images)), tmp_path).sha256()
        for images in (dataset.train.images, later, first)
    ]
    assert hashes[0] == hashes[1] != hashes[2]
    assert len(list(tmp_path.iterdir())) == 2
    lessons = replace(dataset, train=dataset.train.take(np.arange(30)))
    assert judge_for(lessons, tmp_path / "another").sha256() == hashes[0]
    assert digest(dataset.train) == digest(replace(dataset.train, images=later)) != digest(lessons.train)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def forget_a_weight(path: Path) -> None:
    state = load(path)
    del state["weights"]["head.bias"]
    save(path, state)


def change_a_weight(path: Path) -> None:
    state = load(path)
    state["weights"]["head.bias"][0] += 1e-3
    save(path, state)


def list_the_weights(path: Path) -> None:
    save(path, load(path) | {"weights": [1, 2]})


@pytest.mark.parametrize("damage", [cut, forget_a_weight, change_a_weight, list_the_weights])
def test_a_damaged_cache_entry_is_made_again(
    synthetic: Synthetic, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    trained = judge_for(synthetic(), tmp_path)
    (entry,) = tmp_path.iterdir()
    damage(entry)
    assert judge_for(synthetic(), tmp_path).sha256() == trained.sha256()
    assert load(entry)["sha256"] == trained.sha256()  # and mended


def test_a_judge_is_the_same_whatever_was_drawn_before(synthetic: Synthetic, tmp_path: Path) -> None:
    hashes = set()
    for seed in (1, 2):
        torch.manual_seed(seed)
        hashes.add(judge_for(synthetic(), tmp_path / str(seed)).sha256())
    assert len(hashes) == 1


def test_a_cache_that_cannot_be_written_costs_time_only(synthetic: Synthetic, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    homeless = judge_for(synthetic(), tmp_path / "file" / "judges")
    assert homeless.sha256() == judge_for(synthetic(), cache).sha256()


def test_asking_for_a_judge_leaves_the_random_state_alone(synthetic: Synthetic, tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    for _ in ("trained", "cached"):
        torch.manual_seed(5)
        judge_for(synthetic(), tmp_path)
        assert torch.equal(torch.rand(3), expected)


def test_the_hash_is_of_the_weights_as_little_endian_floats() -> None:
    judge = Judge(28, 1, 2)
    expected = b""
    for number, (name, weight) in enumerate(judge.state_dict().items()):
        weight.fill_(number)
        if not name.endswith("num_batches_tracked"):  # the only integers
            expected += struct.pack("<f", number) * weight.numel()
    assert judge.sha256() == hashlib.sha256(expected).hexdigest()


def test_the_hash_changes_with_any_weight() -> None:
    judge = Judge(28, 1, 2).eval()
    hashes = {judge.sha256()}
    for weight in judge.state_dict().values():
        if weight.is_floating_point():
            weight.view(-1)[-1] += 1
            hashes.add(judge.sha256())
    assert len(hashes) == 1 + sum(weight.is_floating_point() for weight in judge.state_dict().values())


def test_what_a_judge_sees_does_not_depend_on_the_batch(synthetic: Synthetic, cache: Path) -> None:
    dataset = synthetic()
    judge = judge_for(dataset, cache).train()  # to look is to evaluate, whatever was done before
    many = np.concatenate([dataset.train.images] * 11)  # 528, more than one batch
    logits, features = judge.look(many)
    assert len(logits) == len(features) == 528
    np.testing.assert_allclose(logits[-48:], judge.look(dataset.train.images)[0], atol=1e-4)
