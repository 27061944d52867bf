"""Two generators in, a table of images per CPU-second for each engine, precision and bucket out.

`python benchmarks/engines.py [--cgan RUN] [--dcgan RUN]`: a CGAN of 0.46 million parameters and a DCGAN of 1 million,
28x28, trained on the embedded digits for --seconds each where no run is named, so that the gates judge real pictures.
Every engine runs on one thread; all take turns in one process, and each figure is the best of --rounds turns of CPU
time. "plain" is what torch.onnx.export makes of the generator as it is, on ONNX Runtime: what anybody would serve.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

sys.path[0] = str(Path(__file__).parents[1])  # not this folder, whose files have names of packages
os.environ.setdefault("OMP_NUM_THREADS", "1")
from export.invariance import BUCKETS

RESULTS = Path(__file__).parent / "results"
MODELS = {"CGAN, 0.46 M": ("cgan", 16), "DCGAN, 1.05 M": ("gan", 40)}
ASKED = {"CGAN, 0.46 M": 1.8, "DCGAN, 1.05 M": 2.2}  # times the plain export, the best engine that passes its gates

Run = Callable[[np.ndarray, np.ndarray | None], Any]


@dataclass
class Row:
    """One way to run a model: what its gates said (None: it is the original), images per CPU-second by bucket."""

    title: str
    gates: str | None
    rates: dict[int, float] = field(default_factory=dict)


def trained(model: str, width: int, seconds: float, home: Path) -> Path:
    """A run of that kind on the embedded digits."""
    from training import data, loop
    from training.config import TrainConfig
    from training.run import RunFolder

    config = TrainConfig.model_validate(
        {"model": model, "data": "mnist-5k", "width": width, "seconds": seconds, "out": home / model, "device": "cpu"}
    )
    RunFolder(config.out).create(config)
    loop.train(config, data.load(config.data))
    return config.out


def plain(generator: Any, spec: Any, path: Path) -> None:
    """The generator as it is, through torch.onnx.export, with the same outputs."""
    import onnx

    from export import graph

    served = graph._Served(generator).eval()
    inputs = {"z": graph.torch.zeros(2, spec.latent)}
    if spec.classes:
        inputs["label"] = graph.torch.zeros(2, dtype=graph.torch.int64)
    onnx.save(graph._exported(served, inputs, ["image", "check"], "plain"), path)


def contenders(run: Path, home: Path, stack: ExitStack) -> tuple[Any, list[tuple[Row, Run]]]:
    """Its ModelSpec, and every way of running it that this machine has, gates run."""
    from export.engines import obstacle, open_engine
    from export.extend import extend
    from export.targets import Wanted
    from export.tensorrt.build import Options
    from export.to_onnx import export, run_original
    from training.run import RunFolder
    from training.sampling import load_generator, sample

    generator, spec, _ = load_generator(RunFolder(run).exported_checkpoint())
    bundle = export(run, home / "models", run.name)
    wants = [
        Wanted(target, engine, precision)
        for target, engine in (("onnx", "onnxruntime"), ("openvino", "openvino"))
        for precision in ("fp32", "bf16", "fp16", "int8")
        if obstacle(engine, precision) is None
    ]
    extended = extend(bundle, wants, run_original(run, bundle), Options(), force=True).bundle
    plain(generator, spec, home / "plain.onnx")
    found: list[tuple[Row, Run]] = [(Row("torch eager fp32", None), partial(sample, generator))]
    first = stack.enter_context(closing(open_engine("onnxruntime", "fp32", home / "plain.onnx", (), 1)))
    found.append((Row("onnxruntime fp32, plain export", ""), first.run))
    for artifact in extended.manifest.artifacts:
        file = extended.folder / artifact.file
        engine = stack.enter_context(closing(open_engine(artifact.engine, artifact.precision, file, BUCKETS, 1)))
        gates = artifact.gates
        assert gates is not None
        said = "failed " + ", ".join(gates.failed) if gates.failed else "passed"
        apart = f"at most {gates.parity.max_levels} of 255"
        apart += "" if gates.parity.psnr_db is None else f", {gates.parity.psnr_db:.1f} dB"
        found.append((Row(f"{artifact.engine} {artifact.precision}", f"{said} ({apart})"), engine.run))
    return spec, found


def measure(found: list[tuple[Row, Run]], latent: int, classes: int, rounds: int, seconds: float, tick: Any) -> None:
    """All in turn, so that what the machine does meanwhile falls on all."""
    noise = np.random.Generator(np.random.Philox(key=9))
    z = noise.standard_normal((max(BUCKETS), latent), np.float32)
    label = np.arange(len(z), dtype=np.int64) % classes if classes else None
    for bucket in BUCKETS:
        rows = (z[:bucket], None if label is None else label[:bucket])
        for _ in range(rounds):
            for row, run in found:
                run(*rows)
                row.rates[bucket] = max(row.rates.get(bucket, 0.0), _rate(run, rows, seconds))
                tick()


def _rate(run: Run, rows: tuple[np.ndarray, np.ndarray | None], seconds: float) -> float:
    until, start, batches = time.perf_counter() + seconds, time.process_time(), 0
    while time.perf_counter() < until:
        run(*rows)
        batches += 1
    return batches * len(rows[0]) / (time.process_time() - start)


def best(rows: list[Row]) -> tuple[Row, float]:
    """The quickest that passed its gates, at a bucket of 32, and its share of the plain export."""
    base = next(row for row in rows if "plain" in row.title)
    passed = [row for row in rows if row.gates is not None and row.gates.startswith("passed")]
    winner = max(passed, key=lambda row: row.rates[32])
    return winner, winner.rates[32] / base.rates[32]


def table(models: dict[str, list[Row]], about: str) -> str:
    lines = [
        "# Engines",
        "",
        "`python benchmarks/engines.py`: images per CPU-second, one thread; in brackets times the plain export.",
        "",
    ]
    for name, rows in models.items():
        base = next(row for row in rows if "plain" in row.title)
        lines += [f"## {name} parameters", ""]
        lines += ["| engine | " + " | ".join(f"batch {size}" for size in BUCKETS) + " | gates |"]
        lines += ["|---|" + "---|" * (len(BUCKETS) + 1)]
        for row in rows:
            rates = [f"{row.rates[size]:,.0f} ({row.rates[size] / base.rates[size]:.2f})" for size in BUCKETS]
            lines.append(f"| {row.title} | {' | '.join(rates)} | {row.gates or ''} |")
        winner, times = best(rows)
        lines += [
            "",
            f"Best that passed its gates, at a batch of 32: {winner.title}, {times:.2f} times the plain export.",
        ]
        lines += [f"Asked: {ASKED[name]} times.", ""]
    return "\n".join([*lines, about, ""])


def machine() -> str:
    import onnxruntime
    import openvino
    import torch

    place = Path("/proc/cpuinfo")
    about = place.read_text(encoding="ascii", errors="replace") if place.exists() else ""
    model = next((line.partition(":")[2].strip() for line in about.splitlines() if line.startswith("model name")), "")
    known = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8")
    has = ", ".join(name for name in known if f" {name} " in about)
    versions = f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}, openvino {openvino.get_version()}"
    cores = f"{os.cpu_count()} cores, Python {platform.python_version()}"
    return f"{model or platform.processor()} ({has}), {cores}, {versions}."


def main() -> None:
    parser = argparse.ArgumentParser(description="Images per CPU-second of each engine, precision and bucket.")
    parser.add_argument("--cgan", type=Path, help="a run of `limner train --model cgan --data mnist-5k`")
    parser.add_argument("--dcgan", type=Path, help="a run of `limner train --model gan --data mnist-5k --set width=40`")
    parser.add_argument("--seconds", type=float, default=60.0, help="of training, where no run is named")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--turn", type=float, default=0.3, help="seconds of each turn")
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    console = Console(stderr=True)
    models: dict[str, list[Row]] = {}
    with tempfile.TemporaryDirectory() as place, Progress(console=console) as bar:
        for name, (kind, width) in MODELS.items():
            home = Path(place) / kind
            home.mkdir()
            task = bar.add_task(f"{name}: training and gates", total=None)
            run = (asked.cgan if kind == "cgan" else asked.dcgan) or trained(kind, width, asked.seconds, home)
            with ExitStack() as stack:
                spec, found = contenders(run.resolve(), home, stack)
                bar.update(task, description=name, total=len(BUCKETS) * asked.rounds * len(found))
                measure(found, spec.latent, spec.classes, asked.rounds, asked.turn, partial(bar.advance, task))
            models[name] = [row for row, _ in found]
    text = table(models, machine())
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "engines.md").write_text(text, encoding="utf-8")
    content = {name: [vars(row) for row in rows] for name, rows in models.items()}
    (asked.out / "engines.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
