"""A request whose very bytes were understood before is not parsed again; whatever is not the same, or not alone, is."""

import http.client
import socket
import time
from typing import Any

import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from server import express

CHANGES = {"date", "server-timing"}


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What went through the parser of HTTP."""
    seen: list[bytes] = []
    feed = HttpToolsProtocol.data_received

    def told(self: HttpToolsProtocol, data: bytes) -> None:
        seen.append(data)
        feed(self, data)

    monkeypatch.setattr(HttpToolsProtocol, "data_received", told)
    return seen


class Talk:
    """One connection: what is sent, and then the answer to it."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self._answers = connection, connection.makefile("rb")

    def __call__(self, *pieces: bytes) -> tuple[int, dict[str, str], bytes]:
        for piece in pieces:
            self._connection.sendall(piece)
            time.sleep(0.05 if len(pieces) > 1 else 0)  # so that each arrives by itself
        status = int(self._answers.readline().split()[1])
        headers = {name.lower(): value for name, value in http.client.parse_headers(self._answers).items()}
        return status, headers, self._answers.read(int(headers["content-length"]))


SEVEN = b"POST /generate?seed=7 HTTP/1.1\r\nHost: x\r\n\r\n"


def test_the_very_bytes_that_were_understood_are_not_parsed_again(application: Any, parsed: list[bytes]) -> None:
    with application.connected() as connection, application.connected() as other:
        talk, talk_too = Talk(connection), Talk(other)
        first, again, too = talk(SEVEN), talk(SEVEN), talk_too(SEVEN)
        assert parsed == [SEVEN]
        assert first[0] == again[0] == too[0] == 200
        assert first[2] == again[2] == too[2]
        ids = {answer[1].pop("x-request-id") for answer in (first, again, too)}
        assert len(ids) == 3
        for answer in (first, again, too):
            assert all(answer[1].pop(name) for name in CHANGES)
        assert first[1] == again[1] == too[1]
        assert application.metric('limner_requests_total{code="200",route="/generate"} 3.0')


def test_what_is_not_the_same_to_a_byte_or_not_alone_is_parsed(application: Any, parsed: list[bytes]) -> None:
    with application.connected() as connection:
        talk = Talk(connection)
        talk(SEVEN)
        del parsed[:]
        assert talk(SEVEN[:20], SEVEN[20:])[0] == 200
        assert parsed == [SEVEN[:20], SEVEN[20:]]
        assert talk(b"P", SEVEN[1:])[0] == 200
        assert talk(SEVEN.replace(b"7", b"8"))[2] != talk(SEVEN)[2]
        assert len(parsed) == 5  # the last one is known
        connection.sendall(SEVEN + SEVEN)
        assert [talk()[0], talk()[0]] == [200, 200]
        assert parsed[-1] == SEVEN + SEVEN
        assert talk(SEVEN)[0] == 200
        assert parsed[-1] == SEVEN + SEVEN  # two at once are not taken for one, also not later
        connection.sendall(SEVEN + SEVEN)
        assert [talk()[0], talk()[0]] == [200, 200]
        assert len(parsed) == 7


def test_a_request_behind_the_beginning_of_another_is_its_rest(application: Any, parsed: list[bytes]) -> None:
    with application.connected() as connection:
        talk = Talk(connection)
        talk(SEVEN)
        status, _, body = talk(b"GET /models HTTP/1.1\r\nHost: x\r\nX-Rest: ", SEVEN)
        assert (status, body[:1]) == (200, b"{")  # of /models, among whose headers it is
        assert parsed[-1] == SEVEN


def test_who_names_his_requests_hears_his_names(application: Any, parsed: list[bytes]) -> None:
    with application.connected() as connection:
        talk = Talk(connection)
        named = SEVEN.replace(b"Host: x", b"X-REQUEST-id: mine")
        for _ in range(2):
            assert talk(named)[1]["x-request-id"] == "mine"
        assert parsed == [named] * 2


def test_no_more_than_so_many_requests_are_remembered(
    application: Any, parsed: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(express, "REMEMBERED", 3)
    requests = [SEVEN.replace(b"7", str(seed).encode()) for seed in range(4)]
    with application.connected() as connection:
        talk = Talk(connection)
        for request in (*requests, requests[3], requests[0]):
            assert talk(request)[0] == 200
    assert parsed == [*requests, requests[0]]


def test_a_long_request_is_not_remembered(application: Any, parsed: list[bytes]) -> None:
    long = SEVEN.replace(b"Host: x", b"Cookie: " + b"x" * express.LONGEST_REQUEST)
    with application.connected() as connection:
        talk = Talk(connection)
        assert [talk(long)[0], talk(long)[0]] == [200, 200]
    assert parsed == [long] * 2
