"""A stored picture in, one square uint8 image out, or the word that says why it is none."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from training.data.images import Raw

SMALLEST = 8  # pixels of the shorter side: less is an icon or a counting pixel, and blurs into nothing at 28
_ALPHA = ("L", "LA", "P", "PA", "RGB", "RGBA")  # modes that Pillow brings to RGBA


class Unusable(Exception):
    """A picture that cannot be used, which is counted and not shown; the text is the reason, as the note has it."""


def decode(raw: Raw, size: int | None) -> np.ndarray:
    """-> uint8 [size, size] for grey, [size, size, 3] for colour: the middle square, upright, on white.

    `size` None: the whole picture in its own size, [H, W] or [H, W, 3].

    Transparent pictures are laid on white, as viewers show them: what colour is stored below nobody has seen. Raises
    Unusable.
    """
    if isinstance(raw, np.ndarray):
        if min(raw.shape[:2]) < SMALLEST:
            raise Unusable(f"under {SMALLEST} px")
        flat = raw[..., 0] if raw.ndim == 3 and raw.shape[2] == 1 else raw
        fits = size is None or flat.shape[:2] == (size, size)
        return flat if fits else np.asarray(_fit(Image.fromarray(flat), size))
    try:
        with _open(raw) as picture:
            small = min(picture.size) < SMALLEST
            if not small:
                return np.asarray(_fit(_eight_bit(ImageOps.exif_transpose(picture)), size))
    except MemoryError:
        raise
    except Exception as error:  # a broken file makes Pillow raise whatever its decoder stumbles over
        raise Unusable("unreadable") from error
    raise Unusable(f"under {SMALLEST} px")


def measure(raw: Raw) -> tuple[int, int] | None:
    """Width and height from the header, or None."""
    if isinstance(raw, np.ndarray):
        return raw.shape[1], raw.shape[0]
    try:
        with _open(raw) as picture:
            return picture.size
    except MemoryError:
        raise
    except Exception:
        return None


def _open(raw: Path | bytes | None) -> Image.Image:
    return Image.open(raw if isinstance(raw, Path) else io.BytesIO(raw or b""))  # an animation shows its first frame


def _eight_bit(picture: Image.Image) -> Image.Image:
    """Grey stays grey, everything else becomes RGB. 16-bit grey is scaled: Pillow's conversion clips it to white."""
    if picture.mode.startswith("I"):
        levels = np.asarray(picture.convert("I")).clip(0, 65535) >> 8
        return Image.fromarray(levels.astype(np.uint8))
    mode = "L" if picture.mode in ("1", "L", "LA", "La", "F") else "RGB"
    if picture.mode in _ALPHA and picture.has_transparency_data:
        paper = Image.new("RGBA", picture.size, "white")
        paper.alpha_composite(picture.convert("RGBA"))
        picture = paper
    return picture.convert(mode)


def _fit(picture: Image.Image, size: int | None) -> Image.Image:
    """Cut the middle square out and bring it to size x size; None leaves it as it is."""
    if size is None:
        return picture
    width, height = picture.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    box = (left, top, left + side, top + side)
    return picture.resize((size, size), Image.Resampling.LANCZOS, box=box)
