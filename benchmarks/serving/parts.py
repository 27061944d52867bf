"""A bundle in, what each part of an answer takes alone out: HTTP, latents, the model, the picture."""

import contextlib
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serving.load import wrk
from benchmarks.serving.servers import CORES, MARK, PATIENCE, PEERS, ROOT, cpu, stop
from export.bundle import read, version_folders
from export.choice import chosen
from export.engines import open_engine
from server import images
from server.identity import Identity
from training.latents import Asked, draw_each


def alone(models: Path, engine: str, size: int, seconds: float = 2.0) -> dict[str, float]:
    """CPU seconds of 1,000 images for each part of a request in batches of `size`, and images a second of the engine on
    all cores, in one session or in one for each core, whichever is quicker.
    """
    bundle = read(version_folders(models)[0])
    artifact = chosen(bundle, engine)
    latent, classes = bundle.manifest.latent, bundle.manifest.classes

    def opened(threads: int) -> Any:
        path = bundle.folder / artifact.file
        return open_engine(artifact.engine, artifact.precision, path, artifact.buckets, threads, artifact.requirements)

    def rate(engines: list[Any], rows: tuple[Any, Any]) -> float:
        """Images a second of some at once, each in a thread."""
        until, counts = time.monotonic() + seconds, [0] * len(engines)

        def work(place: int) -> None:
            while time.monotonic() < until:
                engines[place].run(*rows)
                counts[place] += len(rows[0])

        threads = [threading.Thread(target=work, args=(place,)) for place in range(len(engines))]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for engine in engines:
            engine.close()
        return sum(counts) / (time.monotonic() - began)

    def timed(run: Callable[[], Any], of: int, clock: Callable[[], float]) -> float:
        run()
        began, until, count = clock(), time.monotonic() + seconds, 0
        while time.monotonic() < until:
            run()
            count += 1
        return 1e3 * (clock() - began) / (count * of)

    asked = [Asked(random.getrandbits(53), 1, 3) for _ in range(size)]
    z, labels = draw_each(asked, latent, classes)
    one = opened(1)
    made = one.run(z, labels)
    identity = Identity("digits", 1, "0" * 64, one.artifact, 7, 3, None)
    most = draw_each([Asked(7, 64, 3)], latent, classes)
    found = {
        "latents": timed(lambda: draw_each(asked, latent, classes), size, time.process_time),
        "model": timed(lambda: one.run(z, labels), size, time.process_time),
        "png": timed(lambda: images.encode("png", made[:1], identity, np.array([3]), ()), 1, time.process_time),
    }
    one.close()
    found["engine"] = max(rate(engines, most) for engines in ([opened(CORES)], [opened(1) for _ in range(CORES)]))
    return found


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
