"""A served model in, the dashboard's picture of an overload and its end out: `python -m benchmarks.ramp MODELS`.

Requests of 4, 16 or 64 images as npy, with timeout_ms=1000, arrive by chance: a third of what the server can do, more
and more until it is two and a half times that, and back. A real Prometheus scrapes it each second; what is drawn is
what the dashboard's own queries say. Needs the program prometheus; server, client and Prometheus share the machine.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import subprocess
import sys
import time
from dataclasses import dataclass, field
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl

from benchmarks.overload import TIMEOUT, Client, capacity

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "k8s"))

from prometheus import Prometheus, Series, filled, watching

DASHBOARD = ROOT / "k8s" / "components" / "monitoring" / "dashboard.json"
PICTURE = ROOT / "docs" / "overload.png"
SCRAPED, WINDOW = 1.0, "5s"
LEAST, MOST = 1 / 3, 2.5  # of what the server can do
SIZES = (4, 16, 64)
SHAPE = ((0.0, LEAST), (0.12, LEAST), (0.42, MOST), (0.55, MOST), (0.8, LEAST), (1.0, LEAST))  # share of the time: load
BLUE, ORANGE, GREEN, RED, GREY = "#3b6fb5", "#dd8a2b", "#4c9a5e", "#c44536", "#8a8f98"
COLOURS = {"200": GREEN, "429": ORANGE, "queue-full": RED, "deadline-unreachable": ORANGE, "queue": ORANGE}
COLOURS |= {"compute": BLUE, "encode": GREY, "p50": GREEN, "p95": ORANGE, "p99": RED}


@dataclass
class Offered:
    """Of each second of the ramp, how many requests were sent in it."""

    began: float
    sent: list[int] = field(default_factory=list)


def load(share: float) -> float:
    """What is asked for, of what the server can do, when such a share of the time has passed."""
    for (start, low), (end, high) in pairwise(SHAPE):
        if share <= end:
            return low + (high - low) * (share - start) / (end - start)
    return SHAPE[-1][1]


async def climb(client: Client, most: float, seconds: float) -> Offered:
    """Ask by chance, at the rate of the ramp."""
    rng, tasks = random.Random(5), set[asyncio.Task[int]]()  # noqa: S311
    began, due = time.monotonic(), 0.0
    offered = Offered(time.time(), [0] * (int(seconds) + 1))
    while (passed := time.monotonic() - began) < seconds:
        while due <= passed:
            tasks.add(task := asyncio.create_task(client.ask(f"&timeout_ms={TIMEOUT * 1e3:.0f}", rng.choice(SIZES))))
            task.add_done_callback(tasks.discard)
            offered.sent[int(due)] += 1
            due += rng.expovariate(most * load(due / seconds))
        await asyncio.sleep(0.002)
    await asyncio.gather(*tasks)
    return offered


async def ramp(port: int, seconds: float) -> tuple[float, Offered]:
    """What the server can do, in requests a second, and what it was then asked for."""
    client = Client(port)
    sizes = cycle(SIZES)
    await capacity(client, 1)
    most = await capacity(client, 5, lambda: next(sizes))
    await asyncio.sleep(10)  # until Prometheus has forgotten it
    return most, await climb(client, most, seconds)


def queries(title: str) -> list[str]:
    """Those of a panel of the dashboard."""
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    (panel,) = [panel for panel in panels if panel["title"] == title]
    return [target["expr"] for target in panel["targets"]]


def seen(prometheus: Prometheus, title: str, offered: Offered) -> list[list[Series]]:
    """What each query of a panel says of the ramp, a point a second."""
    end = offered.began + len(offered.sent)
    return [prometheus.ask_range(filled(query, WINDOW), offered.began, end, 1) for query in queries(title)]


def drawn(prometheus: Prometheus, most: float, offered: Offered) -> None:
    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    figure, places = plt.subplots(3, 2, figsize=(11, 8.2), sharex=True, layout="constrained")
    answers, refused, latency, stages, batches, busy = places.flat

    def points(one: Series, scale: float = 1) -> tuple[list[float], list[float]]:
        return [when - offered.began for when, _ in one.points], [scale * value for _, value in one.points]

    def stacked(axes: Axes, named: dict[str, Series], scale: float = 1) -> None:
        every = range(len(offered.sent) + 1)
        found = {
            name: dict(zip(map(round, points(one)[0]), points(one, scale)[1], strict=True))
            for name, one in named.items()
        }
        rows = [[at.get(second, 0.0) for second in every] for at in found.values()]
        colours = [COLOURS.get(name, GREY) for name in named]
        axes.stackplot(every, rows, labels=[*named], colors=colours, alpha=0.75, linewidth=0)

    def titled(axes: Axes, title: str, unit: str) -> None:
        axes.set_title(title, loc="left", fontweight="bold", fontsize=10)
        axes.set_ylabel(unit)
        axes.grid(axis="y", alpha=0.25)

    (said,) = seen(prometheus, "Requests for images by answer", offered)
    stacked(answers, {code: one for code in ("200", "429") for one in said if one.labels["code"] == code})
    answers.plot(
        [second + 0.5 for second in range(len(offered.sent) - 1)],
        _smooth(offered.sent[:-1]),
        color="black",
        lw=1,
        label="asked for",
    )
    answers.axhline(most, color=BLUE, lw=1, ls="--", label="all that it can do")
    titled(answers, "Requests for images by answer", "requests / s")

    (said,) = seen(prometheus, "Refused", offered)
    stacked(refused, {one.labels["reason"]: one for one in said if any(value for _, value in one.points)})
    titled(refused, "Refused at once, with Retry-After", "requests / s")

    for name, said in zip(
        ("p50", "p95", "p99"), seen(prometheus, "From a request's headers to its answer", offered), strict=True
    ):
        for one in said:
            if one.labels["route"] == "/generate":
                latency.plot(*points(one, 1e3), color=COLOURS[name], lw=1.3, label=name)
    latency.axhline(1e3 * TIMEOUT, color=BLUE, lw=1, ls="--", label="the clients' time")
    titled(latency, "From a request's headers to its answer", "ms")

    for name, (one,) in zip(
        ("queue", "compute", "encode"), seen(prometheus, "Queue, batch and encoding: the means", offered), strict=True
    ):
        stages.plot(*points(one, 1e3), color=COLOURS[name], lw=1.3, label=name)
    titled(stages, "Queue, batch and encoding: the means", "ms")

    ((one,),) = seen(prometheus, "Images in a batch", offered)
    batches.plot(*points(one), color=BLUE, lw=1.3)
    titled(batches, "Images in a batch", "images")

    ((one,),) = seen(prometheus, "How busy engines are", offered)
    busy.plot(*points(one, 100), color=BLUE, lw=1.3)
    busy.axhline(70, color=BLUE, lw=1, ls="--", label="what autoscalers aim at")
    titled(busy, "How busy the engine is", "%")

    over = [second for second, _ in enumerate(offered.sent[:-1]) if load(second / (len(offered.sent) - 1)) > 1]
    for axes in places.flat:
        axes.axvspan(over[0], over[-1], color=RED, alpha=0.06, lw=0)
        axes.set_xlim(0, len(offered.sent) - 1)
        axes.set_ylim(0, 1.22 * axes.dataLim.ymax)  # room for the legend
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="upper left", frameon=False, fontsize=8, ncols=2)
    figure.suptitle(
        f"A load that climbs to {MOST:g} times what the server can do (shaded: more than that), and comes back"
    )
    for axes in places[-1]:
        axes.set_xlabel("seconds")
    figure.savefig(PICTURE, dpi=110)


def _smooth(counts: list[int], width: int = 5) -> list[float]:
    """Means over the seconds up to each, as a rate over a window is."""
    return [sum(counts[max(0, place + 1 - width) : place + 1]) / min(width, place + 1) for place in range(len(counts))]


def main() -> None:
    parser = argparse.ArgumentParser(description="The dashboard's picture of an overload and its end.")
    parser.add_argument("models", type=Path)
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--port", type=int, default=9876)
    asked = parser.parse_args()
    command: list[Any] = [sys.executable, "-m", "limner", "serve", "--models", asked.models.resolve()]
    server = subprocess.Popen([*command, "--port", str(asked.port)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        assert "serves on" in server.stdout.readline()
        with watching([f"127.0.0.1:{asked.port}"], seconds=SCRAPED) as prometheus:
            most, offered = asyncio.run(ramp(asked.port, asked.seconds))
            drawn(prometheus, most, offered)
    finally:
        server.terminate()
        server.wait()
    print(
        f"{PICTURE}: {sum(offered.sent)} requests; all that it can do: {most:.0f} a second. "
        f"{platform.machine()}, {os.cpu_count()} cores."
    )


if __name__ == "__main__":
    main()
