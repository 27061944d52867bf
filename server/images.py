"""Pixels in, a body out: png, jpeg, webp, json, npy and zip, with the identity of each image written beside it."""

import base64
import io
import json
import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from server.accept import Offer
from server.archive import ZipWriter, labelled
from server.identity import Identity
from server.pictures import encoded
from training.pictures import sheet

MEDIA_TYPES = {
    "png": "image/png",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "json": "application/json",
    "npy": "application/x-npy",
    "zip": "application/zip",
}
OFFERED = Offer(MEDIA_TYPES, favourite=True)


def encode(
    format: str,
    images: np.ndarray,
    identity: Identity,
    labels: np.ndarray | None,
    class_names: tuple[str, ...],
    *,
    scale: int = 1,
    quality: int | None = None,
) -> bytes:
    """uint8 [n, H, W, C] -> body. `labels` int64 [n] or None; a sheet is described by its first seed and n.

    `scale` 1-16 draws each pixel scale x scale in all but npy; `quality` 1-100 is that of jpeg and webp.
    """
    if format == "npy":
        return NpyWriter(len(images), images.shape[1:]).add(images)
    if format == "json":
        return _json(images, identity, labels, class_names, scale)
    if format == "zip":
        archive = ZipWriter(identity, class_names, scale=scale)
        return archive.add(images, labels) + archive.finish()
    one = images[0] if len(images) == 1 else sheet(images)
    return encoded(format, one, identity.text(len(images)), scale, quality)


class NpyWriter:
    """A file of uint8 [count, *shape], as NumPy writes it, of `length` bytes: what `add` returns, in that order."""

    def __init__(self, count: int, shape: tuple[int, ...]) -> None:
        buffer = io.BytesIO()
        described = {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)}
        np.lib.format.write_array_header_1_0(buffer, described)
        self._head = buffer.getvalue()
        self.length = len(self._head) + count * math.prod(shape)

    def add(self, images: np.ndarray, labels: np.ndarray | None = None) -> bytes:
        """The next images, uint8 [n, *shape] -> the next piece. An npy holds no labels."""
        head, self._head = self._head, b""
        return head + images.tobytes()

    def finish(self) -> bytes:
        """Nothing: it ends with its last image."""
        return b""

    def discard(self) -> None:
        """Nobody wants the rest."""


def files(
    format: str,
    images: np.ndarray,
    identity: Identity,
    labels: np.ndarray | None,
    *,
    scale: int = 1,
    quality: int | None = None,
) -> Iterator[tuple[Identity, bytes]]:
    """uint8 [n, H, W, C] -> which each image is, and a file of it alone: png, jpeg or webp."""
    for index, image in enumerate(images):
        one = identity.of(index, None if labels is None else int(labels[index]))
        yield one, encoded(format, image, one.text(), scale, quality)


def entries(made: Iterable[tuple[Identity, bytes]], name: str, class_names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Files as JSON lists them: seed, label and class of each, and under `name` the file in base64."""
    return [labelled(one, class_names) | {name: base64.b64encode(file).decode("ascii")} for one, file in made]


def _json(
    images: np.ndarray, identity: Identity, labels: np.ndarray | None, class_names: tuple[str, ...], scale: int
) -> bytes:
    head = {"model": identity.model, "version": identity.version, "digest": identity.digest}
    listed = entries(files("png", images, identity, labels, scale=scale), "png", class_names)
    return json.dumps(head | {"images": listed}, ensure_ascii=False).encode()
