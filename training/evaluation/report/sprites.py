"""Pictures in, one PNG for all of them out, as a data: URI that a page can carry in itself."""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

BESIDE = 96  # CSS pixels: about what a picture among others is enlarged to
ALONE = 224  # about what a single picture is enlarged to: with its margins it fits a phone


@dataclass(frozen=True)
class Sprite:
    """`uri`: the PNG. `columns` x `rows` pictures of `width` x `height` pixels, `gap` clear pixels between them."""

    uri: str
    columns: int
    rows: int
    width: int
    height: int
    gap: int

    @property
    def natural(self) -> tuple[int, int]:
        """Width and height of the PNG."""
        across = self.columns * self.width + (self.columns - 1) * self.gap
        return across, self.rows * self.height + (self.rows - 1) * self.gap

    @property
    def factor(self) -> int:
        """The whole factor that brings one picture near to BESIDE."""
        return self._factor(BESIDE)

    @property
    def small(self) -> int:
        """The whole factor that keeps one picture within BESIDE, so that five in a row have room."""
        return max(1, BESIDE // max(self.width, self.height))

    @property
    def large(self) -> int:
        """The whole factor that brings one picture near to ALONE."""
        return self._factor(ALONE)

    def _factor(self, side: int) -> int:
        return max(1, round(side / max(self.width, self.height)))


def in_rows(rows: Sequence[np.ndarray]) -> Sprite:
    """uint8 [N, H, W, C] for each row -> a sheet with gaps; what a shorter row leaves is clear."""
    _, height, width, channels = rows[0].shape
    columns, gap = max(1, *map(len, rows)), max(1, width // 28)
    pictures = [np.zeros((columns, height, width, channels), np.uint8) for _ in rows]
    there = np.zeros((len(rows), columns), bool)
    for index, row in enumerate(rows):
        pictures[index][: len(row)], there[index, : len(row)] = row, True
    return _sprite(np.concatenate(pictures), there, gap)


def packed(images: np.ndarray) -> Sprite:
    """uint8 [N, H, W, C] -> a sheet of about as many columns as rows without gaps, of which CSS shows one at a time."""
    columns = math.isqrt(max(0, len(images) - 1)) + 1
    rows = max(1, -(-len(images) // columns))
    there = np.arange(rows * columns).reshape(rows, columns) < len(images)
    cells = np.zeros((rows * columns, *images.shape[1:]), np.uint8)
    cells[: len(images)] = images
    return _sprite(cells, there, 0)


def png(image: np.ndarray) -> str:
    """uint8 [H, W, C], C of 1 (grey), 2 (grey and alpha), 3 or 4 -> data: URI."""
    written = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(written, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(written.getvalue()).decode()


def _sprite(cells: np.ndarray, there: np.ndarray, gap: int) -> Sprite:
    """uint8 [rows * columns, H, W, C]; bool [rows, columns] where there is a picture."""
    rows, columns = there.shape
    _, height, width, channels = cells.shape
    opaque = np.broadcast_to(there.reshape(-1, 1, 1, 1) * np.uint8(255), (*cells.shape[:3], 1))
    cells = np.concatenate([cells, opaque], axis=3)
    across, down = width + gap, height + gap
    canvas = np.zeros((rows * down, columns * across, channels + 1), np.uint8)
    for place in range(rows * columns):
        top, left = place // columns * down, place % columns * across
        canvas[top : top + height, left : left + width] = cells[place]
    canvas = canvas[: rows * down - gap, : columns * across - gap]
    if canvas[:, :, -1].all():
        canvas = canvas[:, :, :-1]  # nothing is clear
    return Sprite(png(canvas), columns, rows, width, height, gap)
