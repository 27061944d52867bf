"""One model in, a table of what each server makes of it out: `python -m benchmarks.serving MODELS`.

limner, MOSEC, LitServe, BentoML, Ray Serve and plain FastAPI serve the same ONNX file on ONNX Runtime, a PNG for each
request, each set up as its own documentation says for throughput (`peers/`), each peer in an environment of its own
(made in --environments where it is not there yet). Peers write PNG by Pillow, as their documentation does; MOSEC is
shown with limner's writer, too, which leaves HTTP and batching to be compared. Client and servers share the machine;
servers take turns.

Closed loop: wrk with 1, 32 and 128 connections. Open loop: Poisson arrivals at half and at nine tenths of the best rate
that the server itself had, from an asyncio client whose own CPU is shown; latencies count from the scheduled arrival.
limner's parts are measured right after it in each round, each part by itself, on all cores at once as workers are.
"""

import argparse
import json
import math
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from benchmarks.serving.load import open_loop, wrk
from benchmarks.serving.parts import alone, http_alone, imported
from benchmarks.serving.report import SHARES, document, plot
from benchmarks.serving.servers import CONNECTIONS, SAME_ENGINE, Server, cpu, memory, servers, started

SETTLED = 6.0  # seconds after the first picture: other workers still warm up
RESULTS = Path(__file__).parents[1] / "results"


def closed(server: Server, port: int, mark: str, seconds: float) -> dict[str, float]:
    url = f"http://127.0.0.1:{port}{server.path}"
    wrk(url, 32, 1, server.body)
    found: dict[str, float] = {}
    for connections in CONNECTIONS:
        before, so_far = cpu(mark), (0.0, 0.0) if server.package else batches(port)
        said = wrk(url, connections, seconds, server.body)
        found |= {f"{name}{connections}": value for name, value in said.items()}
        if not said["answers"]:
            raise RuntimeError(f"nothing but errors at {connections} connections")
        found[f"cpu{connections}"] = 1e3 * (cpu(mark) - before) / said["answers"]
        if not server.package:
            images, runs = (now - then for now, then in zip(batches(port), so_far, strict=True))
            found[f"batch{connections}"] = images / runs
    return found


def whole_batches(port: int, seconds: float) -> float:
    """Images a second of n = 64 as npy at 8 connections."""
    return 64 * wrk(f"http://127.0.0.1:{port}/generate?label=3&n=64&format=npy", 8, seconds)["rate"]


def parts(models: Path, batch: float, seconds: float) -> dict[str, float]:
    """What each part takes alone, in these minutes: the machine's speed changes. In batches as large, not padded."""
    size = 1 << round(math.log2(max(1.0, batch)))
    found = alone(models, SAME_ENGINE, size, seconds / 2) | {"http": http_alone(seconds), "size": size}
    return {f"alone {name}": value for name, value in found.items()}


def batches(port: int) -> tuple[float, float]:
    """Images in batches, and batches, so far."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    size = {line.split("{")[0]: float(line.split()[-1]) for line in lines if line.startswith("limner_batch_size_")}
    return size["limner_batch_size_sum"], size["limner_batch_size_count"]


def measure(server: Server, turn: int, rounds: int, model: Path, environments: Path, seconds: float) -> None:
    """One turn of it; the last one has the open loop, too."""
    with started(server, model, environments) as (port, mark, ready):
        if turn == 0:
            time.sleep(SETTLED)
            before = cpu(mark)
            time.sleep(5)
            server.figures["idle"] = (cpu(mark) - before) / 5
        server.rounds.append(closed(server, port, mark, seconds) | {"ready": ready})
        if server.engine == SAME_ENGINE:
            server.rounds[-1]["npy"] = whole_batches(port, seconds)
            server.rounds[-1] |= parts(model.parents[1], server.rounds[-1]["batch128"], seconds)
        if turn == rounds - 1:
            for share in SHARES:
                said = open_loop(port, server, share * server.best, seconds)
                server.figures |= {f"{name} at {share}": value for name, value in said.items()}
            server.figures["memory"] = memory(mark)


def main() -> None:
    parser = argparse.ArgumentParser(description="limner and its peers on one model.")
    parser.add_argument("models", type=Path)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="titles that begin so, by commas; nothing is written")
    parser.add_argument("--fastest", default="openvino", help="limner's best engine that passed its gates here")
    parser.add_argument("--environments", type=Path, default=Path(tempfile.gettempdir()) / "limner-peers")
    asked = parser.parse_args()
    models = asked.models.resolve()
    model = sorted(models.rglob("model.onnx"))[-1]
    only = [name.strip().lower() for name in asked.only.split(",") if name.strip()]
    found = [one for one in servers(models, asked.fastest) if not only or one.title.lower().startswith(tuple(only))]
    console = Console()
    with Progress(console=console) as progress:
        bar = progress.add_task("", total=asked.rounds * len(found))
        for turn in range(asked.rounds):
            for server in found:
                progress.update(bar, description=f"round {turn + 1}: {server.title}")
                if not server.failed:
                    try:
                        measure(server, turn, asked.rounds, model, asked.environments, asked.seconds)
                    except (RuntimeError, subprocess.CalledProcessError, OSError) as error:
                        server.failed = str(error) or type(error).__name__
                    else:
                        rates = ", ".join(f"{server.rounds[-1][f'rate{c}']:,.0f}" for c in CONNECTIONS)
                        console.print(f"{server.title}: {rates}")
                progress.advance(bar)
    command = f"python -m benchmarks.serving MODELS --seconds {asked.seconds:g} --rounds {asked.rounds}"
    seconds = imported()
    text = document(found, seconds, (__doc__ or "").partition("\n\n")[2].strip(), command)
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    if only:
        return
    (RESULTS / "serving.md").write_text(text, encoding="utf-8")
    raw = [{"title": s.title, "failed": s.failed, "rounds": s.rounds, "figures": s.figures} for s in found]
    (RESULTS / "serving.json").write_text(json.dumps({"servers": raw, "import": seconds}, indent=1), encoding="utf-8")
    plot(found, RESULTS / "serving.png")


if __name__ == "__main__":
    main()
