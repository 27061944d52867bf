"""gzip and deflate: what was compressed comes back, within the limit; what is damaged is refused."""

import gzip
import tracemalloc
import zlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.codings import accepted, deflate, inflate
from server.errors import TooLarge, Unparsable, UnsupportedType

CODINGS = ("gzip", "deflate")


@given(st.binary(max_size=500), st.sampled_from(CODINGS))
def test_what_is_compressed_comes_back(body: bytes, coding: str) -> None:
    assert inflate(deflate(body, coding), coding, len(body)) == body
    theirs = {"gzip": gzip.compress, "deflate": zlib.compress}[coding](body)
    assert inflate(theirs, f" {coding.upper()} ", len(body)) == body
    assert {"gzip": gzip.decompress, "deflate": zlib.decompress}[coding](deflate(body, coding)) == body


@given(st.binary(max_size=200), st.sampled_from(CODINGS))
def test_no_bytes_are_more_than_a_refusal(body: bytes, coding: str) -> None:
    with suppress(Unparsable, TooLarge):
        inflate(body, coding, 1000)


@pytest.mark.parametrize("coding", CODINGS)
def test_a_bomb_is_refused_before_it_has_grown(coding: str) -> None:
    bomb = deflate(b"\0" * (64 << 20), coding)
    most = 1 << 16
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge, match=f"over {most} bytes once it is inflated"):
            inflate(bomb, coding, most)
        assert tracemalloc.get_traced_memory()[1] < 4 * (most + len(bomb))
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("coding", CODINGS)
def test_a_body_of_just_the_limit_is_taken(coding: str) -> None:
    assert len(inflate(deflate(b"\0" * 1000, coding), coding, 1000)) == 1000
    with pytest.raises(TooLarge):
        inflate(deflate(b"\0" * 1001, coding), coding, 1000)


@pytest.mark.parametrize("coding", CODINGS)
def test_what_is_cut_or_goes_on_is_refused(coding: str) -> None:
    whole = deflate(b"something of some length", coding)
    for damaged, how in ((whole[:-1], "ends early"), (whole + b"x", "goes on"), (whole + whole, "goes on")):
        with pytest.raises(Unparsable, match=f"{coding} {how}"):
            inflate(damaged, coding, 1000)
    with pytest.raises(Unparsable, match=f"no {coding}"):
        inflate(b"\0" * 30, coding, 1000)


def test_other_codings_are_told_which_there_are() -> None:
    with pytest.raises(UnsupportedType, match=r"br is not understood\. Send gzip or deflate, or none"):
        inflate(b"", "br", 10)
    assert inflate(b"as it is", "identity", 10) == inflate(b"as it is", "", 10) == b"as it is"


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        ("", None),
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("gzip, deflate, br", "gzip"),
        ("br;q=1, deflate;q=0.5, gzip;q=0.4", "deflate"),
        ("GZIP", "gzip"),
        ("gzip;q=0", None),
        ("identity", None),
        ("*", None),
        ("gzip;q=x", None),
    ],
)
def test_an_answer_has_the_coding_that_is_most_welcome(header: str, coding: str | None) -> None:
    assert accepted(header) == coding
