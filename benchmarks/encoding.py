"""Pictures in, a table of what each way of encoding them takes, in time and bytes: `python benchmarks/encoding.py`.

The pictures are embedded digits (28x28x1), patches of photographs (32x32x3) and, with `--bundle FOLDER`, what that
bundle makes; each alone, enlarged, and as a sheet of 256. Beside limner's own ways stand Pillow's PNG, and one without
filters at zlib's levels 1 and 6. Times are wall microseconds a picture, on one thread, of the whole call, pixels and
identity to bytes: the fastest and the middle of --rounds rounds over all pictures, in which the ways take turns.
"""

import argparse
import io
import json
import struct
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from PIL.PngImagePlugin import PngInfo

sys.path[0] = str(Path(__file__).parents[1])  # not this folder, whose files have names of packages
from server.identity import Identity
from server.images import encode
from server.png import GREY, TRUECOLOUR
from training import data
from training.pictures import picture, sheet

IDENTITY = Identity("digits", 1, "0" * 64, "onnxruntime-fp32-1.32.0-cpu-x86_64-avx512f", 123_456_789_012, 3, None)
ALONE = 200  # pictures of a round
SHEET = 256

Way = Callable[[np.ndarray, int], bytes]  # uint8 [n, H, W, C], scale -> file


def limner(format: str, quality: int | None = None) -> Way:
    return lambda images, scale: encode(format, images, IDENTITY, None, (), scale=scale, quality=quality)


def unfiltered(level: int) -> Way:
    """The plainest PNG: no filter, zlib as it comes."""

    def encoded(images: np.ndarray, scale: int) -> bytes:
        image = sheet(images).repeat(scale, axis=0).repeat(scale, axis=1)
        height, width, channels = image.shape
        lines = np.zeros((height, 1 + width * channels), np.uint8)
        lines[:, 1:] = image.reshape(height, -1)
        colour = GREY if channels == 1 else TRUECOLOUR
        chunks = {
            b"IHDR": struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0),
            b"tEXt": b"limner\0" + IDENTITY.text(),
            b"IDAT": zlib.compress(lines.tobytes(), level),
            b"IEND": b"",
        }
        framed = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks.items())
        return b"\x89PNG\r\n\x1a\n" + b"".join(framed)

    return encoded


def pillow(images: np.ndarray, scale: int) -> bytes:
    text, buffer = PngInfo(), io.BytesIO()
    text.add_text("limner", IDENTITY.text().decode())
    picture(sheet(images), scale).save(buffer, "png", pnginfo=text)
    return buffer.getvalue()


WAYS: dict[str, Way] = {
    "png": limner("png"),
    "zlib level 1": unfiltered(1),
    "zlib level 6": unfiltered(6),
    "Pillow's png": pillow,
    "jpeg": limner("jpeg"),
    "webp": limner("webp"),
    "webp, quality 80": limner("webp", 80),
}


def made(bundle: Path) -> np.ndarray:
    """The first images of a bundle, uint8 [SHEET, H, W, C]."""
    import onnxruntime

    from training import latents

    manifest = json.loads((bundle / "manifest.json").read_text())
    z, labels = latents.draw(0, SHEET, manifest["latent"], len(manifest.get("class_names", ())))
    session = onnxruntime.InferenceSession(bundle / "model.onnx")
    return np.asarray(session.run(["image"], {"z": z} if labels is None else {"z": z, "label": labels})[0])


def timed(images: list[np.ndarray], scale: int, rounds: int) -> dict[str, tuple[float, float, float]]:
    """Microseconds a picture, fastest and middle round, and bytes, of each way."""
    turns: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way, encoder in WAYS.items():
            began = time.perf_counter()
            for image in images:
                encoder(image, scale)
            turns[way].append((time.perf_counter() - began) / len(images) * 1e6)
    sizes = {way: sum(len(encoder(image, scale)) for image in images) / len(images) for way, encoder in WAYS.items()}
    return {way: (min(taken), median(taken), sizes[way]) for way, taken in turns.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="a version's folder, such as models/digits/1")
    parser.add_argument("--rounds", type=int, default=20)
    asked = parser.parse_args()
    sets = {name: data.load(name).test.images for name in ("mnist-5k", "photo-patches")}
    if asked.bundle:
        sets[asked.bundle.parent.name] = made(asked.bundle)
    for name, images in sets.items():
        alone = [image[None] for image in images[:ALONE]]
        for title, group, scale, rounds in (
            ("alone", alone, 1, asked.rounds),
            ("alone, scale 4", alone[:50], 4, asked.rounds // 4),
            ("alone, scale 16", alone[:10], 16, asked.rounds // 4),
            (f"sheet of {SHEET}", [images[:SHEET]], 1, asked.rounds // 4),
        ):
            print(f"\n{name} {'x'.join(map(str, images.shape[1:]))}, {title}\n")
            print("| | µs, fastest | µs, middle | bytes |\n|---|---|---|---|")
            for way, (fastest, middle, size) in timed(group, scale, max(1, rounds)).items():
                print(f"| {way} | {fastest:.1f} | {middle:.1f} | {size:.0f} |")


if __name__ == "__main__":
    main()
