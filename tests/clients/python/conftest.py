"""Both clients behind one face, and servers that are none."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from limner_client import AsyncClient, Client

Open = Callable[..., AbstractContextManager[Any]]


class Awaited:
    """An AsyncClient whose coroutines are run to their end, one at a time."""

    def __init__(self, client: AsyncClient, runner: asyncio.Runner) -> None:
        self._client, self._runner = client, runner

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *arguments, **options: self._runner.run(getattr(self._client, name)(*arguments, **options))


@contextmanager
def _awaited(*arguments: Any, **options: Any) -> Iterator[Awaited]:
    with asyncio.Runner() as runner:
        client = AsyncClient(*arguments, **options)
        try:
            yield Awaited(client, runner)
        finally:
            runner.run(client.aclose())


@pytest.fixture(params=["Client", "AsyncClient"])
def open_client(request: pytest.FixtureRequest) -> Open:
    """`with open_client(url, retries=None) as client`: the one client, then the other, asked in the same words."""
    return Client if request.param == "Client" else _awaited


@pytest.fixture
def client(open_client: Open, url: str) -> Iterator[Any]:
    with open_client(url) as made:
        yield made


@contextmanager
def _stranger(status: int, body: bytes, **headers: str) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            for name, value in ({"Content_Length": str(len(body))} | headers).items():
                if value:
                    self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer  # noqa: N815

        def log_message(self, format: str, *args: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def stranger() -> Callable[..., AbstractContextManager[str]]:
    """`with stranger(502, b"...", Retry_After="1") as url`: a server that gives everybody the same answer.

    An empty header is left out: without Content_Length the body ends where the connection does.
    """
    return _stranger
