"""The patches are what they say: colour, even, and never the same pixels in training and in test."""

from itertools import product

import numpy as np
import pytest

from training.data import Dataset, load, photo_patches
from training.errors import DataError


@pytest.fixture(scope="module")
def patches() -> Dataset:
    return load("photo-patches")


def test_every_photograph_gives_as_many_patches(patches: Dataset) -> None:
    assert patches.class_names == ("astronaut", "chelsea", "china", "coffee", "flower", "motorcycle", "rocket")
    for part, each in ((patches.train, 4000), (patches.val, 500), (patches.test, 500)):
        assert part.labels is not None
        assert np.bincount(part.labels).tolist() == [each] * 7
        assert part.images.shape == (7 * each, 32, 32, 3)
    assert patches.note == ""


def test_a_patch_lies_in_its_photograph(patches: Dataset) -> None:
    photo = photo_patches._photo(*photo_patches.PHOTOS["flower"])
    windows = {
        photo[top : top + 32, left : left + 32].tobytes()
        for top, left in product(range(396), range(609))
        if left < 160 and left % 2 == 0 and top % 2 == 0
    }
    labels = patches.train.labels
    assert labels is not None
    flowers = [image.tobytes() for image in patches.train.images[labels == 4]]
    assert sum(flower in windows for flower in flowers) > 1000


@pytest.mark.parametrize("name", list(photo_patches.PHOTOS))
def test_no_pixel_of_training_is_in_test(name: str) -> None:
    photo = photo_patches._photo(*photo_patches.PHOTOS[name])
    columns = {}
    corners = {part: photo_patches._corners(photo, part) for part in ("train", "val", "test")}
    assert not set(map(tuple, corners["train"].tolist())) & set(map(tuple, corners["val"].tolist()))
    for part in ("train", "val", "test"):
        lefts = corners[part][:, 0]
        columns[part] = {column for left in lefts.tolist() for column in range(left, left + photo_patches.SIDE)}
    assert not (columns["train"] | columns["val"]) & columns["test"]


def test_no_patch_of_test_is_also_one_of_training(patches: Dataset) -> None:
    train = {image.tobytes() for image in patches.train.images}
    assert not any(image.tobytes() in train for image in patches.test.images)


@pytest.mark.parametrize(("size", "limit"), [(28, 100), (64, 350)])
def test_patches_come_in_other_sizes_and_fewer(size: int, limit: int) -> None:
    few = load("photo-patches", size, limit)
    assert few.train.images.shape[1:] == (size, size, 3)
    assert [len(part) for part in (few.train, few.val, few.test)] == [limit * 8 // 10, limit // 10, limit // 10]


def test_photo_patches_take_no_folder() -> None:
    with pytest.raises(DataError, match=r"inside the package scikit-image and scikit-learn.*colon"):
        load("photo-patches:somewhere")


def test_a_wheel_without_the_photograph_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(photo_patches.PHOTOS, "china", ("sklearn", "datasets/images/gone.jpg"))
    with pytest.raises(DataError, match=r"the installed sklearn has no datasets/images/gone.jpg"):
        load("photo-patches")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(photo_patches.PHOTOS, "china", ("no_such_package", "x.jpg"))
    with pytest.raises(ModuleNotFoundError) as caught:
        load("photo-patches")
    assert caught.value.name == "no_such_package"
