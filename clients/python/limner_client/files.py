"""Pieces in, a file that is there whole or not at all out."""

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self


def write(path: str | Path, content: bytes) -> Path:
    """A file of these bytes, there whole or not at all. Raises OSError."""
    with WholeFile(path) as file:
        file.write(content)
        return file.publish()


class WholeFile:
    """Writes beside `path` under a hidden name, and takes the name itself only with `publish`.

    A context manager: what was not published is removed. Raises OSError, which names `path`. `file` is what is open.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        real = Path(os.path.realpath(self.path))  # a link stays one
        if real.exists() and not real.is_file():
            raise OSError(errno.EEXIST, "is there and is no file", str(self.path))
        self._real = real
        self._part = real.with_name(f".{real.name[:100]}.{secrets.token_hex(4)}.part")
        with self._naming():
            self.file = self._part.open("xb")

    def write(self, piece: bytes) -> None:
        with self._naming():
            self.file.write(piece)

    def publish(self) -> Path:
        """What was written is all: from now on it is `path`, whatever was there before."""
        with self._naming():
            self.file.close()
            self._part.replace(self._real)
        return self.path

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):  # of a full disk: the first failure is the one to tell of
            self.file.close()
        with contextlib.suppress(OSError):
            self._part.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _naming(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error
