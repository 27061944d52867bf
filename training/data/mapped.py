"""Arrays too large for memory in, files of the user's cache out, written whole or not at all and mapped when read."""

import errno
import hashlib
import json
import mmap
import os
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from training.errors import DataError

FORMAT = 1  # of the decoding and of these files: another number where either changes
_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)  # not every Python names it


def folder() -> Path:
    """`~/.cache/limner/data`; a temporary folder for a user without a home, as in some containers."""
    try:
        home = Path.home()
    except RuntimeError:
        home = Path(tempfile.gettempdir())
    return home / ".cache" / "limner" / "data"


@contextmanager
def opened(*key: object) -> Iterator["Slot"]:
    """The slot of what `key` determines. Two runs that want to fill one wait for each other. Raises DataError."""
    slot = Slot(folder() / hashlib.sha256(repr((FORMAT, *key)).encode()).hexdigest()[:32])
    if slot.read():
        yield slot
        return
    with slot.guarded():
        slot.array.parent.mkdir(parents=True, exist_ok=True)
        slot.file = _locked(slot.part)
    with slot.file:
        try:
            yield slot
        finally:
            if not slot.kept:  # interrupted, or another run has kept it meanwhile
                slot.part.unlink(missing_ok=True)


def _locked(path: Path) -> BinaryIO:
    """The file, opened when no other run has it open so; the lock ends with the process, however that ends."""
    import fcntl  # no such module on Windows, which only large sets would miss

    while True:
        file = path.open("a+b")
        with suppress(OSError):  # a file system without locks: the later of two runs wins
            fcntl.flock(file, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()  # the run that was waited for has renamed or removed it


class Slot:
    """One array uint8 and what belongs to it: `read` what an earlier run kept, or `allocate` and `keep`."""

    def __init__(self, stem: Path) -> None:
        self.array, self.rest, self.part = (stem.with_suffix(suffix) for suffix in (".npy", ".npz", ".part"))
        self.file: BinaryIO | None = None
        self.kept = False

    def allocate(self, shape: tuple[int, ...]) -> np.ndarray:
        """An array that lies in the file. Its whole room is taken now: a disk full later would kill the process."""
        assert self.file is not None
        with self.guarded():
            self.file.truncate(0)
            array = np.lib.format.open_memmap(self.part, "w+", np.uint8, shape)
            if hasattr(os, "posix_fallocate"):  # not on macOS
                os.posix_fallocate(self.file.fileno(), 0, array.offset + array.nbytes)
        return array

    def keep(self, array: np.ndarray, labels: np.ndarray | None, rest: dict[str, Any]) -> None:
        """Make `array` what `read` finds: flushed first, renamed last."""
        assert self.file is not None
        assert isinstance(array, np.memmap)
        with self.guarded():
            array.flush()
            os.fsync(self.file.fileno())
            made = self.rest.with_suffix(f".{os.getpid()}.npz")
            arrays = {"rest": np.array(json.dumps(rest))} | ({} if labels is None else {"labels": labels})
            np.savez(made, allow_pickle=False, **arrays)
            made.replace(self.rest)  # before the array, which alone says that the slot is filled
            self.part.replace(self.array)
            self.kept = True

    def read(self) -> tuple[np.ndarray, np.ndarray | None, dict[str, Any]] | None:
        """The array, mapped copy-on-write, the labels and the rest; None where nothing was kept or it is damaged."""
        try:
            with self.rest.open("rb") as file, np.load(file, allow_pickle=False) as kept:
                labels = kept.get("labels")
                rest = json.loads(str(kept["rest"]))
            header = np.load(self.array, mmap_mode="r", allow_pickle=False)
            assert isinstance(header, np.memmap)
            with self.array.open("rb") as file:
                # NumPy's own mode "c" reserves memory for the whole file and is refused beyond what the machine has
                flags, access = mmap.MAP_PRIVATE | _NORESERVE, mmap.PROT_READ | mmap.PROT_WRITE
                pages = mmap.mmap(file.fileno(), header.offset + header.nbytes, flags, access)
            return np.frombuffer(pages, np.uint8, header.size, header.offset).reshape(header.shape), labels, rest
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    @contextmanager
    def guarded(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            raise DataError(
                f"{'no room for the images' if full else 'cannot write'} in {self.array.parent} ({error.strerror})",
                "Make room there, take fewer with --limit, or a smaller --size.",
            ) from error
