"""What the server did, as Prometheus metrics and JSON log lines.

Each app has a registry of its own, so that two apps in one process do not count together.
"""

import logging
import sys
from contextlib import suppress

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram, Info, disable_created_metrics, generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from server.batcher import Batch

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)  # a row alone to the timeout
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)  # the buckets

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Metrics:
    """Every metric of limner, declared once. `text()` is the body of /metrics."""

    def __init__(self) -> None:
        disable_created_metrics()  # a second series beside each counter, which nobody queries
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.requests = Counter("limner_requests", "HTTP requests answered.", ["route", "code"], registry=self.registry)
        self.images = Counter("limner_images", "Images of batches that went well.", ["model"], registry=self.registry)
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
        self.images.labels(title).inc(batch.images - batch.failed)
        if batch.error is not None:
            cause = batch.error.__cause__ or batch.error
            log.error(
                "batch failed",
                model=title,
                images=batch.images,
                reason=batch.reason,
                error=str(batch.error),
                cause=repr(cause),
            )

    def text(self) -> bytes:
        return generate_latest(self.registry)


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
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)  # what it would say of a request, the observer says in JSON
