"""Metrics and log lines by themselves; what they say of real requests stands in test_errors.py and test_health.py."""

import asyncio
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from starlette.requests import ClientDisconnect

from export.engines import EngineError, NonFinite
from server import memory
from server.batcher import Batch
from server.errors import Expired, Overloaded
from server.telemetry import SECONDS, Histogram, Metrics, configure_logging

COUNTERS = ("images", "batches", "failed_batches", "rejected", "cancelled", "deadline_missed", "late_answers")
HISTOGRAMS = ("batch_size", "padding_ratio", "queue_seconds", "compute_seconds", "encode_seconds")


def values(metrics: Metrics) -> dict[str, float]:
    families = text_string_to_metric_families(metrics.text().decode())
    return {sample.name: sample.value for family in families for sample in family.samples if sample.labels.get("model")}


def test_the_series_of_a_model_exist_at_0_before_its_first_request() -> None:
    metrics = Metrics()
    metrics.add_model("digits@1", digest="abc", artifact="fake")
    said = values(metrics)
    assert said.pop("limner_model_info") == 1
    assert set(said.values()) == {0.0}
    assert {f"limner_{name}_total" for name in COUNTERS} <= said.keys()
    assert {f"limner_{name}_count" for name in HISTOGRAMS} <= said.keys()
    assert {"limner_queued_images", "limner_load_seconds"} <= said.keys()
    text = metrics.text().decode()
    for reason in ("queue-full", "deadline-unreachable", "not-ready"):
        assert f'limner_rejected_total{{model="digits@1",reason="{reason}"}} 0.0' in text
    for reason in ("full", "fitted", "drained", "retry"):
        assert f'limner_batches_total{{model="digits@1",reason="{reason}"}} 0.0' in text
    for reason in ("engine", "non-finite"):
        assert f'limner_failed_batches_total{{model="digits@1",reason="{reason}"}} 0.0' in text
    for code in (200, 304, 400, 404, 405, 406, 413, 415, 422, 429, 499, 500, 503, 504):
        for route in ("/generate", "/v2/models/{model}/infer"):
            assert f'limner_requests_total{{code="{code}",route="{route}"}} 0.0' in text


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (Overloaded("full"), "limner_rejected_total"),
        (Expired("late"), "limner_deadline_missed_total"),
        (asyncio.CancelledError(), "limner_cancelled_total"),
        (ClientDisconnect(), "limner_cancelled_total"),
        (GeneratorExit(), "limner_cancelled_total"),
    ],
)
def test_what_becomes_of_a_request_that_gets_no_images_is_counted_once(error: BaseException, name: str) -> None:
    metrics = Metrics()
    with pytest.raises(type(error)), metrics.waiting("digits@1"):
        raise error
    grown = {key for key, value in values(metrics).items() if value}
    assert grown == {name}


def test_the_queue_is_asked_when_the_metrics_are() -> None:
    metrics, queued = Metrics(), [3]
    metrics.add_model("digits@1", queued=lambda: queued[0], load_seconds=1.5)
    assert (values(metrics)["limner_queued_images"], values(metrics)["limner_load_seconds"]) == (3, 1.5)
    queued[0] = 5
    assert values(metrics)["limner_queued_images"] == 5


def test_promtool_finds_nothing_to_say(program: Callable[..., Path]) -> None:
    """Names, units, help and types, as Prometheus's own linter wants them."""
    promtool = program("promtool", "Debian's package prometheus")
    metrics = Metrics()
    metrics.add_model("digits@1", digest="abc")
    own = b"".join(line for line in metrics.text().splitlines(keepends=True) if b"limner_" in line)
    assert own.count(b"# HELP") == own.count(b"# TYPE") == 28
    done = subprocess.run([promtool, "check", "metrics"], input=own, capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_two_apps_in_one_process_do_not_count_together() -> None:
    one, other = Metrics(), Metrics()
    for metrics in (one, other):
        metrics.add_model("digits@1")
    one.observe_batch("digits@1", Batch(3, 4, 0, "drained", 0.5, (0.1, 0.2), 0.75))
    assert values(one)["limner_images_total"] == 3
    assert values(other)["limner_images_total"] == 0


def test_a_batch_is_observed_once_and_its_waits_one_by_one() -> None:
    metrics = Metrics()
    metrics.observe_batch("digits@1", Batch(3, 4, 0, "drained", 0.5, (0.25, 0.5), 0.75))
    said = values(metrics)
    assert (said["limner_batch_size_count"], said["limner_batch_size_sum"]) == (1, 3)
    assert (said["limner_padding_ratio_count"], said["limner_padding_ratio_sum"]) == (1, 0.25)
    assert 'limner_batches_total{model="digits@1",reason="drained"} 1.0' in metrics.text().decode()
    assert (said["limner_compute_seconds_count"], said["limner_compute_seconds_sum"]) == (1, 0.5)
    assert said["limner_busy_seconds_total"] == 0.75
    assert (said["limner_queue_seconds_count"], said["limner_queue_seconds_sum"]) == (2, 0.75)


@given(st.lists(st.one_of(st.floats(0, 40), st.sampled_from(SECONDS))))
def test_many_values_at_once_are_the_same_as_one_by_one(values: list[float]) -> None:
    at_once, one_by_one = (Histogram("seconds", "-", buckets=SECONDS, registry=CollectorRegistry()) for _ in range(2))
    at_once.observe_all(values)
    for value in values:
        one_by_one.observe(value)
    (some,), (others,) = at_once.collect(), one_by_one.collect()
    for sample, other in zip(some.samples, others.samples, strict=True):
        assert sample._replace(value=0) == other._replace(value=0)
        assert sample.value == pytest.approx(other.value)


def test_what_was_answered_in_a_turn_is_written_at_its_end_or_when_it_is_asked_for() -> None:
    async def turns() -> tuple[bytes, bytes, bytes]:
        metrics = Metrics()
        for _ in range(3):
            metrics.answered("/generate", 200, 0.25)
        asked = metrics.text()
        metrics.answered("/generate", 200, 0.25)
        before = generate_latest(metrics.registry)
        await asyncio.sleep(0)
        return asked, before, generate_latest(metrics.registry)

    counts = [b'limner_requests_total{code="200",route="/generate"} %d.0\n' % count for count in (3, 3, 4)]
    for count, text in zip(counts, asyncio.run(turns()), strict=True):
        assert count in text


def test_how_long_refusals_take_is_not_observed() -> None:
    async def answered(*codes: int) -> str:
        metrics = Metrics()
        for code in codes:
            metrics.answered("/generate", code, 0.25)
        await asyncio.sleep(0)
        return generate_latest(metrics.registry).decode()

    text = asyncio.run(answered(429, 422, 499))
    assert 'limner_requests_total{code="429",route="/generate"} 1.0' in text
    assert "limner_request_seconds_count" not in text
    assert 'limner_request_seconds_count{route="/generate"} 3.0' in asyncio.run(answered(200, 304, 429, 504))


def test_images_of_a_failed_batch_are_not_counted_as_generated_and_it_is_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging()
    metrics = Metrics()
    metrics.add_model("digits@1")
    error = EngineError("the engine failed on a batch")
    error.__cause__ = ValueError("two\nlines")
    metrics.observe_batch("digits@1", Batch(3, 4, 3, "full", 0.5, (0.1,), 0.75, error))
    structlog.reset_defaults()
    assert values(metrics)["limner_images_total"] == 0
    assert values(metrics)["limner_batch_size_count"] == 1
    (line,) = capsys.readouterr().err.splitlines()
    said = json.loads(line)
    assert (said["event"], said["level"], said["images"], said["failed"]) == ("batch failed", "error", 3, 3)
    assert (said["code"], said["reason"]) == ("engine", "full")
    assert said["cause"] == repr(ValueError("two\nlines"))


@pytest.mark.parametrize(
    ("error", "reason"), [(EngineError("failed"), "engine"), (NonFinite([1], np.zeros(3)), "non-finite")]
)
def test_a_batch_fails_as_a_whole_or_in_some_pictures(error: EngineError, reason: str) -> None:
    metrics = Metrics()
    metrics.observe_batch("digits@1", Batch(3, 4, 1, "full", 0.5, (0.1,), 0.75, error))
    metrics.observe_batch("digits@1", Batch(3, 4, 0, "full", 0.5, (0.1,), 0.75))
    failed = [line for line in metrics.text().decode().splitlines() if line.startswith("limner_failed_batches_total")]
    assert failed == [f'limner_failed_batches_total{{model="digits@1",reason="{reason}"}} 1.0']


def test_what_memory_is_left_is_asked_when_the_metrics_are(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = Metrics()
    for left in (3 << 30, 2 << 20):
        monkeypatch.setattr(memory, "available", lambda left=left: left)
        (line,) = [line for line in metrics.text().decode().splitlines() if line.startswith("limner_memory")]
        assert float(line.removeprefix("limner_memory_available_bytes ")) == left


def test_a_log_whose_reader_has_left_fails_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    closed = io.StringIO()
    for stream in (Broken(), closed):
        monkeypatch.setattr(sys, "stderr", stream)
        configure_logging()
        if stream is closed:
            stream.close()
        for level in ("info", "warning", "error"):
            getattr(structlog.get_logger(), level)("said to nobody")
    structlog.reset_defaults()


def test_a_terminal_gets_lines_for_people_instead_of_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    configure_logging()
    structlog.get_logger().info("started", version="1")
    structlog.reset_defaults()
    said = capsys.readouterr().err
    assert "started" in said
    assert not said.lstrip().startswith("{")
