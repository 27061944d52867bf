"""The timings of TensorRT builds, kept from one to the next: a file <-> bytes. TensorRT-RTX has none.

The files are tested; a build that uses them needs a GPU and has never run.
"""

import contextlib
import hashlib
import tempfile
from pathlib import Path

DIGEST = 32  # bytes of the sha256 in front


def default_folder() -> Path:
    """`~/.cache/limner/timing`; a temporary folder for a user without a home, as in some containers."""
    try:
        home = Path.home()
    except RuntimeError:
        home = Path(tempfile.gettempdir())
    return home / ".cache" / "limner" / "timing"


def place(folder: Path | None, version: str, capability: str) -> Path:
    """The file in `folder` (None: the default one) for a version and a compute capability: others do not fit."""
    return (folder or default_folder()) / f"{version}-sm{capability.replace('.', '')}.timings"


def read(path: Path) -> bytes:
    """What `write` wrote; b"" where there is nothing, or something damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return b""
    digest, timings = content[:DIGEST], content[DIGEST:]
    return timings if hashlib.sha256(timings).digest() == digest else b""


def write(path: Path, timings: bytes) -> None:
    """Whole or not at all, behind their sha256. Where there is no place for them, the next build measures again."""
    part = path.with_name(f".{path.name}.part")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_bytes(hashlib.sha256(timings).digest() + timings)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
