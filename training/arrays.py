"""Arrays by name in, one .npz file out: the same arrays give the same bytes."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np


def save(path: Path, arrays: Mapping[str, np.ndarray], compressed: bool = False) -> None:
    """Write without the time, which NumPy's own files carry."""
    method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy")
            entry.compress_type = method
            with archive.open(entry, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asarray(array), version=(1, 0), allow_pickle=False)


def load(path: Path) -> dict[str, np.ndarray]:
    """Read all of it. Raises ValueError where the file cannot be read; nothing in it is run."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    except Exception as error:  # of the dozen kinds that NumPy and zipfile have for bytes like these
        raise ValueError(f"{path.name} cannot be read ({error})") from error
