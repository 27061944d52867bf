"""Bodies, read back with other people's decoders."""

import base64
import io
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from server.identity import Identity
from server.images import MEDIA_TYPES, NpyWriter, encode
from server.pictures import PICTURE_FORMATS
from training.latents import SEEDS

IDENTITY = Identity("digits", 3, "d1ge57", "fake-cpu", 7, None, None)


def pictures(count: int, channels: int, height: int = 5, width: int = 4) -> np.ndarray:
    noise = np.random.Generator(np.random.Philox(key=9))
    return noise.integers(0, 256, (count, height, width, channels), np.uint8)


def opened(body: bytes) -> Image.Image:
    Image.open(io.BytesIO(body)).verify()  # every chunk's CRC
    return Image.open(io.BytesIO(body))


def pixels(picture: Image.Image) -> np.ndarray:
    array = np.asarray(picture)
    return array if array.ndim == 3 else array[:, :, None]


def text(body: bytes) -> dict[str, str]:
    picture = opened(body)
    picture.load()
    return {str(key): str(value) for key, value in picture.info.items()}


@given(st.sampled_from([1, 3]), st.integers(1, 40), st.integers(1, 40), st.integers(1, 16))
def test_a_png_decodes_to_the_same_pixels(channels: int, height: int, width: int, scale: int) -> None:
    image = pictures(1, channels, height, width)
    picture = opened(encode("png", image, IDENTITY, None, (), scale=scale))
    assert picture.mode == {1: "L", 3: "RGB"}[channels]
    assert np.array_equal(pixels(picture), image[0].repeat(scale, axis=0).repeat(scale, axis=1))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("count", "columns", "rows"), [(2, 2, 1), (4, 2, 2), (5, 3, 2), (9, 3, 3), (10, 4, 3)])
def test_several_pictures_are_a_sheet_row_by_row_with_black_at_the_end(
    channels: int, count: int, columns: int, rows: int
) -> None:
    images = pictures(count, channels)
    sheet = pixels(opened(encode("png", images, IDENTITY, None, ())))
    assert sheet.shape == (rows * 5, columns * 4, channels)
    cells = [sheet[5 * (i // columns) :, 4 * (i % columns) :][:5, :4] for i in range(rows * columns)]
    assert all(np.array_equal(cell, image) for cell, image in zip(cells, images, strict=False))
    assert not any(cell.any() for cell in cells[count:])


def test_a_png_says_which_image_it_is_and_nothing_of_the_request() -> None:
    identity = Identity("digits", 3, "d1ge57", "fake-cpu", SEEDS - 1, 2, 0.5)
    chunks = text(encode("png", pictures(1, 1), identity, np.array([2]), ("a", "b", "c")))
    assert [*chunks] == ["limner"]
    assert json.loads(chunks["limner"]) == {
        "model": "digits",
        "version": 3,
        "digest": "d1ge57",
        "artifact": "fake-cpu",
        "seed": "9223372036854775807",
        "label": 2,
        "truncation": 0.5,
    }


def test_a_sheet_names_its_first_seed_and_how_many_it_holds() -> None:
    said = json.loads(text(encode("png", pictures(5, 3), IDENTITY, None, ()))["limner"])
    assert (said["seed"], said["n"], said["label"]) == ("7", 5, None)


def test_the_chunk_is_ascii_whatever_the_model_is_called() -> None:
    body = encode("png", pictures(1, 1), IDENTITY._replace(model="Ziffern-€-😀"), None, ())
    assert json.loads(text(body)["limner"])["model"] == "Ziffern-€-😀"


def exif(body: bytes) -> dict[str, Any]:
    comment = opened(body).getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment]
    return json.loads(comment.removeprefix(b"ASCII\0\0\0"))


@pytest.mark.parametrize("format", ["jpeg", "webp"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("count", [1, 5])
def test_jpeg_and_webp_are_the_same_picture_with_the_same_text(format: str, channels: int, count: int) -> None:
    images = pictures(count, channels)
    of_png = encode("png", images, IDENTITY, None, (), scale=2)
    body = encode(format, images, IDENTITY, None, (), scale=2)
    assert opened(body).format == format.upper()
    assert opened(body).size == opened(of_png).size
    assert exif(body) == json.loads(text(of_png)["limner"])
    better = encode(format, images, IDENTITY, None, (), scale=2, quality=100)
    assert len(encode(format, images, IDENTITY, None, (), scale=2, quality=10)) < len(better)


@pytest.mark.parametrize("format", PICTURE_FORMATS)
def test_the_text_says_nothing_of_scale_and_quality(format: str) -> None:
    read = exif if format != "png" else lambda body: json.loads(text(body)["limner"])
    bodies = [encode(format, pictures(1, 3), IDENTITY, None, (), scale=s, quality=q) for s, q in [(1, None), (7, 40)]]
    assert read(bodies[0]) == read(bodies[1])
    assert not {"scale", "quality"} & {*read(bodies[0])}


@pytest.mark.parametrize("format", MEDIA_TYPES)
def test_the_same_call_gives_the_same_bytes(format: str) -> None:
    images, labels = pictures(6, 3), np.arange(6)
    calls = [encode(format, images.copy(), IDENTITY, labels, tuple("abcdef"), scale=2) for _ in range(2)]
    assert calls[0] == calls[1]


@pytest.mark.parametrize("count", [1, 6])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("scale", [1, 4])
def test_npy_comes_back_as_it_went_in_whatever_the_scale(count: int, channels: int, scale: int) -> None:
    images = pictures(count, channels)
    loaded = np.load(io.BytesIO(encode("npy", images, IDENTITY, None, (), scale=scale)), allow_pickle=False)
    assert (loaded.dtype, loaded.shape) == (np.uint8, images.shape)
    assert np.array_equal(loaded, images)


@given(st.integers(0, 100_000), st.integers(1, 64), st.integers(1, 64), st.sampled_from([1, 3]))
def test_the_length_of_an_npy_is_known_before_its_images(count: int, height: int, width: int, channels: int) -> None:
    writer = NpyWriter(count, (height, width, channels))
    header = writer.add(np.empty((0, height, width, channels), np.uint8))
    assert writer.length == len(header) + count * height * width * channels
    read = io.BytesIO(header)
    assert np.lib.format.read_magic(read) == (1, 0)
    assert np.lib.format.read_array_header_1_0(read) == ((count, height, width, channels), False, np.dtype(np.uint8))
    assert read.tell() == len(header)


def test_an_npy_in_blocks_is_what_numpy_writes() -> None:
    images = pictures(7, 3)
    writer = NpyWriter(7, (5, 4, 3))
    body = b"".join(writer.add(images[a : a + 3]) for a in (0, 3, 6)) + writer.finish()
    saved = io.BytesIO()
    np.save(saved, images)
    assert body == saved.getvalue() == encode("npy", images, IDENTITY, None, ())
    assert len(body) == writer.length


@pytest.mark.parametrize("scale", [1, 3])
def test_json_has_an_entry_for_each_image_which_is_the_png_of_that_image_alone(scale: int) -> None:
    images, labels = pictures(4, 1), np.array([2, 0, 1, 2])
    identity = Identity("digits", 3, "d1ge57", "fake-cpu", SEEDS - 2, None, 0.5)
    body = json.loads(encode("json", images, identity, labels, ("zero", "öne", "two"), scale=scale))
    assert {key: value for key, value in body.items() if key != "images"} == {
        "model": "digits",
        "version": 3,
        "digest": "d1ge57",
    }
    seeds = [SEEDS - 2, SEEDS - 1, 0, 1]  # the last seed is followed by the first
    assert [entry["seed"] for entry in body["images"]] == [str(seed) for seed in seeds]
    assert [entry["label"] for entry in body["images"]] == [2, 0, 1, 2]
    assert [entry["class"] for entry in body["images"]] == ["two", "zero", "öne", "two"]
    for row, entry in enumerate(body["images"]):
        alone = Identity("digits", 3, "d1ge57", "fake-cpu", seeds[row], int(labels[row]), 0.5)
        expected = encode("png", images[row : row + 1], alone, labels[row : row + 1], (), scale=scale)
        assert base64.b64decode(entry["png"], validate=True) == expected


def test_json_of_a_model_without_classes_has_null_labels() -> None:
    body = json.loads(encode("json", pictures(1, 3), IDENTITY, None, ()))
    assert [(entry["label"], entry["class"]) for entry in body["images"]] == [(None, None)]
