"""PNGs, taken apart by hand as the specification says and opened by Pillow."""

import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from server.png import STORED, png, scanlines

SIGNATURE = b"\x89PNG\r\n\x1a\n"
SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3]))
LEVELS = st.one_of(st.integers(0, 255), st.sampled_from([0, 0, 0, 255]))
IMAGES = arrays(np.uint8, SHAPES, elements=LEVELS)


def chunks(body: bytes) -> list[tuple[bytes, bytes]]:
    """Kind and data of each chunk; every length and CRC is checked."""
    assert body.startswith(SIGNATURE)
    place, found = len(SIGNATURE), []
    while place < len(body):
        size, kind = struct.unpack(">I4s", body[place : place + 8])
        data = body[place + 8 : place + 8 + size]
        (crc,) = struct.unpack(">I", body[place + 8 + size : place + 12 + size])
        assert (len(data), crc) == (size, zlib.crc32(kind + data))
        found.append((kind, data))
        place += 12 + size
    assert place == len(body)
    return found


def decoded(body: bytes) -> np.ndarray:
    """Pixels [H, W, C] by section 9 of the specification: filters None, Sub and Up undone."""
    parts = dict(chunks(body))
    width, height, depth, colour, *rest = struct.unpack(">IIBBBBB", parts[b"IHDR"])
    assert (depth, rest) == (8, [0, 0, 0])
    channels = {0: 1, 2: 3}[colour]
    lines = np.frombuffer(zlib.decompress(parts[b"IDAT"]), np.uint8).reshape(height, 1 + width * channels)
    above, rows = np.zeros((width, channels), np.uint8), []
    for line in lines:
        pixels = line[1:].reshape(width, channels)
        undone = {0: pixels, 1: np.add.accumulate(pixels, dtype=np.uint8), 2: pixels + above}
        above = undone[int(line[0])]
        rows.append(above)
    return np.stack(rows)


def scaled(image: np.ndarray, scale: int) -> np.ndarray:
    return image.repeat(scale, axis=0).repeat(scale, axis=1)


@given(IMAGES, st.integers(1, 16))
def test_every_picture_at_every_scale_is_read_back_as_it_was(image: np.ndarray, scale: int) -> None:
    body = png(image, b"{}", scale)
    assert np.array_equal(decoded(body), scaled(image, scale))
    picture = Image.open(io.BytesIO(body))
    assert picture.mode == {1: "L", 3: "RGB"}[image.shape[2]]
    assert np.array_equal(np.asarray(picture).reshape(decoded(body).shape), scaled(image, scale))


@pytest.mark.parametrize(("shape", "scale"), [((28, 28, 1), 1), ((28, 28, 1), 3), ((32, 32, 3), 1), ((32, 32, 3), 16)])
def test_a_png_is_a_header_a_text_the_pixels_and_an_end(shape: tuple[int, ...], scale: int) -> None:
    found = chunks(png(np.zeros(shape, np.uint8), b'{"seed":"7"}', scale))
    assert [kind for kind, _ in found] == [b"IHDR", b"tEXt", b"IDAT", b"IEND"]
    assert found[1][1] == b'limner\0{"seed":"7"}'
    assert found[3][1] == b""


@given(IMAGES)
def test_a_small_picture_is_stored_as_it_is(image: np.ndarray) -> None:
    """Then its bytes are the specification's, whatever zlib is there."""
    height, width, channels = image.shape
    data = dict(chunks(png(image, b"{}")))[b"IDAT"]
    size = height * (1 + width * channels)
    if size > STORED:
        assert data[2] & 0b110, "compressed"
        return
    lines = zlib.decompress(data)
    assert data == b"\x78\x01\x01" + struct.pack("<HH", size, size ^ 0xFFFF) + lines + struct.pack(
        ">I", zlib.adler32(lines)
    )


@given(arrays(np.uint8, st.tuples(st.integers(1, 30), st.integers(1, 30), st.just(1))))
def test_what_is_stored_is_what_zlib_would_write(image: np.ndarray) -> None:
    assert zlib.compress(scanlines(image, 1).data, 0) in png(image, b"{}")


def test_a_28x28_picture_is_among_the_small() -> None:
    assert 28 * 29 <= STORED < 32 * (1 + 32 * 3)


def test_a_large_picture_of_plain_areas_is_compressed_well_at_every_scale() -> None:
    """Nearest neighbour adds no information, and hardly any bytes."""
    image = np.random.Generator(np.random.Philox(key=4)).integers(0, 256, (32, 32, 3), np.uint8)
    plain = len(png(image, b"{}"))
    assert len(png(image, b"{}", 4)) < 1.5 * plain
    assert len(png(image, b"{}", 16)) < 3 * plain


@settings(max_examples=20)
@given(IMAGES, st.integers(1, 5))
def test_what_lies_around_the_pixels_in_memory_does_not_matter(image: np.ndarray, scale: int) -> None:
    padded = np.pad(image, ((1, 2), (3, 1), (0, 0)), constant_values=9)[1:-2, 3:-1]
    readonly = np.asfortranarray(image)
    readonly.flags.writeable = False
    assert png(padded, b"{}", scale) == png(readonly, b"{}", scale) == png(image, b"{}", scale)


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3), (64, 64, 1), (64, 64, 3), (1, 1, 1)])
def test_pngcheck_finds_nothing_to_say(shape: tuple[int, ...], tmp_path: Path, program: Callable[..., Path]) -> None:
    pngcheck = program("pngcheck", "Debian's package pngcheck")
    noise = np.random.Generator(np.random.Philox(key=3)).integers(0, 256, shape, np.uint8)
    for name, image in (("noise", noise), ("plain", np.full(shape, 7, np.uint8))):
        for scale in (1, 16):
            (tmp_path / f"{name}-{scale}.png").write_bytes(png(image, b'{"seed":"7"}', scale))
    done = subprocess.run([pngcheck, "-q", *map(str, tmp_path.iterdir())], capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_another_process_makes_the_same_bytes() -> None:
    code = (
        "import sys, numpy as np; from server.png import png;"
        "image = (np.arange(40 * 40 * 3) ** 2 % 251).astype(np.uint8).reshape(40, 40, 3);"
        "sys.stdout.buffer.write(png(image, b'{}', 2))"
    )
    image = (np.arange(40 * 40 * 3) ** 2 % 251).astype(np.uint8).reshape(40, 40, 3)
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == png(image, b"{}", 2)
