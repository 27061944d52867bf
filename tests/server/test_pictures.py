"""JPEG and WebP, opened by Pillow."""

import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from server.pictures import LARGEST_SIDE, PICTURE_FORMATS, encoded
from server.png import png

TEXT = b'{"model":"Ziffern-\\u20ac","seed":"9223372036854775807"}'


def smooth(channels: int, side: int = 32) -> np.ndarray:
    """A picture that lossy formats keep well: waves of another length and direction in each channel."""
    down, across = np.mgrid[:side, :side] / side
    waves = [np.sin(5 * down + k) * np.cos(4 * across - 2 * k) for k in range(channels)]
    return (127.5 + 120 * np.stack(waves, axis=2)).astype(np.uint8)


def opened(body: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(body))
    picture.load()
    return picture


def error(body: bytes, image: np.ndarray) -> float:
    """Root of the mean squared difference, in levels."""
    read = np.asarray(opened(body).convert("L" if image.shape[2] == 1 else "RGB")).reshape(image.shape)
    return float(np.sqrt(np.mean((read.astype(float) - image) ** 2)))


def exif_text(body: bytes) -> bytes:
    comment = opened(body).getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment]
    return comment.encode("latin-1") if isinstance(comment, str) else comment


@pytest.mark.parametrize("format", ["jpeg", "webp"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("quality", [None, 1, 100])
def test_the_file_says_which_image_it_is(format: str, channels: int, quality: int | None) -> None:
    body = encoded(format, smooth(channels), TEXT, quality=quality)
    assert opened(body).format == format.upper()
    assert exif_text(body) == b"ASCII\0\0\0" + TEXT
    assert json.loads(exif_text(body)[8:]) == {"model": "Ziffern-€", "seed": "9223372036854775807"}


def test_a_grey_jpeg_has_one_channel_and_a_coloured_one_keeps_its_colours_at_full_resolution() -> None:
    assert opened(encoded("jpeg", smooth(1), TEXT)).mode == "L"
    colour = opened(encoded("jpeg", smooth(3), TEXT))
    assert colour.mode == "RGB"
    assert {layer[1:3] for layer in getattr(colour, "layer")} == {(1, 1)}  # noqa: B009  of JPEG files alone


@settings(max_examples=40)
@given(st.sampled_from([1, 3]), st.integers(1, 40), st.integers(1, 40), st.integers(1, 16))
def test_a_webp_without_a_quality_keeps_every_pixel_at_every_scale(
    channels: int, height: int, width: int, scale: int
) -> None:
    noise = np.random.Generator(np.random.Philox(key=height))
    image = noise.integers(0, 256, (height, width, channels), np.uint8)
    read = np.asarray(opened(encoded("webp", image, TEXT, scale)).convert("RGB"))
    expected = image.repeat(scale, axis=0).repeat(scale, axis=1)
    assert np.array_equal(read, np.broadcast_to(expected, read.shape))


@pytest.mark.parametrize("format", ["jpeg", "webp"])
@pytest.mark.parametrize("channels", [1, 3])
def test_more_quality_is_more_bytes_and_less_error(format: str, channels: int) -> None:
    image = smooth(channels, 96)
    bodies = [encoded(format, image, TEXT, quality=quality) for quality in (1, 30, 75, 100)]
    sizes, errors = [len(body) for body in bodies], [error(body, image) for body in bodies]
    assert sizes == sorted(set(sizes))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 2 < errors[0]


def test_a_jpeg_is_of_quality_90_if_not_asked_for_another() -> None:
    image = smooth(3)
    assert encoded("jpeg", image, TEXT) == encoded("jpeg", image, TEXT, quality=90)
    assert encoded("jpeg", image, TEXT) != encoded("jpeg", image, TEXT, quality=89)


@pytest.mark.parametrize("format", PICTURE_FORMATS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("scale", [1, 2, 16])
def test_a_scale_multiplies_the_size_and_the_same_call_gives_the_same_bytes(
    format: str, channels: int, scale: int
) -> None:
    image = smooth(channels)[:20]
    body = encoded(format, image, TEXT, scale)
    assert opened(body).size == (32 * scale, 20 * scale)
    assert body == encoded(format, image.copy(), TEXT, scale)


def test_a_jpeg_of_a_scaled_picture_has_its_blocks() -> None:
    image = np.array([[[0], [255]], [[255], [0]]], np.uint8)
    read = np.asarray(opened(encoded("jpeg", image, TEXT, scale=16, quality=100)))
    assert np.array_equal(read // 128 * 255, image[:, :, 0].repeat(16, axis=0).repeat(16, axis=1))


@pytest.mark.parametrize("quality", [None, 1, 100])
def test_a_png_has_no_quality(quality: int | None) -> None:
    assert encoded("png", smooth(3), TEXT, 2, quality) == png(smooth(3), TEXT, 2)


@pytest.mark.parametrize("format", ["jpeg", "webp"])
def test_the_largest_side_can_be_written_and_one_more_cannot(format: str) -> None:
    line = np.zeros((1, LARGEST_SIDE[format], 1), np.uint8)
    assert opened(encoded(format, line, TEXT)).size == (LARGEST_SIDE[format], 1)
    with pytest.raises((OSError, ValueError)):
        encoded(format, np.zeros((1, LARGEST_SIDE[format] + 1, 1), np.uint8), TEXT)
