"""An answer of one body is one write; everything else is written as it comes. And what else a connection may bring."""

import asyncio
import io
import json
import socket
import time
import zipfile
from functools import partial
from typing import Any

import numpy as np
import pytest
import uvicorn

from server.wire import _Joining

PATIENCE = 20.0  # seconds until a test that would hang fails
HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


class Transport:
    """What was written, a list for each call, and whether it was closed."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.writes.append(data)

    def writelines(self, parts: tuple[bytes, ...]) -> None:
        self.write(b"".join(parts))

    def close(self) -> None:
        self.closed = True

    def get_extra_info(self, name: str) -> str:
        return name


@pytest.mark.parametrize(
    ("writes", "closes", "out"),
    [
        ([HEAD, b"body"], False, [HEAD + b"body"]),
        ([HEAD], False, [HEAD]),  # a 304, an answer to HEAD, or a body that comes later
        ([HEAD], True, [HEAD]),
        ([HEAD, b"one", b"two"], True, [HEAD + b"one", b"two"]),
        ([HEAD, b"a", HEAD, b"b"], False, [HEAD + b"a", HEAD + b"b"]),  # pipelined
        ([HEAD, HEAD], False, [HEAD + HEAD]),
        ([b"HTTP/1.0 odd", b""], False, [b"HTTP/1.0 odd", b""]),
    ],
)
def test_a_head_waits_for_its_body_in_the_same_turn(writes: list[bytes], closes: bool, out: list[bytes]) -> None:
    async def run() -> Transport:
        transport: Any = Transport()
        joining = _Joining(transport, asyncio.get_running_loop())
        for data in writes:
            joining.write(data)
        if closes:
            joining.close()
        await asyncio.sleep(0)
        assert joining.get_extra_info("peername") == "peername"
        return transport

    transport = asyncio.run(run())
    assert transport.writes == out
    assert transport.closed == closes


# real sockets


def whole(connection: socket.socket) -> tuple[bytes, bytes]:
    """Head and body of what comes until the connection ends."""
    parts = []
    while part := connection.recv(1 << 16):
        parts.append(part)
    head, _, body = b"".join(parts).partition(b"\r\n\r\n")
    return head.lower(), body


def test_a_picture_arrives_with_its_headers(application: Any) -> None:
    with application.connected(b"GET /generate?seed=1 HTTP/1.1\r\nHost: x\r\n\r\n") as connection:
        head, _, body = connection.recv(1 << 16).partition(b"\r\n\r\n")
        (length,) = [line.split(b":")[1] for line in head.splitlines() if line.lower().startswith(b"content-length")]
        assert len(body) == int(length)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"FOO / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/3.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: a\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: \0\r\n\r\n",
        b"POST /generate HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /generate HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 1\r\n\r\n",
        b"\x16\x03\x01 a TLS hello",
    ],
)
def test_what_is_no_request_is_a_400_problem_and_the_end(application: Any, request_bytes: bytes) -> None:
    with application.connected(request_bytes) as connection:
        head, body = whole(connection)
    assert head.startswith(b"http/1.1 400 bad request\r\n")
    assert b"\r\ncontent-type: application/problem+json\r\n" in head + b"\r\n"
    assert b"\r\nconnection: close" in head
    assert json.loads(body)["type"] == "urn:limner:problem:malformed-request"


@pytest.mark.usefixtures("waits")
def test_what_is_no_request_does_not_get_between_an_answer_and_its_client(application: Any) -> None:
    """Somebody's request has not been answered: the next words are its answer, and no other."""
    running, let_go = application.hold()
    with application.connected(b"GET /generate?n=2 HTTP/1.1\r\nHost: x\r\n\r\n") as connection:
        assert running.wait(PATIENCE)
        connection.sendall(b"nonsense\r\n\r\n")
        assert whole(connection) == (b"", b"")
    application.until(lambda: application.metric('limner_requests_total{code="499",route="/generate"} 1.0'))
    let_go.set()


@pytest.mark.parametrize(
    ("begin", "more"),
    [
        (b"GET /", b"a"),
        (b"GET /generate?", b"label=a&"),
        (b"GET / HTTP/1.1\r\nX: ", b"a"),
        (b"GET / HTTP/1.1\r\n", b"X: y\r\n"),
        (b"POST /generate HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n", b"X: y\r\n"),  # trailers
        (b"POST /generate HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"extension"),
    ],
)
def test_a_head_without_an_end_is_not_kept(application: Any, begin: bytes, more: bytes) -> None:
    flood = more * ((26 << 20) // len(more))  # of which the kernel takes a few MB
    with application.connected(begin) as connection, pytest.raises((ConnectionResetError, BrokenPipeError)):
        connection.sendall(flood)
    assert application.client.get("/healthz").status_code == 200


def test_a_head_that_is_too_long_is_a_431_problem(application: Any) -> None:
    with application.connected(b"GET /generate HTTP/1.1\r\nX: ") as connection:
        connection.sendall(b"a" * 50_000)
        time.sleep(0.1)
        connection.sendall(b"a" * 15_600)
        head, body = whole(connection)
    assert head.startswith(b"http/1.1 431 ")
    assert json.loads(body)["type"] == "urn:limner:problem:head-too-large"


def test_a_long_pipeline_of_small_requests_is_no_long_head(application: Any) -> None:
    request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    last = request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    with application.connected(request * 4000 + last) as connection:
        head, body = whole(connection)
    assert (head + body).lower().count(b"http/1.1 200 ok") == 4001


def test_what_follows_a_body_is_none_of_the_headers(application: Any) -> None:
    """A proxy that looks at headers has not seen it (RFC 9110, section 6.5.1)."""
    request = (
        b"POST /generate?seed=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"0\r\nAccept: text/html\r\n\r\n"
    )
    with application.connected(request) as connection:
        head, _ = whole(connection)
    assert head.startswith(b"http/1.1 200 ")
    assert b"content-type: image/png" in head


@pytest.mark.parametrize("keeps", [b"", b"Connection: keep-alive\r\n"])
def test_http_1_0_gets_bodies_without_chunks(application: Any, keeps: bytes) -> None:
    def ask(query: str, method: str = "GET") -> tuple[bytes, bytes]:
        request = b"%b /generate?%b HTTP/1.0\r\n%b\r\n" % (method.encode(), query.encode(), keeps)
        with application.connected(request) as connection:
            return whole(connection)

    head, body = ask("n=1500&format=zip&seed=1")
    assert b"transfer-encoding" not in head
    assert b"connection: close" in head
    assert body == application.client.get("/generate?n=1500&format=zip&seed=1").content
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        assert len(archive.namelist()) == 1501
    head, body = ask("n=1500&format=npy&seed=1")
    assert b"content-length: %d" % len(body) in head
    assert np.load(io.BytesIO(body)).shape == (1500, 32, 32, 3)
    assert ask("seed=1")[1] == application.client.get("/generate?seed=1").content
    head, body = ask("n=1500&format=zip&seed=1", "HEAD")
    assert (head[:12], body) == (b"http/1.1 200", b"")


def test_a_long_answer_of_http_1_0_that_fails_on_the_way_is_no_archive(application: Any) -> None:
    application.fail_after(5)
    with application.connected(b"GET /generate?n=1500&format=zip HTTP/1.0\r\n\r\n") as connection:
        _, body = whole(connection)
    with pytest.raises(zipfile.BadZipFile):
        zipfile.ZipFile(io.BytesIO(body))


@pytest.mark.parametrize("path", [b"/generate?seed=1", b"/healthz", b"/playground/index.html"])
def test_who_asks_for_a_websocket_gets_the_page(application: Any, path: bytes) -> None:
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAA\r\n"
    with application.connected(b"GET %b HTTP/1.1\r\nHost: x\r\n%b\r\n" % (path, upgrade)) as connection:
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("first", [b"/generate?n=2&seed=1", b"/generate?n=100000&format=npy"])
@pytest.mark.usefixtures("waits")
def test_who_leaves_with_more_in_the_pipe_is_gone_for_all_of_it(application: Any, first: bytes) -> None:
    running, let_go = application.hold()
    pipeline = b"GET %b HTTP/1.1\r\nHost: x\r\n\r\nGET /generate HTTP/1.1\r\nHost: x\r\n\r\n" % first
    with application.connected(pipeline):
        assert running.wait(PATIENCE)
        time.sleep(0.2)  # who waits is watched after a while
    application.until(lambda: application.metric('limner_cancelled_total{model="plain@1"} 1.0'))
    application.until(lambda: application.metric('limner_requests_total{code="499",route="/generate"} 1.0'))
    let_go.set()
    application.until(lambda: application.metric("limner_in_flight_requests 1.0"))
    assert application.metric('limner_requests_total{code="200",route="/generate"} 0.0')


@pytest.fixture
def short_pause(monkeypatch: pytest.MonkeyPatch) -> int:
    """Seconds after an answer in which a client may ask for more."""
    seconds = 2
    monkeypatch.setattr(uvicorn, "Config", partial(uvicorn.Config, timeout_keep_alive=seconds))
    return seconds


@pytest.mark.parametrize("path", ["/generate?seed=1", "/models"])
def test_a_connection_is_closed_some_seconds_after_its_last_answer(
    short_pause: int, application: Any, path: str
) -> None:
    """And not after its first: whoever goes on asking keeps it for longer than that."""
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    with application.connected() as connection:
        began = asked = time.monotonic()
        while asked - began < short_pause + 0.5:
            asked = time.monotonic()
            connection.sendall(request)
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200 OK\r\n")
            time.sleep(0.4)
        assert connection.recv(1) == b""
        assert time.monotonic() - asked > short_pause - 0.1


@pytest.mark.usefixtures("waits")
def test_whoever_waits_for_longer_than_that_has_his_answer(short_pause: int, application: Any) -> None:
    request = b"GET /generate?seed=1 HTTP/1.1\r\nHost: x\r\n\r\n"
    with application.connected(request) as connection:
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200 OK\r\n")
        running, let_go = application.hold()
        connection.sendall(request)
        assert running.wait(PATIENCE)
        time.sleep(short_pause + 0.5)
        let_go.set()
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200 OK\r\n")
        assert connection.recv(1) == b""


def test_whoever_was_answered_before_his_body_came_does_not_keep_the_connection(
    short_pause: int, application: Any
) -> None:
    asked = b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
    with application.connected(asked) as connection:
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 404 ")
        time.sleep(short_pause / 2)
        began = time.monotonic()
        connection.sendall(b"x")  # still alive
        assert connection.recv(1) == b""
        assert time.monotonic() - began > short_pause - 0.1
