"""Folders of pictures become classes; whatever is left out is counted and said."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.data import Dataset, Images, load
from training.errors import DataError


def paint(path: Path, level: int | tuple[int, ...], mode: str = "L", size: tuple[int, int] = (12, 12)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, level).save(path)


def paint_many(folder: Path, count: int = 20, first: int = 0) -> None:
    """Plain grey pictures, picture i of level i."""
    for index in range(first, first + count):
        paint(folder / f"{index:03}.png", index)


def parts(dataset: Dataset) -> tuple[Images, Images, Images]:
    return dataset.train, dataset.val, dataset.test


def levels(part: Images) -> list[int]:
    """The grey level of each of a part's plain images."""
    assert (part.images == part.images[:, :1, :1, :1]).all()
    return part.images[:, 0, 0, 0].tolist()


@pytest.mark.parametrize(("size", "side"), [(None, 32), (28, 28), (64, 64)])
def test_sub_folders_are_classes(tmp_path: Path, size: int | None, side: int) -> None:
    for index in range(30):
        paint(tmp_path / "set" / ("dark", "bright")[index % 2] / f"{index}.png", index + 100 * (index % 2))
    dataset = load(str(tmp_path / "set"), size)
    assert (dataset.name, dataset.class_names, dataset.note) == ("set", ("bright", "dark"), "")
    assert [part.images.shape for part in parts(dataset)] == [(n, side, side, 1) for n in (24, 3, 3)]
    for part in parts(dataset):
        assert part.labels is not None
        assert [level < 100 for level in levels(part)] == part.labels.astype(bool).tolist()
    everything = sorted(level for part in parts(dataset) for level in levels(part))
    assert everything == sorted(index + 100 * (index % 2) for index in range(30))


def test_a_flat_folder_has_no_classes(tmp_path: Path) -> None:
    paint_many(tmp_path)
    (tmp_path / "notes").mkdir()  # a folder without pictures is no class
    (tmp_path / "notes" / "readme.txt").write_text("a note")
    dataset = load(str(tmp_path))
    assert (dataset.class_names, dataset.note) == ((), "")
    assert [(len(part), part.labels) for part in parts(dataset)] == [(16, None), (2, None), (2, None)]


def test_one_colour_picture_makes_the_set_colour(tmp_path: Path) -> None:
    paint_many(tmp_path)
    paint(tmp_path / "red.png", (255, 0, 0), "RGB")
    dataset = load(str(tmp_path))
    assert dataset.channels == 3
    pixels = {tuple(image[0, 0].tolist()) for part in parts(dataset) for image in part.images}
    assert pixels == {(index,) * 3 for index in range(20)} | {(255, 0, 0)}


def test_a_rare_class_has_an_image_in_each_split(tmp_path: Path) -> None:
    paint_many(tmp_path / "many", 100)
    paint_many(tmp_path / "rare", 3, 100)
    paint_many(tmp_path / "single", 1, 103)
    dataset = load(str(tmp_path))
    counts = [np.bincount(part.labels, minlength=3).tolist() for part in parts(dataset) if part.labels is not None]
    assert counts == [[80, 1, 1], [10, 1, 0], [10, 1, 0]]


def test_all_that_is_skipped_is_said_with_its_reason(tmp_path: Path) -> None:
    paint_many(tmp_path / "a", 15)
    paint_many(tmp_path / "b", 15, 15)
    (tmp_path / "a" / "broken.png").write_bytes(b"no picture")
    (tmp_path / "a" / "empty.jpg").write_bytes(b"")
    os.symlink(tmp_path / "nowhere.png", tmp_path / "b" / "gone.png")
    paint(tmp_path / "b" / "pixel.gif", 9, size=(1, 1))
    paint(tmp_path / "b" / "strip.png", 77, size=(100, 7))
    paint(tmp_path / "b" / "again.bmp", 3)  # the pixels of a/003.png, in another file format and class
    paint(tmp_path / "cover.png", 200)
    paint(tmp_path / "a" / "inner" / "deep.png", 201)
    dataset = load(str(tmp_path))
    assert dataset.note == (
        "skipped 8 of 38 images: 3 unreadable, 2 under 8 px, 1 repeated, 1 beside the class folders, "
        "1 in deeper folders"
    )
    assert sorted(level for part in parts(dataset) for level in levels(part)) == list(range(30))
    assert dataset.class_names == ("a", "b")


def test_hidden_files_and_folders_are_not_of_the_set(tmp_path: Path) -> None:
    paint_many(tmp_path)
    (tmp_path / "._000.png").write_bytes(b"what macOS leaves on a stick")
    paint(tmp_path / ".ipynb_checkpoints" / "a.png", 99)
    dataset = load(str(tmp_path))
    assert (sum(map(len, parts(dataset))), dataset.note, dataset.class_names) == (20, "", ())


def test_the_same_picture_in_two_modes_is_a_duplicate(tmp_path: Path) -> None:
    paint_many(tmp_path, 22)
    paint(tmp_path / "red.png", (255, 0, 0), "RGB")
    paint(tmp_path / "x.png", (5, 5, 5), "RGB")
    assert load(str(tmp_path)).note == "skipped 1 of 24 images: 1 repeated"


def test_a_class_of_broken_files_is_no_class(tmp_path: Path) -> None:
    for index in range(30):
        paint(tmp_path / ("a", "c")[index % 2] / f"{index}.png", index)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "broken.png").write_bytes(b"")
    dataset = load(str(tmp_path))
    assert dataset.class_names == ("a", "c")
    for part in parts(dataset):
        assert part.labels is not None
        assert part.labels.tolist() == [level % 2 for level in levels(part)]


def test_images_dropped_from_the_middle_leave_no_holes(tmp_path: Path) -> None:
    """With what is dropped, the cuts move: every image must still be beside its label, once."""
    for index in range(120):
        folder = tmp_path / str(index % 3)
        paint(folder / f"{index:03}.png", index)
        if index % 4 == 0:
            (folder / f"{index:03}b.png").write_bytes(b"")
    dataset = load(str(tmp_path))
    assert sorted(level for part in parts(dataset) for level in levels(part)) == list(range(120))
    for part in parts(dataset):
        assert part.labels is not None
        assert part.labels.tolist() == [level % 3 for level in levels(part)]
    assert [len(part) for part in parts(dataset)] == [96, 12, 12]


def test_too_few_images_are_refused(tmp_path: Path) -> None:
    paint_many(tmp_path, 19)
    paint(tmp_path / "again.png", 0)
    with pytest.raises(DataError, match=r"19 different images .* at least 20 .*1 repeated.* one sub-folder for each"):
        load(str(tmp_path))


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"0 different images in .*Put images into the folder"):
        load(str(tmp_path))


def test_class_folders_a_level_deeper_are_pointed_out(tmp_path: Path) -> None:
    paint_many(tmp_path / "train" / "cats")
    with pytest.raises(DataError, match=r"20 in deeper folders.* the one that holds the class folders"):
        load(str(tmp_path))


def test_a_set_of_one_picture_is_refused(tmp_path: Path) -> None:
    for index in range(30):
        paint(tmp_path / f"{index}.png", 7)
    with pytest.raises(DataError, match=r"all images of .* are the same picture .*29 repeated"):
        load(str(tmp_path))


def test_a_folder_that_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:  # the rights of a folder do not hold root up
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"cannot read .* \(Permission denied\). Check its permissions"):
        load(str(tmp_path))
