"""Pixels in, one picture file out: PNG by limner's own writer, JPEG and WebP by Pillow, each with a text inside."""

import io

import numpy as np
from PIL import ExifTags, Image

from server.png import png
from training.pictures import picture

PICTURE_FORMATS = ("png", "jpeg", "webp")
QUALITY_FORMATS = ("jpeg", "webp")
LARGEST_SIDE = {"png": 2**31 - 1, "jpeg": 65_500, "webp": 16_383}  # pixels; what each format or its library can hold
JPEG_QUALITY = 90  # unless asked for: at Pillow's 75 the edges of small pictures ring
LOSSLESS = {"lossless": True, "method": 2, "quality": 20}  # more effort takes up to 5 times as long, saves 0 to 3 %


def encoded(format: str, image: np.ndarray, text: bytes, scale: int = 1, quality: int | None = None) -> bytes:
    """uint8 [H, W, C], C 1 or 3 -> a file of W·scale x H·scale pixels, each drawn scale x scale.

    `text` is printable ASCII: PNG's tEXt chunk `limner`, EXIF's UserComment in the others. `quality` 1-100 is that of
    JPEG (90 if not given) and of lossy WebP; a WebP without it is lossless. PNG has none.
    """
    if format == "png":
        return png(image, text, scale)
    buffer = io.BytesIO()
    picture(image, scale).save(buffer, format, exif=exif(text), **_options(format, quality))
    return buffer.getvalue()


def exif(text: bytes) -> Image.Exif:
    """Of a picture that says so."""
    written = Image.Exif()
    written.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"ASCII\0\0\0" + text
    return written


def _options(format: str, quality: int | None) -> dict[str, int]:
    if format == "jpeg":  # colour at full resolution: in a picture of 32 pixels half of it is seen
        return {"quality": JPEG_QUALITY if quality is None else quality, "subsampling": 0}
    return LOSSLESS if quality is None else {"quality": quality}
