"""An ETag is of everything that changes a byte, and caches keep only what stays."""

import pytest

from server.caching import control, etag, has_it

FACTS = ("digits@1", "d1ge57", "onnxruntime-fp32", "0.1.0", 7, 4, 3, 0.5, "png", None, 2)


def test_each_fact_makes_another_tag_and_equal_facts_the_same() -> None:
    others = [(*FACTS[:place], 9, *FACTS[place + 1 :]) for place in range(len(FACTS))]
    assert len({etag(*FACTS), *(etag(*facts) for facts in others)}) == len(FACTS) + 1
    assert etag(*FACTS) == etag(*FACTS)
    assert etag(1, None) != etag(1, "null") != etag("1", None)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", False),
        ('"a"', True),
        ('W/"a"', True),
        ('"b", W/"a" ', True),
        ('"b"', False),
        ("*", True),
        ("a", False),
        ('"b", *', False),
    ],
)
def test_if_none_match_names_the_tag_or_does_not(given: str, expected: bool) -> None:
    assert has_it(given, '"a"') == expected


def test_what_can_change_is_not_kept_for_ever() -> None:
    assert control(7, 1) == "max-age=31536000, immutable"
    assert control(7, None) == "no-cache"
    assert control(None, 1) == control(None, None) == "no-store"
