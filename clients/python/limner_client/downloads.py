"""An answer that arrives piece by piece in, its progress and a whole file out."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from limner_client import bodies, calls
from limner_client.answers import Made, Saved
from limner_client.files import WholeFile


@dataclass(frozen=True)
class Progress:
    """`images` of `n` have arrived, `bytes` of `of_bytes`; None where nobody knows it before the end, as of a zip."""

    images: int
    n: int
    bytes: int
    of_bytes: int | None


class Download:
    """Takes one answer into a file, which is there once it is whole. A context manager; nothing is left of a failure.

    Its pieces are written where they arrive, in the event loop too: a thread's hop takes longer than a copy of 64 kB.
    """

    def __init__(self, call: calls.PictureCall, path: str | Path, progress: Callable[[Progress], None] | None) -> None:
        self._call = call
        self._progress = progress
        self._file = WholeFile(path)

    def begin(self, response: httpx.Response) -> None:
        """The head is there. Raises ApiError where it is not that of a limner server."""
        self._made: Made = calls.described(self._call.format, self._call.n, response)
        self._body = bodies.body(self._made.format, self._made.n)
        self._size = 0
        length = response.headers.get("Content-Length", "")
        known = length.isdecimal() and "Content-Encoding" not in response.headers  # else it is that of other bytes
        self._length = int(length) if known else None

    def add(self, piece: bytes) -> None:
        self._file.write(piece)
        self._body.add(piece)
        self._size += len(piece)
        if self._progress is not None:
            self._progress(Progress(self._body.images, self._made.n, self._size, self._length))

    def finish(self) -> Saved:
        """All of it is there. Raises IncompleteAnswer where it is not whole."""
        self._body.finish()
        saved = Saved(path=self._file.publish(), size=self._size, **vars(self._made))
        if self._progress is not None:
            self._progress(Progress(self._made.n, self._made.n, self._size, self._length))
        return saved

    def __enter__(self) -> Self:
        self._file.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.__exit__(kind, error, trace)
