"""What was measured in, a table, the goals and a plot out."""

import contextlib
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.serving.servers import CONNECTIONS, CORES, GIVEN, SAME_ENGINE, Server

SHARES = (0.5, 0.9)  # of a server's own best rate, in the open loop
BUSY = 0.9  # of a core that the open loop's client takes: above, its latencies are its own


def table(found: list[Server]) -> list[str]:
    heads = ["", *(f"c = {number}" for number in CONNECTIONS), "p50, p99 at 1", "p50, p99 at 128"]
    heads += [
        "open 50 %: p50, p99, goodput",
        "open 90 %",
        "client's CPU",
        "CPU s / 1,000",
        "ready",
        "idle CPU",
        "memory",
    ]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for server in found:
        if server.failed:
            lines.append(f"| {server.title} | failed: {server.failed} |" + " |" * (len(heads) - 2))
            continue
        figures, cells = server.figures, [server.title]
        cells += [f"{server.median(f'rate{number}'):,.0f}{_failed(server, number)}" for number in CONNECTIONS]
        cells += [f"{server.median(f'p50{c}'):.2f}, {server.median(f'p99{c}'):.1f} ms" for c in (1, 128)]
        cells += [
            "the client's limit"
            if figures[f"client at {share}"] > BUSY
            else "{:.1f}, {:.0f} ms, {:.3f}".format(*(figures[f"{name} at {share}"] for name in ("p50", "p99", "good")))
            for share in SHARES
        ]
        cells.append(", ".join(f"{figures[f'client at {share}']:.0%}" for share in SHARES))
        cells += [f"{server.median('cpu128'):.3f}", f"{server.median('ready'):.1f} s"]
        cells += [f"{figures['idle']:.1%}", f"{figures['memory']:,.0f} MiB"]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _failed(server: Server, connections: int) -> str:
    share = server.median(f"errors{connections}")
    return f" and {share:.1%} failed" if share else ""


PARTS = ("http", "latents", "model", "png")


def goals(found: list[Server]) -> list[str]:
    """What has to be reached, and what was: ratios within each round, the median of the rounds."""
    by = {server.title: server for server in found if not server.failed}
    ours = [server for server in by.values() if server.engine == SAME_ENGINE]
    fastest = next((server for server in by.values() if server.engine not in ("", SAME_ENGINE)), None)

    def ratio(
        some: list[Server], others: str, key: str, best: Callable[..., float] = max, ending: str = ""
    ) -> float | None:
        named = [server for title, server in by.items() if title.startswith(others)]
        rivals = [server for server in named if server.title.endswith(GIVEN) is bool(ending)]
        if not rivals or not some:
            return None
        turns = range(min(len(server.rounds) for server in (*some, *rivals)))
        each = [
            best(server.rounds[turn][key] for server in some) / best(server.rounds[turn][key] for server in rivals)
            for turn in turns
        ]
        return statistics.median(each)

    rows: list[tuple[str, str, float | None]] = []
    for rival, least in (("MOSEC", 1.1), ("LitServe", 5.0), ("BentoML", 8.0), ("Ray", 8.0)):
        rows.append((f"images/s at 128, over {rival}", f"at least {least}", ratio(ours, rival, "rate128")))
    if fastest is not None:
        rows.append((f"the same with {fastest.engine}", "at least 1.6", ratio([fastest], "MOSEC", "rate128")))
    for rival, most in (("MOSEC", 0.2), ("LitServe", 0.3)):
        rows.append((f"p50 at 1, over {rival}", f"at most {most}", ratio(ours, rival, "p501", min)))
    equal = ratio(ours, "MOSEC", "rate128", ending=GIVEN)
    rows.append((f"images/s at 128, over MOSEC{GIVEN.replace(', ', ' with ')}", "", equal))
    if ours:
        rounds = ours[-1].rounds
        npy = [
            max(server.rounds[turn]["npy"] for server in ours) / rounds[turn]["alone engine"]
            for turn in range(len(rounds))
        ]
        what = "n = 64 as npy at 8 connections, over the engine alone on all cores"
        rows.append((what, "at least 0.85", statistics.median(npy)))
        spent = [one["cpu128"] / sum(one[f"alone {part}"] for part in PARTS) for one in rounds]
        rows.append((f"CPU at 128 over its parts alone ({ours[-1].title})", "at most 1.25", statistics.median(spent)))
    lines = ["| measure | asked | reached |", "|---|---|---|"]
    return lines + [f"| {what} | {goal} | {'-' if got is None else f'{got:.2f}'} |" for what, goal, got in rows]


def document(found: list[Server], importing: float, about: str, command: str) -> str:
    """All of it as Markdown. `importing` the server took so many seconds."""
    lines = ["# Serving", "", f"`{command}`", "", about, "", *table(found), ""]
    lines += ["Pictures a second; medians of the rounds. Goodput: share of requests answered within a second.", ""]
    lines += [*goals(found), ""]
    ours = [server for server in found if server.engine == SAME_ENGINE and not server.failed]
    if ours:
        last = ours[-1]
        said = ", ".join(f"{part} {last.median(f'alone {part}'):.4f}" for part in PARTS)
        lines.append(
            f"CPU seconds of 1,000 images alone: {said}, in batches of {last.median('alone size'):.0f}; at 128 "
            f"connections they had {last.median('batch128'):.0f} in the mean. "
            f"Engine alone on all cores: {last.median('alone engine'):,.0f} images a second."
        )
    lines.append(f"Importing server.app: {importing:.2f} s.")
    machine = f"{processor()}, {CORES} cores shared with the client, Python {platform.python_version()}"
    return "\n".join([*lines, "", f"{machine}, {time.strftime('%Y-%m-%d')}.", ""])


def plot(found: list[Server], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    there = [server for server in found if not server.failed][::-1]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 0.62 * len(there) + 1.6), width_ratios=(3, 2))
    colours = ("#c7d7e8", "#7ba3cc", "#2c5f8e")
    for offset, (connections, colour) in enumerate(zip(CONNECTIONS, colours, strict=True)):
        values = [server.median(f"rate{connections}") for server in there]
        bars = left.barh([row + 0.27 * (1 - offset) for row in range(len(there))], values, 0.27, color=colour)
        left.bar_label(bars, [f"{value:,.0f}" for value in values], padding=3, fontsize=7)
        bars.set_label(f"{connections} connection{'s'[: connections > 1]}")
    left.set_yticks(range(len(there)), [server.title for server in there])
    left.set(xlabel="pictures a second, closed loop", xlim=(0, 1.12 * max(server.best for server in there)))
    left.legend(loc="lower right", frameon=False)
    values = [server.median("p501") for server in there]
    bars = right.barh(range(len(there)), values, 0.5, color=colours[1])
    right.bar_label(bars, [f"{value:.2f} ms" for value in values], padding=3, fontsize=8)
    right.set_yticks(range(len(there)), [""] * len(there))
    right.set(xlabel="median of one client alone", xlim=(0, 1.25 * max(values)))
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def processor() -> str:
    """Its name, where Linux says it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
