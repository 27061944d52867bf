"""How limner and its peers are started: a command each, in an environment of its own, watched by a mark."""

import contextlib
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT, PEERS = Path(__file__).parents[2], Path(__file__).with_name("peers")
CONNECTIONS = (1, 32, 128)
MARK = "LIMNER_BENCHMARK_SERVER"  # in the environment of every process of a server, wherever it hides
PATIENCE = 90.0  # seconds until a server that does not answer counts as failed
ASKED = b'{"label": 3}'
GIVEN = ", limner's PNG writer"  # in the title of a peer that has it
SAME_ENGINE = "onnxruntime"  # what all of them run the model on
CORES = len(os.sched_getaffinity(0))


@dataclass
class Server:
    """How one is started and asked. `workers` processes, `threads` of the model in each."""

    title: str
    command: list[str]
    path: str
    workers: int
    package: str = ""  # what pip installs for it, in its own environment
    body: bytes = ASKED
    threads: int = 1
    engine: str = ""  # limner's
    png: str = "pillow"  # who writes a peer's pictures
    rounds: list[dict[str, float]] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    failed: str = ""

    def median(self, key: str) -> float:
        return statistics.median(one[key] for one in self.rounds)

    @property
    def best(self) -> float:
        return max(self.median(f"rate{connections}") for connections in CONNECTIONS)


def servers(models: Path, fastest: str) -> list[Server]:
    limner = [sys.executable, "-m", "limner", "serve", "--models", str(models), "--port", "PORT"]

    def ours(title: str, engine: str, workers: int) -> Server:
        flags = ["--engine", engine, "--workers", str(workers)]
        return Server(title, limner + flags, "/generate?label=3", workers, body=b"", engine=engine)

    found = [ours(f"limner, {workers} worker{'s'[: workers > 1]}", SAME_ENGINE, workers) for workers in (1, CORES)]
    found += [ours(f"limner, {CORES} workers, {fastest}", fastest, CORES)] if fastest != SAME_ENGINE else []
    python = ["python", str(PEERS / "with_NAME.py")]

    def peer(
        name: str, title: str, path: str, package: str, workers: int, command: list[str], png: str = "pillow"
    ) -> Server:
        named = [part.replace("NAME", name) for part in command]
        return Server(title, named, path, workers, package, threads=max(1, CORES // workers), png=png)

    mosec = [*python, "--port", "PORT"]
    for workers in (1, CORES):
        title = f"MOSEC 0.9.8, {workers} worker{'s'[: workers > 1]}"
        found.append(peer("mosec", title, "/inference", "mosec==0.9.8", workers, mosec))
    title += GIVEN
    found.append(peer("mosec", title, "/inference", "mosec==0.9.8", CORES, mosec, png="limner"))
    found.append(peer("litserve", "LitServe 0.2.19", "/predict", "litserve==0.2.19", CORES, [*python, "PORT"]))
    bento = ["bentoml", "serve", "with_bentoml:Front", "--port", "PORT"]
    found.append(peer("bentoml", "BentoML 1.4.39", "/generate", "bentoml==1.4.39", CORES, bento))
    found.append(peer("ray", "Ray Serve 2.60.0", "/generate", "ray[serve]==2.60.0", CORES, [*python, "PORT"]))
    plain = ["uvicorn", "with_fastapi:app", "--port", "PORT", "--workers", str(CORES), "--no-access-log"]
    fastapi = "fastapi==0.165.0 uvicorn[standard]==0.54.0"
    found.append(peer("fastapi", "FastAPI + uvicorn, no batches", "/generate?label=3", fastapi, CORES, plain))
    return found


def processes(mark: str) -> list[int]:
    """Every process that has the mark in its environment, however it was started."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if f"{MARK}={mark}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


def cpu(mark: str) -> float:
    """Seconds of all of its processes."""
    ticks = 0
    for process in processes(mark):
        with contextlib.suppress(OSError):
            ticks += sum(map(int, Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def memory(mark: str) -> float:
    """MiB of all of its processes, shared pages divided among those who share them."""
    total = 0
    for process in processes(mark):
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


@contextlib.contextmanager
def started(server: Server, model: Path, environments: Path) -> Iterator[tuple[int, str, float]]:
    """Its port and mark once it answers a picture, and the seconds that took."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mark = f"{os.getpid()}-{port}"
    command = [part.replace("PORT", str(port)) for part in server.command]
    settings = {MARK: mark, "MODEL": str(model), "THREADS": str(server.threads), "WORKERS": str(server.workers)}
    settings["PNG"] = server.png
    if server.package:
        home = environment(server.package, environments)
        command[0] = str(home / "bin" / command[0])
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, cwd=PEERS if server.package else ROOT, env=os.environ | settings, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
        try:
            began = time.monotonic()
            until = began + PATIENCE
            while not _answers(server, port):
                if process.poll() is not None or time.monotonic() > until:
                    log.seek(0)
                    lines = log.read().decode(errors="replace").strip().splitlines()
                    raise RuntimeError(lines[-1][:150] if lines else "it does not answer")
                time.sleep(0.02)
            yield port, mark, time.monotonic() - began
        finally:
            stop(mark, process)


def stop(mark: str, process: subprocess.Popen[bytes]) -> None:
    for number, seconds in ((signal.SIGTERM, 8.0), (signal.SIGKILL, 5.0)):
        for one in processes(mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, number)
        until = time.monotonic() + seconds
        while time.monotonic() < until and (process.poll() is None or processes(mark)):
            time.sleep(0.1)


def _answers(server: Server, port: int) -> bool:
    """Two pictures that are PNG of 28 x 28 and not the same."""
    url = f"http://127.0.0.1:{port}{server.path}"
    headers = {"Content-Type": "application/json"} if server.body else {}
    made = set()
    for _ in range(2):
        request = urllib.request.Request(url, server.body, headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
                made.add(answer.read())
        except OSError:
            return False
    shapes = {data[:4] == b"\x89PNG" and (data[18:20], data[22:24]) == (b"\0\x1c", b"\0\x1c") for data in made}
    if len(made) != 2 or shapes != {True}:
        raise RuntimeError("its answers are not two different pictures of 28 x 28")
    return True


def environment(packages: str, home: Path) -> Path:
    """A virtual environment with these, and ONNX Runtime and Pillow as limner has them."""
    from importlib.metadata import version

    folder = home / re.split(r"[=\[]", packages)[0]
    if not (folder / "done").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        same = [f"{name}=={version(name)}" for name in ("onnxruntime", "numpy", "pillow")]
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "-q", *same, *packages.split()]
        done = subprocess.run(pip, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"cannot be installed: {done.stderr.strip().splitlines()[-1][:120]}")
        (folder / "done").touch()
    return folder
