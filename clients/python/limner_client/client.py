"""Calls in, HTTP out, one thread at a time: the synchronous client. `async_client.py` is the other way to wait."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
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


class Client(Connection):
    """Asks one server. Safe to share between threads; close it, or use it as a context manager."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        timeout: float | None = 60.0,
        retries: Retries | None = Retries(),  # noqa: B008 (frozen)
        headers: Mapping[str, str] | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """`timeout` is in seconds, of each try, for a connection and then between two pieces of an answer; None: none.

        `retries=None` turns them off. `headers` go with every request, as `Authorization` for a proxy does; `transport`
        is httpx's, for a Unix socket, say. Raises InvalidAddress.
        """
        super().__init__(url, timeout, retries, headers)
        self._http = httpx.Client(**self.options(), transport=transport)

    def generate(self, label: int | str | None = None, n: int = 1, **options: Unpack[Options]) -> Answer:
        """Ask for n images: a class name or index, or None for a class from each image's seed.

        `options`: seed, truncation, format ("png"), scale, quality, model, version, timeout_ms, priority; `Options`
        says what they mean. Raises ApiError where the server refuses (InvalidParameter: `field`, `value`, `allowed`)
        and ConnectionFailed where none answers.
        """
        return self._ask(calls.generate(label, n, options))

    def download(
        self,
        path: str | Path,
        label: int | str | None = None,
        n: int = 1,
        *,
        progress: Callable[[Progress], None] | None = None,
        **options: Unpack[Options],
    ) -> Saved:
        """As `generate`, into a file while it arrives: an npy or zip of 100,000 images takes no memory here.

        The format is that of the file's ending, unless given. The file appears under its name once it is whole; nothing
        is left of a failure. `progress` is called for every piece. Raises IncompleteAnswer where the server broke off,
        OSError where it cannot be written, ValueError where the ending is no format's.
        """
        call = calls.generate(label, n, calls.format_of(Path(path), options))
        with Download(call, path, progress) as download:

            def take(response: httpx.Response) -> Saved:
                download.begin(response)
                for piece in response.iter_bytes():
                    download.add(piece)
                return download.finish()

            return self._try(call, take, self.retries)

    def models(self) -> Models:
        """All that is served, and what answers where a request names no model."""
        return self._ask(calls.models())

    def model(self, name: str) -> ServedModel:
        """One model with its versions. Raises NotFound."""
        return self._ask(calls.model(name))

    def alive(self) -> bool:
        """Whether a limner server answers at all, also while it drains. One try of 5 seconds."""
        return self._holds(calls.alive())

    def ready(self) -> bool:
        """Whether the server takes requests: warmed up, and not draining. One try of 5 seconds."""
        return self._holds(calls.ready())

    def wait_until_ready(self, seconds: float = 60.0) -> None:
        """Return once it is. Raises the last failure, ConnectionFailed or NotReady, after so many seconds."""
        self._ask(calls.ready(), Retries(sys.maxsize, seconds, first=0.1, longest=1.0, timeouts=True))

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, call: Call[T], retries: Retries | None = None) -> T:
        """The answer of a call whose body is read whole."""

        def take(response: httpx.Response) -> T:
            response.read()
            return call.read(response)

        return self._try(call, take, retries or self.retries)

    def _holds(self, call: Call[None]) -> bool:
        try:
            self._ask(call, OFF)
        except InvalidAddress:
            raise
        except (ApiError, ConnectionFailed):
            return False
        return True

    def _try(self, call: Call[Any], take: Callable[[httpx.Response], T], retries: Retries) -> T:
        """What `take` makes of a successful answer, after as many tries as it may have."""
        effort = Effort(retries, time.monotonic(), call.seconds)
        while True:
            try:
                with self._answer(call.request(self._http, effort.left(time.monotonic()))) as response:
                    return take(response)
            except ClientError as error:
                seconds = effort.wait(error, time.monotonic())
            time.sleep(seconds)

    @contextmanager
    def _answer(self, request: httpx.Request) -> Iterator[httpx.Response]:
        """A successful answer, its body to be read inside. What httpx raises, before or inside, is a ClientError."""
        answering = False
        try:
            response = self._http.send(request, stream=True)
            answering = True
            with contextlib.closing(response):
                if not response.is_success:
                    with contextlib.suppress(httpx.HTTPError):
                        response.read()
                    raise api_error(response)
                yield response
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise transport_error(error, self.url, answering=answering) from error
