"""Recipes in, a table and a plot of picture quality per CPU second out: `python benchmarks/training.py [--quick]`.

Every case is trained by `training.loop` in a process of its own on one thread, for so many CPU seconds of the training
loop (the judge and the evaluations do not count), and judged on 10,000 pictures: against the full test set of
Fashion-MNIST (Debian's dataset-fashion-mnist), against all images of the other sets (at most 10,000). FIDs are *domain*
FIDs: distances in the features of a small classifier trained on the same data (training/judge.py), not comparable with
Inception's.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

from rich.console import Console
from rich.progress import Progress

sys.path[0] = str(Path(__file__).parents[1])  # not this folder, in which `training` is this file
RESULTS = Path(__file__).parent / "results"
SAMPLES = 10_000
QUICK_MARGIN = 1.25  # of a limit: what the one seed of --quick may be above it


@dataclass(frozen=True)
class Case:
    """One training: `seconds` of CPU, `settings` over the defaults of `training.config`."""

    data: str
    model: str
    seconds: int
    seed: int = 0
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def recipe(self) -> str:
        return ", ".join(f"{'' if name == 'recipe' else name + ' '}{value}" for name, value in self.settings.items())

    @property
    def group(self) -> tuple[str, str, str, int]:
        """What the seeds of one figure share."""
        return Path(self.data).name, self.model, self.recipe or "default", self.seconds


# (data, model, CPU seconds) -> what must be reached: FID at most, other figures at least or (distance) at most
ASKED: dict[tuple[str, str, int], dict[str, float]] = {
    ("fashion-mnist", "cgan", 60): {"fid": 32, "agreement": 0.87, "recall": 0.45, "within_class_variance_ratio": 0.5},
    ("fashion-mnist", "cgan", 120): {"fid": 19, "agreement": 0.87, "recall": 0.60, "within_class_variance_ratio": 0.5},
    ("fashion-mnist", "cgan", 240): {"fid": 14, "agreement": 0.87, "recall": 0.75, "within_class_variance_ratio": 0.5},
    ("fashion-mnist", "gan", 120): {"fid": 32, "recall": 0.65, "class_histogram_distance": 0.08},
    ("fashion-mnist", "cvae", 60): {"fid": 45, "over_reconstructions": 8, "agreement": 0.80},
    ("fashion-mnist", "vae", 60): {"fid": 58, "over_reconstructions": 8},
    ("mnist-5k", "cgan", 80): {"fid": 16, "agreement": 0.97, "recall": 0.70},
    ("photo-patches", "cgan", 240): {"recall": 0.5},
    ("folder", "cgan", 240): {"recall": 0.5},
}
COLOUR = {"generator_rate": 8e-4, "discriminator_rate": 1.6e-3}  # half the rates
AT_MOST = ("fid", "over_reconstructions", "class_histogram_distance")


def cases(quick: bool, folder: Path | None) -> list[Case]:
    fashion, digits = "fashion-mnist", "mnist-5k"
    if quick:
        recipes = [Case(fashion, "cgan", 60, 0, {"recipe": name}) for name in ("dcgan", "sn-hinge", "rpgan")]
        ours = [
            Case(fashion, "cgan", 60),
            Case(fashion, "gan", 120),
            Case(fashion, "cvae", 60),
            Case(fashion, "vae", 60),
        ]
        return [*ours, Case(digits, "cgan", 80), *recipes]
    found = [Case(fashion, "cgan", seconds, seed) for seconds in (240, 120, 60) for seed in range(3)]
    found += [
        Case(fashion, "cgan", seconds, seed, {"recipe": "dcgan"}) for seconds in (240, 120, 60) for seed in range(3)
    ]
    found += [Case("photo-patches", "cgan", 240, 0, settings) for settings in ({}, COLOUR)]
    if folder:
        found += [
            Case(str(folder), "cgan", 240, 0, settings)
            for settings in ({}, {"augment": True}, COLOUR | {"augment": True})
        ]
    found += [Case(fashion, "gan", 120, seed) for seed in range(3)]
    found += [Case(fashion, "cgan", 60, 0, {"recipe": name}) for name in ("sn-hinge", "rpgan")]
    found += [Case(fashion, "cgan", 120, 0, {"recipe": name}) for name in ("sn-hinge", "rpgan")]
    found += [Case(digits, "cgan", 80, seed) for seed in range(3)]
    found += [Case(digits, "cgan", 80, seed, {"recipe": "dcgan"}) for seed in range(3)]
    found += [Case(fashion, model, 60, seed) for model in ("cvae", "vae") for seed in range(3)]
    found += [Case(fashion, "cgan", 60, 0, {"width": width}) for width in (12, 24)]
    return found


def run_case(case: Case, picture: Path) -> dict[str, Any]:
    """Train and judge in this process, on one thread."""
    import torch

    from training import checkpoint
    from training.config import TrainConfig
    from training.data import load
    from training.evaluation.evaluate import Evaluation
    from training.evaluation.reference import Reference
    from training.judge import default_cache, judge_for
    from training.loop import train
    from training.run import RunFolder
    from training.sampling import load_generator, load_weights, model_of, stored_prior

    torch.set_num_threads(1)
    dataset = load(case.data)
    with tempfile.TemporaryDirectory() as place:
        out = RunFolder(Path(place) / "run")
        given = {"model": case.model, "data": case.data, "seconds": case.seconds, "seed": case.seed, "out": out.path}
        config = TrainConfig.model_validate(given | {"device": "cpu"} | case.settings)
        closing = train(config, dataset, clock=time.process_time)
        generator, spec, state = load_generator(out.best)
        last = checkpoint.load(out.checkpoint)
        if case.data == "photo-patches" or Path(case.data).is_dir():
            _side_by_side(out, picture)
    prior = stored_prior(state)
    judge = judge_for(dataset, default_cache())
    split = "test" if case.data == "fashion-mnist" else "all"
    reference = Reference.of(judge, dataset, split, thorough=False)
    evaluation = Evaluation(judge, reference, config.conditional, SAMPLES, seed=SAMPLES)  # not the seeds of the closing
    figures = evaluation(model_of(generator, spec, prior))
    if prior is not None:  # of the last weights, whose encoder is there
        ended = evaluation(model_of(load_weights(spec, last["ema"]), spec, stored_prior(last)))["fid"]
        figures["over_reconstructions"] = ended - _reconstructed(config, spec, dataset, evaluation, last)
    counts = {name: closing[name] for name in ("step", "images", "skipped")}
    return asdict(case) | counts | {"figures": figures, "floor": evaluation.floor, "protocol": evaluation.protocol}


def _reconstructed(config: Any, spec: Any, dataset: Any, evaluation: Any, state: dict[str, Any]) -> float:
    """FID of the reference's own reconstructions: what no prior can be better than."""
    import torch

    from training.data import Images
    from training.objectives import objective_for
    from training.sampling import load_weights, model_of

    objective = objective_for(spec, config, torch.device("cpu"))
    for name, network in objective.networks.items():
        network.load_state_dict(state["networks"][name])
    test: Images = dataset.test
    labels = test.labels if config.conditional else None
    posterior = objective.posterior(test.images, labels)
    assert posterior is not None
    generator = load_weights(spec, state["ema"])
    return evaluation.pictures(model_of(generator, spec, None).of_latents(posterior.draw(0), labels), labels)["fid"]


def _side_by_side(run: Any, path: Path) -> None:
    """Real images above, the last grid below."""
    from PIL import Image

    grids = [Image.open(run.samples / "real.png"), Image.open(sorted(run.samples.glob("0*.png"))[-1])]
    canvas = Image.new("RGB", (max(grid.width for grid in grids), sum(grid.height for grid in grids) + 8), "white")
    canvas.paste(grids[0], (0, 0))
    canvas.paste(grids[1], (0, grids[0].height + 8))
    canvas.save(path)


def _all(todo: list[Case], jobs: int) -> Iterator[dict[str, Any]]:
    """Run the cases, some at once, each on a thread of its own in a process of its own."""

    def one(case: Case) -> dict[str, Any]:
        picture = RESULTS / f"{'-'.join([Path(case.data).name, *case.settings])}.png"
        command = [sys.executable, __file__, "--case", json.dumps(asdict(case)), "--picture", str(picture)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            raise SystemExit(f"{case} failed:\n{done.stderr}")
        return json.loads(done.stdout.splitlines()[-1])

    console = Console(stderr=True, highlight=False)
    _judges({case.data for case in todo})
    total = sum(case.seconds for case in todo)
    with Progress(console=console) as bar, ThreadPoolExecutor(jobs) as pool:
        task = bar.add_task("training", total=total)
        waiting = {pool.submit(one, case): case for case in todo}
        for future in as_completed(waiting):
            case, row = waiting[future], future.result()
            bar.advance(task, case.seconds)
            console.print(f"{', '.join(map(str, case.group))} s, seed {case.seed}: {_shown(row['figures'])}")
            yield row


def _judges(sets: Iterable[str]) -> None:
    """Have them in the cache, so that no two cases train the same."""
    from training.data import load
    from training.judge import default_cache, judge_for

    for data in sets:
        judge_for(load(data), default_cache())


def _shown(figures: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in figures.items())


def report(rows: list[dict[str, Any]], quick: bool, jobs: int) -> str:
    """The table, with what was asked beside what the worst seed reached."""
    import torch

    groups: dict[tuple[str, str, str, int], list[dict[str, Any]]] = {}
    for row in rows:
        case = Case(*(row[name] for name in ("data", "model", "seconds", "seed", "settings")))
        groups.setdefault(case.group, []).append(row)
    lines = [
        "# Training: picture quality per CPU second",
        "",
        f"`python benchmarks/training.py{' --quick' if quick else ''}` on {_machine()}, Python "
        f"{platform.python_version()}, torch {torch.__version__}, one thread a training, {jobs} at once. "
        "Domain FID, 10,000 samples (recall and precision: 5,000, k = 5); mean of the seeds (lowest to highest). The "
        "floor is that of 10,000 real training images against the test set; where all images are the reference, of one "
        "half of them against the other. What was asked is held against the worst seed.",
        "",
        "| data | model | recipe | CPU-s | images | FID | floor | recall | precision | variance within classes | "
        "agreement | class histogram | over own reconstructions | asked |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (data, model, recipe, seconds), found in sorted(groups.items()):
        key = "folder" if "/" in found[0]["data"] else data
        free = key in ("photo-patches", "folder")  # of which no recipe was asked
        asked = ASKED.get((key, model, seconds), {}) if recipe == "default" or free else {}
        cells = [_cell(found, name) for name in ("fid",)] + [f"{found[0]['floor']['fid']:.2f}"]
        names = ("recall", "precision", "within_class_variance_ratio", "agreement", "class_histogram_distance")
        cells += [_cell(found, name) for name in (*names, "over_reconstructions")]
        images = f"{mean(row['images'] for row in found):,.0f}"
        lines.append(
            f"| {' | '.join([data, model, recipe, str(seconds), images, *cells, _verdict(found, asked, quick)])} |"
        )
    return "\n".join(lines) + "\n"


def _cell(found: list[dict[str, Any]], name: str) -> str:
    values = [row["figures"][name] for row in found if name in row["figures"]]
    if not values:
        return ""
    digits = 1 if name in ("fid", "over_reconstructions") else 3
    spread = f" ({min(values):.{digits}f}-{max(values):.{digits}f})" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{spread}"


def _verdict(found: list[dict[str, Any]], asked: dict[str, float], quick: bool) -> str:
    """What was asked, and whether the worst seed reaches it; the one seed of --quick may miss by QUICK_MARGIN."""
    margin = QUICK_MARGIN if quick else 1.0
    said = []
    for name, limit in asked.items():
        values = [row["figures"][name] for row in found]
        reached = max(values) <= limit * margin if name in AT_MOST else min(values) >= limit / margin
        words = ("yes" if margin == 1 else f"yes (within {margin - 1:.0%})") if reached else "NO"
        said.append(f"{name.replace('_', ' ')} {'≤' if name in AT_MOST else '≥'} {limit:g}: {words}")
    return ", ".join(said)


def _machine() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "")
    return f"{os.cpu_count()} x {model or platform.processor()}"


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """FID over CPU seconds of the conditional GAN on Fashion-MNIST: a line for each recipe, a dot for each seed."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    chosen = [row for row in rows if (row["data"], row["model"]) == ("fashion-mnist", "cgan")]
    chosen = [row for row in chosen if set(row["settings"]) <= {"recipe"}]
    for recipe in dict.fromkeys(row["settings"].get("recipe", "default") for row in chosen):
        points = sorted(
            (row["seconds"], row["figures"]["fid"])
            for row in chosen
            if row["settings"].get("recipe", "default") == recipe
        )
        seconds = sorted({second for second, _ in points})
        means = [mean(fid for second, fid in points if second == at) for at in seconds]
        (line,) = axes.plot(seconds, means, label=recipe)
        axes.scatter(*zip(*points, strict=True), color=line.get_color(), s=18)
    for (data, model, seconds), asked in ASKED.items():
        if (data, model) == ("fashion-mnist", "cgan"):
            axes.plot(seconds, asked["fid"], marker="_", markersize=22, color="black", linestyle="none")
    floor = chosen[0]["floor"]["fid"]
    axes.axhline(floor, color="grey", linestyle=":", label=f"real training images ({floor:.2f})")
    axes.plot([], [], marker="_", color="black", linestyle="none", label="to be reached")
    axes.set(yscale="log", xlabel="CPU seconds of training, one thread", ylabel="domain FID, 10,000 samples (log)")
    axes.set(title="Conditional GAN on Fashion-MNIST", xticks=[60, 120, 240])
    axes.legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--quick", action="store_true", help="one seed of the main cases, about 10 minutes on 2 cores")
    parser.add_argument("--folder", type=Path, help="an own folder of images, trained as photo-patches are")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="cases at once (default: the cores)")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--picture", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(run_case(Case(**json.loads(arguments.case)), arguments.picture)))
        return
    RESULTS.mkdir(exist_ok=True)
    stem = RESULTS / ("training-quick" if arguments.quick else "training")
    rows: list[dict[str, Any]] = []
    for row in _all(cases(arguments.quick, arguments.folder), arguments.jobs):
        rows.append(row)  # written one by one: what was measured is not lost with a later case
        stem.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    text = report(rows, arguments.quick, arguments.jobs)
    stem.with_suffix(".md").write_text(text, encoding="utf-8")
    if not arguments.quick:
        plot(rows, stem.with_suffix(".png"))
    print(text)


if __name__ == "__main__":
    main()
