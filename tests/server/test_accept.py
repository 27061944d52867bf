"""The table of Accept: what each client gets of what a route offers."""

import pytest

from server.errors import NotAcceptable
from server.images import MEDIA_TYPES, OFFERED


@pytest.mark.parametrize(
    ("accept", "format"),
    [
        (None, "png"),
        ("", "png"),
        ("*/*", "png"),
        ("image/*", "png"),
        ("image/png", "png"),
        ("IMAGE/PNG", "png"),
        ("application/json", "json"),
        ("application/x-npy", "npy"),
        ("application/json;charset=utf-8", "json"),
        ("image/png, application/json", "png"),  # the first on ties
        ("application/json, image/png", "json"),
        ("image/png;q=0.5, application/json;q=0.9", "json"),
        ("image/png;q=0.5, application/x-npy; q=0.8, application/json;q=0.7", "npy"),
        ("image/avif, application/x-npy;q=0.1", "npy"),
        ("*/*, application/json;q=0.1", "json"),  # what is named goes before a wildcard
        ("*/*, image/png;q=0", "jpeg"),  # a wildcard does not bring back what is refused
        ("image/*;q=0, */*", "json"),
        ("image/*;q=0, image/jpeg;q=0.2, */*;q=0.1", "jpeg"),  # the nearest range counts
        ("*/*;q=0, application/*;q=0.1", "json"),
        ("image/webp", "webp"),
        ("image/webp, image/png", "png"),  # of pictures, png where it is as welcome
        ("image/webp, image/png;q=0.9", "webp"),
        ("application/zip", "zip"),
        ("application/*", "json"),
        ("image/png;q=0, application/json", "json"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8", "png"),  # a browser
        ("image/avif,image/webp,image/*,*/*;q=0.8", "png"),  # its <img>
    ],
)
def test_accept_chooses_the_format(accept: str | None, format: str) -> None:
    assert OFFERED.choose(None, accept) == format


@pytest.mark.parametrize(
    "accept", ["text/html", "image/avif", "image/png;q=0", "*/*;q=0", "image/*;q=0, */*;q=0", "text/*", "png", ","]
)
def test_an_accept_of_neither_a_supported_type_nor_a_wildcard_is_406(accept: str) -> None:
    with pytest.raises(NotAcceptable) as refusal:
        OFFERED.choose(None, accept)
    assert refusal.value.members["allowed"] == ", ".join(MEDIA_TYPES.values())


@pytest.mark.parametrize("accept", [None, "application/json", "text/html"])
def test_with_format_the_accept_header_is_ignored(accept: str | None) -> None:
    assert OFFERED.choose("npy", accept) == "npy"
