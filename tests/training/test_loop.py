"""One loop trains every kind into a run folder, by its budget and seed, and stops cleanly."""

import json
import math
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor, nn

from training import checkpoint, learner, loop
from training.config import TrainConfig
from training.data import Dataset
from training.errors import ConfigError, DataError, Interrupted, RunError
from training.evaluation.evaluate import closing as closing_figures
from training.evaluation.reference import Reference
from training.judge import judge_for
from training.loop import train
from training.objectives import Step
from training.observer import Observer, Progress
from training.prior import Prior
from training.run import RunFolder
from training.sampling import load_generator, model_of, sample

Small = Callable[..., TrainConfig]
Synthetic = Callable[..., Dataset]
Clock = Callable[..., Callable[[], float]]


class Listener(Observer):
    def __init__(self, act: Callable[[Progress], object] = lambda progress: None) -> None:
        self.act = act
        self.judged: list[float] = []
        self.heard: list[Progress] = []

    def judge(self, fraction: float) -> None:
        self.judged.append(fraction)

    def progress(self, progress: Progress) -> None:
        self.heard.append(progress)
        self.act(progress)


def records(config: TrainConfig) -> list[dict[str, Any]]:
    return [json.loads(line) for line in RunFolder(config.out).metrics.read_text().splitlines()]


def weights(run: Path) -> dict[str, Tensor]:
    state = checkpoint.load(RunFolder(run).checkpoint)
    networks = {f"{name}.{key}": value for name, network in state["networks"].items() for key, value in network.items()}
    return networks | {f"ema.{key}": value for key, value in state["ema"].items()}


def identical(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


# what a run leaves


@pytest.mark.parametrize(
    ("kind", "size", "channels"), [("gan", 28, 1), ("cgan", 32, 3), ("vae", 64, 1), ("cvae", 28, 3)]
)
def test_every_kind_leaves_a_whole_run(
    small: Small, synthetic: Synthetic, cache: Path, kind: str, size: int, channels: int
) -> None:
    config, dataset = small(kind, epochs=2, evaluate_every=48), synthetic(size, channels)
    listener = Listener()
    closing = train(config, dataset, listener, cache)

    folder = RunFolder(config.out)
    assert folder.finished()
    assert {path.name for path in folder.path.iterdir()} == {
        "config.yaml", "checkpoint.pt", "best.pt", "judge.pt", "judge.npz", "metrics.jsonl", "samples",
    }  # fmt: skip
    assert TrainConfig.model_validate(yaml.safe_load(folder.config.read_text())) == config
    assert (closing["step"], closing["images"], closing["stopped_early"]) == (6, 96, False)
    assert [(report.step, report.fraction) for report in listener.heard] == [(3, 0.5), (6, 1.0)]

    generator, spec, best = load_generator(folder.exported_checkpoint())
    assert folder.exported_checkpoint() == folder.best
    assert (spec.kind, spec.size, spec.channels, spec.latent) == (kind, size, channels, 8)
    assert spec.class_names == (("a", "b", "c") if config.conditional else ())
    assert (best["step"], best["finished"], best["data"]) == (closing["best_step"], True, "bars")
    assert (best["prior"] is None) == config.adversarial
    label = np.zeros(2, np.int64) if config.conditional else None
    assert sample(generator, np.zeros((2, 8), np.float32), label).shape == (2, size, size, channels)
    assert load_generator(folder.checkpoint)[2]["step"] == 6

    figures = closing["quality"]
    assert figures == best["quality"]
    assert figures["fid"] > figures["floor"]["fid"] >= 0
    assert ("agreement" in figures, "class_histogram_distance" in figures) == (
        config.conditional,
        not config.conditional,
    )
    assert figures["protocol"] == {
        "samples": 1000, "reference": 60, "split": "all", "judge_sha256": checkpoint.load(folder.judge)["sha256"],
    }  # fmt: skip

    lines = records(config)
    assert lines[-1] == {"finished": True} | closing
    assert [line["step"] for line in lines if "losses" in line] == [3, 6]
    assert [line["step"] for line in lines if "quality" in line and "best" in line] == [3, 6]
    assert [line["losses"] for line in lines if "losses" in line] == [report.losses for report in listener.heard]

    grids = sorted(path.name for path in folder.samples.iterdir())
    assert grids == ["0000001.png", "0000003.png", "0000006.png", "real.png"]
    rows = 3 if config.conditional else 10
    for name in grids:
        with Image.open(folder.samples / name) as grid:
            assert grid.height == rows * size * 2
            assert grid.width >= size * 2  # at least one picture beside the names


def test_images_without_classes_are_judged_by_their_turns(small: Small, synthetic: Synthetic, cache: Path) -> None:
    config = small("vae")
    figures = train(config, synthetic(classes=0), cache=cache)["quality"]
    assert {"fid", "precision", "recall", "within_class_variance_ratio"} <= figures.keys()
    assert not {"agreement", "class_histogram_distance"} & figures.keys()
    assert checkpoint.load(RunFolder(config.out).judge)["weights"]["head.weight"].shape[0] == 4


def test_the_training_of_a_new_judge_is_reported(small: Small, synthetic: Synthetic, tmp_path: Path) -> None:
    new, known = Listener(), Listener()
    for listener in (new, known):
        train(small("vae", epochs=0.01), synthetic(), listener, tmp_path / "judges")
    assert (new.judged[0], new.judged[-1], known.judged) == (0, 1, [])


def test_ctrl_c_while_the_judge_is_trained_leaves_an_older_run_as_it_was(
    small: Small, synthetic: Synthetic, cache: Path
) -> None:
    class Impatient(Observer):
        def judge(self, fraction: float) -> None:
            raise KeyboardInterrupt

    config = small("cgan", seed=1)
    train(config, synthetic(), cache=cache)
    before = {path: path.read_bytes() for path in config.out.rglob("*") if path.is_file()}
    with pytest.raises(Interrupted, match="Nothing was replaced"):
        train(config, synthetic(), Impatient(), cache / "empty")
    assert {path: path.read_bytes() for path in config.out.rglob("*") if path.is_file()} == before


def test_a_class_that_the_split_left_empty_is_a_black_row(small: Small, synthetic: Synthetic, cache: Path) -> None:
    config, dataset = small("cvae"), synthetic()
    train(config, replace(dataset, class_names=("a", "b", "c", "rare")), cache=cache)
    with Image.open(RunFolder(config.out).samples / "real.png") as real:
        pictures = np.asarray(real)[:, -560:]  # ten of 28 pixels, twice as large
    assert pictures.shape[0] == 4 * 56
    assert pictures[:168, :56].max() > 200
    assert pictures[168:, :56].max() == 0


@pytest.mark.parametrize(
    ("given", "steps"), [({}, list(range(6, 61, 6))), ({"evaluate_every": 400}, [25, 50, 60])], ids=["ten a run", "set"]
)
def test_evaluations_and_grids_come_at_equal_distances_and_at_the_end(
    small: Small, synthetic: Synthetic, cache: Path, given: dict[str, Any], steps: list[int]
) -> None:
    config = small("gan", epochs=20, **given)
    train(config, synthetic(classes=0), cache=cache)
    drawn = sorted(int(path.stem) for path in RunFolder(config.out).samples.glob("0*.png"))
    assert drawn == [1, *steps]
    assert [record["step"] for record in records(config) if "best" in record] == steps


# the budget


class Counting(nn.Module):
    """A generator of black pictures whose one weight counts the steps."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        return -torch.ones(len(z), 1, 28, 28)


class Recorder:
    """An objective whose one weight and loss is the number of steps taken; keeps the rates and images that it saw."""

    def __init__(self) -> None:
        self.generator: Any = Counting()
        self.networks = {"generator": self.generator}
        self.optimizers = {"generator": torch.optim.SGD(self.generator.parameters(), lr=0.5)}
        self.rates: list[float] = []
        self.seen: list[Tensor] = []
        self.fractions: list[float] = []

    def step(self, image: Tensor, label: Tensor | None, fraction: float) -> Step:
        self.rates.append(self.optimizers["generator"].param_groups[0]["lr"])
        self.seen.append(image)
        self.fractions.append(fraction)
        with torch.no_grad():
            self.generator.weight += 1
        return Step({"count": self.generator.weight.detach().squeeze().clone()}, {})

    def posterior(self, images: np.ndarray, labels: np.ndarray | None) -> None:
        return None


Recorded = Callable[..., Recorder]


@pytest.fixture
def recorded(small: Small, synthetic: Synthetic, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Recorded:
    """Train a Recorder by the settings given."""

    def run(observer: Observer | None = None, clock: Callable[[], float] = lambda: 0.0, **settings: Any) -> Recorder:
        recorder = Recorder()
        monkeypatch.setattr(learner, "objective_for", lambda spec, config, device: recorder)
        config = small(**{"evaluate_every": 10_000, "decay_from": 0.5} | settings)
        train(config, synthetic(), observer, cache, clock=clock)
        return recorder

    return run


@pytest.mark.parametrize(("epochs", "steps"), [(4, 12), (0.5, 2), (0.01, 1)])
def test_epochs_are_passes_over_the_training_images(recorded: Recorded, epochs: float, steps: int) -> None:
    assert len(recorded(epochs=epochs).seen) == steps


def test_seconds_end_a_run_by_the_time_in_its_steps_alone(recorded: Recorded, clock: Clock) -> None:
    recorder = recorded(clock=clock(), epochs=None, seconds=7, evaluate_every=16)
    assert len(recorder.seen) == 7
    assert recorder.fractions == pytest.approx([step / 7 for step in range(7)])


def test_an_epoch_shows_every_image_once_in_a_new_order(recorded: Recorded, synthetic: Synthetic) -> None:
    seen = recorded(epochs=2).seen
    numbers = {image.tobytes(): number for number, image in enumerate(synthetic().train.images)}
    back = [((image + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy() for image in seen]
    order = [numbers[image.tobytes()] for batch in back for image in batch]
    first, second = order[:48], order[48:]
    assert sorted(first) == sorted(second) == list(range(48))
    assert first != second


def test_a_batch_larger_than_the_set_is_the_set(recorded: Recorded) -> None:
    assert [len(image) for image in recorded(batch=500).seen] == [48]


@pytest.mark.parametrize("decay_from", [0.5, 0.0, 1.0])
def test_rates_stand_for_a_share_of_the_budget_then_fall_to_nothing(recorded: Recorded, decay_from: float) -> None:
    rates = recorded(epochs=20, decay_from=decay_from).rates
    standing = math.floor(60 * decay_from)
    assert len(rates) == 60
    assert set(rates[: standing + 1]) == {0.5}
    assert rates[standing:] == pytest.approx([0.5 * (1 - step / (60 - standing)) for step in range(60 - standing)])


@pytest.mark.parametrize(
    ("ramp", "decay", "average"),
    # weights 1, 2, 3; ramp 1: 1/2 of 1, then 2/3 and 1/3 of 2, then 3/4 and 1/4 of 3; ramp 1 capped at 0.5 from step 1
    [(1.0, 0.99, (0.5 * 2 / 3 + 2 / 3) * 0.75 + 0.75), (1.0, 0.5, ((0.5 * 0.5) + 1) * 0.5 + 1.5), (1.0, 0.0, 3.0)],
)
def test_the_average_follows_by_the_ramp_up_to_the_decay(
    recorded: Recorded, small: Small, ramp: float, decay: float, average: float
) -> None:
    recorded(ema_ramp=ramp, ema_decay=decay)
    assert checkpoint.load(RunFolder(small().out).checkpoint)["ema"]["weight"].item() == pytest.approx(average)


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_the_average_of_weights_and_batch_statistics_is_what_a_checkpoint_shows(
    small: Small, synthetic: Synthetic, cache: Path, decay: float
) -> None:
    config = small("gan", ema_decay=decay)
    train(config, synthetic(classes=0), cache=cache)
    state = checkpoint.load(RunFolder(config.out).checkpoint)
    floats = {key: value for key, value in state["ema"].items() if value.is_floating_point()}
    assert any("running_mean" in key for key in floats)
    for key, value in floats.items():
        assert torch.equal(value, state["networks"]["generator"][key]) == (decay == 0), key


def test_a_report_has_the_mean_losses_since_the_last(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "RECORD_EVERY", 2)
    listener = Listener()
    recorded(listener, epochs=5 / 3)  # the losses are 1, 2, 3, 4, 5
    assert [(report.step, report.losses["count"]) for report in listener.heard] == [(2, 1.5), (4, 3.5), (5, 5.0)]
    assert [report.images for report in listener.heard] == [32, 64, 80]
    assert [report.quality is None for report in listener.heard] == [True, True, False]


# the best, and patience


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[float]], None]:
    """Give the evaluations on the way these FIDs in turn; the closing one stays as it is."""

    def fabricate(fids: list[float]) -> None:
        rest = iter(fids)
        monkeypatch.setattr(loop, "Evaluation", lambda *of: lambda model: {"fid": next(rest)})

    return fabricate


@pytest.mark.parametrize(
    ("fids", "best", "last"),
    [([5, 3, 4, 4, 1], 2, 4), ([3, 3, 3, 1], 1, 3), ([5, 4, 5, 3, 4, 2], 6, 6)],
    ids=["no better for two", "as good is no better", "always better in time"],
)
def test_patience_ends_a_run_that_gets_no_better(
    small: Small,
    synthetic: Synthetic,
    cache: Path,
    judged: Callable[[list[float]], None],
    fids: list[float],
    best: int,
    last: int,
) -> None:
    judged(fids)
    config = small("gan", epochs=2, evaluate_every=16, patience=2)  # evaluated after each of at most 6 steps
    closing = train(config, synthetic(), cache=cache)
    assert (closing["best_step"], closing["step"], closing["stopped_early"]) == (best, last, last < 6)
    folder = RunFolder(config.out)
    assert folder.finished()
    assert checkpoint.load(folder.best)["step"] == best
    assert [record["best"] for record in records(config) if "best" in record].count(True) >= 1


def test_without_patience_a_run_takes_its_whole_budget(
    small: Small, synthetic: Synthetic, cache: Path, judged: Callable[[list[float]], None]
) -> None:
    judged([1, 2, 3, 4, 5, 6])
    closing = train(small("gan", epochs=2, evaluate_every=16), synthetic(), cache=cache)
    assert (closing["best_step"], closing["step"], closing["stopped_early"]) == (1, 6, False)


@pytest.mark.parametrize("kind", ["cgan", "vae"])
def test_closing_figures_are_those_of_the_best_weights(
    small: Small, synthetic: Synthetic, cache: Path, judged: Callable[[list[float]], None], kind: str
) -> None:
    judged([2, 1, 3])
    config, dataset = small(kind, evaluate_every=16, ema_decay=0.0), synthetic()
    closing = train(config, dataset, cache=cache)
    folder = RunFolder(config.out)
    generator, spec, best = load_generator(folder.best)
    assert not identical(best["ema"], load_generator(folder.checkpoint)[2]["ema"])
    prior = None if best["prior"] is None else Prior.from_state({k: v.numpy() for k, v in best["prior"].items()})
    judge = judge_for(dataset, cache)
    reference = Reference.load(folder.reference)
    asked = (judge, reference, config.conditional, config.seed)
    figures = closing_figures(*asked, model_of(generator, spec, prior))
    assert closing["quality"] == best["quality"] == figures
    last = load_generator(folder.checkpoint)[0]
    assert closing_figures(*asked, model_of(last, spec, prior)) != figures


# the seed


@pytest.mark.parametrize(("kind", "threads"), [("cgan", 2), ("vae", 1)])
def test_a_seed_decides_every_weight(
    small: Small, synthetic: Synthetic, tmp_path: Path, kind: str, threads: int
) -> None:
    torch.set_num_threads(threads)
    for name, seed in (("one", 3), ("same", 3), ("other", 4)):  # the first trains the judge, the others find it
        train(small(kind, seed=seed, out=tmp_path / name), synthetic(), cache=tmp_path / "judges")
    torch.set_num_threads(1)
    assert identical(weights(tmp_path / "one"), weights(tmp_path / "same"))
    assert not identical(weights(tmp_path / "one"), weights(tmp_path / "other"))


# ends before the end


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_checkpoint_and_is_reported(
    small: Small, synthetic: Synthetic, cache: Path, clock: Clock, number: signal.Signals
) -> None:
    config, folder = small("cgan", epochs=1000), RunFolder(small().out)
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match="stopped at step 2") as caught:
        train(config, synthetic(), cache=cache, clock=clock(2, number))
    assert caught.value.exit_code == 130
    assert f"--resume --out {folder.path}" in caught.value.mend
    assert signal.getsignal(number) is before
    _, _, state = load_generator(folder.exported_checkpoint())  # no evaluation yet: the checkpoint itself
    assert (state["step"], state["finished"]) == (2, False)
    assert not folder.finished()


def test_handlers_are_restored_after_a_run_that_ended_or_failed(
    small: Small, synthetic: Synthetic, cache: Path
) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    def fail(progress: Progress) -> None:
        assert signal.getsignal(signal.SIGINT) is not before[0]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train(small("vae"), synthetic(classes=0), Listener(fail), cache)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    train(small("vae"), synthetic(classes=0), cache=cache)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_run_may_be_trained_in_another_thread(small: Small, synthetic: Synthetic, cache: Path) -> None:
    thread = threading.Thread(target=train, args=(small("vae"), synthetic(classes=0)), kwargs={"cache": cache})
    thread.start()
    thread.join()
    assert RunFolder(small().out).finished()


@pytest.mark.parametrize("classes", [0, 1])
@pytest.mark.parametrize(("kind", "plain"), [("cgan", "gan"), ("cvae", "vae")])
def test_a_conditional_kind_needs_two_classes(
    small: Small, synthetic: Synthetic, cache: Path, kind: str, plain: str, classes: int
) -> None:
    with pytest.raises(DataError, match=f"at least two classes, bars has {classes}.*--model {plain}"):
        train(small(kind), synthetic(classes=classes), cache=cache)


def test_a_refused_run_leaves_the_older_one(
    small: Small, synthetic: Synthetic, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(small("vae"), synthetic(classes=0), cache=cache)
    older = weights(small().out)
    with pytest.raises(DataError):
        train(small("cgan"), synthetic(classes=0), cache=cache)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"no CUDA device.*--device cpu"):
        train(small("vae", device="cuda"), synthetic(classes=0), cache=cache)
    assert RunFolder(small().out).finished()
    assert identical(weights(small().out), older)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried ..."),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        MemoryError(),
    ],
    ids=["a CPU's", "CUDA's", "Python's"],
)
def test_too_little_memory_is_one_line_with_a_batch_to_try(
    small: Small, synthetic: Synthetic, cache: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*given: object) -> Step:
        raise error

    monkeypatch.setattr(Recorder, "step", fail)
    monkeypatch.setattr(learner, "objective_for", lambda spec, config, device: Recorder())
    with pytest.raises(
        RunError, match=r"^out of memory with 16 images a step\. Try --set batch=8 with --overwrite\.$"
    ) as caught:
        train(small(), synthetic(), cache=cache)
    assert caught.value.__cause__ is error


def test_other_errors_of_a_step_are_not_taken_for_it(
    small: Small, synthetic: Synthetic, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: object) -> Step:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(Recorder, "step", fail)
    monkeypatch.setattr(learner, "objective_for", lambda spec, config, device: Recorder())
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        train(small(), synthetic(), cache=cache)
