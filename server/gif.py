"""Frames in, a GIF out: Pillow compresses each of them once, and limner puts them together.

Pillow's own animations leave out a frame that is like the one before, which takes a millisecond of Python for each to
know. Here a frame is a frame, and costs nothing on the way back. GIF89a (CompuServe 1990).
"""

import struct
from collections.abc import Sequence

import numpy as np
from PIL import GifImagePlugin, Image

from training.pictures import picture

COLOURS = 256
SCREEN = 0b1_111_0_111  # a global palette, of 8 bits a channel, unsorted, of 2⁷⁺¹ colours
LEAVE = 1 << 2  # a frame stays until the next one covers it
LONGEST = 255  # bytes of a block


def gif(
    frames: np.ndarray, shown: Sequence[int], milliseconds: Sequence[int], text: bytes, *, loop: bool, scale: int = 1
) -> bytes:
    """uint8 [n, H, W, C], C 1 or 3 -> GIF of W·scale x H·scale pixels: frames `shown` for tens of `milliseconds` each.

    Greys are exact. Of colours there are at most 256 for all frames together, chosen by median cut, without dithering:
    nothing flickers that does not change. `loop`: for ever, else once. `text` is printable ASCII, a comment.
    """
    indices, palette = _indexed(frames)
    height, width = (scale * side for side in indices.shape[1:])
    drawn = [b"".join(GifImagePlugin.getdata(picture(frame[:, :, None], scale))) for frame in indices]
    parts = [b"GIF89a", struct.pack("<HHBBB", width, height, SCREEN, 0, 0), palette.ljust(3 * COLOURS, b"\0")]
    if loop:
        parts.append(_extension(0xFF, b"NETSCAPE2.0", b"\1\0\0"))  # 0 times are for ever
    parts.append(_extension(0xFE, *(text[start : start + LONGEST] for start in range(0, len(text), LONGEST))))
    for place, time in zip(shown, milliseconds, strict=True):
        parts += [_extension(0xF9, struct.pack("<BHB", LEAVE, time // 10, 0)), drawn[place]]
    return b"".join([*parts, b";"])


def _indexed(frames: np.ndarray) -> tuple[np.ndarray, bytes]:
    """uint8 [n, H, W, C] -> uint8 [n, H, W] and the palette that they index, RGB RGB ..."""
    count, height, width, channels = frames.shape
    if channels == 1:
        return frames[..., 0], bytes(np.arange(COLOURS, dtype=np.uint8).repeat(3))
    column = Image.fromarray(frames.reshape(count * height, width, channels))
    chosen = column.quantize(COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    return np.asarray(chosen).reshape(count, height, width), bytes(chosen.getpalette() or ())


def _extension(label: int, *blocks: bytes) -> bytes:
    return b"".join((b"!", bytes([label]), *(bytes([len(block)]) + block for block in blocks), b"\0"))
