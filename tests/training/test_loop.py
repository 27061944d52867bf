"""One loop trains every kind into a run folder, by its budget and seed, and stops cleanly."""

import json
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor, nn

from training import checkpoint, loop, sampling
from training.config import TrainConfig
from training.data import Dataset, Images
from training.errors import ConfigError, DataError, Interrupted, RunError
from training.loop import Progress, train
from training.networks import Generator
from training.run import RunFolder
from training.sampling import load_generator, sample

Small = Callable[..., TrainConfig]
Synthetic = Callable[..., Dataset]


def weights(run: Path) -> dict[str, Tensor]:
    state = checkpoint.load(RunFolder(run).checkpoint)
    networks = {f"{name}.{key}": value for name, network in state["networks"].items() for key, value in network.items()}
    return networks | {f"ema.{key}": value for key, value in state["ema"].items()}


def identical(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


class Recorder:
    """An objective whose one weight and loss is the number of steps taken; keeps the rates and images that it saw."""

    def __init__(self) -> None:
        self.generator: Any = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.generator.weight)
        self.networks = {"generator": self.generator}
        self.optimizers = {"generator": torch.optim.SGD(self.generator.parameters(), lr=0.5)}
        self.rates: list[float] = []
        self.seen: list[Tensor] = []

    def step(self, image: Tensor, label: Tensor | None) -> dict[str, Tensor]:
        self.rates.append(self.optimizers["generator"].param_groups[0]["lr"])
        self.seen.append(image)
        with torch.no_grad():
            self.generator.weight += 1
        return {"generator": self.generator.weight.detach().squeeze().clone()}


def recorded(config: TrainConfig, dataset: Dataset) -> tuple[Recorder, float]:
    """Take a config's steps with a Recorder: what it saw, and the average of its weight."""
    objective, average = Recorder(), Recorder().generator
    for _ in loop._steps(config, dataset, objective, average, torch.device("cpu")):
        pass
    return objective, average.weight.item()


# what a run leaves


@pytest.mark.parametrize(
    ("kind", "size", "channels"), [("gan", 28, 1), ("cgan", 32, 3), ("vae", 64, 1), ("cvae", 28, 3)]
)
def test_every_kind_leaves_a_whole_run(
    small: Small, synthetic: Synthetic, cache: Path, kind: str, size: int, channels: int
) -> None:
    config, dataset = small(kind, epochs=2), synthetic(size, channels)
    reports: list[Progress] = []
    closing = train(config, dataset, reports.append, cache)

    folder = RunFolder(config.out)
    assert folder.finished()
    assert {path.name for path in folder.path.iterdir()} == {
        "config.yaml", "checkpoint.pt", "judge.pt", "metrics.jsonl", "samples",
    }  # fmt: skip
    assert TrainConfig.model_validate(yaml.safe_load(folder.config.read_text())) == config
    assert (closing["step"], closing["images"]) == (6, 96)
    assert (reports[-1].step, reports[-1].fraction) == (6, 1.0)

    generator, spec, state = load_generator(folder.checkpoint)
    assert (spec.kind, spec.size, spec.channels, spec.latent) == (kind, size, channels, 8)
    assert spec.class_names == (("a", "b", "c") if config.conditional else ())
    assert (state["step"], state["images"], state["finished"], state["data"]) == (6, 96, True, "bars")
    label = torch.zeros(2, dtype=torch.int64) if config.conditional else None
    assert sample(generator, torch.zeros(2, 8), label).shape == (2, size, size, channels)

    quality = closing["quality"]
    assert quality == state["quality"]
    assert quality["within_class_variance_ratio"] >= 0
    assert ("agreement" in quality) == config.conditional
    assert quality["protocol"] == {
        "samples": 1000, "split": "test", "judge_sha256": checkpoint.load(folder.judge)["sha256"],
    }  # fmt: skip
    records = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    assert records[-1] == {"finished": True} | closing
    assert records[-2]["losses"] == reports[-1].losses

    grids = sorted(path.name for path in folder.samples.iterdir())
    assert (grids[0], grids[-2], grids[-1]) == ("0000001.png", "0000006.png", "real.png")
    rows = 3 if config.conditional else 10
    for name in grids:
        with Image.open(folder.samples / name) as grid:
            assert grid.height == rows * size * 2
            assert grid.width >= size * 2  # at least one picture beside the names


def test_images_without_classes_need_no_judge(small: Small, synthetic: Synthetic, cache: Path) -> None:
    config = small("vae")
    closing = train(config, synthetic(classes=0), cache=cache, observe_judge=lambda fraction: pytest.fail("a judge"))
    assert closing["quality"] is None
    assert RunFolder(config.out).finished()
    assert not RunFolder(config.out).judge.exists()


def test_the_training_of_a_new_judge_is_reported(small: Small, synthetic: Synthetic, tmp_path: Path) -> None:
    heard: list[float] = []
    for _ in ("trained", "cached"):
        train(small("vae"), synthetic(), cache=tmp_path / "judges", observe_judge=heard.append)
    assert (heard[0], heard[-1], heard.count(0.0)) == (0, 1, 1)


@pytest.mark.parametrize("kind", ["gan", "cgan"])
def test_a_test_split_too_small_to_judge_by_leaves_no_figures(
    small: Small, synthetic: Synthetic, cache: Path, kind: str
) -> None:
    dataset = synthetic()
    alike = Images(dataset.test.images[:1].repeat(4, axis=0), np.zeros(4, np.int64))
    closing = train(small(kind), replace(dataset, test=alike), cache=cache)
    assert closing["quality"] is None
    assert RunFolder(small().out).finished()


def test_each_row_of_a_grid_shows_its_class(
    small: Small, synthetic: Synthetic, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sample_labels(generator: Generator, z: Tensor, label: Tensor | None) -> np.ndarray:
        assert label is not None
        return np.ones((len(z), 28, 28, 1), np.uint8) * (100 * label).byte().numpy()[:, None, None, None]

    monkeypatch.setattr(sampling, "sample", sample_labels)
    train(small("cgan"), synthetic(), cache=cache)
    with Image.open(RunFolder(small().out).samples / "0000003.png") as grid:
        pictures = np.asarray(grid)[:, -560:]
    assert [np.unique(row).tolist() for row in np.split(pictures, 3)] == [[0], [100], [200]]


def test_ctrl_c_while_the_judge_is_trained_leaves_an_older_run_as_it_was(
    small: Small, synthetic: Synthetic, cache: Path
) -> None:
    def interrupt(fraction: float) -> None:
        raise KeyboardInterrupt

    config = small("cgan", seed=1)
    train(config, synthetic(), cache=cache)
    before = {path: path.read_bytes() for path in config.out.rglob("*") if path.is_file()}
    with pytest.raises(Interrupted, match="Nothing was replaced"):
        train(config, synthetic(), cache=cache / "empty", observe_judge=interrupt)
    assert {path: path.read_bytes() for path in config.out.rglob("*") if path.is_file()} == before


def test_a_class_that_the_split_left_empty_is_a_black_row(small: Small, synthetic: Synthetic, cache: Path) -> None:
    config, dataset = small("cvae"), synthetic()
    train(config, replace(dataset, class_names=("a", "b", "c", "rare")), cache=cache)
    with Image.open(RunFolder(config.out).samples / "real.png") as real:
        pictures = np.asarray(real)[:, -560:]  # ten of 28 pixels, twice as large
    assert pictures.shape[0] == 4 * 56
    assert pictures[:168, :56].max() > 200
    assert pictures[168:, :56].max() == 0


def test_a_long_run_draws_about_ten_grids(small: Small, synthetic: Synthetic, cache: Path) -> None:
    config = small("vae", epochs=20)
    train(config, synthetic(classes=0), cache=cache)
    steps = sorted(int(path.stem) for path in RunFolder(config.out).samples.glob("0*.png"))
    assert (steps[0], steps[-1]) == (1, 60)
    assert 10 <= len(steps) <= 12


# the budget


@pytest.mark.parametrize(("epochs", "steps"), [(4, 12), (1, 3), (0.5, 2), (0.01, 1)])
def test_epochs_are_passes_over_the_training_images(
    small: Small, synthetic: Synthetic, epochs: float, steps: int
) -> None:
    objective, _ = recorded(small(epochs=epochs), synthetic())
    assert len(objective.seen) == steps


def test_seconds_end_a_run_by_the_clock(small: Small, synthetic: Synthetic, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(100))
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: float(next(ticks))))
    objective, _ = recorded(small(epochs=None, seconds=7), synthetic())
    assert len(objective.seen) == 7


def test_an_epoch_shows_every_image_once_in_a_new_order(small: Small, synthetic: Synthetic) -> None:
    objective, _ = recorded(small(epochs=2), synthetic())
    numbers = {image.tobytes(): number for number, image in enumerate(synthetic().train.images)}
    back = [((image + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy() for image in objective.seen]
    order = [numbers[image.tobytes()] for batch in back for image in batch]
    first, second = order[:48], order[48:]
    assert sorted(first) == sorted(second) == list(range(48))
    assert first != second


def test_images_that_do_not_fill_a_batch_wait_for_the_next_epoch(small: Small, synthetic: Synthetic) -> None:
    objective, _ = recorded(small(epochs=2, batch=20), synthetic())
    assert [len(image) for image in objective.seen] == [20] * 5
    objective, _ = recorded(small(batch=500), synthetic())
    assert [len(image) for image in objective.seen] == [48]  # a batch larger than the set is the set


def test_rates_stand_for_half_the_budget_then_fall_to_nothing(small: Small, synthetic: Synthetic) -> None:
    rates = recorded(small(epochs=20), synthetic())[0].rates
    assert len(rates) == 60
    assert set(rates[:31]) == {0.5}
    assert np.diff(rates[30:]) == pytest.approx(-0.5 / 30)
    assert rates[-1] == pytest.approx(0.5 / 30)


@pytest.mark.parametrize(
    ("ramp", "decay", "average"),
    # weights 1, 2, 3; ramp 1: 1/2 of 1, then 2/3 and 1/3 of 2, then 3/4 and 1/4 of 3; ramp 1 capped at 0.5 from step 1
    [(1.0, 0.99, (0.5 * 2 / 3 + 2 / 3) * 0.75 + 0.75), (1.0, 0.5, ((0.5 * 0.5) + 1) * 0.5 + 1.5), (1.0, 0.0, 3.0)],
)
def test_the_average_follows_by_the_ramp_up_to_the_decay(
    small: Small, synthetic: Synthetic, ramp: float, decay: float, average: float
) -> None:
    assert recorded(small(ema_ramp=ramp, ema_decay=decay), synthetic())[1] == pytest.approx(average)


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


def test_a_report_has_the_mean_losses_since_the_last(
    small: Small, synthetic: Synthetic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "RECORD_EVERY", 2)
    objective, dataset = Recorder(), synthetic()  # its losses are 1, 2, 3, 4, 5, 6
    steps = list(loop._steps(small(epochs=5 / 3), dataset, objective, Recorder().generator, torch.device("cpu")))
    assert [step.losses.get("generator") for step in steps] == [None, 1.5, None, 3.5, 5.0]
    assert [step.images for step in steps] == [16, 32, 48, 64, 80]


# the seed


@pytest.mark.parametrize(("kind", "threads"), [("cgan", 2), ("vae", 1)])
def test_a_seed_decides_every_weight(
    small: Small, synthetic: Synthetic, tmp_path: Path, kind: str, threads: int
) -> None:
    torch.set_num_threads(threads)
    for name, seed in (("one", 3), ("same", 3), ("other", 4)):  # the first trains the judge, the others find it
        train(small(kind, seed=seed, epochs=2, out=tmp_path / name), synthetic(), cache=tmp_path / "judges")
    torch.set_num_threads(1)
    assert identical(weights(tmp_path / "one"), weights(tmp_path / "same"))
    assert not identical(weights(tmp_path / "one"), weights(tmp_path / "other"))


# ends before the end


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_checkpoint_and_is_reported(
    small: Small, synthetic: Synthetic, cache: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setattr(loop, "RECORD_EVERY", 2)
    config, folder = small("cgan", epochs=1000), RunFolder(small().out)

    def interrupt(progress: Progress) -> None:
        assert progress.step == 2
        os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match="stopped at step 2") as caught:
        train(config, synthetic(), interrupt, cache)
    assert caught.value.exit_code == 130
    assert str(folder.checkpoint) in caught.value.mend
    assert signal.getsignal(number) is before
    _, _, state = load_generator(folder.checkpoint)
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
        train(small("vae"), synthetic(classes=0), fail, cache)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    train(small("vae"), synthetic(classes=0), cache=cache)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_run_may_be_trained_in_another_thread(small: Small, synthetic: Synthetic, cache: Path) -> None:
    thread = threading.Thread(target=train, args=(small("vae"), synthetic(classes=0)), kwargs={"cache": cache})
    thread.start()
    thread.join()
    assert RunFolder(small().out).finished()


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_losses_that_leave_the_finite_end_the_run(
    small: Small, synthetic: Synthetic, cache: Path, monkeypatch: pytest.MonkeyPatch, loss: float
) -> None:
    from training.objectives import Adversarial

    step = Adversarial.step
    monkeypatch.setattr(Adversarial, "step", lambda *given: step(*given) | {"generator": torch.tensor(loss)})
    with pytest.raises(RunError, match="no longer finite at step 3"):
        train(small("gan"), synthetic(classes=0), cache=cache)
    assert not RunFolder(small().out).finished()


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
    with pytest.raises(ConfigError, match="no CUDA device"):
        train(small("vae", device="cuda"), synthetic(classes=0), cache=cache)
    assert RunFolder(small().out).finished()
    assert identical(weights(small().out), older)


# generators out of checkpoints


@pytest.mark.parametrize(
    "edit",
    [
        lambda state: state.pop("spec"),
        lambda state: state.pop("ema"),
        lambda state: state["spec"].update(size=48),
        lambda state: state["spec"].update(width=8),
        lambda state: state["ema"].pop("project.bias"),
        lambda state: state.update(ema=[1]),
    ],
    ids=["no spec", "no weights", "unknown size", "another width", "a weight missing", "weights in a list"],
)
def test_a_checkpoint_of_another_make_is_refused(
    small: Small, synthetic: Synthetic, cache: Path, edit: Callable[[dict[str, Any]], Any]
) -> None:
    train(small("vae", epochs=0.01), synthetic(classes=0), cache=cache)
    path = RunFolder(small().out).checkpoint
    state = checkpoint.load(path)
    edit(state)
    checkpoint.save(path, state)
    with pytest.raises(RunError, match="no limner checkpoint"):
        load_generator(path)


def test_a_sample_is_rounded_to_the_nearest_level_and_clamped() -> None:
    class Given(Generator):
        """Gives its latents as an image of one row."""

        def __init__(self) -> None:
            nn.Module.__init__(self)
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
            return z.reshape(len(z), 1, 1, -1)

    z = torch.tensor([[-1.5, -1.0, -0.9922, 0.0, 0.0118, 1.0, 1.5]])
    image = sample(Given(), z, None)
    assert (image.shape, image.dtype) == ((1, 1, 7, 1), np.uint8)
    assert image.ravel().tolist() == [0, 0, 1, 128, 129, 255, 255]
