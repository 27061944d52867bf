"""A body and a content coding in, the body without it or with it out: gzip and deflate (RFC 9110, section 8.4)."""

import zlib

from server.accept import weighted
from server.errors import TooLarge, Unparsable, UnsupportedType, shorten

WINDOW = {"gzip": 31, "deflate": 15}  # zlib's window bits, which also choose the frame: RFC 1952, RFC 1950
FAST = 1  # the level: of pictures of noise and edges a higher one saves little


def inflate(body: bytes, coding: str, most: int) -> bytes:
    """What the body was before it was compressed. Not more than `most` bytes are ever made of it.

    Raises UnsupportedType, TooLarge, and Unparsable where it is damaged, ends early or goes on after its end.
    """
    name = coding.strip().lower()
    if name in ("", "identity"):
        return body
    if name not in WINDOW:
        what = f"a body in Content-Encoding {shorten(coding)} is not understood"
        raise UnsupportedType(what, f"Send {' or '.join(WINDOW)}, or none.")
    stream = zlib.decompressobj(WINDOW[name])
    try:
        whole = stream.decompress(body, most + 1)
    except zlib.error as error:
        raise Unparsable(f"the body is no {name}", "Compress it again, or send it as it is.") from error
    if len(whole) > most:
        raise TooLarge(f"the body is over {most} bytes once it is inflated", "Send a smaller one.")
    if not stream.eof or stream.unused_data:
        how = "goes on after its end" if stream.eof else "ends early"
        raise Unparsable(f"the body's {name} {how}", "Compress it again, or send it as it is.")
    return whole


def deflate(body: bytes, coding: str) -> bytes:
    """The body in `coding`, which is one of WINDOW."""
    return zlib.compress(body, FAST, WINDOW[coding])


def accepted(accept_encoding: str) -> str | None:
    """The coding of WINDOW that has the highest q in Accept-Encoding, first on ties; None where none is named."""
    named = [(name, q) for name, q in weighted(accept_encoding) if name in WINDOW and q > 0]
    return max(named, key=lambda pair: pair[1])[0] if named else None
