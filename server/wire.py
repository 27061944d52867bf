"""Answers in, as few writes as they need out: the head of one goes with its body, in one packet.

uvicorn writes them one after the other, and uvloop hands each to the kernel at once.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from server.express import Express

HEAD = b"HTTP/1.1 "


class Protocol(HttpToolsProtocol):
    """uvicorn's, on a transport that keeps heads back; what the express takes does not become an ASGI cycle."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._plain = transport
        self._express: Express = self.config.app.express  # type: ignore[union-attr]
        super().connection_made(_Joining(transport, self.loop))  # type: ignore[arg-type]

    def on_headers_complete(self) -> None:
        parser, before = self.parser, self.cycle
        assert parser is not None
        free = (before is None or before.response_complete) and not self.flow.write_paused
        if free and parser.get_http_version() == "1.1" and parser.should_keep_alive():
            ride = self._express.take(self, parser.get_method(), self.url, self.headers)
            if ride is not None:
                self.cycle = ride  # type: ignore[assignment]
                return
        super().on_headers_complete()

    def answer(self, code: int, data: bytes) -> None:
        """Of the express: the headers behind the date, and the body."""
        if self._plain.is_closing():
            return
        parts = [STATUS_LINE[code]]
        for name, value in self.server_state.default_headers:
            parts += (name, b": ", value, b"\r\n")
        if self.cycle.keep_alive:
            self._plain.write(b"".join((*parts, data)))
        else:  # the server is about to stop
            self._plain.write(b"".join((*parts, b"connection: close\r\n", data)))
            self._plain.close()
        self.on_response_complete()


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
