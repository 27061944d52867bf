"""Large answers arrive while they are made: in order, with flat memory, nobody starved, and cut off where they fail."""

import io
import json
import re
import socket
import threading
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

PATIENCE = 20.0  # seconds until a test that would hang fails
STREAM = "/generate?n=100000&format=npy&seed=3"


def connected(application: Any, path: str) -> AbstractContextManager[socket.socket]:
    """A client that has sent its request and reads nothing. Its buffer takes little."""
    return application.connected(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode(), receive_buffer=1 << 14)


def made(application: Any) -> float:
    lines = application.client.get("/metrics").text.splitlines()
    (line,) = [line for line in lines if line.startswith("limner_images")]
    return float(line.split()[-1])


def queued(application: Any) -> float:
    lines = application.client.get("/metrics").text.splitlines()
    (line,) = [line for line in lines if line.startswith("limner_queued_images{")]
    return float(line.split()[-1])


def test_a_long_npy_says_its_length_and_holds_the_images_of_its_seeds(http: httpx.Client) -> None:
    asked: dict[str, Any] = {"model": "digits", "seed": 2**63 - 1000, "truncation": 0.7}  # the seeds wrap on the way
    response = http.get("/generate", params=asked | {"n": 3000, "format": "npy"})
    assert int(response.headers["Content-Length"]) == len(response.content)
    images = np.load(io.BytesIO(response.content))
    assert images.shape == (3000, 28, 28, 1)
    for start in (0, 990, 1976):
        part = http.get(
            "/generate", params=asked | {"seed": (2**63 - 1000 + start) % 2**63, "n": 1024, "format": "npy"}
        )
        assert np.array_equal(np.load(io.BytesIO(part.content)), images[start : start + 1024])


def test_a_long_zip_holds_the_same_files_as_short_ones(http: httpx.Client) -> None:
    asked = {"model": "digits", "format": "zip", "scale": 2}
    response = http.get("/generate", params=asked | {"n": 1500, "seed": 10})
    assert "Content-Length" not in response.headers
    short = http.get("/generate", params=asked | {"n": 100, "seed": 1410})
    with zipfile.ZipFile(io.BytesIO(response.content)) as whole, zipfile.ZipFile(io.BytesIO(short.content)) as part:
        assert whole.testzip() is None
        said = json.loads(whole.read("index.json"))["images"]
        assert [image["seed"] for image in said] == [str(10 + place) for place in range(1500)]
        files = whole.namelist()[:-1]
        assert [whole.read(file) for file in files[1400:]] == [part.read(file) for file in part.namelist()[:-1]]
        assert [image["file"] for image in said] == files


def test_head_of_a_long_answer_says_its_length_and_makes_little(application: Any) -> None:
    head = application.client.head(STREAM)
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["Content-Length"]) == 100_000 * 32 * 32 * 3 + 128
    assert made(application) <= 3 * 64
    assert application.metric('limner_cancelled_total{model="plain@1"} 0.0')


def test_a_client_that_stops_reading_stops_the_generation_and_starves_nobody(application: Any) -> None:
    with connected(application, STREAM) as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
        seen: list[float] = []

        def still() -> bool:
            """Nothing more for half a second at least: a busy machine makes pauses of its own."""
            seen.append(made(application))
            return seen[-50:] == [seen[-1]] * 50

        application.until(still)
        assert made(application) < 10_000
        assert application.client.get("/generate?n=8&format=npy").status_code == 200
        assert application.metric('limner_queued_images{model="plain@1"} 0.0')
    application.until(lambda: application.metric('limner_requests_total{code="499",route="/generate"} 1.0'))
    assert application.metric("limner_in_flight_requests 1.0")  # who asks
    assert application.metric('limner_cancelled_total{model="plain@1"} 1.0')
    after = made(application)
    assert application.client.get("/generate").status_code == 200
    assert made(application) == after + 1
    assert application.logged(0) == []


@pytest.mark.usefixtures("waits")
def test_others_wait_behind_two_blocks_at_most(application: Any) -> None:
    sizes, running, let_go = list[int](), threading.Semaphore(0), threading.Semaphore(0)

    def held(images: np.ndarray) -> np.ndarray:
        sizes.append(len(images))
        running.release()
        assert let_go.acquire(timeout=PATIENCE)
        return images

    application.engine.sabotage = held
    with connected(application, STREAM):
        assert running.acquire(timeout=PATIENCE)
        application.until(lambda: application.metric('limner_queued_images{model="plain@1"} 64.0'))
        answers: list[int] = []
        asker = threading.Thread(target=lambda: answers.append(application.client.get("/generate").status_code))
        asker.start()
        application.until(lambda: application.metric('limner_queued_images{model="plain@1"} 65.0'))
        let_go.release(1000)
        asker.join(PATIENCE)
        assert answers == [200]
    application.engine.sabotage = None


def test_a_failure_on_the_way_cuts_the_connection(application: Any) -> None:
    for path in (STREAM, STREAM.replace("npy", "zip")):
        application.fail_after(5)
        with pytest.raises(httpx.RemoteProtocolError):
            application.client.get(path)
    application.engine.sabotage = None
    application.until(lambda: application.metric('limner_requests_total{code="500",route="/generate"} 2.0'))
    assert "request failed" in {line["event"] for line in application.logged(6)}
    assert application.client.get("/generate").status_code == 200


def test_a_failure_before_the_first_image_is_an_answer(application: Any) -> None:
    def fails(images: np.ndarray) -> np.ndarray:
        raise ValueError("sabotage")

    application.engine.sabotage = fails
    assert application.client.get(STREAM).status_code == 500


def test_head_of_a_long_zip_does_not_make_up_a_length(application: Any) -> None:
    head = application.client.head(STREAM.replace("npy", "zip"))
    assert (head.status_code, head.content) == (200, b"")
    assert "Content-Length" not in head.headers


@pytest.mark.parametrize("format", ["npy", "zip"])
@pytest.mark.usefixtures("waits")
def test_a_block_that_is_not_made_in_time_cuts_the_connection_and_is_counted(application: Any, format: str) -> None:
    ran: list[int] = []

    def stuck(images: np.ndarray) -> np.ndarray:
        ran.append(len(images))
        if len(ran) == 3:
            time.sleep(1.5)
        return images

    application.engine.sabotage = stuck
    with pytest.raises(httpx.RemoteProtocolError):
        application.client.get(f"/generate?n=100000&format={format}&timeout_ms=1000")
    application.until(lambda: application.metric('limner_deadline_missed_total{model="plain@1"} 1.0'))
    assert application.metric('limner_cancelled_total{model="plain@1"} 0.0')
    (line,) = application.logged(1)
    assert (line["event"], line["code"], line["trace"]) == ("request failed", 500, None)


def test_a_long_answer_is_timed_like_a_short_one(application: Any) -> None:
    answer = application.client.get("/generate?n=2000&format=zip")
    assert re.fullmatch(r"queue;dur=\d+\.\d{3}, compute;dur=\d+\.\d{3}, batch;desc=64", answer.headers["Server-Timing"])
    blocks = -(-2000 // 64)
    assert application.metric(f'limner_encode_seconds_count{{model="plain@1"}} {blocks + 1}.0')


@pytest.mark.parametrize("application", [{"max_pixels": 64 * 64}], indirect=True)
def test_a_zip_of_large_pictures_is_sent_while_it_is_made(application: Any) -> None:
    """However few they are: together they have more pixels than an answer that is made whole."""
    small, large = (application.client.get(f"/generate?n=100&format=zip&seed=5&scale={scale}") for scale in (1, 2))
    assert "Content-Length" not in large.headers
    with zipfile.ZipFile(io.BytesIO(small.content)) as one, zipfile.ZipFile(io.BytesIO(large.content)) as other:
        assert one.namelist() == other.namelist()
        assert len(other.namelist()) == 101
        for file in one.namelist()[:-1]:
            pixels = [np.asarray(Image.open(io.BytesIO(archive.read(file)))) for archive in (one, other)]
            assert np.array_equal(pixels[0].repeat(2, axis=0).repeat(2, axis=1), pixels[1])
    assert application.client.get("/generate?format=zip&scale=3").status_code == 422


@pytest.mark.parametrize("application", [{"queue_images": 512, "max_images": 512}], indirect=True)
@pytest.mark.usefixtures("waits")
def test_many_long_answers_leave_half_of_the_queue_to_others(application: Any) -> None:
    running, let_go = threading.Semaphore(0), threading.Semaphore(0)

    def held(images: np.ndarray) -> np.ndarray:
        running.release()
        assert let_go.acquire(timeout=PATIENCE)
        return images

    application.engine.sabotage = held
    with ExitStack() as streams:
        for place in range(1, 6):  # their first blocks, and the second ones of some
            streams.enter_context(connected(application, STREAM))
            application.until(lambda least=64 * (place - 1): queued(application) >= least)
        for _ in range(30):
            assert running.acquire(timeout=PATIENCE)
            let_go.release()
        assert running.acquire(timeout=PATIENCE)
        application.until(lambda: 0 < queued(application) <= 256)
        ask = partial(application.client.get, "/generate?n=256&format=npy")
        with ThreadPoolExecutor() as askers:
            other = askers.submit(ask)
            application.until(lambda: queued(application) >= 256)
            let_go.release(1000)
            assert other.result(PATIENCE).status_code == 200
    application.engine.sabotage = None


@pytest.mark.parametrize("application", [{"queue_images": 64, "max_images": 16}], indirect=True)
def test_a_picture_is_never_streamed(application: Any) -> None:
    assert application.client.get("/generate?n=16").headers["Content-Type"] == "image/png"
    refused = application.client.get("/generate?n=17")
    assert (refused.status_code, refused.json()["allowed"]) == (422, "an integer from 1 to 16 as png")


@pytest.mark.parametrize(
    "application", [{"queue_images": size, "max_images": size} for size in (24, 64)], indirect=True
)
def test_a_queue_that_is_full_on_the_way_is_waited_for(application: Any) -> None:
    with application.client.stream("GET", "/generate?n=1000&format=npy") as response:
        body = b"".join(response.iter_bytes())
    assert np.load(io.BytesIO(body)).shape[0] == 1000


def test_memory_stays_flat(models: Path, launch: Callable[..., AbstractContextManager[Any]]) -> None:
    """98 MB leave a server whose peak grows by less than a third of that."""

    def peak(pid: int) -> int:
        lines = (Path("/proc") / str(pid) / "status").read_text().splitlines()
        (line,) = [line for line in lines if line.startswith("VmHWM")]
        return int(line.split()[1]) << 10

    with launch(models / "plain") as server, httpx.Client(base_url=server.url, timeout=60) as client:
        client.get("/generate?n=1024&format=npy")
        before, size = peak(server.process.pid), 0
        with client.stream("GET", "/generate?n=32000&format=npy") as response:
            for piece in response.iter_bytes():
                size += len(piece)
        assert size == 32_000 * 32 * 32 * 3 + 128
        assert peak(server.process.pid) - before < size / 3
