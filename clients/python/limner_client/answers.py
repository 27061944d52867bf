"""The body and the head of an answer in, pictures out: as bytes, as Pillow's images, as NumPy's arrays."""

import base64
import io
import json
import math
import zipfile
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from limner_client.errors import MissingExtra
from limner_client.files import write

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

Format = Literal["png", "jpeg", "webp", "json", "npy", "zip"]
INDEX = "index.json"  # of a zip


@dataclass(frozen=True)
class Entry:
    """One image of a json or zip: its seed, its class (index and name; None without classes), its PNG file."""

    seed: int
    label: int | None
    class_name: str | None
    png: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Made:
    """What an answer says of its n images. Image i is that of `seed` + i; `model` is name@version.

    `label` is the class index where one image was asked for, else None. `timing` is the server's own, in milliseconds:
    queue, compute, encode. Two answers are equal where their pictures are: `timing` and `request_id` do not count.
    """

    format: Format
    n: int
    seed: int
    model: str
    label: int | None
    timing: dict[str, float] = field(default_factory=dict, compare=False)
    request_id: str | None = field(default=None, compare=False)


@dataclass(frozen=True, kw_only=True)
class Saved(Made):
    """An answer that was written to `path`, `size` bytes of it."""

    path: Path
    size: int


@dataclass(frozen=True, kw_only=True)
class Answer(Made):
    """`content` is the body in the asked format."""

    content: bytes = field(repr=False)

    def save(self, path: str | Path) -> Path:
        """Write the body as it came. The file is there whole or not at all. Raises OSError."""
        return write(path, self.content)

    def entries(self) -> list[Entry]:
        """Each image of a json or zip with its seed, class and file. Raises ValueError for other formats."""
        if self.format == "json":
            return [_entry(one, base64.b64decode(one["png"])) for one in json.loads(self.content)["images"]]
        if self.format == "zip":
            with zipfile.ZipFile(io.BytesIO(self.content)) as archive:
                index = json.loads(archive.read(INDEX))["images"]
                return [_entry(one, archive.read(one["file"])) for one in index]
        raise ValueError(f"{self.format} has no entries: ask for json or zip")

    def image(self) -> "Image.Image":
        """The one picture there is; of n > 1 as png, jpeg or webp the sheet. Needs Pillow.

        Raises ValueError where json, npy or zip hold several: `images` gives them.
        """
        if self.format in ("json", "npy", "zip"):
            if self.n > 1:
                raise ValueError(f"this {self.format} holds {self.n} pictures: take images()")
            return self.images()[0]
        image = _pillow(".image()").open(io.BytesIO(self.content))
        image.load()
        return image

    def images(self) -> "list[Image.Image]":
        """All n pictures; a sheet is cut up. Needs Pillow, for npy NumPy too."""
        pillow = _pillow(".images()")
        if self.format == "npy":
            return [pillow.fromarray(one[:, :, 0] if one.shape[2] == 1 else one) for one in self.array()]
        if self.format in ("json", "zip"):
            return [pillow.open(io.BytesIO(entry.png)) for entry in self.entries()]
        sheet = self.image()
        columns = math.isqrt(self.n - 1) + 1
        width, height = sheet.width // columns, sheet.height // -(-self.n // columns)
        corners = ((i % columns * width, i // columns * height) for i in range(self.n))
        return [sheet.crop((x, y, x + width, y + height)) for x, y in corners]

    def array(self) -> "np.ndarray":
        """uint8 [n, H, W, C], C 1 or 3. Needs NumPy, and Pillow for all formats but npy.

        A webp always has C 3, and a jpeg's levels are not exact.
        """
        numpy = _needed("numpy", "numpy", ".array()")
        if self.format == "npy":
            return numpy.load(io.BytesIO(self.content), allow_pickle=False)
        stack = numpy.stack([numpy.asarray(image) for image in self.images()])
        return stack[..., None] if stack.ndim == 3 else stack


def _entry(one: dict[str, Any], png: bytes) -> Entry:
    return Entry(int(one["seed"]), one["label"], one["class"], png)


def _pillow(what: str) -> Any:
    return _needed("PIL.Image", "pillow", what)


def _needed(module: str, extra: str, what: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtra(f"{what} needs {extra}: pip install {extra}", name=error.name) from error
