"""What the server did, as Prometheus metrics and JSON log lines.

Each app has registries of its own, so that two apps in one process do not count together; the workers of a group do.
What the requests of one turn of the event loop were is written together, at its end: a figure is two writes into a
mapped file, and under load dozens of requests are answered in a turn.
"""

import asyncio
import logging
import sys
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import version
from itertools import product
from typing import TypeVar, get_args

import structlog
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Info,
    Metric,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client import Histogram as PrometheusHistogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from starlette.requests import ClientDisconnect

from export.engines import EngineError, NonFinite, cores
from server import memory
from server.batcher import Batch, Reason
from server.errors import Expired, Hopeless, NotReady, Overloaded
from server.group import Group

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)  # a row alone to the timeout
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)  # the buckets
RATIOS = (0, 0.1, 0.2, 0.3, 0.4, 0.5)
BY = ("model", "reason")
ROUTES = (  # that make images
    "/generate",
    "/interpolate",
    "/v1/images/generations",
    "/v2/models/{model}/infer",
    "/v2/models/{model}/versions/{version}/infer",
)
CODES = (200, 304, 400, 404, 405, 406, 413, 415, 422, 429, 499, 500, 503, 504)  # of these routes: they start at 0
FAILURES = (EngineError, NonFinite)  # of a whole batch; of some of its pictures
REFUSALS = (Hopeless, Overloaded, NotReady)

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Histogram(PrometheusHistogram):
    """One that takes many values at once."""

    def observe_all(self, values: Iterable[float]) -> None:
        """As `observe` for each of them, with a write for their sum and for each bucket that some fall into."""
        met, total = defaultdict[int, int](int), 0.0
        for value in values:
            met[bisect_left(self._upper_bounds, value)] += 1
            total += value
        if met:
            self._sum.inc(total)
        for place, count in met.items():
            self._buckets[place].inc(count)


Family = TypeVar("Family", Counter, Histogram)


class Metrics:
    """Every metric of limner, declared once. `text()` is the body of /metrics: of this process, or of its `group`."""

    def __init__(self, group: Group | None = None) -> None:
        disable_created_metrics()  # a second series beside each counter, which nobody queries
        self.registry, self._facts = CollectorRegistry(), CollectorRegistry()  # what is counted; what is as it is
        self._shown = self.registry if group is None else group.registry()
        if group is None:
            ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self._facts)
        self._facts.register(_Container())
        Info("limner_build", "The version of limner.", registry=self._facts).info({"version": version("limner")})
        self.requests = self._counter("requests", "HTTP requests answered.", ("route", "code"))
        self.request = self._histogram(
            "request_seconds", "From a request's headers to its answer, but of 4xx.", SECONDS, "route"
        )
        self.in_flight = self._gauge("in_flight_requests", "Requests that are being answered.")
        self.workers = self._gauge("workers", "Processes that serve.")
        self.ready = self._gauge("ready_workers", "Processes that serve and take new work.")
        self.draining = self._gauge("draining_seconds", "Time since the server was asked to end; 0 before.", most=True)
        self.drain_limit = self._gauge("drain_limit_seconds", "Time after which a drain cuts what is left.", most=True)
        self.restarts = self._counter(
            "worker_restarts", "Processes that were started in place of a dead one.", labels=()
        )
        self.models = Info("limner_model", "What is served.", ["model"], registry=self._facts)
        self.load = self._gauge(
            "load_seconds", "From a bundle's file to a model that was warmed up.", "model", most=True
        )
        self.queued = self._gauge("queued_images", "Images that wait for a batch.", "model")
        self.images = self._counter("images", "Images made.")
        self.batches = self._counter(
            "batches",
            "Runs of the engine: as large as can be, without padding, of all that waited, or of a failed half.",
            BY,
        )
        self.failed = self._counter(
            "failed_batches", "Runs of the engine that failed, or made pictures that are not finite.", BY
        )
        self.rejected = self._counter("rejected", "Requests refused before they were queued.", BY)
        self.cancelled = self._counter("cancelled", "Requests whose client left before their images were made.")
        self.missed = self._counter("deadline_missed", "Requests accepted that were not done in time.")
        self.late = self._counter("late_answers", "Answers that were begun only after their deadline.")
        self.batch_size = self._histogram("batch_size", "Images in a batch.", BATCH_SIZES)
        self.padding = self._histogram("padding_ratio", "Share of a batch's rows that nobody asked for.", RATIOS)
        self.queue = self._histogram("queue_seconds", "From a request's arrival to its first batch.", SECONDS)
        self.compute = self._histogram("compute_seconds", "A batch in the engine.", SECONDS)
        self.busy = self._counter("busy_seconds", "Spent on batches, and on all that belongs to them.")
        self.encode = self._histogram("encode_seconds", "Pixels to body, or to a piece of it.", SECONDS)
        for route, code in product(ROUTES, CODES):
            self.requests.labels(route, str(code))
        self._measured: list[tuple[Gauge, Callable[[], float]]] = []
        self._answered, self._observed = defaultdict[Counter, int](int), defaultdict[Histogram, list[float]](list)
        self.workers.set(1)
        self.restarts.inc(min(group.starts, 1) if group else 0)

    def _counter(self, name: str, help: str, labels: tuple[str, ...] = ("model",)) -> Counter:
        return _quick(Counter(f"limner_{name}", help, labels, registry=self.registry))

    def _gauge(self, name: str, help: str, *labels: str, most: bool = False) -> Gauge:
        """Of several workers, their sum, or the `most` of any."""
        together = "livemax" if most else "livesum"
        return Gauge(f"limner_{name}", help, labels, multiprocess_mode=together, registry=self.registry)

    def _histogram(self, name: str, help: str, buckets: tuple[float, ...], label: str = "model") -> Histogram:
        return _quick(Histogram(f"limner_{name}", help, [label], buckets=buckets, registry=self.registry))

    def add_model(
        self, title: str, queued: Callable[[], float] = lambda: 0, load_seconds: float = 0, **facts: str
    ) -> None:
        """Name a model, so that its series exist, at 0, before the first request. `queued` is asked by `refresh`."""
        self.models.labels(title).info(facts)
        self.load.labels(title).set(load_seconds)
        self.measure(self.queued.labels(title), queued)
        for counter in (self.images, self.busy, self.cancelled, self.missed, self.late):
            counter.labels(title)
        for reason in get_args(Reason):
            self.batches.labels(title, reason)
        for counter, errors in ((self.failed, FAILURES), (self.rejected, REFUSALS)):
            for error in errors:
                counter.labels(title, error.code)
        for histogram in (self.batch_size, self.padding, self.queue, self.compute, self.encode):
            histogram.labels(title)

    def measure(self, gauge: Gauge, value: Callable[[], float]) -> None:
        """Set it to that by each `refresh`."""
        self._measured.append((gauge, value))
        gauge.set(value())

    def refresh(self) -> None:
        """Say how it is now. Before a scrape, and often in a group, where another worker may be asked."""
        for gauge, value in self._measured:
            gauge.set(value())

    def answered(self, route: str, code: int, seconds: float) -> None:
        """A request was answered. In the thread of the event loop, which writes it down at the end of its turn.

        What is refused at once would hide, under load, how long the others wait: its seconds are not observed.
        """
        self._soon()
        self._answered[self.requests.labels(route, code)] += 1
        if code < 400 or code >= 500:
            self._observed[self.request.labels(route)].append(seconds)

    def encoded(self, title: str, seconds: float) -> None:
        """A body, or a piece of it, was written. As `answered`."""
        self._soon()
        self._observed[self.encode.labels(title)].append(seconds)

    def _soon(self) -> None:
        if not self._observed and not self._answered:
            asyncio.get_running_loop().call_soon(self.write)

    def write(self) -> None:
        """Write down what the requests of this turn were."""
        answered, observed = self._answered, self._observed
        self._answered, self._observed = defaultdict(int), defaultdict(list)
        for counter, count in answered.items():
            counter.inc(count)
        for histogram, values in observed.items():
            histogram.observe_all(values)

    @contextmanager
    def waiting(self, title: str) -> Iterator[None]:
        """Count what becomes of a request that asks a batcher for images, where it does not get them all."""
        try:
            yield
        except REFUSALS as error:
            self.rejected.labels(title, error.code).inc()
            raise
        except Expired:
            self.missed.labels(title).inc()
            raise
        except (asyncio.CancelledError, ClientDisconnect, GeneratorExit):
            self.cancelled.labels(title).inc()
            raise

    def observe_batch(self, title: str, batch: Batch) -> None:
        """Called by a batcher after each run of its engine."""
        self.batches.labels(title, batch.reason).inc()
        self.batch_size.labels(title).observe(batch.images)
        self.padding.labels(title).observe(1 - batch.images / batch.rows)
        self.compute.labels(title).observe(batch.compute_seconds)
        self.busy.labels(title).inc(batch.busy_seconds)
        self.queue.labels(title).observe_all(batch.queue_seconds)
        self.images.labels(title).inc(batch.images - batch.failed)
        if batch.error is not None:
            self.failed.labels(title, batch.error.code).inc()
            cause = batch.error.__cause__ or batch.error
            log.error(
                "batch failed",
                model=title,
                images=batch.images,
                failed=batch.failed,
                reason=batch.reason,
                code=batch.error.code,
                error=str(batch.error),
                cause=repr(cause),
            )

    def text(self) -> bytes:
        self.write()
        self.refresh()
        return generate_latest(self._shown) + generate_latest(self._facts)


class _Container(Collector):
    """Read when it is asked for: what limits this process, and is not its own."""

    def collect(self) -> Iterable[Metric]:
        left, throttled = memory.available(), cores.throttled()
        yield GaugeMetricFamily(
            "limner_memory_available_bytes", "What may still be taken, by the container's limits and the machine.", left
        )
        yield GaugeMetricFamily(
            "limner_cpu_cores", "Cores that may be used, by the container's limits.", cores.available()
        )
        yield CounterMetricFamily(
            "limner_cpu_throttled_seconds", "Time in which the container had used up its share of the CPU.", throttled
        )


def _quick(family: Family) -> Family:
    """Its children remembered by the very labels: finding one takes a quarter of what counting does."""
    family.labels = cache(family.labels)  # type: ignore[method-assign]
    return family


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
