"""The client's errors are the server's, and say the same."""

import email.utils
import pickle
import time

import httpx
import pytest
from limner_client import ApiError, ClientError, ConnectionFailed, MissingExtra, ServerFailed, errors
from limner_client.errors import BY_CODE, api_error

from server.errors import InvalidParameter, RequestError, problem
from training.errors import LimnerError


def server_errors(root: type[RequestError] = RequestError) -> list[type[RequestError]]:
    below = root.__subclasses__()
    return below + [one for child in below for one in server_errors(child)]


def test_every_error_of_the_server_has_its_class_here_with_its_place_in_the_tree() -> None:
    own = [error for error in server_errors() if error.__module__ == "server.errors"]
    assert len(own) >= 10
    assert {error.code: error.__name__ for error in own} == {code: kind.__name__ for code, kind in BY_CODE.items()}
    for error in own:
        parent = "ApiError" if error.__base__ is RequestError else error.__base__.__name__  # type: ignore[union-attr]
        assert BY_CODE[error.code].__bases__ == (getattr(errors, parent),)


@pytest.mark.parametrize("kind", [error for error in server_errors() if error.__module__ == "server.errors"])
def test_what_the_server_writes_is_read_as_what_it_meant(kind: type[RequestError]) -> None:
    error = InvalidParameter("n", "0", "more") if kind is InvalidParameter else kind("what", "mend")
    written = problem(error)
    read = api_error(httpx.Response(written.status_code, headers=dict(written.headers), content=bytes(written.body)))
    assert (type(read).__name__, read.status, read.code) == (kind.__name__, kind.status, kind.code)
    assert str(read) == str(error)


def test_a_fault_of_the_server_is_a_class_of_its_own() -> None:
    read = api_error(httpx.Response(500, content=bytes(problem(LimnerError("the engine failed")).body)))
    assert type(read) is ServerFailed
    assert read.code == "internal"
    foreign = api_error(httpx.Response(500, json={"type": "https://example.org/problems/out-of-stock"}))
    assert (type(foreign), foreign.code) == (ApiError, "")


@pytest.mark.parametrize(
    ("header", "seconds"), [("3", 3), ("0", 0), (email.utils.formatdate(0, usegmt=True), 0)], ids=["3", "0", "1970"]
)
def test_retry_after_is_seconds_or_a_date(header: str, seconds: float) -> None:
    assert api_error(httpx.Response(503, headers={"Retry-After": header})).retry_after == seconds


def test_retry_after_may_be_a_date_to_come() -> None:
    header = email.utils.formatdate(time.time() + 3600, usegmt=True)
    found = api_error(httpx.Response(503, headers={"Retry-After": header})).retry_after
    assert found is not None
    assert 3000 <= found <= 3600


@pytest.mark.parametrize("header", ["", "soon", "-1", "1.5", "\xb2", "Mon, 99 Foo 2026"])
def test_any_other_retry_after_is_none(header: str) -> None:
    response = httpx.Response(503, headers=[(b"Retry-After", header.encode("latin-1"))])
    assert api_error(response).retry_after is None


def test_an_error_survives_the_way_out_of_another_process() -> None:
    error = api_error(httpx.Response(422, json={"type": "urn:limner:problem:invalid-parameter", "field": "n"}))
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), vars(again), str(again)) == (type(error), vars(error), str(error))


def test_every_error_has_one_root() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert {ApiError, ConnectionFailed, MissingExtra} < set(kinds)
    assert all(issubclass(kind, ClientError) for kind in kinds)
