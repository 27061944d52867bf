"""The files of a picture folder in, one zip or npy with all of them out, in the form that the server gives them."""

import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


def pack(files: Sequence[Path], class_names: Sequence[str], output: Path) -> None:
    """PNGs into a zip, arrays uint8 [1, H, W, C] into an npy, by the ending of `output`. Raises OSError."""
    (_pack_zip if output.suffix.lower() == ".zip" else _pack_npy)(files, class_names, output)


def _pack_zip(files: Sequence[Path], class_names: Sequence[str], output: Path) -> None:
    """As `server.archive` writes it: a stored picture each, named by place and label, then index.json."""
    from limner_client.files import WholeFile

    entries, head = [], {}
    with WholeFile(output) as whole, zipfile.ZipFile(whole.file, "w") as archive:
        for place, file in enumerate(files):
            png = file.read_bytes()
            said = identity(png)
            label = said["label"]
            name = f"{place:06d}.png" if label is None else f"{place:06d}-{label}.png"
            archive.writestr(zipfile.ZipInfo(name), png)
            klass = None if label is None else class_names[label]
            entries.append({"file": name, "seed": said["seed"], "label": label, "class": klass})
            head = {key: said[key] for key in ("model", "version", "digest", "artifact", "truncation")}
        archive.writestr(zipfile.ZipInfo("index.json"), json.dumps(head | {"images": entries}, indent=0))
        archive.close()
        whole.publish()


def _pack_npy(files: Sequence[Path], class_names: Sequence[str], output: Path) -> None:
    import numpy as np
    from limner_client.files import WholeFile

    with WholeFile(output) as whole:
        for place, file in enumerate(files):
            image = np.load(file, allow_pickle=False)
            if place == 0:
                whole.write(_npy_header((len(files), *image.shape[1:])))
            whole.write(image.tobytes())
        whole.publish()


def npy(images: "np.ndarray") -> bytes:
    """uint8 [n, H, W, C] as a file of NumPy's, the server's bytes."""
    return _npy_header(images.shape) + images.tobytes()


def _npy_header(shape: tuple[int, ...]) -> bytes:
    from numpy.lib import format

    buffer = io.BytesIO()
    format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def identity(png: bytes) -> dict[str, Any]:
    """What a PNG of limner says of itself (docs/image-identity.md)."""
    from PIL import Image

    with Image.open(io.BytesIO(png)) as picture:
        return json.loads(picture.info["limner"])
