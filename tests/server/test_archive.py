"""Archives, read by Python's zipfile, whole and as they arrive."""

import io
import json
import struct
import zipfile
import zlib
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from server.archive import ZipWriter
from server.identity import Identity
from server.images import encode
from training.latents import SEEDS

IDENTITY = Identity("digits", 3, "d1ge57", "fake-cpu", SEEDS - 2, None, 0.5)
NAMES = ("zero", "öne/..", "two")
LABELS = np.array([2, 0, 1, 2, 1, 0, 0], np.int64)


def pictures(count: int, channels: int = 1) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=9)).integers(0, 256, (count, 5, 4, channels), np.uint8)


def written(images: np.ndarray, labels: np.ndarray | None, cuts: list[int], **options: int | str) -> list[bytes]:
    """The pieces of an archive whose images came in blocks that end at `cuts`."""
    writer = ZipWriter(IDENTITY, NAMES, **options)  # type: ignore[arg-type]
    blocks = list(pairwise([0, *cuts, len(images)]))
    pieces = [writer.add(images[a:b], None if labels is None else labels[a:b]) for a, b in blocks]
    return [*pieces, writer.finish()]


def test_each_image_is_the_png_of_that_image_alone_and_the_index_is_last() -> None:
    images = pictures(7)
    with zipfile.ZipFile(io.BytesIO(b"".join(written(images, LABELS, [3])))) as archive:
        assert archive.testzip() is None  # every CRC
        names = archive.namelist()
        assert names == [*(f"{i:06d}-{label}.png" for i, label in enumerate(LABELS)), "index.json"]
        assert names[:-1] == sorted(names[:-1])
        for i, name in enumerate(names[:-1]):
            alone = Identity("digits", 3, "d1ge57", "fake-cpu", (SEEDS - 2 + i) % SEEDS, int(LABELS[i]), 0.5)
            assert archive.read(name) == encode("png", images[i : i + 1], alone, LABELS[i : i + 1], NAMES)


def test_the_index_says_whose_images_they_are() -> None:
    with zipfile.ZipFile(io.BytesIO(b"".join(written(pictures(3), LABELS[:3], [])))) as archive:
        assert json.loads(archive.read("index.json")) == {
            "model": "digits",
            "version": 3,
            "digest": "d1ge57",
            "artifact": "fake-cpu",
            "truncation": 0.5,
            "images": [
                {"file": "000000-2.png", "seed": "9223372036854775806", "label": 2, "class": "two"},
                {"file": "000001-0.png", "seed": "9223372036854775807", "label": 0, "class": "zero"},
                {"file": "000002-1.png", "seed": "0", "label": 1, "class": "öne/.."},
            ],
        }


def test_a_model_without_classes_has_neither_labels_nor_names_of_them() -> None:
    with zipfile.ZipFile(io.BytesIO(b"".join(written(pictures(2, 3), None, [])))) as archive:
        assert archive.namelist() == ["000000.png", "000001.png", "index.json"]
        entries = json.loads(archive.read("index.json"))["images"]
        assert [(entry["label"], entry["class"]) for entry in entries] == [(None, None)] * 2


def test_no_image_at_all_is_an_archive_with_an_empty_index() -> None:
    with zipfile.ZipFile(io.BytesIO(ZipWriter(IDENTITY, NAMES).finish())) as archive:
        assert archive.namelist() == ["index.json"]
        assert json.loads(archive.read("index.json"))["images"] == []


@settings(max_examples=40)
@given(st.lists(st.integers(0, 7), max_size=4).map(sorted), st.sampled_from([1, 3]), st.booleans())
def test_the_bytes_do_not_depend_on_the_blocks(cuts: list[int], channels: int, classes: bool) -> None:
    images, labels = pictures(7, channels), LABELS if classes else None
    assert b"".join(written(images, labels, cuts)) == encode("zip", images, IDENTITY, labels, NAMES)


def test_a_block_that_was_sent_is_not_needed_again() -> None:
    """Each entry is complete in the piece of its block, sizes and CRC ahead of its data: flag 3 is not set."""
    first, second, _ = written(pictures(2), LABELS[:2], [1])
    for piece in (first, second):
        signature, _, flags, method, time, date, crc, packed, size, name, extra = struct.unpack("<4s5H3I2H", piece[:30])
        assert (signature, flags, method, time, date) == (b"PK\x03\x04", 0, 0, 0, (1 << 5) | 1)
        assert packed == size == len(piece) - 30 - name - extra
        assert crc == zlib.crc32(piece[-size:])


def test_the_entries_are_readable_files_of_no_system_and_no_time() -> None:
    with zipfile.ZipFile(io.BytesIO(b"".join(written(pictures(2), LABELS[:2], [])))) as archive:
        for entry in archive.infolist():
            assert entry.date_time == (1980, 1, 1, 0, 0, 0)
            assert (entry.create_system, entry.external_attr >> 16) == (3, 0o644)


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
def test_scale_and_format_are_those_of_the_files(format: str) -> None:
    body = b"".join(written(pictures(2), None, [], format=format, scale=3))
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        assert archive.namelist() == [f"000000.{format}", f"000001.{format}", "index.json"]
        picture = Image.open(io.BytesIO(archive.read(f"000001.{format}")))
        assert (picture.format, picture.size) == (format.upper(), (12, 15))


def test_there_may_be_more_than_65_535_images_and_memory_does_not_hold_them() -> None:
    count, block = 70_000, 10_000
    images = np.arange(count, dtype=np.uint32).view(np.uint8).reshape(count, 1, 4, 1)
    writer = ZipWriter(IDENTITY, NAMES)
    pieces = [writer.add(images[a : a + block], None) for a in range(0, count, block)]
    assert max(map(len, pieces)) < 1.1 * min(map(len, pieces))
    with zipfile.ZipFile(io.BytesIO(b"".join([*pieces, writer.finish()]))) as archive:
        assert len(archive.namelist()) == count + 1
        for i in (0, 1, 65_534, 65_535, 65_536, 69_999):
            read = np.asarray(Image.open(io.BytesIO(archive.read(f"{i:06d}.png"))))
            assert np.array_equal(read, images[i, :, :, 0])
        entries = json.loads(archive.read("index.json"))["images"]
        assert [entry["seed"] for entry in entries] == [str((SEEDS - 2 + i) % SEEDS) for i in range(count)]


def test_places_past_the_limit_of_plain_zip_are_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """4 GiB, lowered to a size that a test can write: the directory takes the places from pieces that have left."""
    images = pictures(40)
    plain = b"".join(written(images, None, [10, 20]))
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", len(plain) // 2)
    large = b"".join(written(images, None, [10, 20]))
    assert b"PK\x06\x06" in large  # the ZIP64 end of the directory
    assert b"PK\x06\x06" not in plain
    with zipfile.ZipFile(io.BytesIO(plain)) as expected, zipfile.ZipFile(io.BytesIO(large)) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == {
            name: expected.read(name) for name in expected.namelist()
        }
