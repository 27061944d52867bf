"""An answer of one body is one write; everything else is written as it comes."""

import asyncio
import socket
from typing import Any

import pytest

from server.wire import _Joining

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


def test_a_picture_arrives_with_its_headers(application: Any) -> None:
    place = application.client.base_url
    with socket.create_connection((place.host, place.port or 80)) as connection:
        connection.settimeout(20)
        connection.sendall(b"GET /generate?seed=1 HTTP/1.1\r\nHost: x\r\n\r\n")
        head, _, body = connection.recv(1 << 16).partition(b"\r\n\r\n")
        (length,) = [line.split(b":")[1] for line in head.splitlines() if line.lower().startswith(b"content-length")]
        assert len(body) == int(length)
