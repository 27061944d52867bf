"""A connection's bytes in, requests out; answers in, as few writes as they need out: a head goes with its body.

uvicorn writes them one after the other, and uvloop hands each to the kernel at once. Mended here is also what else it
lets through: heads without an end, trailers among the headers, chunks to clients of HTTP/1.0, pipelines that are left.
"""

import asyncio
import fcntl
import sys
import termios
from contextlib import suppress
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from server.errors import HeadTooLarge, Malformed, RequestError, problem
from server.express import Express, Ride

HEAD = b"HTTP/1.1 "
LONGEST_HEAD = 1 << 16  # bytes of a request beside its body: twice what nginx takes


class Protocol(HttpToolsProtocol):
    """uvicorn's, on a transport that keeps heads back; what the express takes does not become an ASGI cycle."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._plain = transport
        app: Any = self.config.app
        self._express: Express = app.express
        app.state.repository.in_loop.connected()
        self._unread = 0  # bytes since the last head or piece of a body that was understood
        self._pauses = 0
        self._running: Any = None  # the cycle or ride that is being answered: `cycle` is that of the last request
        self._begun = 0  # requests
        self._between = True  # the last of them has come to its end, and no other has begun
        self._idle_since = 0.0
        self._first, self._first_lines = list[tuple[bytes, bytes]](), b""  # headers of every answer, as lines
        super().connection_made(_Joining(transport, self.loop))  # type: ignore[arg-type]

    def data_received(self, data: bytes) -> None:
        between, begun = self._between, self._begun
        if between and self._free:
            ride = self._express.again(self, data)
            if ride is not None:
                self.cycle = self._running = ride  # type: ignore[assignment]
                return
        self._unread += len(data)
        self._idle_since = self.loop.time()
        super().data_received(data)
        if between and self._between and self._begun == begun + 1 and isinstance(self.cycle, Ride):
            self._express.remember(data, self.cycle)
        if self._unread > LONGEST_HEAD and not self._plain.is_closing():
            self._turn_away(HeadTooLarge(f"a head of over {LONGEST_HEAD} bytes", "Send a smaller one."))

    @property
    def _answered(self) -> bool:
        before = self.cycle
        return before is None or before.response_complete

    @property
    def _free(self) -> bool:
        """Nothing that was asked before has still to be answered or sent."""
        return self._answered and not self.flow.write_paused

    def on_message_begin(self) -> None:
        self._begun += 1
        self._between = False
        super().on_message_begin()

    def on_message_complete(self) -> None:
        self._between = True
        if self.cycle is not None:
            self.cycle.more_body = False  # also of one that was answered before its body came
        super().on_message_complete()

    def on_headers_complete(self) -> None:
        self._unread = 0
        parser = self.parser
        assert parser is not None
        version = parser.get_http_version()
        if self._free and version == "1.1" and parser.should_keep_alive():
            ride = self._express.take(self, parser.get_method(), self.url, self.headers)
            if ride is not None:
                self.cycle = self._running = ride  # type: ignore[assignment]
                return
        super().on_headers_complete()
        self.headers = []  # what comes behind the body is none of the request's headers
        if version == "1.0":
            self.cycle.__class__ = _Unchunked

    def on_body(self, body: bytes) -> None:
        self._unread = 0
        super().on_body(body)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """As uvicorn's, but for the timer."""
        if self.pipeline or self._plain.is_closing():
            super().on_response_complete()
            return
        self.server_state.total_requests += 1
        self.flow.resume_reading()
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._look_after(self.timeout_keep_alive)

    def _unset_keepalive_if_required(self) -> None:
        """Not for each request, which is to uvicorn a timer set and taken back: the one there is looks again."""

    def timeout_keep_alive_handler(self) -> None:
        self.timeout_keep_alive_task = None
        begun = not self._between and not (self.cycle and self.cycle.more_body)  # another request, and not its body
        if begun or not self._answered:  # the end of the answer will set another
            return
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._look_after(left)
        else:
            super().timeout_keep_alive_handler()

    def _look_after(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
        running = self._running
        if running is not None and running is not self.cycle and not running.response_complete:
            running.disconnected = True  # uvicorn tells the last request of a pipeline alone
            running.message_event.set()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        self._pauses += 1
        super().pause_writing()

    def send_400_response(self, msg: str) -> None:
        self._turn_away(Malformed("this is no request of HTTP/1.1", "See RFC 9112."))

    def _turn_away(self, error: RequestError) -> None:
        """Answer what never became a request, and close; without a word where another answer has begun or is due."""
        if self.cycle is None or self.cycle.response_complete:
            response = problem(error)
            pairs = (*self.server_state.default_headers, *response.raw_headers, (b"connection", b"close"))
            head = b"".join(b"%b: %b\r\n" % pair for pair in pairs)
            self.transport.write(b"".join((STATUS_LINE[error.status], head, b"\r\n", response.body)))
        self.transport.close()

    def answer(self, code: int, data: bytes, keep_alive: bool) -> None:
        """Of the express: the headers behind the date, and the body."""
        if self._plain.is_closing():
            return
        first = self.server_state.default_headers
        if self._first is not first:  # another second
            self._first, self._first_lines = first, b"".join(b"%b: %b\r\n" % pair for pair in first)
        if keep_alive:
            self._plain.write(b"".join((STATUS_LINE[code], self._first_lines, data)))
        else:  # the server is about to stop
            self._plain.write(b"".join((STATUS_LINE[code], self._first_lines, b"connection: close\r\n", data)))
            self._plain.close()
        self.on_response_complete()

    def awaited(self) -> object:
        """What the server waits for, another object as soon as the client has moved; None where it waits for none."""
        left = self._plain.get_write_buffer_size()
        if left and (self.flow.write_paused or self._plain.is_closing()):
            return self._pauses, left + _unacknowledged(self._plain)
        cycle = self.cycle
        if cycle is None:
            return self
        return cycle if cycle.response_complete or (cycle.more_body and not self.flow.read_paused) else None

    def cut(self) -> None:
        """Close without another word."""
        self._plain.abort()


class _Unchunked(RequestResponseCycle):
    """Of HTTP/1.0, which knows no chunks: a body whose length nobody knows ends with the connection."""

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self._measured = any(name.lower() == b"content-length" for name, _ in message["headers"])
            self.chunked_encoding = None if self._measured else False
        elif not self._measured:
            self.expected_content_length = len(message.get("body", b""))
        await super().send(message)


def _unacknowledged(transport: asyncio.Transport) -> int:
    """Bytes that the kernel has taken and the client has not."""
    count = bytearray(4)
    with suppress(OSError, ValueError):  # it is closed
        fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, count)
    return int.from_bytes(count, sys.byteorder)


class _Joining:
    """A transport that keeps the head of an answer until its body comes, but no longer than this turn of the loop."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._head = b""

    def write(self, data: bytes) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._transport.writelines((head, data))
        elif data.startswith(HEAD):
            self._head = data
            self._loop.call_soon(self._flush)
        else:
            self._transport.write(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
