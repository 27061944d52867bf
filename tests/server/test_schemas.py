"""What a request may say: every refusal by name, and the table of Accept."""

import asyncio
import json
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from server.errors import (
    InvalidParameter,
    RequestError,
    TooLarge,
    Unparsable,
    UnsupportedType,
    problem,
)
from server.schemas import GenerateRequest, InterpolateRequest, read, validate

LIMIT = 1000


def asked(
    query: str = "", body: bytes = b"", content_type: str | None = "application/json", method: str = "POST"
) -> GenerateRequest:
    """Read a request as the route does, its body in pieces of 400 bytes."""
    pieces = [body[start : start + 400] for start in range(0, len(body), 400)] or [b""]
    messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    messages[-1]["more_body"] = False

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    headers = [] if content_type is None else [(b"content-type", content_type.encode())]
    scope = {"type": "http", "method": method, "path": "/generate", "query_string": query.encode(), "headers": headers}
    return asyncio.run(read(Request(scope, receive), LIMIT, GenerateRequest))


def test_a_body_that_is_announced_too_large_is_refused_before_it_is_read() -> None:
    async def receive() -> dict[str, Any]:
        pytest.fail("it was read")

    headers = [(b"content-type", b"application/json"), (b"content-length", str(LIMIT + 1).encode())]
    scope = {"type": "http", "method": "POST", "path": "/generate", "query_string": b"", "headers": headers}
    with pytest.raises(TooLarge):
        asyncio.run(read(Request(scope, receive), LIMIT, GenerateRequest))


def refused(query: str = "", body: bytes | str = b"", **how: Any) -> dict[str, Any]:
    """The problem details of a refusal, which must also be a body that can be sent."""
    with pytest.raises(RequestError) as caught:
        asked(query, body if isinstance(body, bytes) else body.encode(), **how)
    return json.loads(bytes(problem(caught.value).body))


def test_everything_can_be_left_out() -> None:
    given = {name: value for name, value in asked().model_dump().items() if value is not None}
    assert given == {"n": 1, "scale": 1, "priority": "normal"}


def test_every_parameter_can_be_given_in_the_query() -> None:
    request = asked(
        "label=cat&n=4&seed=9223372036854775807&truncation=0.5&format=webp&model=m&version=2&scale=16&quality=100"
        "&timeout_ms=250&priority=low"
    )
    assert request.model_dump() == {
        "label": "cat",
        "n": 4,
        "seed": 2**63 - 1,
        "truncation": 0.5,
        "format": "webp",
        "scale": 16,
        "quality": 100,
        "model": "m",
        "version": 2,
        "timeout_ms": 250,
        "priority": "low",
    }


def test_the_body_says_the_same_as_the_query() -> None:
    query = asked("label=cat&n=4&seed=7&truncation=0.5&format=npy&model=m&version=2")
    body = {"label": "cat", "n": 4, "seed": "7", "truncation": 0.5, "format": "npy", "model": "m", "version": 2}
    assert asked(body=json.dumps(body).encode()) == query
    assert (
        asked("label=cat&n=4", b'{"seed": 7, "truncation": 0.5, "format": "npy", "model": "m", "version": 2}') == query
    )


def test_a_label_in_the_query_is_a_string_and_a_json_integer_stays_one() -> None:
    assert asked("label=3").label == "3"
    assert asked(body=b'{"label": 3}').label == 3
    assert asked(body=b'{"label": "3"}').label == "3"


def test_null_in_json_means_absent() -> None:
    body = json.dumps(dict.fromkeys(GenerateRequest.model_fields)).encode()
    assert asked(body=body) == asked()


@pytest.mark.parametrize(
    ("query", "field", "value"),
    [
        ("n=0", "n", "0"),
        ("n=-1", "n", "-1"),
        ("n=1.5", "n", "1.5"),
        ("n=", "n", ""),
        ("n=+1", "n", " 1"),
        ("n=1_0", "n", "1_0"),
        ("n=%D9%A3", "n", "\u0663"),  # ARABIC-INDIC DIGIT THREE
        ("seed=x", "seed", "x"),
        ("seed=-1", "seed", "-1"),
        ("seed=9223372036854775808", "seed", "9223372036854775808"),
        ("seed=" + "1" * 40, "seed", "1" * 40),
        ("seed=" + "1" * 500, "seed", "1" * 97 + "..."),
        ("truncation=0", "truncation", "0"),
        ("truncation=8.1", "truncation", "8.1"),
        ("truncation=nan", "truncation", "nan"),
        ("truncation=-1", "truncation", "-1"),
        ("truncation=1e1", "truncation", "1e1"),
        ("truncation=1e999", "truncation", "1e999"),
        ("truncation=e1", "truncation", "e1"),
        ("format=bmp", "format", "bmp"),
        ("format=PNG", "format", "PNG"),
        ("version=0", "version", "0"),
        ("version=one", "version", "one"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(query: str, field: str, value: str) -> None:
    said = refused(query)
    assert (said["status"], said["type"]) == (422, "urn:limner:problem:invalid-parameter")
    assert (said["field"], said["value"], said["allowed"]) == (field, value, GenerateRequest.allowed[field])


@pytest.mark.parametrize(("written", "meant"), [("1e0", 1.0), ("5e-1", 0.5), ("5E-324", 5e-324), ("0.25", 0.25)])
def test_a_number_in_a_url_may_be_written_as_programs_write_it(written: str, meant: float) -> None:
    """JavaScript's String(1e-7) and Python's str(0.00001) have an exponent."""
    assert asked(f"truncation={written}").truncation == meant


def test_a_whole_number_with_a_point_is_an_integer_as_in_json_schema() -> None:
    understood = asked(body=b'{"n": 4.0, "version": 1.0, "seed": 9007199254740991.0}')
    assert (understood.n, understood.version, understood.seed) == (4, 1, 2**53 - 1)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ('{"n": true}', "n"),
        ('{"n": 2.5}', "n"),
        ('{"seed": 9007199254740992.0}', "seed"),
        ('{"n": 1e400}', "n"),
        ('{"n": [1]}', "n"),
        ('{"n": {"a": 1}}', "n"),
        ('{"n": 0}', "n"),
        ('{"seed": 9223372036854775808}', "seed"),
        ('{"seed": -1}', "seed"),
        ('{"seed": false}', "seed"),
        ('{"label": true}', "label"),
        ('{"label": 1.5}', "label"),
        ('{"label": [3]}', "label"),
        ('{"label": {"label": 3}}', "label"),
        ('{"truncation": true}', "truncation"),
        ('{"truncation": 1e999}', "truncation"),
        ('{"truncation": [0.5]}', "truncation"),
        ('{"format": 1}', "format"),
        ('{"format": ["png"]}', "format"),
        ('{"model": 1}', "model"),
        ('{"version": 1.5}', "version"),
    ],
)
def test_a_json_value_of_another_type_is_refused_by_name(body: str, field: str) -> None:
    said = refused(body=body)
    assert (said["status"], said["field"], said["allowed"]) == (422, field, GenerateRequest.allowed[field])


@pytest.mark.parametrize(("query", "body"), [("lable=3", ""), ("", '{"lable": 3}'), ("label=1&lable=3", '{"n": 2}')])
def test_an_unknown_name_is_refused_and_the_known_ones_are_listed(query: str, body: str) -> None:
    said = refused(query, body)
    assert (said["status"], said["field"], said["value"]) == (422, "lable", "3")
    assert said["allowed"].split(", ") == [*GenerateRequest.model_fields]


def test_an_unknown_name_that_no_text_can_hold_is_refused_in_ascii() -> None:
    assert refused(body='{"\\ud800": 1}')["field"] == "\ud800"


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ("label=3&label=4", ""),
        ("label=3&label=3", ""),
        ("", '{"label": 3, "label": 4}'),
        ("label=3", '{"label": 4}'),
        ("label=3", '{"label": null}'),
    ],
)
def test_a_name_given_twice_is_refused_wherever_it_stands(query: str, body: str) -> None:
    said = refused(query, body)
    assert (said["status"], said["field"], said["allowed"]) == (422, "label", "label once")
    assert "given 2 times" in said["detail"]


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", None])
def test_a_body_of_another_type_is_415(content_type: str | None) -> None:
    with pytest.raises(UnsupportedType):
        asked(body=b'{"n": 1}', content_type=content_type)


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=utf-8"])
def test_json_is_known_by_its_media_type_alone(content_type: str) -> None:
    assert asked(body=b'{"n": 2}', content_type=content_type).n == 2


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "application/json", None])
@pytest.mark.parametrize("body", [b"", b" \r\n"])
def test_an_empty_body_of_any_type_is_fine(content_type: str | None, body: bytes) -> None:
    assert asked("n=2", body, content_type).n == 2


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"label=3",
        b"[1]",
        b"[]",
        b"3",
        b"null",
        b'"n"',
        b'[["n", 2]]',
        b'{"n": NaN}',
        b'{"truncation": Infinity}',
        b'{"truncation": -Infinity}',
        b'{"n": 1} {"n": 2}',
        b"\xff\xfe\x00",
        b'{"label": "\xff"}',
        b"[" * 999,
        b'{"seed": ' + b"1" * 900 + b"e}",
    ],
)
def test_a_body_that_is_no_json_object_is_400(body: bytes) -> None:
    with pytest.raises(Unparsable):
        asked(body=body)


def test_nesting_too_deep_for_the_parser_is_400() -> None:
    with pytest.raises(Unparsable):
        asked_with_limit(b'{"n":' + b"[" * 200_000)


def test_more_digits_than_python_reads_are_refused() -> None:
    with pytest.raises(RequestError) as caught:
        asked_with_limit(b'{"seed": ' + b"1" * 10_000 + b"}")
    assert caught.value.status in (400, 422)


def asked_with_limit(body: bytes) -> GenerateRequest:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": headers}
    return asyncio.run(read(Request(scope, receive), 1 << 20, GenerateRequest))


def test_a_body_at_the_limit_is_read_and_one_over_it_is_413() -> None:
    body = b'{"n": 2}'
    assert asked(body=body.ljust(LIMIT)).n == 2
    with pytest.raises(TooLarge):
        asked(body=body.ljust(LIMIT + 1))


def test_the_body_of_a_get_is_not_read() -> None:
    assert asked("n=2", b'{"n": 3}', method="GET").n == 2


@given(st.integers(0, 2**63 - 1))
def test_a_seed_is_a_number_or_its_decimal_string(seed: int) -> None:
    assert (
        validate([("seed", seed)], GenerateRequest).seed
        == validate([("seed", str(seed))], GenerateRequest).seed
        == seed
    )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([*GenerateRequest.model_fields]) | st.text(max_size=8), json_values, max_size=4))
def test_any_json_object_is_understood_or_refused_by_one_of_its_names(body: dict[str, Any]) -> None:
    try:
        request = validate(body.items(), GenerateRequest)
    except InvalidParameter as error:
        said = json.loads(bytes(problem(error).body))
        assert said["field"] in body
        assert isinstance(said["value"], str)
        assert said["allowed"]
    else:
        assert request.n >= 1
        assert request.seed is None or 0 <= request.seed < 2**63


def path_asked(query: str) -> InterpolateRequest:
    return validate(parse_qsl(query, keep_blank_values=True), InterpolateRequest)


def test_a_path_needs_no_parameter() -> None:
    given = {name: value for name, value in path_asked("").model_dump().items() if value is not None}
    assert given == {"frames": 16, "loop": False, "scale": 1, "priority": "normal"}


def test_every_parameter_of_a_path_can_be_given_in_the_query() -> None:
    query = (
        "from_seed=9223372036854775807&to_seed=0&from_label=cat&to_label=3&frames=9&loop=true&fps=12.5&truncation=0.5"
        "&format=webp&scale=16&quality=100&model=m&version=2&timeout_ms=250&priority=low"
    )
    assert path_asked(query).model_dump() == {
        "from_seed": 2**63 - 1,
        "to_seed": 0,
        "from_label": "cat",
        "to_label": "3",
        "frames": 9,
        "loop": True,
        "fps": 12.5,
        "truncation": 0.5,
        "format": "webp",
        "scale": 16,
        "quality": 100,
        "model": "m",
        "version": 2,
        "timeout_ms": 250,
        "priority": "low",
    }


@pytest.mark.parametrize("what", ["seed", "label"])
@pytest.mark.parametrize(("given", "missing"), [("from", "to"), ("to", "from")])
def test_one_end_without_the_other_is_refused_by_the_name_of_the_other(what: str, given: str, missing: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        path_asked(f"{given}_{what}=1")
    assert caught.value.members["field"] == f"{missing}_{what}"
    assert f"{given}_{what} is given and {missing}_{what} is not" in str(caught.value)


@pytest.mark.parametrize("value", ["1", "True", "yes", "", 1, 0, "null"])
def test_a_loop_is_true_or_false(value: str | int) -> None:
    with pytest.raises(InvalidParameter):
        validate([("loop", value)], InterpolateRequest)
    assert validate([("loop", True)], InterpolateRequest).loop == path_asked("loop=true").loop
    assert not validate([("loop", False)], InterpolateRequest).loop
