"""A server's port in, how quickly it answers out: wrk in a closed loop, Poisson arrivals in an open one.

`python -m benchmarks.serving.load JSON` is the client of the open loop, which has a process for itself.
"""

import asyncio
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import deque
from typing import Any, cast

from benchmarks.serving.servers import ROOT, Server


def wrk(url: str, connections: int, seconds: float, body: bytes = b"") -> dict[str, float]:
    """Closed loop: good answers, and of those a second; milliseconds; the share of errors."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write('wrk.method = "POST"\n')
        if body:
            script.write(f"wrk.body = '{body.decode()}'\nwrk.headers['Content-Type'] = 'application/json'\n")
        script.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--latency", "-s", script.name, url]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    number = r"([\d.]+)"
    scale = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}

    def latency(share: str) -> float:
        value, unit = re.findall(rf"{share}%\s+{number}(us|ms|s|m)", said)[0]
        return float(value) * scale[unit]

    errors = sum(int(count) for count in re.findall(r"Non-2xx or 3xx responses: (\d+)", said))
    errors += sum(map(int, re.findall(r"(?:connect|read|write|timeout) (\d+)", said)))
    answers, took = int(re.findall(r"(\d+) requests in", said)[0]), float(re.findall(rf"in {number}s", said)[0])
    good = max(0, answers - errors)
    share = errors / max(1, answers)
    return {"rate": good / took, "p50": latency("50"), "p99": latency("99"), "errors": share, "answers": good}


class Connection(asyncio.Protocol):
    """One request at a time; tells the client when its answer is whole."""

    def __init__(self, client: "Client") -> None:
        self.client, self.buffer, self.due = client, b"", 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        self.client.free(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.due:
            self.client.finished(self.due, 0)
        self.client.open -= 1

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, found, body = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = re.search(rb"content-length: (\d+)", head.lower())
        if length is None or len(body) < int(length[1]):
            return
        status, self.buffer = int(head[9:12]), b""
        due, self.due = self.due, 0.0
        self.client.finished(due, status)
        self.client.free(self)


class Client:
    """Requests at given times, over as many connections as that takes, 512 at most."""

    def __init__(self, port: int, request: bytes) -> None:
        self.port, self.request, self.open = port, request, 0
        self.idle, self.overdue = deque[Connection](), deque[float]()
        self.took, self.failed = list[float](), 0

    def free(self, connection: Connection) -> None:
        if self.overdue:
            self._send(connection, self.overdue.popleft())
        else:
            self.idle.append(connection)

    def finished(self, due: float, status: int) -> None:
        if status == 200:
            self.took.append(time.monotonic() - due)
        else:
            self.failed += 1

    def _send(self, connection: Connection, due: float) -> None:
        connection.due = due
        connection.transport.write(self.request)

    async def run(self, rate: float, seconds: float) -> dict[str, float]:
        arrivals, now = deque[float](), 0.0
        rng = random.Random(5)  # noqa: S311
        while (now := now + rng.expovariate(rate)) < seconds:
            arrivals.append(now)
        count, began, used = len(arrivals), time.monotonic(), time.process_time()
        opening, host = set[asyncio.Task[Any]](), "127.0.0.1"
        loop = asyncio.get_running_loop()
        while arrivals:
            while arrivals and began + arrivals[0] <= time.monotonic():
                due = began + arrivals.popleft()
                while self.idle and self.idle[-1].transport.is_closing():
                    self.idle.pop()
                if self.idle:
                    self._send(self.idle.pop(), due)
                    continue
                self.overdue.append(due)
                if self.open < 512:
                    self.open += 1
                    opening.add(loop.create_task(loop.create_connection(lambda: Connection(self), host, self.port)))
            await asyncio.sleep(0.0005)
        busy = (time.process_time() - used) / (time.monotonic() - began)
        until = time.monotonic() + 5
        while len(self.took) + self.failed < count and time.monotonic() < until:
            await asyncio.sleep(0.01)
        took = sorted(self.took) or [float("inf")]
        return {
            "p50": 1e3 * took[len(took) // 2],
            "p99": 1e3 * took[int(len(took) * 0.99)],
            "good": sum(1 for one in took if one <= 1) / max(1, count),
            "client": busy,
        }


def open_loop(port: int, server: Server, rate: float, seconds: float) -> dict[str, float]:
    """In a process of its own."""
    typed = "Content-Type: application/json\r\n" if server.body else ""
    request = f"POST {server.path} HTTP/1.1\r\nHost: x\r\n{typed}Content-Length: {len(server.body)}\r\n\r\n"
    asked = {"port": port, "request": request + server.body.decode(), "rate": rate, "seconds": seconds}
    command = [sys.executable, "-m", "benchmarks.serving.load", json.dumps(asked)]
    return json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


def client(asked: dict[str, Any]) -> None:
    import uvloop

    one = Client(asked["port"], asked["request"].encode())
    print(json.dumps(uvloop.run(one.run(asked["rate"], asked["seconds"]))))


if __name__ == "__main__":
    client(json.loads(sys.argv[1]))
