"""A picture and those that were found near it in, a sheet with rank, figure and name below each out."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from training.pictures import picture

TALL, WIDEST = 112, 224  # pixels: small pictures are enlarged by whole factors to at least about, larger ones shrunk to
COLUMNS = 6  # 24 pictures are four rows
GAP = 16  # between two pictures
TEXT, SMALL = 14, 12  # font sizes of value and file name
INK, FAINT, FRAME, PAPER = (32, 32, 32), (112, 112, 112), (208, 208, 208), (255, 255, 255)


def ranking_sheet(
    query: tuple[str, np.ndarray], found: Sequence[tuple[str, str, np.ndarray]], title: str, note: str
) -> Image.Image:
    """The query (name, uint8 [H, W, C]) on top beside `title` and `note`, below it the found in order.

    Each is (value as text, name, uint8 [H, W, C]), with its rank. All pictures are drawn at one scale, in pixels that
    can be told apart where they are small.
    """
    name, image = query
    drawn = [_drawn(other) for *_, other in found]
    first = _drawn(image)
    width, height = first.size
    columns = max(COLUMNS, math.ceil(math.sqrt(len(found)))) if len(found) > COLUMNS**2 else COLUMNS
    value_font, name_font = (ImageFont.load_default(size=size) for size in (TEXT, SMALL))
    cell = max(width, TALL) + GAP, height + TEXT + SMALL + 14 + GAP
    top = GAP + height + 2 * GAP
    rows = -(-len(found) // columns)
    canvas = Image.new("RGB", (GAP + columns * cell[0], top + rows * cell[1] + GAP // 2), PAPER)
    draw = ImageDraw.Draw(canvas)

    def framed(shown: Image.Image, left: int, upper: int) -> None:
        canvas.paste(shown, (left, upper))
        draw.rectangle((left - 1, upper - 1, left + shown.width, upper + shown.height), outline=FRAME)

    framed(first, GAP, GAP)
    beside, room = 2 * GAP + width, canvas.width - 3 * GAP - width
    middle = GAP + height // 2
    draw.text((beside, middle - 22), _cut(name, value_font, room), INK, value_font, anchor="lm")
    draw.text((beside, middle), _cut(title, name_font, room), FAINT, name_font, anchor="lm")
    draw.text((beside, middle + 18), _cut(note, name_font, room), FAINT, name_font, anchor="lm")
    draw.line((GAP, top - GAP, canvas.width - GAP, top - GAP), fill=FRAME)
    for index, ((value, file, _), shown) in enumerate(zip(found, drawn, strict=True)):
        row, column = divmod(index, columns)
        left, upper = GAP + column * cell[0], top + row * cell[1]
        framed(shown, left, upper)
        under, end = upper + height + 8, left + cell[0] - GAP
        draw.text((left, under), f"{index + 1}", INK, value_font, anchor="lt")
        draw.text((end, under), value, INK, value_font, anchor="rt")
        draw.text((left, under + TEXT + 2), _cut(file, name_font, end - left), FAINT, name_font, anchor="lt")
    return canvas


def _drawn(image: np.ndarray) -> Image.Image:
    """Enlarged by a whole factor, or shrunk: as wide as a caption needs, and no wider than a sheet can bear."""
    longest = max(image.shape[:2])
    if longest > WIDEST:
        shown = picture(image)
        shown.thumbnail((WIDEST, WIDEST), Image.Resampling.LANCZOS)
        return shown
    return picture(image, max(1, math.ceil(TALL / longest)) if longest < TALL else 1)


def _cut(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, room: float) -> str:
    """Shortened to `room` pixels: the folders give way first, then the middle of the name, whose ends tell it."""
    folders, slash, name = text.rpartition("/")
    whole = [text] + [f"{folders[:kept]}…/{name}" for kept in range(len(folders) - 1, -1, -1) if slash]
    parts = [f"{name[: kept // 2]}…{name[len(name) - (kept + 1) // 2 :]}" for kept in range(len(name) - 1, 1, -1)]
    return next((short for short in whole + parts if font.getlength(short) <= room), "…")
