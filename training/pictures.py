"""Arrays of images in, contact sheets out: what people look at in runs, bundles, answers and demo.png."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

MARGIN = 4  # pixels between label and pictures
INK, PAPER = (40, 40, 40), (255, 255, 255)


def sheet(images: np.ndarray, columns: int | None = None) -> np.ndarray:
    """uint8 [N, H, W, C] -> uint8 [rows*H, columns*W, C], row-major, ⌈√N⌉ columns by default; what is left is black.

    No image at all is one black cell: a class that a split left empty still has its row.
    """
    count, height, width, channels = images.shape
    columns = columns or math.isqrt(max(0, count - 1)) + 1
    rows = max(1, -(-count // columns))
    cells = np.zeros((rows * columns, height, width, channels), np.uint8)
    cells[:count] = images
    grid = cells.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    return grid.reshape(rows * height, columns * width, channels)


def labelled_rows(rows: Sequence[tuple[str, np.ndarray]], scale: int = 1) -> Image.Image:
    """(name, uint8 [N, H, W, C]) for each row -> one picture with the names at the left, enlarged `scale` times."""
    font = ImageFont.load_default(size=max(10, 7 * scale))
    strips = [picture(sheet(images, columns=len(images)), scale) for _, images in rows]
    left = max(math.ceil(font.getlength(name)) for name, _ in rows)
    left = left + 2 * MARGIN if left else 0
    height, width = strips[0].height, max(strip.width for strip in strips)
    canvas = Image.new("RGB", (left + width, height * len(rows)), PAPER)
    draw = ImageDraw.Draw(canvas)
    for index, ((name, _), strip) in enumerate(zip(rows, strips, strict=True)):
        top = index * height
        draw.text((left - MARGIN, top + height // 2), name, INK, font, anchor="rm")
        canvas.paste(strip, (left, top))
    return canvas


def picture(image: np.ndarray, scale: int = 1) -> Image.Image:
    """uint8 [H, W, C] with C 1 or 3 -> PIL image, each pixel drawn scale x scale."""
    drawn = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    return drawn if scale == 1 else drawn.resize((drawn.width * scale, drawn.height * scale), Image.Resampling.NEAREST)
