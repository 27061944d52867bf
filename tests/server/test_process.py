"""`limner serve` as an operating system sees it: signals, drain, ports, exit codes and the one line on stderr."""

import contextlib
import io
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from server.listening import address, bind
from training.errors import ConfigError

PATIENCE = 30.0  # seconds until a test that would hang fails

Launch = Callable[..., AbstractContextManager[Any]]  # of conftest.Launched


@contextlib.contextmanager
def connected(url: str, receive_buffer: int | None = None) -> Iterator[socket.socket]:
    place = httpx.URL(url)
    with socket.socket() as connection:
        if receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.settimeout(PATIENCE)
        connection.connect((place.host, place.port))
        yield connection


def received(connection: socket.socket) -> tuple[bytes, bytes]:
    """Everything up to the end of the connection: head and body."""
    parts = []
    while part := connection.recv(1 << 20):
        parts.append(part)
    head, _, body = b"".join(parts).partition(b"\r\n\r\n")
    return head, body


def until(status: int, client: httpx.Client, path: str) -> httpx.Response:
    """Ask until the answer has that status: a signal takes a moment to arrive."""
    patience = time.monotonic() + PATIENCE
    while True:
        response = client.get(path)
        if response.status_code == status:
            return response
        assert time.monotonic() < patience, f"{path} stays {response.status_code}"


def test_sigterm_answers_what_is_in_flight_refuses_what_is_new_and_exits_0(launch: Launch, models: Path) -> None:
    body = json.dumps({"model": "plain", "n": 1024, "seed": 1, "format": "npy"}).encode()
    head = (
        "POST /generate HTTP/1.1\r\nHost: limner\r\nContent-Type: application/json\r\nConnection: close\r\n"
        f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
    )
    with (
        launch(models) as server,
        httpx.Client(base_url=server.url, timeout=PATIENCE) as keep_alive,
        connected(server.url) as slow,
    ):
        expected = keep_alive.get("/generate?model=plain&n=1024&seed=1&format=npy").content
        assert keep_alive.get("/generate?model=plain").status_code == 200  # whose bytes are known from now on
        slow.sendall(head.encode())
        assert slow.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"  # the route reads the body: the request is in flight
        assert figures(keep_alive) == {"ready_workers": 1, "draining_seconds": 0, "drain_limit_seconds": 20}
        server.process.send_signal(signal.SIGTERM)

        draining = until(503, keep_alive, "/readyz")
        assert draining.headers["Content-Type"] == "application/problem+json"
        assert draining.headers["Retry-After"] == "1"
        assert keep_alive.get("/healthz").status_code == 200  # a drain is no reason to be killed
        assert figures(keep_alive)["ready_workers"] == 0
        assert 0 < figures(keep_alive)["draining_seconds"] < PATIENCE
        new = httpx.post(f"{server.url}/generate?model=plain")  # over a new connection
        asked = [("POST", ""), ("GET", ""), ("GET", "&n=9&format=json"), ("GET", "&n=9999&format=npy"), ("HEAD", "")]
        refused = [new, *(keep_alive.request(method, f"/generate?model=plain{more}") for method, more in asked)]
        for answer in refused:
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
            assert answer.headers["Cache-Control"] == "no-store"
            assert answer.headers["X-Request-Id"]
            if answer.request.method != "HEAD":
                assert answer.json()["type"] == "urn:limner:problem:not-ready"
        counted = f'limner_rejected_total{{model="plain@1",reason="not-ready"}} {len(refused)}.0'
        assert counted in keep_alive.get("/metrics").text.splitlines()
        # what makes no picture is answered as ever
        assert keep_alive.get("/generate?model=plain&n=0").status_code == 422
        assert keep_alive.get("/generate?model=plain&seed=1", headers={"If-None-Match": "*"}).status_code == 304
        assert keep_alive.get("/models").status_code == 200
        assert server.process.poll() is None

        slow.sendall(body)
        answer_head, answer = received(slow)
        assert answer_head.startswith(b"HTTP/1.1 200 ")
        assert answer == expected
        assert np.load(io.BytesIO(answer)).shape == (1024, 32, 32, 3)
        assert server.process.wait(PATIENCE) == 0
        lines = [json.loads(line) for line in server.complained().splitlines()]
        assert [line["event"] for line in lines] == ["started", "stopped"]
        assert list(lines[0]["models"]) == ["digits@1", "plain@1"]
        assert all(artifact.startswith("onnxruntime-fp32-") for artifact in lines[0]["models"].values())


def test_a_client_that_reads_slowly_gets_its_whole_answer_although_the_server_stops(
    launch: Launch, models: Path
) -> None:
    """An answer larger than what the kernel buffers is still in the server when its request counts as answered."""
    images = 8192
    with (
        launch(models, LIMNER_MAX_IMAGES=str(images), LIMNER_QUEUE_IMAGES=str(images)) as server,
        connected(server.url, receive_buffer=4096) as slow,
    ):
        request = (
            f"GET /generate?model=plain&n={images}&format=npy HTTP/1.1\r\nHost: limner\r\nConnection: close\r\n\r\n"
        )
        slow.sendall(request.encode())
        assert slow.recv(5, socket.MSG_PEEK) == b"HTTP/"
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            server.process.wait(2)  # it has somebody to wait for
        _, answer = received(slow)
        assert len(answer) == 128 + images * 32 * 32 * 3  # npy has a head of 128 bytes
        assert server.process.wait(PATIENCE) == 0


def test_the_drain_ends_after_drain_seconds(launch: Launch, models: Path) -> None:
    """Who never finishes a request cannot keep the server alive. Without the flag it would be an hour."""
    with (
        launch(models, "--drain-seconds", "0.1", LIMNER_DRAIN_SECONDS="3600") as server,
        connected(server.url) as stuck,
    ):
        stuck.sendall(b"POST /generate HTTP/1.1\r\nHost: limner\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n")
        assert stuck.recv(1000).startswith(b"HTTP/1.1 100 ")
        assert server.stop() == 0
        assert [json.loads(line)["event"] for line in server.complained().splitlines()] == [
            "started",
            "request cut",
            "stopped",
        ]


def test_a_second_signal_does_not_wait(launch: Launch, models: Path) -> None:
    with launch(models / "plain", "--drain-seconds", "3600") as server, connected(server.url) as stuck:
        stuck.sendall(b"POST /generate HTTP/1.1\r\nHost: limner\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n")
        assert stuck.recv(1000).startswith(b"HTTP/1.1 100 ")
        server.process.send_signal(signal.SIGINT)
        with httpx.Client(base_url=server.url, timeout=PATIENCE) as client:
            until(503, client, "/readyz")
        with pytest.raises(subprocess.TimeoutExpired):
            server.process.wait(1)
        assert server.stop(signal.SIGINT) == 130
        assert "Traceback" not in server.complained()


def test_ctrl_c_exits_130_without_a_traceback(launch: Launch, models: Path) -> None:
    with launch(models) as server:
        assert httpx.get(f"{server.url}/healthz").status_code == 200
        assert server.stop(signal.SIGINT) == 130
        assert "Traceback" not in server.complained()
        assert server.said().count("\n") == 1  # the address, once


def test_a_second_server_on_a_port_is_refused_also_while_the_first_is_still_starting() -> None:
    """Two sockets can be bound to one port as long as neither listens."""
    with bind("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(ConfigError, match="Address already in use"):
            bind("127.0.0.1", port)
        with bind("127.0.0.1", port, tries=100) as second:
            assert port < second.getsockname()[1] < port + 100


def test_the_address_is_one_that_a_person_can_open() -> None:
    with bind("127.0.0.1", 0) as loopback, bind("0.0.0.0", 0) as everywhere:
        assert address(loopback) == f"http://127.0.0.1:{loopback.getsockname()[1]}"
        assert address(everywhere) == f"http://127.0.0.1:{everywhere.getsockname()[1]}"


# what cannot be served: one line, exit 1


def test_a_busy_port_is_one_line(models: Path, environment: dict[str, str], tmp_path: Path) -> None:
    with bind("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])
        line = complaint(environment, tmp_path, "--models", str(models), "--port", port)
    assert line == f"cannot listen on 127.0.0.1:{port} (Address already in use). Choose another --port or --host."


def test_a_folder_without_bundles_is_one_line(environment: dict[str, str], tmp_path: Path) -> None:
    line = complaint(environment, tmp_path, "--models", str(tmp_path))
    assert line == f"'{tmp_path}' holds no bundle. Export a run into it: limner export RUN --models {tmp_path}."


def test_a_missing_folder_is_one_line(environment: dict[str, str], tmp_path: Path) -> None:
    line = complaint(environment, tmp_path, "--models", "gone")
    assert line == "'gone' is no folder. Export a run into it: limner export RUN --models gone."


def test_a_damaged_manifest_is_one_line(models: Path, environment: dict[str, str], tmp_path: Path) -> None:
    folder = shutil.copytree(models, tmp_path / "models") / "digits" / "1"
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text()[:-20])
    line = complaint(environment, tmp_path, "--models", "models")
    assert line.startswith("models/digits/1/manifest.json is damaged (JSON: ")
    assert line.endswith("Remove that version folder and export it again: limner export RUN --to onnx.")


def test_one_wrong_byte_in_a_model_is_one_line(models: Path, environment: dict[str, str], tmp_path: Path) -> None:
    folder = shutil.copytree(models, tmp_path / "models") / "plain" / "1"
    content = bytearray((folder / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "model.onnx").write_bytes(content)
    line = complaint(environment, tmp_path, "--models", "models")
    assert line == (
        "models/plain/1/model.onnx is not the file that was exported (its hash differs). "
        "Remove that version folder and export it again: limner export RUN --to onnx."
    )


@pytest.mark.parametrize("workers", ["1", "2"])
def test_what_the_system_refuses_is_one_line(environment: dict[str, str], tmp_path: Path, workers: str) -> None:
    name = "x" * 300
    line = complaint(environment, tmp_path, "--models", name, "--port", "0", "--workers", workers)
    assert line == f"{name}/manifest.json: File name too long. Try another place."


def test_a_cache_that_cannot_be_written_is_one_line(models: Path, environment: dict[str, str], tmp_path: Path) -> None:
    place = environment | {"LIMNER_METRICS_FOLDER": "/proc"}  # also root cannot write there
    line = complaint(place, tmp_path, "--models", str(models), "--port", "0", "--workers", "2")
    assert line == "cannot write metrics into '/proc' (No such file or directory). Set LIMNER_METRICS_FOLDER."


def test_a_container_with_too_little_memory_is_one_line(
    environment: dict[str, str], tmp_path: Path, models: Path
) -> None:
    """A limit is what /sys/fs/cgroup says; a stand-in says it here."""
    limits = tmp_path / "cgroup"
    limits.mkdir()
    (limits / "memory.max").write_text(f"{64 << 20}\n")
    (limits / "memory.current").write_text("1000\n")
    code = f"""
import functools, pathlib, sys
from server import memory
memory.require = functools.partial(memory.require, pathlib.Path({str(limits)!r}))
import limner
sys.argv = ["limner", "serve", "--models", {str(models)!r}, "--port", "0"]
limner.main()
"""
    line = refused([sys.executable, "-c", code], environment, tmp_path)
    assert line == (
        "the container's memory ends at 64 MiB, a server takes more than 96 MiB. Raise the container's memory limit."
    )


def test_sigterm_ends_a_server_that_is_still_starting(
    models: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    """Exit 0, as after a drain, and not the default action, which the first process of a container does not have."""
    code = f"""
import os, signal, sys
import server.app
server.app.create_app = lambda settings: os.kill(os.getpid(), signal.SIGTERM) or signal.pause()
import limner
sys.argv = ["limner", "serve", "--models", {str(models)!r}, "--port", "0"]
limner.main()
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def figures(client: httpx.Client) -> dict[str, float]:
    """What /metrics says of its readiness and drain."""
    lines = re.findall(r"^limner_(ready_workers|drain\w+) (\S+)$", client.get("/metrics").text, re.MULTILINE)
    return {name: float(value) for name, value in lines}


def complaint(environment: dict[str, str], folder: Path, *flags: str) -> str:
    """The one line of a `limner serve` that exits 1."""
    return refused([sys.executable, "-m", "limner", "serve", *flags], environment, folder)


def refused(command: list[str], environment: dict[str, str], folder: Path) -> str:
    """What it says and how to mend it, from the one line of its log."""
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done.stderr
    said = json.loads(done.stderr)
    assert (said["event"], said["level"]) == ("cannot serve", "critical")
    return f"{said['error']}. {said['mend']}"
