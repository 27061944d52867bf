"""Both clients against a real server, against nobody, and against those who are no limner server."""

import asyncio
import inspect
import io
import json
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from limner_client import (
    ApiError,
    AsyncClient,
    Client,
    ConnectionFailed,
    Expired,
    Hopeless,
    IncompleteAnswer,
    InvalidAddress,
    InvalidParameter,
    NotFound,
    NotReady,
    Progress,
    Retries,
    ServerFailed,
    TimedOut,
)
from PIL import Image

Open = Callable[..., AbstractContextManager[Any]]
Stranger = Callable[..., AbstractContextManager[str]]
QUICK = Retries(attempts=4, first=0.001, longest=0.001)


class Scripted:
    """A server that cannot be had for real: gives each request the next of its answers, or raises it."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers, self.requests = list(answers), list[httpx.Request]()
        self.transport = httpx.MockTransport(self.answer)

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers[min(len(self.requests), len(self.answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def asked(self, place: int = -1) -> dict[str, Any]:
        return json.loads(self.requests[place].content)


def refusal(status: int, code: str, **headers: str) -> httpx.Response:
    return httpx.Response(status, json={"type": f"urn:limner:problem:{code}", "detail": code}, headers=headers)


def picture(content: bytes | None = None, **headers: str) -> httpx.Response:
    if content is None:
        buffer = io.BytesIO()
        Image.new("L", (4, 4)).save(buffer, "png")
        content = buffer.getvalue()
    return httpx.Response(200, content=content, headers={"X-Limner-Seed": "7", "X-Limner-Model": "m@1"} | headers)


# what is asked and answered


def test_a_png_comes_with_what_it_is_and_can_be_saved(client: Client, tmp_path: Path) -> None:
    answer = client.generate(label="2", seed=7, model="digits")
    assert (answer.format, answer.n, answer.seed, answer.model, answer.label) == ("png", 1, 7, "digits@1", 1)
    assert set(answer.timing) == {"queue", "compute", "encode"}
    assert answer.request_id
    saved = answer.save(tmp_path / "two.png")
    assert saved == tmp_path / "two.png"
    assert saved.read_bytes() == answer.content
    picture = Image.open(saved)
    assert (picture.size, json.loads(picture.info["limner"])["label"]) == ((28, 28), 1)


def test_every_argument_reaches_the_server(client: Client) -> None:
    asked = {
        "label": 2,
        "seed": 2**63 - 1,
        "truncation": 0.3,
        "model": "digits",
        "version": 1,
    }  # more than a float holds
    answer = client.generate(**asked, scale=3, timeout_ms=20_000, priority="low")  # type: ignore[arg-type]
    picture = Image.open(io.BytesIO(answer.content))
    said = json.loads(picture.info["limner"])
    assert {name: said[name] for name in asked} == asked | {"seed": str(2**63 - 1)}
    assert picture.size == (84, 84)
    coarse, fine = (client.generate(model="plain", seed=1, format="jpeg", quality=q).content for q in (5, 95))
    assert len(coarse) < len(fine)


def test_what_is_sent_is_what_was_given(open_client: Open) -> None:
    given = {"scale": 2, "quality": 50, "timeout_ms": 900, "priority": "low", "truncation": 0.5, "version": 3}
    server = Scripted(picture())
    with open_client("http://limner", transport=server.transport, headers={"Authorization": "Bearer x"}) as client:
        client.generate(3, model="m", seed=None, **given)
        assert server.asked() == {"label": 3, "n": 1, "format": "png", "model": "m", **given}
        assert server.requests[0].headers["Authorization"] == "Bearer x"
        with pytest.raises(TypeError, match="'lable'"):
            client.generate(lable=3)


def test_a_drawn_seed_makes_the_same_picture_again(client: Client) -> None:
    drawn = client.generate(model="digits")
    assert client.generate(model="digits", seed=drawn.seed) == drawn


def test_models_are_what_the_routes_say(client: Client, url: str) -> None:
    assert client.models() == httpx.get(f"{url}/models").json()
    assert client.model("digits")["versions"][0]["class_names"] == ["0", "2", "1"]
    with pytest.raises(NotFound) as missing:
        client.model("no/such")
    assert missing.value.status == 404


def test_a_slash_at_the_end_of_the_address_does_no_harm(open_client: Open, url: str) -> None:
    with open_client(f"{url}/") as client:
        assert client.generate(model="digits", seed=1).model == "digits@1"


def test_both_clients_have_the_same_methods_and_arguments() -> None:
    def methods(kind: type) -> dict[str, list[str]]:
        public = {name.replace("aclose", "close"): value for name, value in vars(kind).items() if name[0] != "_"}
        return {name: list(inspect.signature(value).parameters) for name, value in public.items()}

    assert methods(Client) == methods(AsyncClient)
    assert list(inspect.signature(Client).parameters) == list(inspect.signature(AsyncClient).parameters)


def test_many_calls_of_an_async_client_are_under_way_at_a_time(url: str) -> None:
    async def ask() -> list[int]:
        async with AsyncClient(url) as client:
            answers = await asyncio.gather(*(client.generate(model="digits", seed=seed) for seed in range(40)))
        return [answer.seed for answer in answers]

    assert asyncio.run(ask()) == list(range(40))


# refusals


def test_a_refusal_carries_the_problem_details(client: Client) -> None:
    with pytest.raises(InvalidParameter) as refused:
        client.generate(label="cat", model="digits")
    error = refused.value
    assert (error.status, error.code) == (422, "invalid-parameter")
    assert (error.field, error.value) == ("label", "cat")
    assert error.allowed == "a class name (0, 2, 1) or an index from 0 to 2"
    assert error.retry_after is None
    assert error.request_id
    assert str(error) == error.detail
    assert "label=cat is not allowed" in error.detail
    with pytest.raises(NotFound) as missing:
        client.generate(model="nope")
    assert (missing.value.status, missing.value.code, missing.value.allowed) == (404, "not-found", "digits, plain")


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    open_client: Open, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "socks5://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with open_client(url) as client:
        assert client.models()["models"]


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://127.0.0.1", "http://127.0.0.1:port", "http://", ""])
def test_what_is_no_address_is_said_at_once(url: str) -> None:
    with pytest.raises(InvalidAddress), Client(url) as client:
        client.generate()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (502, b"<html><h1>Bad Gateway</h1></html>"),
        (502, b""),
        (500, b"[1]"),
        (500, b'"text"'),
        (500, b"\xff\xfe"),
        (302, b"{}"),
    ],
)
def test_the_answer_of_somebody_else_is_an_api_error_with_its_status(
    open_client: Open, stranger: Stranger, status: int, body: bytes
) -> None:
    with stranger(status, body, Retry_After="\xb2", Location="/login") as url, open_client(url, retries=None) as client:
        for ask in (client.generate, client.models):
            with pytest.raises(ApiError) as failed:
                ask()
            assert type(failed.value) is ApiError
            assert failed.value.status == status
            assert (failed.value.code, failed.value.field, failed.value.retry_after) == ("", None, None)
            assert str(status) in failed.value.detail


@pytest.mark.parametrize("headers", [{}, {"X_Limner_Seed": "x", "X_Limner_Model": "m@1"}])
def test_a_success_that_no_limner_server_gave_is_an_api_error_too(
    open_client: Open, stranger: Stranger, headers: dict[str, str], tmp_path: Path
) -> None:
    with stranger(200, b"<html>log in</html>", **headers) as url, open_client(url) as client:
        for ask in (client.generate, client.models, lambda: client.download(tmp_path / "a.npy")):
            with pytest.raises(ApiError, match="no limner server gave this answer"):
                ask()
        assert not client.ready()
    assert os.listdir(tmp_path) == []


# retries


def test_what_passes_is_asked_again_until_it_is_answered(open_client: Open) -> None:
    server = Scripted(
        refusal(503, "not-ready"),
        httpx.ConnectError("refused"),
        refusal(429, "queue-full"),
        picture(),
    )
    with open_client("http://limner", transport=server.transport, retries=QUICK) as client:
        assert client.generate(seed=7).seed == 7
    assert len(server.requests) == 4


def test_attempts_are_bounded_and_can_be_none(open_client: Open) -> None:
    for retries, tries in ((QUICK, 4), (None, 1)):
        server = Scripted(refusal(503, "not-ready"))
        opened = open_client("http://limner", transport=server.transport, retries=retries)
        with opened as client, pytest.raises(NotReady):
            client.generate()
        assert len(server.requests) == tries


@pytest.mark.parametrize(
    ("answer", "raised"),
    [
        (lambda: refusal(422, "invalid-parameter"), InvalidParameter),
        (lambda: refusal(500, "engine"), ServerFailed),
        (lambda: refusal(504, "expired"), Expired),
        (lambda: httpx.ReadTimeout("slow"), TimedOut),
        (lambda: picture(b"\x89PNG"), IncompleteAnswer),
    ],
)
def test_what_stays_is_asked_once(open_client: Open, answer: Callable[[], Any], raised: type[Exception]) -> None:
    server = Scripted(answer())
    opened = open_client("http://limner", transport=server.transport, retries=QUICK)
    with opened as client, pytest.raises(raised):
        client.generate()
    assert len(server.requests) == 1


def test_retry_after_is_slept_for(open_client: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    server = Scripted(refusal(429, "queue-full", **{"Retry-After": "9"}), picture())
    with open_client("http://limner", transport=server.transport) as client:
        client.generate()
    assert len(slept) == 1
    assert 9 < slept[0] < 10


def test_a_deadline_is_that_of_the_call_with_its_retries(open_client: Open) -> None:
    server = Scripted(refusal(503, "not-ready"), picture())
    with open_client("http://limner", transport=server.transport, retries=Retries(first=0.2)) as client:
        client.generate(timeout_ms=20_000)
        first, second = server.asked(0)["timeout_ms"], server.asked(1)["timeout_ms"]
        assert first == 20_000
        assert 0 < second <= 20_000 - 50
    server = Scripted(refusal(429, "deadline-unreachable", **{"Retry-After": "2"}))
    with open_client("http://limner", transport=server.transport) as client:
        with pytest.raises(Hopeless):
            client.generate(timeout_ms=1500)
        assert len(server.requests) == 1
        with pytest.raises(Hopeless):
            client.generate(timeout_ms=0)
        assert server.asked()["timeout_ms"] == 0  # which the server refuses: nobody mends it on the way


def test_the_client_waits_as_long_as_the_request_may_take(open_client: Open) -> None:
    server = Scripted(picture())
    with open_client("http://limner", transport=server.transport, timeout=2.0) as client:
        client.generate()
        client.generate(timeout_ms=30_000)
    assert server.requests[0].extensions["timeout"]["read"] == 2
    assert server.requests[1].extensions["timeout"]["read"] > 30
    assert server.requests[1].extensions["timeout"]["connect"] == 2


def test_a_port_where_nobody_listens_is_a_connection_that_failed(open_client: Open) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        with open_client(url, retries=QUICK) as client:
            with pytest.raises(ConnectionFailed, match=url):
                client.generate()
            assert (client.alive(), client.ready()) == (False, False)


def test_a_server_that_never_answers_has_the_clients_timeout(open_client: Open) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        with open_client(url, timeout=0.2) as client, pytest.raises(TimedOut, match=url):
            client.models()


# health


def test_a_server_that_serves_is_alive_and_ready(client: Client) -> None:
    assert (client.alive(), client.ready()) == (True, True)
    client.wait_until_ready(seconds=1)


def test_a_server_that_drains_is_alive_and_not_ready(open_client: Open) -> None:
    server = Scripted(httpx.Response(200, text="alive\n"), refusal(503, "not-ready"))
    with open_client("http://limner", transport=server.transport) as client:
        assert (client.alive(), client.ready()) == (True, False)
    assert len(server.requests) == 2


def test_waiting_ends_when_the_server_is_ready_or_the_time_is_up(open_client: Open) -> None:
    server = Scripted(
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("it warms up"),
        refusal(503, "not-ready"),
        httpx.Response(200, text="ready\n"),
    )
    with open_client("http://limner", transport=server.transport) as client:
        client.wait_until_ready()
    assert len(server.requests) == 4
    server = Scripted(httpx.ConnectError("refused"))
    opened = open_client("http://limner", transport=server.transport)
    with opened as client, pytest.raises(ConnectionFailed, match="no limner server answers"):
        client.wait_until_ready(seconds=0.3)
    assert len(server.requests) > 1


# downloads


@pytest.mark.parametrize("ending", ["npy", "zip"])
def test_a_large_answer_is_written_while_it_arrives(client: Client, tmp_path: Path, ending: str) -> None:
    seen: list[Progress] = []
    n = 1100  # more than the server makes before it sends anything
    saved = client.download(tmp_path / f"many.{ending}", "2", n, seed=5, model="digits", progress=seen.append)
    assert (saved.path, saved.size) == (tmp_path / f"many.{ending}", (tmp_path / f"many.{ending}").stat().st_size)
    assert (saved.format, saved.n, saved.seed, saved.model) == (ending, n, 5, "digits@1")
    assert os.listdir(tmp_path) == [f"many.{ending}"]
    whole = client.generate("2", 8, seed=5, model="digits", format="npy").array()
    if ending == "npy":
        assert np.array_equal(np.load(saved.path)[:8], whole)
    images, received = [one.images for one in seen], [one.bytes for one in seen]
    assert (images, received) == (sorted(images), sorted(received))
    assert len(set(images)) > 3
    assert seen[-1] == Progress(n, n, saved.size, saved.size if ending == "npy" else None)


def test_a_download_has_the_format_of_its_ending_unless_it_is_named(client: Client, tmp_path: Path) -> None:
    assert client.download(tmp_path / "a.jpg", model="plain").format == "jpeg"
    assert client.download(tmp_path / "b", model="plain", format="webp").format == "webp"
    assert (tmp_path / "a.jpg").read_bytes().startswith(b"\xff\xd8")
    assert (tmp_path / "b").read_bytes().startswith(b"RIFF")
    with pytest.raises(ValueError, match=r"\.npy"):
        client.download(tmp_path / "c.tiff")
    with pytest.raises(OSError, match="nowhere"):
        client.download(tmp_path / "nowhere" / "d.png")
    with pytest.raises(InvalidParameter):
        client.download(tmp_path / "e.png", n=100_000, model="plain")
    assert sorted(os.listdir(tmp_path)) == ["a.jpg", "b"]


class Breaking(httpx.SyncByteStream, httpx.AsyncByteStream):
    """The beginning of a body, then an error, or nothing more."""

    def __init__(self, beginning: bytes, error: Exception | None) -> None:
        self._beginning, self._error = beginning, error

    def __iter__(self) -> Iterator[bytes]:
        yield self._beginning
        if self._error is not None:
            raise self._error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece


@pytest.mark.parametrize("error", [None, httpx.RemoteProtocolError("incomplete chunked read"), httpx.ReadTimeout("")])
@pytest.mark.parametrize("ending", ["npy", "zip"])
def test_a_body_that_breaks_off_is_an_error_and_never_a_file(
    open_client: Open, url: str, tmp_path: Path, ending: str, error: Exception | None
) -> None:
    whole = httpx.post(f"{url}/generate", params={"n": 9, "model": "digits", "format": ending}).content
    (tmp_path / f"kept.{ending}").write_bytes(b"old")
    headers = {"X-Limner-Seed": "7", "X-Limner-Model": "m@1"}
    broken = httpx.Response(200, headers=headers, stream=Breaking(whole[:-50], error))
    with open_client("http://limner", transport=Scripted(broken).transport, retries=QUICK) as client:
        with pytest.raises(IncompleteAnswer):
            client.download(tmp_path / f"kept.{ending}", n=9)
        broken.stream, broken.is_stream_consumed, broken.is_closed = Breaking(whole[:-50], error), False, False
        with pytest.raises(IncompleteAnswer):
            client.generate(n=9, format=ending)
    assert (tmp_path / f"kept.{ending}").read_bytes() == b"old"
    assert os.listdir(tmp_path) == [f"kept.{ending}"]


@pytest.mark.parametrize("length", ["1000", ""])
def test_a_short_body_of_a_real_connection_is_an_error(
    open_client: Open, stranger: Stranger, length: str, tmp_path: Path
) -> None:
    headers = {"Content_Length": length, "X_Limner_Seed": "1", "X_Limner_Model": "m@1"}
    with stranger(200, b"\x89PNG", **headers) as url, open_client(url, retries=QUICK) as client:
        with pytest.raises(IncompleteAnswer):
            client.generate()
        with pytest.raises(IncompleteAnswer):
            client.download(tmp_path / "a.png")
    assert os.listdir(tmp_path) == []
