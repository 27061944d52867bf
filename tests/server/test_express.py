"""The shortest way and the ordinary one are one to a client: the same words, the same bytes, the same counts."""

import contextlib
import gc
import http.client
import socket
import threading
import time
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from server import express
from server.express import Express, Ride

PATIENCE = 20.0  # seconds until a test that would hang fails
ORDINARY = {"If-None-Match": '"another"'}  # a condition, which the shortest way does not know
REQUEST = b"GET /generate HTTP/1.1\r\nHost: x\r\n\r\n"
CHANGES = {"date", "server-timing"}
COUNTED = 'limner_requests_total{code="%d",route="/generate"} %s.0'


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each request: whether it went the shortest way."""
    seen: list[bool] = []
    take = Express.take

    def told(self: Express, *given: Any) -> Ride | None:
        ride = take(self, *given)
        seen.append(ride is not None)
        return ride

    monkeypatch.setattr(Express, "take", told)
    return seen


def asked(
    application: Any, method: str, path: str, headers: dict[str, str]
) -> tuple[int, list[tuple[str, str]], bytes]:
    place = application.client.base_url
    connection = http.client.HTTPConnection(place.host, place.port, timeout=PATIENCE)
    connection.request(method, path, headers={"X-Request-Id": "mine"} | headers)
    answer = connection.getresponse()
    said = [(name, value) for name, value in answer.getheaders() if name not in CHANGES]
    names = [name for name, _ in answer.getheaders()]
    body = answer.read()
    connection.close()
    return answer.status, [*said, ("names", " ".join(names))], body


@pytest.mark.parametrize(
    ("method", "query", "headers", "express"),
    [
        ("POST", "?seed=1", {}, True),
        ("GET", "?seed=1", {}, True),
        ("GET", "?seed=1&version=1", {}, True),
        ("POST", "?seed=9223372036854775807&truncation=0.5&priority=low&model=plain&scale=1&n=1", {}, True),
        ("POST", "?seed=%31&", {}, True),
        ("POST", "?seed=1&format=png", {"Accept": "application/json"}, True),
        ("POST", "?seed=1", {"Accept": "image/webp,image/png,*/*;q=0.5"}, True),
        ("POST", "?seed=1", {"Content-Length": "0"}, True),
        ("POST", "?seed=1", {"Content-Type": "application/json", "User-Agent": "x" * 1000}, True),
        ("GET", "?seed=1", {"Accept": ", ".join(["image/avif"] * 40 + ["image/png"])}, False),  # too long to remember
        ("POST", "?seed=1", {"Accept": "application/json"}, False),
        ("POST", "?seed=1&n=2", {}, False),
        ("POST", "?seed=1&scale=2", {}, False),
        ("POST", "?seed=1&format=jpeg&quality=3", {}, False),
        ("POST", "?seed=1&timeout_ms=20000", {}, False),
        ("POST", "?seed=1#seed=2", {}, False),
        ("HEAD", "?seed=1", {}, False),
        ("GET", "?seed=1", {"Connection": "Keep-Alive"}, True),
        ("GET", "?seed=1", {"Connection": "close"}, False),
        ("GET", "?seed=1&label=3", {}, False),  # which has no classes
        ("GET", "?seed=1&seed=2", {}, False),
        ("GET", "?sed=1", {}, False),
        ("GET", "?n=0", {}, False),
        ("GET", "?seed=" + "0" * 300, {}, False),
        ("GET", "?model=nobody", {}, False),
        ("GET", "?seed=1", {"Accept": "text/html"}, False),
        ("PUT", "?seed=1", {}, False),
        ("GET", "/?seed=1", {}, False),
    ],
)
def test_both_ways_say_the_same(
    application: Any, taken: list[bool], method: str, query: str, headers: dict[str, str], express: bool
) -> None:
    one = asked(application, method, f"/generate{query}", headers)
    other = asked(application, method, f"/generate{query}", headers | ORDINARY)
    assert one == other
    assert (True in taken) == express


def test_who_names_no_seed_gets_another_each_time(application: Any, taken: list[bool]) -> None:
    answers = [asked(application, "POST", "/generate", {}) for _ in range(20)]
    assert all(taken)
    assert len({dict(headers)["x-limner-seed"] for _, headers, _ in answers}) == 20
    assert {status for status, _, _ in answers} == {200}
    for _, headers, body in answers[:3]:
        again = asked(application, "POST", f"/generate?seed={dict(headers)['x-limner-seed']}", {})
        assert again[2] == body


def test_a_label_is_told_whether_asked_for_or_drawn(url: str) -> None:
    import httpx

    for query, headers in (("label=2", {}), ("label=2", ORDINARY), ("seed=4", {}), ("seed=4", ORDINARY)):
        answers = [httpx.post(f"{url}/generate?model=digits&{query}", headers=headers) for _ in range(2)]
        assert {answer.status_code for answer in answers} == {200}
        assert {answer.headers["X-Limner-Label"] for answer in answers} <= {"0", "1", "2"}
        if "label" in query:
            assert answers[0].headers["X-Limner-Label"] == "1"  # the class named 2


def test_every_answer_is_counted_and_a_bad_request_id_replaced(application: Any, taken: list[bool]) -> None:
    for name in ("fine", "nöt", "x" * 200):
        _, headers, _ = asked(application, "GET", "/generate?seed=1", {"X-Request-Id": name})
        assert (dict(headers)["x-request-id"] == name) == (name == "fine")
    assert taken == [True] * 3
    assert application.metric(COUNTED % (200, 3))
    for line in (
        'limner_request_seconds_count{route="/generate"} 3.0',
        'limner_encode_seconds_count{model="plain@1"} 3.0',
        'limner_queue_seconds_count{model="plain@1"} 3.0',
        'limner_images_total{model="plain@1"} 3.0',
        "limner_in_flight_requests 1.0",
    ):
        assert application.metric(line)


def test_an_engine_that_fails_is_told_and_logged_on_both_ways(application: Any, taken: list[bool]) -> None:
    def fails(made: np.ndarray) -> np.ndarray:
        raise RuntimeError("sabotage")

    application.engine.sabotage = fails
    one, other = (asked(application, "GET", "/generate?seed=1", headers) for headers in ({}, ORDINARY))
    assert one == other
    assert one[0] == 500
    assert taken == [True, False]
    lines = [line for line in application.logged(4) if line["event"] == "request failed"]
    for line in lines:
        del line["timestamp"], line["seconds"]
    assert len(lines) == 2
    assert lines[0] == lines[1]


@pytest.mark.usefixtures("waits")
def test_a_client_that_leaves_gives_its_place_back(application: Any, taken: list[bool]) -> None:
    running, let_go = application.hold()
    first = threading.Thread(target=lambda: application.client.get("/generate"))
    first.start()
    assert running.wait(PATIENCE)
    with application.connected(REQUEST):
        application.until(lambda: application.metric('limner_queued_images{model="plain@1"} 1.0'))
    application.until(lambda: application.metric('limner_queued_images{model="plain@1"} 0.0'))
    application.until(lambda: application.metric('limner_cancelled_total{model="plain@1"} 1.0'))
    let_go.set()
    first.join(PATIENCE)
    application.until(lambda: application.metric(COUNTED % (200, 1)))
    assert application.metric(COUNTED % (499, 1))
    assert application.metric("limner_in_flight_requests 1.0")
    assert taken.count(True) == 2


@pytest.mark.parametrize("application", [{"timeout_seconds": 0.3}], indirect=True)
@pytest.mark.usefixtures("waits")
def test_each_deadline_is_kept_although_the_engine_hangs(application: Any, taken: list[bool]) -> None:
    running, let_go = application.hold()
    codes: list[tuple[int, float]] = []

    def ask() -> None:
        began = time.monotonic()
        code, headers, _ = asked(application, "GET", "/generate", {})
        codes.append((code, time.monotonic() - began))
        assert dict(headers)["content-type"] == "application/problem+json"

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
        assert running.wait(PATIENCE)
        time.sleep(0.1)
    for thread in threads:
        thread.join(PATIENCE)
    let_go.set()
    assert [code for code, _ in codes] == [504] * 3
    assert all(seconds >= 0.3 for _, seconds in codes)
    assert application.metric('limner_deadline_missed_total{model="plain@1"} 3.0')
    assert taken.count(True) == 3


@pytest.mark.parametrize("application", [{"queue_images": 1, "max_images": 1}], indirect=True)
@pytest.mark.usefixtures("waits")
def test_a_full_queue_is_told_on_the_shortest_way_in_the_same_words_and_counted_once(
    application: Any, taken: list[bool]
) -> None:
    running, let_go = application.hold()
    waiting = [threading.Thread(target=lambda: application.client.get("/generate")) for _ in range(2)]
    waiting[0].start()
    assert running.wait(PATIENCE)
    waiting[1].start()
    application.until(lambda: application.metric('limner_queued_images{model="plain@1"} 1.0'))
    taken.clear()
    shortest, ordinary = (asked(application, "GET", "/generate", headers) for headers in ({}, ORDINARY))
    assert taken == [True, False]
    assert shortest == ordinary
    assert (shortest[0], dict(shortest[1])["retry-after"]) == (429, "1")
    assert application.metric('limner_rejected_total{model="plain@1",reason="queue-full"} 2.0')
    assert application.metric('limner_cancelled_total{model="plain@1"} 0.0')
    assert application.metric(COUNTED % (429, 2))
    let_go.set()
    for thread in waiting:
        thread.join(PATIENCE)
    application.until(lambda: application.metric(COUNTED % (200, 2)))


def pipelined(application: Any, requests: bytes) -> Iterator[bytes]:
    """The bodies of the answers, in their order."""
    with application.connected(requests) as connection, connection.makefile("rb") as answers:
        while line := answers.readline():
            assert line == b"HTTP/1.1 200 OK\r\n"
            headers = http.client.parse_headers(answers)
            yield answers.read(int(headers["content-length"]))


def test_pipelined_requests_of_both_ways_are_answered_in_order(application: Any) -> None:
    def request(seed: int) -> bytes:
        condition = b'If-None-Match: "x"\r\n' if seed % 3 == 0 else b""
        last = b"Connection: close\r\n" if seed == 59 else b""
        return b"GET /generate?seed=%d HTTP/1.1\r\nHost: x\r\n%b%b\r\n" % (seed, condition, last)

    bodies = [*pipelined(application, b"".join(map(request, range(60))))]
    assert bodies == [application.client.get(f"/generate?seed={seed}").content for seed in range(60)]


@pytest.mark.parametrize("last", [b"/generate?seed=2", b"/generate?seed=2&n=1&scale=1", b"/generate?seed=2&quality="])
def test_who_asks_to_close_behind_another_request_gets_both_answers(
    application: Any, taken: list[bool], last: bytes
) -> None:
    requests = (
        b"GET /generate?seed=1 HTTP/1.1\r\nHost: x\r\n\r\nGET %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    with application.connected(requests % last) as connection:
        answers = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    assert answers.count(b"HTTP/1.1 ") == 2
    assert answers.count(b"connection: close") == 1
    assert taken == [True]


@pytest.mark.parametrize(
    "accepts", [(b"", b""), (b"", b"image/png"), (b"image/webp", b"image/png"), (b"text/html", b"")]
)
def test_several_accept_headers_are_one_on_both_ways(application: Any, accepts: tuple[bytes, ...]) -> None:
    codes = []
    for condition in (b"", b'If-None-Match: "x"\r\n'):
        named = b"".join(b"Accept: %b\r\n" % accept for accept in accepts)
        request = b"GET /generate?seed=1 HTTP/1.1\r\nHost: x\r\n%b%b\r\n" % (named, condition)
        with application.connected(request) as connection:
            codes.append(connection.recv(1 << 16).split()[1])
    assert codes[0] == codes[1]


@pytest.mark.parametrize("application", [{"cors_origins": "https://a.example"}, {"cors_origins": "*"}], indirect=True)
def test_where_pages_of_other_origins_may_ask_a_cache_is_told_that_the_answer_varies(
    application: Any, taken: list[bool]
) -> None:
    """A picture that an <img> had, without an Origin, is no answer to a script, which must see that it may read it."""
    for query in ("?seed=1&version=1", "?seed=1"):
        one, other = (asked(application, "GET", f"/generate{query}", headers) for headers in ({}, ORDINARY))
        assert one == other
        assert dict(one[1])["vary"] == "Accept, Origin"
    application.engine.sabotage = lambda made: 1 / 0
    one, other = (asked(application, "GET", "/generate?seed=1", headers) for headers in ({}, ORDINARY))
    assert one == other
    assert (one[0], dict(one[1])["vary"]) == (500, "Origin")
    assert taken == [True, False] * 3


def test_an_answer_that_is_begun_after_its_deadline_is_counted(
    application: Any, taken: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pixels were there in time, and took too long to write."""
    late = 'limner_late_answers_total{model="plain@1"} %d.0'
    assert asked(application, "GET", "/generate", {})[0] == 200
    assert application.metric(late % 0)
    clock = time.monotonic
    png = express.png

    def slowly(*given: Any, **more: Any) -> bytes:
        monkeypatch.setattr(express, "time", types.SimpleNamespace(monotonic=lambda: clock() + 31, perf_counter=clock))
        return png(*given, **more)

    monkeypatch.setattr(express, "png", slowly)
    assert asked(application, "GET", "/generate", {})[0] == 200
    assert application.metric(late % 1)
    assert taken == [True, False, True, False]  # each second one asks for the metrics


@pytest.mark.usefixtures("waits")
def test_who_waits_long_keeps_nobody_in_memory_who_has_been_answered(application: Any, models: Any) -> None:
    running, let_go = application.hold()
    first = threading.Thread(target=lambda: application.client.get("/generate"))
    first.start()
    assert running.wait(PATIENCE)
    for _ in range(8):  # they leave
        with application.connected(REQUEST):
            application.until(lambda: application.metric('limner_queued_images{model="plain@1"} 1.0'))
        application.until(lambda: application.metric('limner_queued_images{model="plain@1"} 0.0'))
    gc.collect()
    assert sum(type(one) is Ride for one in gc.get_objects()) < 5
    let_go.set()
    first.join(PATIENCE)


@pytest.mark.parametrize("headers", [{}, ORDINARY])
@pytest.mark.usefixtures("waits")
def test_an_answer_that_cannot_be_told_leaves_nobody_else_waiting(
    application: Any, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]
) -> None:
    """Those of one batch are told one after the other."""
    running, let_go = application.hold()
    askers = [threading.Thread(target=lambda: application.client.get("/generate"))]
    askers[0].start()
    assert running.wait(PATIENCE)
    told: list[Any] = []
    arrived = Express.arrived

    def deaf(self: Express, ride: Ride, outcome: Any) -> None:
        told.append(outcome)
        arrived(self, ride, outcome)
        if len(told) == 2:
            raise RuntimeError("nobody listens")

    monkeypatch.setattr(Express, "arrived", deaf)
    codes: list[int] = []
    for place in range(3):
        more = headers if place == 2 else {}
        ask = threading.Thread(target=lambda more=more: codes.append(asked(application, "GET", "/generate", more)[0]))
        ask.start()
        askers.append(ask)
        application.until(
            lambda place=place: application.metric(f'limner_queued_images{{model="plain@1"}} {place + 1}.0')
        )
    let_go.set()
    for ask in askers:
        ask.join(PATIENCE)
    assert codes == [200] * 3


def test_who_asks_and_never_reads_is_not_made_pictures_for_ever(application: Any) -> None:
    with application.connected(receive_buffer=1 << 14) as connection:
        connection.settimeout(0.5)
        request, sent = b"GET /generate?seed=1 HTTP/1.1\r\nHost: x\r\n\r\n" * 1000, 0
        with contextlib.suppress(TimeoutError):  # it is not read from any longer
            while sent < 50_000:
                connection.sendall(request)
                sent += 1000
        made = [-1, 0]
        while made[-1] != made[-2]:
            time.sleep(0.3)
            lines = application.client.get("/metrics").text.splitlines()
            made += [int(float(line.split()[-1])) for line in lines if line.startswith("limner_images_total")]
        assert 0 < made[-1] < 10_000
    application.until(lambda: application.metric("limner_in_flight_requests 1.0"))


def test_a_drain_answers_what_waits_and_then_closes(launch: Any, models: Any) -> None:
    with launch(models / "plain", LIMNER_TIMEOUT_SECONDS="20") as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as idle, socket.create_connection((host, int(port))) as busy:
            for connection in (idle, busy):
                connection.settimeout(PATIENCE)
            idle.sendall(b"GET /generate HTTP/1.1\r\nHost: x\r\n\r\n")
            assert idle.recv(1 << 16).startswith(b"HTTP/1.1 200 OK")
            busy.sendall(b"GET /generate?n=1024&format=json HTTP/1.1\r\nHost: x\r\n\r\n")
            busy.sendall(b"GET /generate HTTP/1.1\r\nHost: x\r\n\r\n")
            time.sleep(0.05)
            assert server.stop() == 0
            parts = []
            while part := busy.recv(1 << 20):
                parts.append(part)
            assert b"".join(parts).startswith(b"HTTP/1.1 200 OK")
            assert idle.recv(1) == b""


@pytest.mark.usefixtures("waits")
def test_who_still_waits_at_the_end_of_a_drain_is_counted_and_logged(
    application: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rides: list[Ride] = []
    take = Express.take

    def kept(self: Express, *given: Any) -> Ride | None:
        ride = take(self, *given)
        rides.extend([] if ride is None else [ride])
        return ride

    monkeypatch.setattr(Express, "take", kept)
    running, let_go = application.hold()
    with application.connected(REQUEST):
        assert running.wait(PATIENCE)
        (ride,) = rides
        ride.loop.call_soon_threadsafe(ride.express.cut)
        application.until(lambda: application.metric(COUNTED % (503, 1)))
        let_go.set()
    (line,) = application.logged(1)
    assert (line["event"], line["request_id"]) == ("request cut", ride.request_id)
    assert application.metric('limner_cancelled_total{model="plain@1"} 0.0')
