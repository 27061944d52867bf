"""Tables of images in the schema of Hugging Face become a set, whatever their columns and splits are called."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from datasets import ClassLabel, Features, Value
from datasets import Dataset as Table
from datasets import Image as ImageFeature
from PIL import Image

from training.data import Dataset, Images, load, tables
from training.errors import DataError


def encoded(level: int, size: tuple[int, int] = (28, 28), mode: str = "L") -> dict[str, Any]:
    file = io.BytesIO()
    Image.new(mode, size, level if mode == "L" else (level, 0, 0)).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def write(path: Path, columns: dict[str, list[Any]], features: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Table.from_dict(columns, features=Features(features)).to_parquet(path, batch_size=16)


def write_split(path: Path, levels: range, image: str = "image", classes: int = 10, **looks: Any) -> None:
    """Plain images of these levels; the class is the level modulo `classes`."""
    columns = {image: [encoded(level, **looks) for level in levels], "label": [level % classes for level in levels]}
    features = {image: ImageFeature(), "label": ClassLabel(names=[f"class {i}" for i in range(classes)])}
    write(path, columns, features)


def parts(dataset: Dataset) -> tuple[Images, Images, Images]:
    return dataset.train, dataset.val, dataset.test


def levels_of(part: Images) -> list[int]:
    return part.images[:, 0, 0, 0].tolist()


def agree(dataset: Dataset) -> None:
    for part in parts(dataset):
        assert part.labels is not None
        names = [dataset.class_names[label] for label in part.labels]
        assert names == [f"class {level % len(dataset.class_names)}" for level in levels_of(part)]


@pytest.mark.parametrize("name", ["train-00000-of-00001.parquet", "data/train-00000-of-00001.parquet"])
def test_a_folder_of_parquet_files_keeps_its_test_split(tmp_path: Path, name: str) -> None:
    write_split(tmp_path / name, range(100))
    write_split((tmp_path / name).with_name("test-00000-of-00001.parquet"), range(100, 130))
    dataset = load(str(tmp_path))
    assert (dataset.name, dataset.size, dataset.channels, dataset.note) == (tmp_path.name, 28, 1, "")
    assert [len(part) for part in parts(dataset)] == [90, 10, 30]
    assert levels_of(dataset.test) == list(range(100, 130))
    agree(dataset)


def test_the_split_is_that_of_idx_files_with_the_same_images(tmp_path: Path) -> None:
    write_split(tmp_path / "parquet" / "train.parquet", range(100))
    write_split(tmp_path / "parquet" / "test.parquet", range(100, 130))
    for part, numbers in (("train", np.arange(100)), ("t10k", np.arange(100, 130))):
        images = np.repeat(numbers, 28 * 28).astype(np.uint8)
        header = bytes([0, 0, 8, 3]) + np.array([len(numbers), 28, 28], ">u4").tobytes()
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        labels = (numbers % 10).astype(np.uint8)
        header = bytes([0, 0, 8, 1]) + np.array([len(numbers)], ">u4").tobytes()
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())
    for one, other in zip(parts(load(f"mnist:{tmp_path}")), parts(load(f"mnist:{tmp_path / 'parquet'}")), strict=True):
        assert np.array_equal(one.images, other.images)
        assert one.labels is not None
        assert other.labels is not None
        assert one.labels.tolist() == other.labels.tolist()


@pytest.mark.parametrize(
    ("name", "image", "looks", "expected"),
    [
        ("mnist", "image", {}, (28, 1)),
        ("fashion-mnist", "image", {}, (28, 1)),
        ("cifar10", "img", {"size": (32, 32), "mode": "RGB"}, (32, 3)),
        ("imagenet", "image", {"size": (60, 40), "mode": "RGB"}, (32, 3)),
    ],
)
def test_a_named_set_reads_parquet_files_of_its_schema(
    tmp_path: Path, name: str, image: str, looks: dict[str, Any], expected: tuple[int, int]
) -> None:
    write_split(tmp_path / "train-00000-of-00002.parquet", range(50), image, **looks)
    write_split(tmp_path / "train-00001-of-00002.parquet", range(50, 100), image, **looks)
    write_split(tmp_path / "test-00000-of-00001.parquet", range(100, 130), image, **looks)
    dataset = load(f"{name}:{tmp_path}")
    assert (dataset.name, (dataset.size, dataset.channels)) == (name, expected)
    assert sorted(levels_of(dataset.train) + levels_of(dataset.val)) == list(range(100))
    names = {"mnist": "3", "fashion-mnist": "Dress"}
    assert dataset.class_names[3] == names.get(name, "class 3")


def test_a_test_split_without_labels_gives_way_to_validation(tmp_path: Path) -> None:
    """As in ImageNet, whose test labels are all -1."""
    write_split(tmp_path / "train.parquet", range(100))
    write_split(tmp_path / "validation.parquet", range(100, 130))
    columns = {"image": [encoded(level) for level in range(200, 230)], "label": [-1] * 30}
    write(
        tmp_path / "test.parquet",
        columns,
        {"image": ImageFeature(), "label": ClassLabel(names=[f"class {i}" for i in range(10)])},
    )
    dataset = load(f"imagenet:{tmp_path}")
    assert levels_of(dataset.test) == list(range(100, 130))
    assert dataset.note == "not used: split test"


def test_a_set_of_one_split_is_cut_by_class(tmp_path: Path) -> None:
    columns = {
        "image": [encoded(level) for level in [*range(60), 5]],  # one twice
        "label": ["rare" if level in (7, 8, 9) else "common" for level in [*range(60), 5]],
    }
    write(tmp_path / "all.parquet", columns, {"image": ImageFeature(), "label": Value("string")})
    dataset = load(str(tmp_path))
    assert dataset.class_names == ("common", "rare")
    assert dataset.note == "skipped 1 of 61 images: 1 repeated"
    for part in parts(dataset):
        assert part.labels is not None
        assert 1 in part.labels


@pytest.mark.parametrize(
    ("column", "feature", "values", "names"),
    [
        ("label", Value("int64"), [3, 10, -2], ("-2", "3", "10")),
        ("labels", Value("string"), ["b", "a", "c"], ("a", "b", "c")),
        ("class", Value("int8"), [1, 0, 1], ("0", "1")),
        ("target", Value("bool"), [True, False, True], ("False", "True")),
        ("species", ClassLabel(names=["x", "y", "z"]), ["y", "x", "z"], ("x", "y", "z")),
        ("label", Value("float32"), [0.5, 1.5, 2.5], ()),
        ("species", Value("int64"), [0, 1, 2], ()),
    ],
    ids=["int", "string", "small int", "bool", "ClassLabel of any name", "no float", "no int of any name"],
)
def test_the_label_column_is_found(
    tmp_path: Path, column: str, feature: Any, values: list[Any], names: tuple[str, ...]
) -> None:
    columns = {"picture": [encoded(level) for level in range(60)], column: [values[i % 3] for i in range(60)]}
    write(tmp_path / "a.parquet", columns, {"picture": ImageFeature(), column: feature})
    dataset = load(str(tmp_path))
    assert dataset.class_names == names
    for part in parts(dataset):
        assert (part.labels is None) == (not names)
        if part.labels is not None:
            assert [names[i] for i in part.labels] == [str(values[level % 3]) for level in levels_of(part)]


def test_titles_are_no_classes(tmp_path: Path) -> None:
    columns = {"image": [encoded(level) for level in range(30)], "label": [f"a photo of {i}" for i in range(30)]}
    write(tmp_path / "a.parquet", columns, {"image": ImageFeature(), "label": Value("string")})
    assert load(str(tmp_path)).class_names == ()


def test_rows_without_a_label_or_an_image_are_skipped_and_said(tmp_path: Path) -> None:
    columns = {
        "image": [
            *(encoded(level) for level in range(60)),
            None,
            {"bytes": b"broken", "path": None},
            encoded(99, (5, 5)),
        ],
        "label": [*(None if level < 3 else level % 2 for level in range(60)), 0, 1, 1],
    }
    write(tmp_path / "a.parquet", columns, {"image": ImageFeature(), "label": ClassLabel(names=["even", "odd"])})
    dataset = load(str(tmp_path))
    assert dataset.note == "skipped 6 of 63 images: 3 without a label, 2 unreadable, 1 under 8 px"
    assert sorted(level for part in parts(dataset) for level in levels_of(part)) == list(range(3, 60))


def test_parquet_written_without_hugging_face_is_read(tmp_path: Path) -> None:
    table = pyarrow.table({"image": [encoded(i)["bytes"] for i in range(30)], "label": [i % 3 for i in range(30)]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    dataset = load(str(tmp_path))
    assert (dataset.class_names, dataset.size) == (("0", "1", "2"), 28)


def test_an_image_may_be_a_path(tmp_path: Path) -> None:
    for level in range(20):
        Image.new("L", (28, 28), level).save(tmp_path / f"{level}.png")
    columns = {"image": [{"bytes": None, "path": str(tmp_path / f"{level}.png")} for level in range(20)]}
    write(tmp_path / "set" / "a.parquet", columns, {"image": ImageFeature()})
    assert sorted(level for part in parts(load(str(tmp_path / "set"))) for level in levels_of(part)) == list(range(20))


def test_a_colour_picture_late_in_a_grey_set_makes_it_colour(tmp_path: Path) -> None:
    columns = {"image": [*(encoded(level) for level in range(40)), encoded(99, mode="RGB")]}
    write(tmp_path / "a.parquet", columns, {"image": ImageFeature()})
    dataset = load(str(tmp_path))
    assert dataset.channels == 3
    pixels = {tuple(image[0, 0].tolist()) for part in parts(dataset) for image in part.images}
    assert pixels == {(level,) * 3 for level in range(40)} | {(99, 0, 0)}


def test_a_limit_reads_only_what_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_split(tmp_path / "train.parquet", range(200))
    write_split(tmp_path / "test.parquet", range(200, 250))
    monkeypatch.setattr(tables, "CHUNK", 4)
    given: list[object] = []
    whole = tables.table_set

    def counted(*arguments: Any) -> Any:
        source = whole(*arguments)
        for part in source.parts:
            read = part.read
            object.__setattr__(part, "read", lambda rows, read=read: (given.append(raw) or raw for raw in read(rows)))
        return source

    monkeypatch.setattr(tables, "table_set", counted)
    few = load(str(tmp_path), limit=40)
    assert [len(part) for part in parts(few)] == [36, 4, 40]
    assert len(given) == 80
    assert few.test.images[:, 0, 0, 0].tolist() == sorted(few.test.images[:, 0, 0, 0].tolist())


def test_a_table_without_images_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"text": ["a"] * 30}, {"text": Value("string")})
    with pytest.raises(DataError, match=r"has no column of images, only text"):
        load(str(tmp_path))


@pytest.mark.parametrize("cut", [0, 10, 2000])
def test_a_damaged_parquet_file_is_refused_by_name(tmp_path: Path, cut: int) -> None:
    write_split(tmp_path / "train.parquet", range(100))
    raw = (tmp_path / "train.parquet").read_bytes()
    (tmp_path / "train.parquet").write_bytes(raw[:cut])
    with pytest.raises(DataError, match=r"train\.parquet is damaged .*Fetch the file again"):
        load(str(tmp_path))


def test_damage_inside_a_parquet_file_is_refused_by_name(tmp_path: Path) -> None:
    write_split(tmp_path / "train.parquet", range(100))
    raw = bytearray((tmp_path / "train.parquet").read_bytes())
    raw[4 : len(raw) // 2] = bytes(len(raw) // 2 - 4)
    (tmp_path / "train.parquet").write_bytes(raw)
    with pytest.raises(DataError, match=r"train\.parquet is damaged"):
        load(str(tmp_path))


def test_files_of_two_sets_in_one_folder_are_refused(tmp_path: Path) -> None:
    write_split(tmp_path / "a.parquet", range(30))
    write_split(tmp_path / "b.parquet", range(30), "img")
    with pytest.raises(DataError, match=r"b\.parquet has other columns than"):
        load(str(tmp_path))


def test_labels_beyond_the_names_are_refused(tmp_path: Path) -> None:
    schema = Features({"image": ImageFeature(), "label": ClassLabel(names=["a", "b"])}).arrow_schema
    table = pyarrow.table({"image": [encoded(i) for i in range(30)], "label": [7] * 30}, schema=schema)
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"go up to 7, it names 2 classes"):
        load(str(tmp_path))


def test_the_table_beside_a_folder_of_pictures_is_not_the_set(tmp_path: Path) -> None:
    for level in range(20):
        Image.new("L", (28, 28), level).save(tmp_path / f"{level}.png")
    write(tmp_path / "metadata.parquet", {"file_name": ["0.png"]}, {"file_name": Value("string")})
    assert sum(map(len, parts(load(str(tmp_path))))) == 20


def test_a_set_of_one_picture_is_refused(tmp_path: Path) -> None:
    for split, count in (("train", 40), ("test", 20)):
        write(tmp_path / f"{split}.parquet", {"image": [encoded(7)] * count}, {"image": ImageFeature()})
    with pytest.raises(DataError, match=r"all images of .* are the same picture"):
        load(str(tmp_path))
