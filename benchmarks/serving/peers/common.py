"""What every peer shares: the model in ONNX Runtime as limner runs it, and a picture as PNG, written by Pillow.

That is how the documentation of each writes pictures; level 1 is its quickest. With PNG=limner in the environment they
have limner's own writer instead, which is part of what limner is compared for.
"""

import io
import os
import struct
import zlib

import numpy as np
import onnxruntime
from PIL import Image

LABEL = 3
LARGEST, WAIT = 32, 0.002  # images in a batch, seconds that one waits for others


class Generator:
    """Labels in, PNG files out."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ["THREADS"])
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
        self.latent = self.session.get_inputs()[0].shape[1]
        self.normal = np.random.default_rng()

    def __call__(self, labels: list[int]) -> list[bytes]:
        z = self.normal.standard_normal((len(labels), self.latent), np.float32)
        images = np.asarray(self.session.run(["image"], {"z": z, "label": np.array(labels, np.int64)})[0])
        return [png(image) for image in images]


def by_pillow(image: np.ndarray) -> bytes:
    """uint8 [H, W, 1] -> PNG."""
    file = io.BytesIO()
    Image.fromarray(image[..., 0]).save(file, "PNG", compress_level=1)
    return file.getvalue()


def by_limner(image: np.ndarray) -> bytes:
    """uint8 [H, W, 1] -> PNG, stored: as limner writes small pictures, without saying which they are."""
    height, width, _ = image.shape
    lines = np.zeros((height, 1 + width), np.uint8)
    lines[:, 1:] = image[..., 0]
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.data, 0)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))
        for kind, data in chunks
    )


png = by_limner if os.environ.get("PNG") == "limner" else by_pillow
