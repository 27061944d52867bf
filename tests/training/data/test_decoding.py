"""Whatever a picture file holds, it becomes an upright 8-bit square, or says why not."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.data.decoding import Unusable, decode, measure


def encoded(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def png_that_breaks_late() -> bytes:
    """A PNG whose first half of the pixels is sound: Pillow opens it and raises SyntaxError as it reads on."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    pixels = zlib.compress(bytes(12 * 13), 0)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 12, 12, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", pixels[:50]) + chunk(b"\x01\x02\x03\x04", pixels[50:])


def bomb() -> bytes:
    """A PNG of a few bytes that says it is 60,000 pixels square."""
    raw = bytearray(encoded(Image.new("L", (8, 8))))
    raw[16:24] = struct.pack(">II", 60_000, 60_000)
    raw[29:33] = struct.pack(">I", zlib.crc32(raw[12:29]))
    return bytes(raw)


NOISE = Image.effect_noise((64, 64), 50)


@pytest.mark.parametrize(
    "raw",
    [b"no picture", b"", None, encoded(NOISE)[:1000], encoded(NOISE, "JPEG")[:900], png_that_breaks_late(), bomb()],
    ids=["text", "empty", "nothing", "png cut off", "jpeg cut off", "png that breaks late", "bomb"],
)
def test_a_broken_picture_is_unreadable(raw: bytes | None) -> None:
    with pytest.raises(Unusable, match="unreadable"):
        decode(raw, 32)


@pytest.mark.parametrize("size", [(7, 100), (100, 7), (1, 1)])
def test_a_picture_under_8_pixels_is_none(size: tuple[int, int]) -> None:
    for raw in (encoded(Image.new("L", size)), np.zeros(size, np.uint8)):
        with pytest.raises(Unusable, match="under 8 px"):
            decode(raw, 32)


def test_8_pixels_are_enough() -> None:
    assert decode(encoded(Image.new("L", (8, 8), 9)), 28).tolist() == [[9] * 28] * 28


def test_pixels_of_the_wanted_size_stay_as_they_are() -> None:
    grey, colour = np.asarray(NOISE), np.asarray(NOISE.convert("RGB"))
    assert np.array_equal(decode(grey, 64), grey)
    assert np.array_equal(decode(grey[..., None], 64), grey)
    assert np.array_equal(decode(colour, 64), colour)
    assert np.array_equal(decode(encoded(NOISE), 64), grey)


def test_a_file_an_array_and_bytes_are_resized_alike(tmp_path: Path) -> None:
    NOISE.save(tmp_path / "noise.png")
    variants = [decode(raw, 28) for raw in (tmp_path / "noise.png", encoded(NOISE), np.asarray(NOISE))]
    assert all(np.array_equal(variants[0], other) for other in variants[1:])


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_not_clipped(kind: str) -> None:
    for level in (0, 100, 255):
        raw = encoded(Image.fromarray(np.full((12, 12), 257 * level, np.uint16)), kind)
        assert (decode(raw, 28) == level).all()


@pytest.mark.parametrize("wide", [True, False])
def test_the_middle_square_is_cut_out(wide: bool) -> None:
    canvas = Image.new("L", (64, 32) if wide else (32, 64), 0)
    canvas.paste(255, (16, 0, 48, 32) if wide else (0, 16, 32, 48))
    assert decode(encoded(canvas), 32).min() == 255


def test_a_photograph_taken_sideways_is_turned_upright() -> None:
    upright = Image.new("L", (32, 32), 0)
    upright.paste(255, (0, 0, 32, 16))  # bright above
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn a quarter clockwise to see it upright
    raw = encoded(upright.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif, quality=95)
    seen = decode(raw, 32)
    assert (seen[:12] > 200).all()
    assert (seen[20:] < 50).all()


def half_clear(mode: str) -> Image.Image:
    """Left half black and solid, right half black and transparent."""
    picture = Image.new("RGBA", (32, 32), (0, 0, 0, 255))
    picture.paste((0, 0, 0, 0), (16, 0, 32, 32))
    if mode != "P":
        return picture.convert(mode)
    palette = Image.new("P", (32, 32), 0)
    palette.putpalette([0, 0, 0, 0, 0, 0])
    palette.paste(1, (16, 0, 32, 32))
    palette.info["transparency"] = 1
    return palette


@pytest.mark.parametrize(
    ("mode", "kind"), [("RGBA", "PNG"), ("LA", "PNG"), ("P", "PNG"), ("P", "GIF"), ("RGBA", "WEBP")]
)
def test_what_is_transparent_is_white(mode: str, kind: str) -> None:
    seen = decode(encoded(half_clear(mode), kind, **({"lossless": True} if kind == "WEBP" else {})), 32)
    assert seen.ndim == (2 if mode == "LA" else 3)
    assert (seen[:, :16] == 0).all()
    assert (seen[:, 16:] == 255).all()


def test_a_grey_level_may_be_transparent() -> None:
    picture = Image.new("L", (32, 32), 80)
    picture.paste(10, (0, 0, 32, 16))
    seen = decode(encoded(picture, transparency=80), 32)
    assert (seen.ndim, seen[0, 0], seen[31, 31]) == (2, 10, 255)


def test_an_animation_is_its_first_frame() -> None:
    frames = [Image.new("L", (12, 12), level) for level in (40, 90, 200)]
    assert (decode(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]), 28) == 40).all()


@pytest.mark.parametrize(("mode", "axes"), [("1", 2), ("L", 2), ("RGB", 3), ("CMYK", 3), ("YCbCr", 3), ("F", 2)])
def test_every_mode_becomes_grey_or_colour(mode: str, axes: int) -> None:
    seen = decode(encoded(Image.new(mode, (12, 12)), "TIFF"), 28)
    assert (seen.ndim, seen.dtype) == (axes, np.uint8)


def test_a_picture_is_measured_by_its_header() -> None:
    assert measure(encoded(Image.new("L", (30, 20)))[:60]) == (30, 20)
    assert measure(np.zeros((20, 30), np.uint8)) == (30, 20)
    assert measure(b"no picture") is None
