"""Requests in, the same requests out, each with an id, counted, and logged where it failed."""

import asyncio
import random
import re
import time
import traceback
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.errors import unexpected
from server.telemetry import Metrics, log
from training.errors import LimnerError

_ids = random.Random()  # noqa: S311 (names, no secrets)
REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
UNROUTED = "unmatched"  # one label for every path that no route has, whatever a client sends
LEFT = 499  # nginx's code for a request whose client is gone before the answer: nobody's fault here
CUT = 503  # the drain was over before the answer was whole


@dataclass
class Drain:
    """Since when a signal has asked the server to stop, and how many requests must still be answered."""

    since: float | None = None
    in_flight: int = 0

    @property
    def started(self) -> bool:
        return self.since is not None

    @property
    def seconds(self) -> float:
        """0 where nobody has asked."""
        return 0.0 if self.since is None else time.monotonic() - self.since

    def start(self) -> None:
        self.since = time.monotonic()


class RequestObserver:
    """ASGI middleware: gives each request an id, counts it by route and in flight, and logs each 5xx in one line."""

    def __init__(self, app: ASGIApp, metrics: Metrics, drain: Drain) -> None:
        self.app = app
        self.metrics = metrics
        self.drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.monotonic()
        name = request_id(next((value for key, value in scope["headers"] if key == b"x-request-id"), b""))
        state: MutableMapping[str, Any] = scope.setdefault("state", {})
        code, started = 500, False

        async def send_marked(message: Message) -> None:
            nonlocal code, started
            if message["type"] == "http.response.start":
                code, started = message["status"], True
                message["headers"] = [*message["headers"], (b"x-request-id", name.encode("ascii"))]
            await send(message)

        failure: BaseException | None = None
        self.drain.in_flight += 1
        try:
            await self.app(scope, receive, send_marked)
        except ClientDisconnect:
            code = LEFT
        except asyncio.CancelledError:  # the end of the drain cuts what is left
            code = CUT if self.drain.started else LEFT
            raise
        except Exception as error:  # a fault of limner, answered here so that its answer has an id too
            failure = error.__cause__ if started and isinstance(error.__cause__, LimnerError) else error
            if started:  # too late for words: the connection is cut, so that a short body is an error to the client
                code = 500
                raise
            await unexpected(scope["path"])(scope, receive, send_marked)
        finally:
            self.drain.in_flight -= 1
            route = getattr(scope.get("route"), "path", None) or UNROUTED
            self.account(route, code, failure or state.get("failure"), time.monotonic() - began, name)

    def account(self, route: str, code: int, failure: BaseException | None, seconds: float, request_id: str) -> None:
        """A request was answered, or will not be: count it, and log it where it failed."""
        self.metrics.answered(route, code, seconds)
        if code == CUT and failure is None:
            log.warning("request cut", request_id=request_id, route=route, seconds=round(seconds, 6))
        elif code >= 500 and not (isinstance(failure, LimnerError) and failure.status == 503):
            log.error(
                "request failed",
                request_id=request_id,
                route=route,
                code=code,
                seconds=round(seconds, 6),
                error=str(failure),
                trace=None if isinstance(failure, LimnerError) or failure is None else _trace(failure),
            )


def request_id(given: bytes) -> str:
    """The one that the client gave, if it is fit to be written down, or another."""
    if given and REQUEST_ID.fullmatch(text := given.decode("latin-1")):
        return text
    return _ids.randbytes(16).hex()


def _trace(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))
