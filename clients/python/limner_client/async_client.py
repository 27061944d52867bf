"""Calls in, HTTP out, as coroutines: `client.py` with `await`. What both ask and understand is in `calls.py`."""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import httpx

from limner_client import calls
from limner_client.answers import Answer, Saved
from limner_client.calls import Call, Models, Options, ServedModel
from limner_client.connection import DEFAULT_URL, Connection
from limner_client.downloads import Download, Progress
from limner_client.errors import ApiError, ClientError, ConnectionFailed, InvalidAddress, api_error, transport_error
from limner_client.retries import OFF, Effort, Retries

T = TypeVar("T")


class AsyncClient(Connection):
    """Client as coroutines of asyncio: the same methods, arguments, answers and errors; `aclose` instead of `close`.

    Any number of calls may be under way at a time, in one event loop.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        timeout: float | None = 60.0,
        retries: Retries | None = Retries(),  # noqa: B008 (frozen)
        headers: Mapping[str, str] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """As Client; `transport` is an asynchronous one."""
        super().__init__(url, timeout, retries, headers)
        self._http = httpx.AsyncClient(**self.options(), transport=transport)

    async def generate(self, label: int | str | None = None, n: int = 1, **options: Unpack[Options]) -> Answer:
        """As `Client.generate`."""
        return await self._ask(calls.generate(label, n, options))

    async def download(
        self,
        path: str | Path,
        label: int | str | None = None,
        n: int = 1,
        *,
        progress: Callable[[Progress], None] | None = None,
        **options: Unpack[Options],
    ) -> Saved:
        """As `Client.download`; `progress` is called in the event loop."""
        call = calls.generate(label, n, calls.format_of(Path(path), options))
        with Download(call, path, progress) as download:

            async def take(response: httpx.Response) -> Saved:
                download.begin(response)
                async for piece in response.aiter_bytes():
                    download.add(piece)
                return download.finish()

            return await self._try(call, take, self.retries)

    async def models(self) -> Models:
        """As `Client.models`."""
        return await self._ask(calls.models())

    async def model(self, name: str) -> ServedModel:
        """As `Client.model`."""
        return await self._ask(calls.model(name))

    async def alive(self) -> bool:
        """As `Client.alive`."""
        return await self._holds(calls.alive())

    async def ready(self) -> bool:
        """As `Client.ready`."""
        return await self._holds(calls.ready())

    async def wait_until_ready(self, seconds: float = 60.0) -> None:
        """As `Client.wait_until_ready`."""
        await self._ask(calls.ready(), Retries(sys.maxsize, seconds, first=0.1, longest=1.0, timeouts=True))

    async def aclose(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _ask(self, call: Call[T], retries: Retries | None = None) -> T:
        """The answer of a call whose body is read whole."""

        async def take(response: httpx.Response) -> T:
            await response.aread()
            return call.read(response)

        return await self._try(call, take, retries or self.retries)

    async def _holds(self, call: Call[None]) -> bool:
        try:
            await self._ask(call, OFF)
        except InvalidAddress:
            raise
        except (ApiError, ConnectionFailed):
            return False
        return True

    async def _try(self, call: Call[Any], take: Callable[[httpx.Response], Awaitable[T]], retries: Retries) -> T:
        """What `take` makes of a successful answer, after as many tries as it may have."""
        effort = Effort(retries, time.monotonic(), call.seconds)
        while True:
            try:
                async with self._answer(call.request(self._http, effort.left(time.monotonic()))) as response:
                    return await take(response)
            except ClientError as error:
                seconds = effort.wait(error, time.monotonic())
            await asyncio.sleep(seconds)

    @asynccontextmanager
    async def _answer(self, request: httpx.Request) -> AsyncIterator[httpx.Response]:
        """A successful answer, its body to be read inside. What httpx raises, before or inside, is a ClientError."""
        answering = False
        try:
            response = await self._http.send(request, stream=True)
            answering = True
            async with contextlib.aclosing(response):
                if not response.is_success:
                    with contextlib.suppress(httpx.HTTPError):
                        await response.aread()
                    raise api_error(response)
                yield response
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise transport_error(error, self.url, answering=answering) from error
