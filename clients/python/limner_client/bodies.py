"""The pieces of a body in, how many of its pictures have arrived out, and whether it is whole.

HTTP says where a body ends, but not every proxy passes on that it was cut. What a format itself says of its length is
held against what came.
"""

import ast
import json
import math
import struct
from typing import Protocol

from limner_client.errors import IncompleteAnswer

HEADER = 1 << 16  # bytes that an npy's header has at most
LOCAL_HEADER = struct.Struct("<4s2xH10xI4xHH")  # of a zip's file: signature, flags, size, lengths of name and extra
END = struct.Struct("<4s6xHII2x")  # of a zip's directory: signature, files, bytes, where it begins
END64 = struct.Struct("<4s28xQQQ")  # the same in ZIP64, which stands before a locator and the other
LOCATOR = 20 + END.size  # it and what follows
ENDS = END64.size + LOCATOR


class Body(Protocol):
    """What comes of one answer. `images` have arrived whole."""

    @property
    def images(self) -> int: ...

    def add(self, piece: bytes) -> None: ...

    def finish(self) -> None:
        """No more comes. Raises IncompleteAnswer."""
        ...


def body(format: str, n: int) -> Body:
    """To hold the answer of n images in one of the formats."""
    kinds = {"npy": _Npy, "zip": _Zip, "json": _Json}
    return kinds[format](n) if format in kinds else _Picture(format, n)


def check(format: str, n: int, content: bytes) -> None:
    """Raises IncompleteAnswer where `content` is not a whole answer of n images."""
    whole = body(format, n)
    whole.add(content)
    whole.finish()


def _short(format: str, why: str) -> IncompleteAnswer:
    return IncompleteAnswer(f"the {format} that came is not whole ({why})")


class _Npy:
    """A header that says the shape, then as many bytes."""

    def __init__(self, n: int) -> None:
        self._n, self._head, self._bytes = n, b"", 0
        self._begins = self._each = 0  # of the first image, and of each: known with the header

    @property
    def images(self) -> int:
        return max(0, self._bytes - self._begins) // self._each if self._each else 0

    def add(self, piece: bytes) -> None:
        self._bytes += len(piece)
        if not self._each:
            self._head += piece[:HEADER]
            self._read_header()

    def finish(self) -> None:
        expected = self._begins + self._n * self._each
        if not self._each:
            raise _short("npy", "its header is not there")
        if self._bytes != expected:
            raise _short("npy", f"{self._bytes:,} bytes instead of {expected:,}")

    def _read_header(self) -> None:
        """Version 1 of NumPy's format: 6 bytes of magic, 2 of version, 2 of length, a literal of Python."""
        if len(self._head) < 10 or not self._head.startswith(b"\x93NUMPY"):
            return
        begins = 10 + int.from_bytes(self._head[8:10], "little")
        if len(self._head) < begins:
            return
        try:
            count, *shape = ast.literal_eval(self._head[10:begins].decode("latin-1"))["shape"]
            each = math.prod(shape)
        except (ValueError, SyntaxError, KeyError, TypeError) as error:
            raise _short("npy", "its header cannot be read") from error
        if count != self._n:
            raise _short("npy", f"{count} images instead of {self._n}")
        self._begins, self._each = begins, each


class _Zip:
    """Stored files, each behind a header with its size, then a directory whose end says how many they are."""

    def __init__(self, n: int) -> None:
        self._n, self._bytes, self._files = n, 0, 0
        self._next: int | None = 0  # where the next header begins; None behind the last, or where sizes are not ahead
        self._header, self._tail = b"", b""

    @property
    def images(self) -> int:
        """A file has arrived when the next begins. The last is the index, no image."""
        return max(0, self._files - 1)

    def add(self, piece: bytes) -> None:
        begins, self._bytes = self._bytes, self._bytes + len(piece)
        self._tail = (self._tail + piece[-ENDS:])[-ENDS:]
        while self._next is not None and self._next < self._bytes:
            here = max(0, self._next - begins)
            self._header += piece[here : here + LOCAL_HEADER.size - len(self._header)]
            if len(self._header) < LOCAL_HEADER.size:
                return
            signature, flags, size, name, extra = LOCAL_HEADER.unpack(self._header)
            is_file = signature == b"PK\x03\x04"
            self._files += is_file
            ahead = is_file and not flags & 8 and size != 2**32 - 1
            self._next = self._next + LOCAL_HEADER.size + name + extra + size if ahead else None
            self._header = b""

    def finish(self) -> None:
        signature, files, size, begins = END.unpack(self._tail[-END.size :].rjust(END.size))
        if signature != b"PK\x05\x06":
            raise _short("zip", "its directory does not end")
        ends = END.size
        if self._tail[-LOCATOR:].startswith(b"PK\x06\x07"):
            ends = ENDS
            signature, files, size, begins = END64.unpack(self._tail[:-LOCATOR].rjust(END64.size))
            if signature != b"PK\x06\x06":
                raise _short("zip", "its directory does not end")
        if begins + size + ends != self._bytes:
            raise _short("zip", f"{self._bytes:,} bytes instead of {begins + size + ends:,}")
        if files != self._n + 1:
            raise _short("zip", f"{files - 1} images instead of {self._n}")


class _Json:
    """One object, with a list of images."""

    def __init__(self, n: int) -> None:
        self.images, self._n, self._pieces = 0, n, list[bytes]()

    def add(self, piece: bytes) -> None:
        self._pieces.append(piece)

    def finish(self) -> None:
        try:
            images = len(json.loads(b"".join(self._pieces))["images"])
        except (ValueError, KeyError, TypeError) as error:
            raise _short("json", "it cannot be read") from error
        if images != self._n:
            raise _short("json", f"{images} images instead of {self._n}")
        self.images = images


class _Picture:
    """One file with a mark at its end, or its length at the beginning."""

    def __init__(self, format: str, n: int) -> None:
        self.images, self._format, self._n = 0, format, n
        self._bytes, self._first, self._last = 0, b"", b""

    def add(self, piece: bytes) -> None:
        self._bytes += len(piece)
        self._first = (self._first + piece[:12])[:12]
        self._last = (self._last + piece[-12:])[-12:]

    def finish(self) -> None:
        first, last = self._first, self._last
        whole = {
            "png": first.startswith(b"\x89PNG\r\n\x1a\n") and last == b"\0\0\0\0IEND\xaeB`\x82",
            "jpeg": first.startswith(b"\xff\xd8\xff") and last.endswith(b"\xff\xd9"),
            "webp": first[8:] == b"WEBP" and int.from_bytes(first[4:8], "little") + 8 == self._bytes,
        }
        if not whole[self._format]:
            raise _short(self._format, f"{self._bytes:,} bytes without its end")
        self.images = self._n
