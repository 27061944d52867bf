"""What goes wrong inside, as a client and the log see it: the whole application with an engine that misbehaves."""

import json
import threading
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from export.engines import EngineError, NonFinite
from server import express, images
from server.errors import InvalidParameter, Overloaded, problem, shorten
from server.settings import Settings
from training.precedence import resolve

PATIENCE = 20.0  # seconds until a test that would hang fails


def failed(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert "Traceback" not in answer.text
    assert "sabotage" not in answer.text
    said = answer.json()
    assert said["type"] == f"urn:limner:problem:{code}"
    assert said["status"] == status
    return said


def fails(made: np.ndarray) -> np.ndarray:
    raise RuntimeError("sabotage at /a/secret/path")


def test_an_engine_that_raises_is_a_500_and_a_line_for_the_batch_and_for_the_request(
    application: Any,
) -> None:
    application.engine.sabotage = fails
    answer = application.client.get("/generate?format=npy", headers={"X-Request-Id": "find-me"})  # one is never split
    failed(answer, 500, "engine")
    assert answer.headers["X-Request-Id"] == "find-me"
    *batches, request = application.logged(3)
    assert [(line["event"], line["model"]) for line in batches] == [("batch failed", "plain@1")] * 2
    assert [(line["images"], line["reason"]) for line in batches] == [(1, "drained"), (1, "retry")]
    assert "sabotage at /a/secret/path" in batches[0]["cause"]
    assert (request["event"], request["request_id"], request["route"]) == ("request failed", "find-me", "/generate")
    assert (request["code"], request["level"]) == (500, "error")

    application.engine.sabotage = None
    assert application.client.get("/generate?n=3").status_code == 200  # the next batch runs
    assert len(application.logged(3)) == 3


def test_a_log_that_cannot_be_written_stops_neither_the_engine_nor_the_answers(application: Any) -> None:
    """Such as the closed pipe that `limner serve 2>&1 | head` leaves."""
    application.engine.sabotage = fails
    application.stderr.close()
    failed(application.client.get("/generate"), 500, "engine")
    application.engine.sabotage = None
    assert application.client.get("/generate").status_code == 200


def test_rows_that_are_not_finite_are_a_500_that_names_them_so(application: Any) -> None:
    def blown(made: np.ndarray) -> np.ndarray:
        raise NonFinite([1], made)

    application.engine.sabotage = blown
    failed(application.client.get("/generate?n=2"), 500, "non-finite")


def test_a_fault_of_limner_is_a_500_with_an_id_and_its_traceback_only_in_one_line_of_the_log(
    application: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> bytes:
        raise RuntimeError("sabotage of the encoder")

    with monkeypatch.context() as patch:
        patch.setattr(express, "png", broken)
        answer = application.client.get("/generate", headers={"X-Request-Id": "find-me"})
    failed(answer, 500, "internal")
    assert answer.headers["X-Request-Id"] == "find-me"
    (line,) = application.logged(1)
    assert (line["event"], line["request_id"], line["error"]) == (
        "request failed",
        "find-me",
        "sabotage of the encoder",
    )
    assert "in broken" in line["trace"]
    assert 'limner_requests_total{code="500",route="/generate"} 1.0' in application.client.get("/metrics").text


@pytest.mark.parametrize("application", [{"queue_images": 4, "max_images": 4}], indirect=True)
@pytest.mark.usefixtures("waits")
def test_more_images_than_the_queue_holds_are_429_with_retry_after(application: Any) -> None:
    running, let_go = application.hold()
    with ThreadPoolExecutor() as askers:
        first = askers.submit(application.client.get, "/generate")
        assert running.wait(PATIENCE)
        both = [askers.submit(application.client.get, f"/generate?n={n}") for n in (3, 2)]  # 4 places: one must go
        refused, waiting = wait(both, PATIENCE, FIRST_COMPLETED)
        let_go.set()
    (answer,) = (asker.result() for asker in refused)
    failed(answer, 429, "queue-full")
    assert int(answer.headers["Retry-After"]) >= 1
    assert [asker.result().status_code for asker in (first, *waiting)] == [200, 200]
    assert application.logged(0) == []  # the request's fault is no line of the log


def test_an_engine_s_own_error_reaches_the_log_with_its_cause(application: Any) -> None:
    def refuses(made: np.ndarray) -> np.ndarray:
        raise EngineError("ONNX Runtime failed on a batch") from RuntimeError("the reason underneath")

    application.engine.sabotage = refuses
    failed(application.client.get("/generate"), 500, "engine")
    batch, retry, _ = application.logged(3)
    assert all("the reason underneath" in line["cause"] for line in (batch, retry))


@pytest.mark.parametrize("application", [{"cors_origins": "https://a.example, https://b.example:8080"}], indirect=True)
def test_pages_of_named_origins_may_ask_and_read_what_is_said_of_an_image(application: Any) -> None:
    for origin, allowed in (("https://b.example:8080", True), ("https://c.example", False)):
        answer = application.client.post("/generate", headers={"Origin": origin})
        assert (answer.headers.get("Access-Control-Allow-Origin") == origin) == allowed
        if allowed:
            assert "X-Limner-Seed" in answer.headers["Access-Control-Expose-Headers"]
        wish = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        assert (application.client.options("/generate", headers=wish).status_code == 200) == allowed


@pytest.mark.parametrize("application", [{"cors_origins": "https://a.example"}], indirect=True)
def test_a_page_of_a_named_origin_can_read_every_refusal(application: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> bytes:
        raise RuntimeError("sabotage of the encoder")

    monkeypatch.setattr(images, "encode", broken)
    for path, status in (("/generate", 500), ("/generate?n=0", 422), ("/nowhere", 404)):
        answer = application.client.get(path, headers={"Origin": "https://a.example"})
        assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (status, "https://a.example")


def test_without_a_setting_no_other_page_may_ask(application: Any) -> None:
    answer = application.client.post("/generate", headers={"Origin": "https://a.example"})
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize("origins", ["a.example", "https://a.example/", "https://a.example/page", "https://"])
def test_what_is_no_origin_is_refused(origins: str, models: Path) -> None:
    with pytest.raises(ValueError, match="scheme, host and port"):
        Settings(models=models, cors_origins=origins)  # type: ignore[arg-type]


def test_origins_come_from_the_environment(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMNER_CORS_ORIGINS", "https://a.example, *")
    assert resolve(Settings, {"models": models}, "LIMNER_").cors_origins == ("https://a.example", "*")


@pytest.mark.usefixtures("waits")
def test_what_could_not_be_done_in_time_is_429_at_once(application: Any) -> None:
    running, let_go = application.hold()
    with ThreadPoolExecutor() as askers:
        first = askers.submit(application.client.get, "/generate?n=1024&format=npy")
        assert running.wait(PATIENCE)
        answer = application.client.get("/generate?n=1024&format=npy&timeout_ms=1")
        let_go.set()
        assert first.result().status_code == 200
    failed(answer, 429, "deadline-unreachable")
    assert int(answer.headers["Retry-After"]) >= 1
    assert application.metric('limner_rejected_total{model="plain@1",reason="deadline-unreachable"} 1.0')


def test_a_client_that_leaves_while_it_sends_is_nobody_s_fault(application: Any) -> None:
    with application.connected(b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"):
        pass
    until, left = time.monotonic() + PATIENCE, 'limner_requests_total{code="499",route="/generate"} 1.0'
    while left not in (text := application.client.get("/metrics").text) and time.monotonic() < until:
        time.sleep(0.01)
    assert left in text
    assert application.logged(0) == []


@pytest.mark.parametrize("request_line", ["GET /generate?n=100&format=npy", "POST /generate?n=100&format=npy"])
@pytest.mark.usefixtures("waits")
def test_a_client_that_leaves_the_queue_gives_its_places_back(application: Any, request_line: str) -> None:
    """While the engine is busy with somebody else: nothing is made for who has gone."""
    running, let_go, sizes = threading.Event(), threading.Event(), list[int]()

    def hangs(made: np.ndarray) -> np.ndarray:
        sizes.append(len(made))
        running.set()
        let_go.wait(PATIENCE)
        return made

    def metric(line: str) -> bool:
        return line in application.client.get("/metrics").text

    application.engine.sabotage = hangs
    with ThreadPoolExecutor() as asker:
        first = asker.submit(httpx.get, f"{application.client.base_url}/generate?n=4", timeout=PATIENCE)
        assert running.wait(PATIENCE)
        with application.connected(f"{request_line} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode()):
            application.until(lambda: metric('limner_queued_images{model="plain@1"} 100.0'))
        application.until(lambda: metric('limner_queued_images{model="plain@1"} 0.0'))
        application.until(lambda: metric('limner_cancelled_total{model="plain@1"} 1.0'))
        application.until(lambda: metric('limner_requests_total{code="499",route="/generate"} 1.0'))
        let_go.set()
        assert first.result().status_code == 200
    assert sizes == [4]
    assert application.logged(0) == []


@pytest.mark.parametrize("application", [{"timeout_seconds": 0.05}], indirect=True)
@pytest.mark.usefixtures("waits")
def test_no_picture_in_time_is_a_504(application: Any) -> None:
    let_go = threading.Event()

    def hangs(made: np.ndarray) -> np.ndarray:
        let_go.wait(PATIENCE)
        return made

    application.engine.sabotage = hangs
    try:
        answer = application.client.get("/generate")
    finally:
        let_go.set()
    failed(answer, 504, "expired")
    assert application.metric('limner_deadline_missed_total{model="plain@1"} 1.0')
    assert application.metric('limner_late_answers_total{model="plain@1"} 0.0')
    (line,) = application.logged(1)
    assert (line["event"], line["code"], line["trace"]) == ("request failed", 504, None)


def test_an_answer_that_is_begun_after_its_deadline_is_counted(
    application: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pixels were there in time, and took too long to write."""
    encode = images.encode

    def slowly(*given: Any, **more: Any) -> bytes:
        time.sleep(1.1)
        return encode(*given, **more)

    monkeypatch.setattr(images, "encode", slowly)
    assert application.client.get("/generate?timeout_ms=1000").status_code == 200
    assert application.metric('limner_late_answers_total{model="plain@1"} 1.0')
    assert application.metric('limner_deadline_missed_total{model="plain@1"} 0.0')


@pytest.mark.parametrize(
    "application", [{"max_images": 8, "max_sheet": 4, "max_streamed": 10, "max_body_bytes": 10}], indirect=True
)
def test_the_limits_are_those_of_the_settings(application: Any) -> None:
    ask = application.client.post
    assert [ask(f"/generate?n={n}").status_code for n in (4, 5)] == [200, 422]
    assert [ask(f"/generate?n={n}&format=json").status_code for n in (8, 9)] == [200, 422]
    assert [ask(f"/generate?n={n}&format=npy").status_code for n in (8, 9, 10, 11)] == [200, 200, 200, 422]
    assert [ask("/generate", json={"label": None, "n": 1}).status_code, ask("/generate", json={}).status_code] == [
        413,
        200,
    ]


@pytest.mark.parametrize(("seconds", "header"), [(0.0, "1"), (0.2, "1"), (1.0, "1"), (1.01, "2"), (7.5, "8")])
def test_retry_after_is_whole_seconds_rounded_up_and_at_least_one(seconds: float, header: str) -> None:
    assert problem(Overloaded("full", retry_after=seconds)).headers["Retry-After"] == header


def test_a_refused_value_is_shown_in_at_most_100_characters_of_ascii() -> None:
    body = bytes(problem(InvalidParameter("label", "ü" * 500, "a class")).body)
    assert body.isascii()
    said = json.loads(body)
    assert said["value"] == "ü" * 97 + "..."
    assert "ü" * 98 not in said["detail"]
    assert [shorten(value) for value in ("x", 1, True, None, [1, 2], 1.5)] == [
        "x",
        "1",
        "true",
        "null",
        "[1, 2]",
        "1.5",
    ]
