"""Requests in, µs per image out: what drawing the latents of one batch costs. `python benchmarks/latents.py`.

64 images of a latent of 100 numbers, as one request or as 64 single ones with seeds far apart: one `draw` for each
request and a concatenation, against `draw_each` of all. Both take turns, each figure is the quickest of --rounds.
"""

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
import numpy as np
import scipy

sys.path[0] = str(Path(__file__).parents[1])  # not this folder, whose files have names of packages
from training.latents import SEEDS, Asked, draw, draw_each
from training.prior import Prior

IMAGES = 64
LATENT = 100
CLASSES = 10
COMPONENTS = 5


def packs() -> dict[str, tuple[list[Asked], int, Prior | None]]:
    """By title: the requests, the classes, the prior."""
    noise = np.random.Generator(np.random.Philox(key=9))
    seeds = [int(seed) for seed in noise.integers(0, SEEDS, IMAGES, dtype=np.uint64)]
    prior = Prior(
        noise.dirichlet(np.ones(COMPONENTS), CLASSES),
        noise.normal(size=(CLASSES, COMPONENTS, LATENT)),
        np.tril(noise.normal(size=(CLASSES, COMPONENTS, LATENT, LATENT))),
    )
    one = [Asked(seeds[0], IMAGES)]
    singles = [Asked(seed, 1) for seed in seeds]
    labelled = [Asked(seed, 1, place % CLASSES) for place, seed in enumerate(seeds)]
    return {
        "one request": (one, 0, None),
        "one, truncation": ([Asked(seeds[0], IMAGES, truncation=1.0)], 0, None),
        "one, labels drawn": (one, CLASSES, None),
        "one, labels drawn, prior": (one, CLASSES, prior),
        "singles": (singles, 0, None),
        "singles, own truncations": ([Asked(s, 1, None, 0.5 + i / 32) for i, s in enumerate(seeds)], 0, None),
        "singles, own labels": (labelled, CLASSES, None),
        "singles, own labels, prior": (labelled, CLASSES, prior),
    }


def concatenated(asked: list[Asked], classes: int, prior: Prior | None) -> tuple[np.ndarray, np.ndarray | None]:
    """What `draw_each` gives, by one `draw` for each request."""
    draws = [draw(one.seed, one.count, LATENT, classes, one.label, one.truncation, prior) for one in asked]
    labels = [labels for _, labels in draws if labels is not None]
    return np.concatenate([z for z, _ in draws]), np.concatenate(labels) if labels else None


def quickest(ways: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """µs per image of each, all in turn."""
    best = [float("inf")] * len(ways)
    for _ in range(rounds):
        for place, way in enumerate(ways):
            start = time.perf_counter()
            way()
            best[place] = min(best[place], time.perf_counter() - start)
    return [seconds * 1e6 / IMAGES for seconds in best]


def machine() -> str:
    place = Path("/proc/cpuinfo")
    about = place.read_text(encoding="ascii", errors="replace") if place.exists() else ""
    model = next((line.partition(":")[2].strip() for line in about.splitlines() if line.startswith("model name")), "")
    widest = next((name for name in ("avx512f", "avx2") if f" {name} " in about), "")
    cores = f"{os.cpu_count()} cores, Python {platform.python_version()}"
    return f"{model or platform.processor()} ({widest}), {cores}, NumPy {np.__version__}, SciPy {scipy.__version__}."


def main() -> None:
    parser = argparse.ArgumentParser(description="µs per image of drawing latents.")
    parser.add_argument("--rounds", type=int, default=300)
    rounds = parser.parse_args().rounds
    print(f"µs per image, {IMAGES} images of a latent of {LATENT}\n")
    print("| requests | `draw` of each | `draw_each` |\n|---|---|---|")
    for title, (asked, classes, prior) in packs().items():
        ways = (partial(concatenated, asked, classes, prior), partial(draw_each, asked, LATENT, classes, prior))
        before, after = quickest(ways, rounds)
        print(f"| {title} | {before:.1f} | {after:.1f} |")
    print(f"\n{machine()}")


if __name__ == "__main__":
    main()
