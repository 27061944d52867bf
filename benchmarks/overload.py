"""A served model in, what becomes of it under more than it can do out: `python benchmarks/overload.py MODELS`.

Requests of 64 images as npy: first as many at a time as keep it busy, which gives its capacity; then, of their own
accord and with timeout_ms=1000, one, two and three times as many a second. Goodput is what was answered in time, of
the capacity. Client and server share the machine.
"""

import argparse
import asyncio
import os
import platform
import re
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
IMAGES, TIMEOUT, AT_ONCE = 64, 1.0, 8
LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)


@dataclass
class Client:
    """Connections to one server, used again."""

    port: int
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = field(default_factory=list)

    async def ask(self, more: str = "", images: int = IMAGES) -> int:
        """The status of one answer, read to its end; once more where the server has meanwhile closed the connection, as
        it does after 5 s without a request.
        """
        while self.idle:
            try:
                return await self._ask(*self.idle.pop(), more, images)
            except ConnectionResetError:
                continue
            except asyncio.IncompleteReadError as error:
                if error.partial:
                    raise
        return await self._ask(*await asyncio.open_connection("127.0.0.1", self.port), more, images)

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, more: str, images: int) -> int:
        path = f"/generate?n={images}&format=npy{more}"
        writer.write(f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Length: 0\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        length = LENGTH.search(head)
        assert length is not None
        await reader.readexactly(int(length[1]))
        self.idle.append((reader, writer))
        return int(head.split()[1])


async def capacity(client: Client, seconds: float, images: Callable[[], int] = lambda: IMAGES) -> float:
    """Requests a second of a server that is kept busy."""
    until, done = time.monotonic() + seconds, 0

    async def ask_on() -> None:
        nonlocal done
        while time.monotonic() < until:
            assert await client.ask(images=images()) == 200
            done += 1

    began = time.monotonic()
    await asyncio.gather(*(ask_on() for _ in range(AT_ONCE)))
    return done / (time.monotonic() - began)


async def offered(client: Client, rate: float, seconds: float) -> tuple[Counter[int], list[float], float]:
    """Statuses, seconds of each 200, and answers in time a second, of `rate` requests a second."""
    codes, took = Counter[int](), list[float]()

    async def one() -> None:
        began = time.monotonic()
        code = await client.ask(f"&timeout_ms={TIMEOUT * 1e3:.0f}")
        codes[code] += 1
        if code == 200:
            took.append(time.monotonic() - began)

    tasks: list[asyncio.Task[None]] = []
    began = time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        tasks += [asyncio.create_task(one()) for _ in range(int(passed * rate) - len(tasks))]
        await asyncio.sleep(0.002)
    await asyncio.gather(*tasks)
    return codes, sorted(took), codes[200] / (time.monotonic() - began)


def counted(port: int) -> str:
    """The server's own counters of deadlines."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    names = ("limner_deadline_missed_total", "limner_late_answers_total")
    return ", ".join(line.partition("{")[0] + " " + line.split()[-1] for line in lines if line.startswith(names))


async def measure(port: int, seconds: float) -> list[str]:
    client = Client(port)
    await capacity(client, 1)
    most = await capacity(client, seconds)
    lines = [
        f"Capacity: {most:.1f} requests of {IMAGES} images a second, {most * IMAGES:,.0f} images, {AT_ONCE} at a time.",
        "",
        "| offered | 200 | 429 | others | goodput | p50 | p99 | slowest |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for times in (1, 2, 3):
        codes, took, good = await offered(client, times * most, seconds)
        others = codes.total() - codes[200] - codes[429]
        at = [f"{1e3 * took[min(len(took) - 1, int(len(took) * share))]:.0f} ms" for share in (0.5, 0.99, 1)]
        lines.append(f"| {times} x | {codes[200]} | {codes[429]} | {others} | {good / most:.2f} | {' | '.join(at)} |")
    return [*lines, "", f"By the server's own count: {counted(port)}."]


def main() -> None:
    parser = argparse.ArgumentParser(description="Goodput under more load than a server can take.")
    parser.add_argument("models", type=Path)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--port", type=int, default=9876)
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    command = [sys.executable, "-m", "limner", "serve", "--models", str(asked.models.resolve())]
    server = subprocess.Popen([*command, "--port", str(asked.port)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        assert "serves on" in server.stdout.readline()
        lines = asyncio.run(measure(asked.port, asked.seconds))
    finally:
        server.terminate()
        server.wait()
    about = f"{platform.machine()}, {os.cpu_count()} cores shared with the client, Python {platform.python_version()}."
    text = "\n".join(
        ["# Overload", "", "`python benchmarks/overload.py MODELS`, timeout_ms=1000.", "", *lines, "", about]
    )
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "overload.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
