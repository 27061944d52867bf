"""Every request is counted once, by its route, whatever becomes of it."""

import asyncio
import contextlib
import json
from typing import Any

import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families
from starlette.requests import ClientDisconnect

from server.observer import Drain, RequestObserver
from server.telemetry import Metrics, configure_logging


def counted(ends: BaseException | None, draining: bool = False) -> tuple[dict[str, float], int]:
    """Counts by code of one request to a route whose handler ends so, and how many are still in flight."""
    metrics, drain = Metrics(), Drain()
    if draining:
        drain.start()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["route"] = type("Route", (), {"path": "/x"})
        assert drain.in_flight == 1
        if ends is not None:
            raise ends
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Any) -> None: ...

    scope = {"type": "http", "headers": [], "path": "/x"}
    observer = RequestObserver(app, metrics, drain)
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(observer(scope, None, send))  # type: ignore[arg-type]
    families = text_string_to_metric_families(metrics.text().decode())
    samples = [sample for family in families for sample in family.samples if sample.labels.get("route") == "/x"]
    codes = {one.labels["code"]: one.value for one in samples if one.name == "limner_requests_total"}
    observed = {one.value for one in samples if one.name == "limner_request_seconds_count"}
    assert observed == (set() if codes.keys() & {"499"} else {1.0})
    return codes, drain.in_flight


@pytest.mark.parametrize(
    ("ends", "code"),
    [
        (None, "200"),
        (ClientDisconnect(), "499"),  # the client left
        (asyncio.CancelledError(), "499"),
        (ValueError("a fault of limner"), "500"),
    ],
)
def test_how_a_request_ends_is_its_code(ends: BaseException | None, code: str) -> None:
    assert counted(ends) == ({code: 1.0}, 0)


def test_what_a_drain_cuts_is_a_fault_of_the_server_and_a_line_of_its_log(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    assert counted(asyncio.CancelledError(), draining=True) == ({"503": 1.0}, 0)
    structlog.reset_defaults()
    (line,) = capsys.readouterr().err.splitlines()
    said = json.loads(line)
    assert (said["event"], said["level"], said["route"]) == ("request cut", "warning", "/x")
