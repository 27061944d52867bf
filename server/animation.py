"""Frames in, a body out: gif, webp, a strip as png, json, npy and zip, with what they lie between written into it."""

import base64
import io
import json
import zipfile
from itertools import pairwise
from typing import Any

import numpy as np
from PIL import Image

from server.accept import Offer
from server.archive import INDEX, labelled, store
from server.gif import gif
from server.identity import Between
from server.images import NpyWriter
from server.pictures import LOSSLESS, exif
from server.png import png
from training.pictures import picture, sheet

OFFERED = Offer(
    {
        "gif": "image/gif",
        "webp": "image/webp",
        "png": "image/png",
        "json": "application/json",
        "npy": "application/x-npy",
        "zip": "application/zip",
    }
)
MOVING = ("gif", "webp")
QUALITY_FORMATS = ("webp",)
LARGEST_SIDE = {"gif": 65_535, "webp": 16_383, "png": 2**31 - 1}  # pixels; what each format can hold
FPS = 12.0  # unless asked for


def encode(
    format: str,
    frames: np.ndarray,
    between: Between,
    class_names: tuple[str, ...],
    *,
    loop: bool = False,
    fps: float = FPS,
    scale: int = 1,
    quality: int | None = None,
) -> bytes:
    """uint8 [n, H, W, C] from one end to the other -> body; with `loop` there and back.

    `scale` 1-16 draws each pixel scale x scale in all but npy; `fps` 0.1-50 is that of gif and webp, `quality` 1-100 of
    webp, which is lossless without. A gif of greys is exact, one of colours has 256 at most.
    """
    shown = there_and_back(len(frames), loop)
    if format == "npy":
        return NpyWriter(len(shown), frames.shape[1:]).add(frames[shown])
    if format == "png":
        return png(sheet(frames[shown], columns=len(shown)), between.text(), scale)
    times = durations(len(shown), fps, format)
    if format == "gif":
        return gif(frames, shown, times, between.text(), loop=loop, scale=scale)
    if format == "webp":
        return _webp([picture(frames[place], scale) for place in shown], times, between.text(), loop, quality)
    files = [png(frame, between.of(place), scale) for place, frame in enumerate(frames)]
    return (_zip if format == "zip" else _json)(files, shown, between, class_names)


def there_and_back(frames: int, loop: bool) -> list[int]:
    """Which frames are shown, one after the other: back without the end frames, which would be there twice."""
    return [*range(frames), *(range(frames - 2, 0, -1) if loop else ())]


def durations(count: int, fps: float, format: str) -> list[int]:
    """Milliseconds of each frame. A GIF counts hundredths of a second: what one frame has too little, another gets."""
    unit = 10 if format == "gif" else 1
    ends = [round(place * 1000 / fps / unit) for place in range(count + 1)]
    return [unit * (end - begin) for begin, end in pairwise(ends)]


def _webp(pictures: list[Image.Image], milliseconds: list[int], text: bytes, loop: bool, quality: int | None) -> bytes:
    buffer = io.BytesIO()
    options = LOSSLESS if quality is None else {"quality": quality}
    known = {"exif": exif(text), "duration": milliseconds, "loop": 0 if loop else 1}
    pictures[0].save(buffer, "webp", save_all=True, append_images=pictures[1:], **known, **options)
    return buffer.getvalue()


def _zip(files: list[bytes], shown: list[int], between: Between, class_names: tuple[str, ...]) -> bytes:
    buffer, entries = io.BytesIO(), []
    with zipfile.ZipFile(buffer, "w") as archive:
        for index, place in enumerate(shown):
            entries.append({"file": f"{index:06d}.png", "frame": place})
            store(archive, f"{index:06d}.png", files[place])
        store(archive, INDEX, json.dumps(_ends(between, class_names) | {"images": entries}, indent=1) + "\n")
    return buffer.getvalue()


def _json(files: list[bytes], shown: list[int], between: Between, class_names: tuple[str, ...]) -> bytes:
    coded = [base64.b64encode(file).decode("ascii") for file in files]
    entries = [{"frame": place, "png": coded[place]} for place in shown]
    return json.dumps(_ends(between, class_names) | {"images": entries}, ensure_ascii=False).encode()


def _ends(between: Between, class_names: tuple[str, ...]) -> dict[str, Any]:
    first, last = between.first, between.last
    ends = {"from": labelled(first, class_names), "to": labelled(last, class_names)}
    return first.common() | ends | {"frames": between.frames}
