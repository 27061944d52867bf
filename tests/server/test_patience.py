"""Who keeps the server waiting is cut off; who waits for it, or moves, is not."""

import contextlib
import socket
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from server import patience, process
from server.patience import Patience

PATIENCE = 20.0  # seconds until a test that would hang fails
SHORT = 0.6  # seconds that a client may keep the server waiting here


@dataclass(eq=False)
class Connection:
    moves: object = None
    closed: bool = False

    def awaited(self) -> object:
        return self.moves

    def cut(self) -> None:
        self.closed = True


def test_who_does_not_move_is_cut_and_nobody_else() -> None:
    now = [100.0]
    patience = Patience(60, lambda: now[0])
    still, moving, idle, late = Connection("head"), Connection(0), Connection(), Connection()
    for second in range(130):
        now[0] += 1
        moving.moves = second
        late.moves = "body" if second >= 90 else None
        patience.look([still, moving, idle, late])
        assert still.closed == (second >= 60)
        assert not any(other.closed for other in (moving, idle, late))


def test_a_wait_is_counted_from_its_own_beginning() -> None:
    now = [0.0]
    patience, one = Patience(60, lambda: now[0]), Connection("first")
    for moves in ("first", "second", None, "second"):
        one.moves = moves
        for _ in range(59):
            now[0] += 1
            patience.look([one])
    assert not one.closed


def test_nothing_of_a_closed_connection_is_kept() -> None:
    now = [0.0]
    patience, one = Patience(60, lambda: now[0]), Connection("first")
    for second, connections in ((1, [one]), (30, []), (70, [one])):
        now[0] = second
        patience.look(connections)
    assert not one.closed


# real sockets


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "Patience", partial(Patience, SHORT))
    monkeypatch.setattr(patience, "PAUSE", 0.1)


def rest(connection: socket.socket) -> bytes:
    """All that still comes, until the end of the connection."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize("said", [b"", b"GET /generate HTT", b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: "])
def test_a_request_that_never_ends_is_cut_also_where_it_grows(application: Any, said: bytes) -> None:
    with application.connected(said) as connection:
        connection.settimeout(0.2)
        until = time.monotonic() + PATIENCE
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            while time.monotonic() < until:
                try:
                    if connection.recv(1) == b"":
                        break
                except TimeoutError:
                    if said.endswith(b"X: "):
                        connection.sendall(b"a")  # a byte at a time would go on for days
        assert time.monotonic() < until


def test_a_body_that_never_comes_is_cut_and_counted_as_left(application: Any) -> None:
    head = b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{"
    with application.connected(head) as connection:
        assert rest(connection) == b""
    application.until(lambda: application.metric('limner_requests_total{code="499",route="/generate"} 1.0'))
    application.until(lambda: application.metric("limner_in_flight_requests 1.0"))


@pytest.mark.parametrize(
    "path",
    [
        "/generate?n=100000&format=npy",  # which waits for its client
        "/generate?n=1024&format=npy&seed=1",  # which is made, and waits in the server's memory
    ],
)
@pytest.mark.parametrize("last", [b"", b"Connection: close\r\n"])
def test_an_answer_that_nobody_takes_is_cut(application: Any, path: str, last: bytes) -> None:
    with application.connected(b"GET %b HTTP/1.1\r\nHost: x\r\n%b\r\n" % (path.encode(), last), 1 << 12) as connection:
        assert connection.recv(5, socket.MSG_PEEK) == b"HTTP/"
        end = time.monotonic() + PATIENCE
        while connections(application) > 1 and time.monotonic() < end:  # of `application.client`
            time.sleep(0.05)
        assert connections(application) == 1
        assert len(rest(connection)) < 1024 * 32 * 32 * 3
    application.until(lambda: application.metric("limner_in_flight_requests 1.0"))


def connections(application: Any) -> int:
    """That the server has, by the kernel's table."""
    port = f":{application.client.base_url.port:04X}"
    application.client.get("/healthz")
    with open("/proc/net/tcp", encoding="ascii") as table:
        rows = [line.split() for line in table][1:]
    return sum(1 for row in rows if row[1].endswith(port) and row[3] in ("01", "04", "08") and row[9] != "0")


def test_who_reads_slowly_gets_all_of_it(application: Any) -> None:
    request = b"GET /generate?n=1024&format=npy HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with application.connected(request, receive_buffer=1 << 12) as connection:
        read = 0
        for _ in range(12):  # a little at a time, for much longer than one may pause
            read += len(connection.recv(1 << 14))
            time.sleep(SHORT / 4)
        read += len(rest(connection))
    assert read > 1024 * 32 * 32 * 3


@pytest.mark.usefixtures("waits")
def test_who_waits_for_the_engine_is_not_cut(application: Any) -> None:
    for path in (b"/generate", b"/generate?n=100000&format=npy"):
        running, let_go = application.hold()
        with application.connected(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path) as connection:
            assert running.wait(PATIENCE)
            time.sleep(2 * SHORT)
            let_go.set()
            assert connection.recv(12) == b"HTTP/1.1 200"
        application.engine.sabotage = None
