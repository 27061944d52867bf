"""Pixels in, PNG out: no slower than zlib has to be, and the same bytes from every zlib it was tried with.

A small picture is stored: building Huffman tables is what takes zlib's time there. A larger one is compressed by runs
and Huffman codes alone (Z_RLE), without the search for matches, whose heuristics differ from zlib to zlib: zlib 1.2.13,
Chromium's 1.3.1 and zlib-ng 2.3.3 agree on every byte. With the filters chosen here that takes a quarter to two thirds
of level 6's time, and is about as small in grey and smaller in colour (`benchmarks/encoding.py`).
"""

import struct
import zlib
from functools import lru_cache

import numpy as np

STORED = 1024  # bytes of scanlines: up to here a picture is not compressed; 28x28x1 has 812
GREY, TRUECOLOUR = 0, 2  # colour types
SUB, UP = 1, 2  # filters: less the pixel to the left, less the one above; 0 is none


def png(image: np.ndarray, text: bytes, scale: int = 1) -> bytes:
    """uint8 [H, W, C], C 1 or 3 -> PNG of W·scale x H·scale pixels, 8 bits a channel, one IDAT.

    `text` is printable ASCII and becomes a tEXt chunk of the keyword `limner`.
    """
    lines = scanlines(image, scale)
    data = _stored(lines.data) if lines.nbytes <= STORED else _by_runs(lines.data)
    return b"".join((_head(*image.shape, scale), *_chunk(b"tEXt", b"limner\0" + text), *_chunk(b"IDAT", data), _END))


def scanlines(image: np.ndarray, scale: int) -> np.ndarray:
    """uint8 [H, W, C] -> uint8 [H·scale, 1 + W·scale·C]: what PNG compresses, each line led by its filter.

    Repeated lines are Up, all zeros. The lines themselves are unfiltered in grey, where plain backgrounds are runs
    already, and Sub in colour, where only differences repeat from byte to byte.
    """
    height, width, channels = image.shape
    if channels == scale == 1:  # as below, in a third less time
        plain = np.zeros((height, 1 + width), np.uint8)
        plain[:, 1:] = image.reshape(height, width)
        return plain
    lines = np.zeros((height, scale, 1 + width * scale * channels), np.uint8)
    lines[:, 1:, 0] = UP
    if channels == 1:
        grey = image.reshape(height, width)
        lines[:, 0, 1:] = grey if scale == 1 else grey.repeat(scale, axis=1)
    else:
        lines[:, 0, 0] = SUB
        blocks = lines[:, 0, 1:].reshape(height, width, scale, channels)  # a view: only its last axis is split
        blocks[:, :, 0] = image
        blocks[:, 1:, 0] -= image[:, :-1]
    return lines.reshape(height * scale, -1)


def _stored(data: memoryview) -> bytes:
    """One stored block in a zlib stream (RFC 1950, RFC 1951 3.2.4): as zlib's level 0, which sets up a window first."""
    size = data.nbytes
    return b"".join(
        (b"\x78\x01\x01", struct.pack("<HH", size, size ^ 0xFFFF), data, zlib.adler32(data).to_bytes(4, "big"))
    )


def _by_runs(data: memoryview) -> bytes:
    deflate = zlib.compressobj(level=1, strategy=zlib.Z_RLE)
    return deflate.compress(data) + deflate.flush()


def _chunk(kind: bytes, data: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """In pieces, which are joined once."""
    return len(data).to_bytes(4, "big"), kind, data, zlib.crc32(data, zlib.crc32(kind)).to_bytes(4, "big")


@lru_cache(256)
def _head(height: int, width: int, channels: int, scale: int) -> bytes:
    """Signature and IHDR."""
    colour = GREY if channels == 1 else TRUECOLOUR
    header = struct.pack(">IIBBBBB", width * scale, height * scale, 8, colour, 0, 0, 0)
    return b"".join((b"\x89PNG\r\n\x1a\n", *_chunk(b"IHDR", header)))


_END = b"".join(_chunk(b"IEND", b""))
