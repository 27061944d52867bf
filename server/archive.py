"""Blocks of images in, pieces of a ZIP archive out: a picture file each, and `index.json` at the end."""

import io
import json
import zipfile

import numpy as np

from server.identity import Identity
from server.pictures import encoded

INDEX = "index.json"


class ZipWriter:
    """An archive that is sent while it is made: what `add` and `finish` return, in that order, is the file.

        000000-7.png  000001-3.png ...   place and label; 000000.png of a model without classes
        index.json                       whose images these are, and file, seed, label, class of each

    Its entries are stored, with sizes ahead of them, so that it can be read while it arrives, too. Equal images make
    equal bytes: no clock and no system is in it. Past 65,535 entries or 4 GiB it is ZIP64. What stays in memory is the
    directory, about half a kB an image.
    """

    def __init__(
        self,
        identity: Identity,
        class_names: tuple[str, ...],
        *,
        format: str = "png",
        scale: int = 1,
        quality: int | None = None,
    ) -> None:
        """`identity` is that of the first image; the others follow it. `format` is one of PICTURE_FORMATS."""
        self._identity, self._class_names = identity, class_names
        self._format, self._scale, self._quality = format, scale, quality
        self._tail = _Tail()
        self._archive = zipfile.ZipFile(self._tail, "w")
        self._entries: list[str] = []

    def add(self, images: np.ndarray, labels: np.ndarray | None) -> bytes:
        """The next images, uint8 [n, H, W, C], and their labels, int64 [n] or None -> the next piece."""
        for image, label in zip(images, [None] * len(images) if labels is None else labels.tolist(), strict=True):
            index = len(self._entries)
            one = self._identity.of(index, label)
            file = f"{index:06d}.{self._format}" if label is None else f"{index:06d}-{label}.{self._format}"
            store(self._archive, file, encoded(self._format, image, one.text(), self._scale, self._quality))
            self._entries.append(json.dumps({"file": file} | labelled(one, self._class_names)))
        return self._tail.take()

    def finish(self) -> bytes:
        """The last piece: the index and the directory."""
        head = json.dumps(self._identity.common())
        entries = ",\n".join(self._entries)
        store(self._archive, INDEX, f'{head[:-1]}, "images": [\n{entries}\n]}}\n'.encode("ascii"))
        self._archive.close()
        return self._tail.take()

    def discard(self) -> None:
        """Nobody wants the rest: what is closed or thrown away otherwise would still write its directory."""
        self._archive.fp = None


def store(archive: zipfile.ZipFile, name: str, data: str | bytes) -> None:
    """The next entry, with no clock and no system in it."""
    entry = zipfile.ZipInfo(name)  # of 1 January 1980, where ZIP's calendar begins
    entry.create_system, entry.external_attr = 3, 0o644 << 16  # Unix, readable
    archive.writestr(entry, data)


def labelled(identity: Identity, class_names: tuple[str, ...]) -> dict[str, str | int | None]:
    """Seed, label and class of one image, as JSON says them."""
    label = identity.label
    return {"seed": str(identity.seed), "label": label, "class": None if label is None else class_names[label]}


class _Tail(io.BytesIO):
    """The end of a file whose beginning has been taken away; places count from the beginning."""

    _taken = 0

    def tell(self) -> int:
        return self._taken + super().tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        assert whence == io.SEEK_SET
        return self._taken + super().seek(offset - self._taken)

    def take(self) -> bytes:
        piece = self.getvalue()
        self._taken += len(piece)
        super().seek(0)
        self.truncate()
        return piece
