"""A folder of pictures in, a Source out: each sub-folder is a class, or there are none."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from training.data.images import Part, Source
from training.errors import DataError

PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


def folder_set(folder: Path) -> Source:
    """Pictures at another level than the rest are left out, and counted. Raises DataError."""
    try:
        beside, deeper = _pictures(folder), 0
        classes: dict[str, list[Path]] = {}
        for name in sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and _shown(entry)):
            deeper += sum(len(_pictures(Path(inner))) for inner in _inner_folders(folder / name))
            found = _pictures(folder / name)
            if found:  # a folder without pictures is no class
                classes[name] = found
    except OSError as error:
        raise DataError(f"cannot read {error.filename} ({error.strerror})", "Check its permissions.") from error

    files = [path for found in classes.values() for path in found] or beside
    left_out = {"beside the class folders": len(beside) if classes else 0, "in deeper folders": deeper}
    labels = np.repeat(np.arange(len(classes)), [len(found) for found in classes.values()]) if classes else None
    mend = "Put images into the folder, one sub-folder for each class."
    if not files and deeper:
        mend = "The folder to give is the one that holds the class folders."
    return Source(
        folder.resolve().name,
        (Part(len(files), labels, lambda rows: (files[row] for row in rows)),),
        tuple(classes),
        f"folder {_digest(files)}",
        str(folder),
        mend,
        tidy=True,
        left_out={reason: count for reason, count in left_out.items() if count},
    )


def _shown(entry: os.DirEntry[str]) -> bool:
    """Hidden files and folders are an operating system's or an editor's, not pictures of the set."""
    return not entry.name.startswith(".")


def _pictures(folder: Path) -> list[Path]:
    """Sorted, so that the split is the same on every machine."""
    names = (entry.name for entry in os.scandir(folder) if _shown(entry))
    return [folder / name for name in sorted(names) if Path(name).suffix.lower() in PICTURES]


def _inner_folders(folder: Path) -> Iterator[str]:
    for path, folders, _ in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if path != str(folder):
            yield path


def _digest(files: list[Path]) -> str:
    """Another one as soon as a file is new, gone or changed."""
    digest = hashlib.sha256()
    for path in files:
        stamp = None  # a dangling link: unreadable, as decoding will say
        with suppress(OSError):
            found = path.stat()
            stamp = found.st_size, found.st_mtime_ns
        digest.update(repr((str(path.absolute()), stamp)).encode())
    return digest.hexdigest()
