"""A bundle in, what each part of an answer takes alone out: HTTP, latents, the model, the picture."""

import contextlib
import multiprocessing
import multiprocessing.synchronize
import os
import random
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serving.load import wrk
from benchmarks.serving.servers import CORES, MARK, PATIENCE, PEERS, ROOT, cpu, stop
from export.bundle import read, version_folders
from export.choice import chosen
from export.engines import Engine, open_engine
from server import images
from server.identity import Identity
from training.latents import Asked, draw_each

Barrier = multiprocessing.synchronize.Barrier


def alone(models: Path, engine: str, size: int, seconds: float = 2.0) -> dict[str, float]:
    """CPU seconds of 1,000 images for each part of a request in batches of `size`, and images a second of the engine on
    all cores, in one session or in one for each core, whichever is quicker.

    Every core does the same part at the same time: one whose neighbours are idle is quicker than a busy server's.
    """
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(CORES)
    with ProcessPoolExecutor(CORES, spawn, _share, (barrier,)) as pool:
        each = [pool.submit(_parts, models, engine, size, seconds) for _ in range(CORES)]
        found = [one.result() for one in each]
    together = {part: statistics.mean(one[part] for one in found) for part in found[0]}
    most = [Asked(7, 64, 3)]
    sessions = ([CORES], [1] * CORES)
    return together | {"engine": max(_rate(models, engine, most, threads, seconds) for threads in sessions)}


def _share(barrier: Barrier) -> None:
    global _barrier
    _barrier = barrier


def _opened(models: Path, engine: str, threads: int) -> tuple[Engine, int, int]:
    """An engine, and the latent and classes of its model."""
    bundle = read(version_folders(models)[0])
    artifact = chosen(bundle, engine)
    path, manifest = bundle.folder / artifact.file, bundle.manifest
    opened = open_engine(artifact.engine, artifact.precision, path, artifact.buckets, threads, artifact.requirements)
    return opened, manifest.latent, manifest.classes


def _parts(models: Path, engine: str, size: int, seconds: float) -> dict[str, float]:
    """In one process of those that begin each part together."""
    one, latent, classes = _opened(models, engine, 1)
    asked = [Asked(random.getrandbits(53), 1, 3) for _ in range(size)]
    z, labels = draw_each(asked, latent, classes)
    made = one.run(z, labels)
    identity = Identity("digits", 1, "0" * 64, one.artifact, 7, 3, None)

    def timed(run: Callable[[], Any], of: int) -> float:
        run()
        _barrier.wait(PATIENCE)
        began, until, count = time.process_time(), time.monotonic() + seconds, 0
        while time.monotonic() < until:
            run()
            count += 1
        return 1e3 * (time.process_time() - began) / (count * of)

    return {
        "latents": timed(lambda: draw_each(asked, latent, classes), size),
        "model": timed(lambda: one.run(z, labels), size),
        "png": timed(lambda: images.encode("png", made[:1], identity, np.array([3]), ()), 1),
    }


def _rate(models: Path, engine: str, asked: list[Asked], threads: list[int], seconds: float) -> float:
    """Images a second of some sessions at once, each of so many threads."""
    opened = [_opened(models, engine, count) for count in threads]
    engines = [one for one, *_ in opened]
    rows = draw_each(asked, *opened[0][1:])
    until, counts = time.monotonic() + seconds, [0] * len(engines)

    def work(place: int) -> None:
        while time.monotonic() < until:
            engines[place].run(*rows)
            counts[place] += len(rows[0])

    running = [threading.Thread(target=work, args=(place,)) for place in range(len(engines))]
    began = time.monotonic()
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    took = time.monotonic() - began
    for one in engines:
        one.close()
    return sum(counts) / took


def http_alone(seconds: float) -> float:
    """CPU seconds of 1,000 answers of raw ASGI on the same HTTP server, with as many bytes as a picture."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mark = f"{os.getpid()}-{port}"
    command = [sys.executable, "-m", "uvicorn", "constant:app", "--port", str(port), "--no-access-log"]
    process = subprocess.Popen(command, cwd=PEERS, env=os.environ | {MARK: mark}, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        wrk(f"http://127.0.0.1:{port}/", 128, 1)
        before = cpu(mark)
        said = wrk(f"http://127.0.0.1:{port}/", 128, seconds)
        return 1e3 * (cpu(mark) - before) / said["answers"]
    finally:
        stop(mark, process)


def imported() -> float:
    """Seconds that `import server.app` takes once its files are in memory: the least of three."""

    def timed(statement: str) -> float:
        began = time.monotonic()
        subprocess.run([sys.executable, "-c", statement], cwd=ROOT, check=True)
        return time.monotonic() - began

    return min(timed("import server.app") for _ in range(3)) - min(timed("") for _ in range(3))
