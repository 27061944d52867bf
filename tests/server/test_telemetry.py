"""Metrics and log lines by themselves; what they say of real requests stands in test_errors.py and test_health.py."""

import io
import json
import sys

import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families

from export.engines import EngineError
from server.batcher import Batch
from server.telemetry import Metrics, configure_logging


def values(metrics: Metrics) -> dict[str, float]:
    families = text_string_to_metric_families(metrics.text().decode())
    return {sample.name: sample.value for family in families for sample in family.samples if sample.labels.get("model")}


def test_the_series_of_a_model_exist_at_0_before_its_first_request() -> None:
    metrics = Metrics()
    metrics.add_model("digits@1", digest="abc", artifact="fake")
    said = values(metrics)
    assert said["limner_images_total"] == 0
    assert said["limner_model_info"] == 1
    for name in ("batch_size", "queue_seconds", "compute_seconds", "encode_seconds"):
        assert said[f"limner_{name}_count"] == 0


def test_two_apps_in_one_process_do_not_count_together() -> None:
    one, other = Metrics(), Metrics()
    for metrics in (one, other):
        metrics.add_model("digits@1")
    one.observe_batch("digits@1", Batch(3, 4, 0, "drained", 0.5, (0.1, 0.2)))
    assert values(one)["limner_images_total"] == 3
    assert values(other)["limner_images_total"] == 0


def test_a_batch_is_observed_once_and_its_waits_one_by_one() -> None:
    metrics = Metrics()
    metrics.observe_batch("digits@1", Batch(3, 4, 0, "drained", 0.5, (0.25, 0.5)))
    said = values(metrics)
    assert (said["limner_batch_size_count"], said["limner_batch_size_sum"]) == (1, 3)
    assert (said["limner_compute_seconds_count"], said["limner_compute_seconds_sum"]) == (1, 0.5)
    assert (said["limner_queue_seconds_count"], said["limner_queue_seconds_sum"]) == (2, 0.75)


def test_images_of_a_failed_batch_are_not_counted_as_generated_and_it_is_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging()
    metrics = Metrics()
    metrics.add_model("digits@1")
    error = EngineError("the engine failed on a batch")
    error.__cause__ = ValueError("two\nlines")
    metrics.observe_batch("digits@1", Batch(3, 4, 3, "full", 0.5, (0.1,), error))
    structlog.reset_defaults()
    assert values(metrics)["limner_images_total"] == 0
    assert values(metrics)["limner_batch_size_count"] == 1
    (line,) = capsys.readouterr().err.splitlines()
    said = json.loads(line)
    assert (said["event"], said["level"], said["images"]) == ("batch failed", "error", 3)
    assert said["cause"] == repr(ValueError("two\nlines"))


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
