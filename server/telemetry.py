"""What the server did, as Prometheus metrics and JSON log lines; and the middleware that sees every request.

Each app has a registry of its own, so that two apps in one process do not count together.
"""

import logging
import re
import sys
import time
import traceback
import uuid
from collections.abc import MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram, Info, disable_created_metrics, generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.batcher import Batch
from server.errors import unexpected
from training.errors import LimnerError

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)  # a row alone to the timeout
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)  # the buckets
REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
UNROUTED = "unmatched"  # one label for every path that no route has, whatever a client sends

log: structlog.stdlib.BoundLogger = structlog.get_logger()


@dataclass
class Drain:
    """Whether a signal has asked the server to stop, and how many requests must still be answered."""

    started: bool = False
    in_flight: int = 0


class Metrics:
    """Every metric of limner, declared once. `text()` is the body of /metrics."""

    def __init__(self) -> None:
        disable_created_metrics()  # a second series beside each counter, which nobody queries
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.requests = Counter("limner_requests", "HTTP requests answered.", ["route", "code"], registry=self.registry)
        self.images = Counter("limner_images", "Images generated.", ["model"], registry=self.registry)
        self.batch_size = Histogram(
            "limner_batch_size", "Images in a batch.", ["model"], buckets=BATCH_SIZES, registry=self.registry
        )
        self.queue = self._seconds("limner_queue_seconds", "From a request's arrival to its first batch.")
        self.compute = self._seconds("limner_compute_seconds", "A batch in the engine.")
        self.encode = self._seconds("limner_encode_seconds", "Pixels to body.")
        self.models = Info("limner_model", "What is served.", ["model"], registry=self.registry)

    def _seconds(self, name: str, help: str) -> Histogram:
        return Histogram(name, help, ["model"], buckets=SECONDS, registry=self.registry)

    def add_model(self, title: str, **facts: str) -> None:
        """Name a model, so that its series exist, at 0, before the first request."""
        self.models.labels(title).info(facts)
        self.images.labels(title)
        for histogram in (self.batch_size, self.queue, self.compute, self.encode):
            histogram.labels(title)

    def observe_batch(self, title: str, batch: Batch) -> None:
        """Called by a batcher's thread after each run of its engine."""
        self.batch_size.labels(title).observe(batch.images)
        self.compute.labels(title).observe(batch.compute_seconds)
        for seconds in batch.queue_seconds:
            self.queue.labels(title).observe(seconds)
        if batch.error is None:
            self.images.labels(title).inc(batch.images)
        else:
            cause = batch.error.__cause__ or batch.error
            log.error("batch failed", model=title, images=batch.images, error=str(batch.error), cause=repr(cause))

    def text(self) -> bytes:
        return generate_latest(self.registry)


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
        request_id = _request_id(scope)
        state: MutableMapping[str, Any] = scope.setdefault("state", {})
        code, started = 500, False

        async def send_marked(message: Message) -> None:
            nonlocal code, started
            if message["type"] == "http.response.start":
                code, started = message["status"], True
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode("ascii"))]
            await send(message)

        failure: BaseException | None = None
        self.drain.in_flight += 1
        try:
            await self.app(scope, receive, send_marked)
        except Exception as error:  # a fault of limner, answered here so that its answer has an id too
            failure = error
            if started:
                raise
            await unexpected()(scope, receive, send_marked)
        finally:
            self.drain.in_flight -= 1
            self._account(scope, code, failure or state.get("failure"), time.monotonic() - began, request_id)

    def _account(self, scope: Scope, code: int, failure: BaseException | None, seconds: float, request_id: str) -> None:
        route = getattr(scope.get("route"), "path", None) or UNROUTED
        self.metrics.requests.labels(route, str(code)).inc()
        if code >= 500 and not (isinstance(failure, LimnerError) and failure.status == 503):
            log.error(
                "request failed",
                request_id=request_id,
                route=route,
                code=code,
                seconds=round(seconds, 6),
                error=str(failure),
                trace=None if isinstance(failure, LimnerError) or failure is None else _trace(failure),
            )


def _request_id(scope: Scope) -> str:
    given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    text = given.decode("latin-1")
    return text if REQUEST_ID.fullmatch(text) else uuid.uuid4().hex


def _trace(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


class _Stderr(structlog.PrintLogger):
    """A log whose reader has left (a closed pipe) must not fail the request or the batch that it tells of."""

    def msg(self, message: str) -> None:
        with suppress(OSError, ValueError):  # ValueError: the stream was closed in this process
            super().msg(message)

    debug = info = warning = error = critical = msg


def configure_logging(least: int = logging.INFO) -> None:
    """One JSON object a line on stderr; coloured lines where stderr is a terminal."""
    stream = sys.stderr
    pretty = stream.isatty()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.ConsoleRenderer() if pretty else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=lambda *_: _Stderr(stream),
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
