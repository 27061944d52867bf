"""A body that is not whole is told from one that is, whatever HTTP said, for what the server really writes."""

import io
import zipfile

import numpy as np
import pytest
from limner_client import IncompleteAnswer
from limner_client.bodies import body, check

from server.identity import Identity
from server.images import MEDIA_TYPES, encode

N = 3
IDENTITY = Identity("digits", 1, "d" * 64, "onnxruntime-fp32", seed=5, label=None, truncation=None)
PIXELS = np.random.Generator(np.random.Philox(key=1)).integers(0, 256, (N, 8, 8, 3), np.uint8)


def written(format: str) -> bytes:
    return encode(format, PIXELS, IDENTITY, np.array([0, 1, 0]), ("a", "b"))


@pytest.mark.parametrize("format", MEDIA_TYPES)
def test_what_the_server_writes_is_whole_and_no_beginning_of_it_is(format: str) -> None:
    content = written(format)
    check(format, N, content)
    for end in range(len(content)):
        with pytest.raises(IncompleteAnswer, match=format):
            check(format, N, content[:end])


@pytest.mark.parametrize("format", ["npy", "zip", "png", "webp", "json"])
def test_what_goes_on_behind_the_end_is_not_whole_either(format: str) -> None:
    with pytest.raises(IncompleteAnswer):
        check(format, N, written(format) + b"x")


@pytest.mark.parametrize("format", ["npy", "zip", "json"])
def test_another_number_of_images_is_not_what_was_asked_for(format: str) -> None:
    with pytest.raises(IncompleteAnswer, match=f"{N} images instead of {N + 1}"):
        check(format, N + 1, written(format))


@pytest.mark.parametrize("size", [1, 7, 29, 30, 31, 200, 10_000])
@pytest.mark.parametrize("format", ["npy", "zip"])
def test_images_are_counted_as_they_arrive_in_pieces_of_any_size(format: str, size: int) -> None:
    content, taken, counts = written(format), body(format, N), []
    for start in range(0, len(content), size):
        taken.add(content[start : start + size])
        counts.append(taken.images)
    taken.finish()
    assert counts == sorted(counts)
    assert counts[-1] == N
    if size <= 31:
        assert set(counts) == {0, 1, 2, 3}


@pytest.mark.parametrize("n", [65_534, 65_535])  # and an index: ZIP64 begins at 65,536 files
def test_an_archive_of_more_than_65535_files_is_zip64_and_whole(n: int) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for index in range(n + 1):
            archive.writestr(zipfile.ZipInfo(f"{index}"), b"x")
    content = buffer.getvalue()
    assert (b"PK\x06\x06" in content) == (n > 65_534)
    check("zip", n, content)
    for cut in (content[:-1], content[:-22], content[: len(content) // 2], content[:-200] + content[-100:]):
        with pytest.raises(IncompleteAnswer):
            check("zip", n, cut)


@pytest.mark.parametrize("format", MEDIA_TYPES)
def test_what_somebody_else_sends_is_not_whole(format: str) -> None:
    for content in (b"", b"<html>log in</html>" * 20, b"\x93NUMPY\x01\x00\x04\x00nope", b"\x93NUMPY\x01\x00\x02\x00{}"):
        with pytest.raises(IncompleteAnswer):
            check(format, 1, content)
