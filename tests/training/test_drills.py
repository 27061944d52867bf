"""What goes wrong in training is brought about on purpose, and ends in one line, a mended run or a warning."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

from training import checkpoint, learner, loop, losses
from training.config import TrainConfig
from training.data import Dataset, Images
from training.errors import Interrupted, RunError
from training.loop import train
from training.observer import Observer, Progress
from training.progress import TrainingProgress
from training.run import RunFolder
from training.sampling import load_generator

Small = Callable[..., TrainConfig]
Synthetic = Callable[..., Dataset]
Clock = Callable[..., Callable[[], float]]
Poison = Callable[[Callable[[int], bool]], None]


class Listener(Observer):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.alarms: list[str] = []  # codes, as often as they are raised

    def progress(self, progress: Progress) -> None:
        self.alarms += [alarm.code for alarm in progress.alarms]

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> Poison:
    """Make the images of chosen steps NaN, counted from 1 over all steps tried; so are the loss and the statistics of
    batch normalisation then."""

    def apply(chosen: Callable[[int], bool]) -> None:
        step, to_unit = 0, learner.to_unit

        def poisoned(images: Tensor) -> Tensor:
            nonlocal step
            step += 1
            return to_unit(images) * float("nan") if chosen(step) else to_unit(images)

        monkeypatch.setattr(learner, "to_unit", poisoned)

    return apply


def records(config: TrainConfig) -> list[dict[str, Any]]:
    return [json.loads(line) for line in RunFolder(config.out).metrics.read_text().splitlines()]


def tensors(state: Any) -> list[Tensor]:
    """Every tensor in a nested state, in its order."""
    if isinstance(state, dict | list | tuple):
        values = state.values() if isinstance(state, dict) else state
        return [tensor for value in values for tensor in tensors(value)]
    return [state] if isinstance(state, Tensor) else []


def assert_same(one: dict[str, Any], other: dict[str, Any], *parts: str) -> None:
    for part in parts:
        pairs = zip(tensors(one[part]), tensors(other[part]), strict=True)
        assert all(torch.equal(first, second) for first, second in pairs), part


def assert_finite(config: TrainConfig) -> None:
    state = checkpoint.load(RunFolder(config.out).checkpoint)
    parts = tensors([state["networks"], state["ema"], state["optimizers"]])
    assert all(part.isfinite().all() for part in parts)


# steps that are not finite


@pytest.mark.parametrize("kind", ["cgan", "cvae"])
def test_a_step_that_is_not_finite_is_skipped_counted_and_leaves_no_trace(
    small: Small, synthetic: Synthetic, cache: Path, tmp_path: Path, poison: Poison, kind: str
) -> None:
    steady = {"decay_from": 1.0, "ema_decay": 0.9}
    shorter = small(kind, epochs=2 / 3, out=tmp_path / "shorter", **steady)
    assert train(shorter, synthetic(), cache=cache)["skipped"] == 0
    poison(lambda step: step == 3)
    config = small(kind, epochs=1, **steady)
    closing = train(config, synthetic(), cache=cache)
    assert (closing["step"], closing["skipped"]) == (3, 1)
    assert records(config)[-1]["skipped"] == 1
    one, other = (checkpoint.load(RunFolder(each.out).checkpoint) for each in (shorter, config))
    assert_same(one, other, "ema", "networks", "optimizers")  # the batch statistics among them


@pytest.mark.parametrize("kind", ["gan", "vae"])
def test_a_run_goes_on_after_single_steps_that_are_not_finite(
    small: Small, synthetic: Synthetic, cache: Path, poison: Poison, kind: str
) -> None:
    poison(lambda step: step in (1, 2, 4, 5, 7))
    config, listener = small(kind, epochs=3), Listener()
    closing = train(config, synthetic(), listener, cache)
    assert (closing["step"], closing["skipped"], listener.notes) == (9, 5, [])
    assert_finite(config)


def test_a_discriminator_whose_loss_is_infinite_is_skipped(
    small: Small, synthetic: Synthetic, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = losses.ADVERSARIAL["logistic"]
    calls: list[Tensor] = []

    def sometimes(one: Tensor, other: Tensor) -> Tensor:
        calls.append(one)
        return real.discriminator(one, other) * (float("inf") if len(calls) == 2 else 1)

    monkeypatch.setitem(losses.ADVERSARIAL, "logistic", real._replace(discriminator=sometimes))
    config = small("gan", loss="logistic")
    assert train(config, synthetic(), cache=cache)["skipped"] == 1
    assert_finite(config)


def test_three_in_a_row_roll_everything_back_and_halve_the_rates(
    small: Small,
    synthetic: Synthetic,
    cache: Path,
    tmp_path: Path,
    clock: Clock,
    poison: Poison,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "RECORD_EVERY", 2)
    steady = {"epochs": 9, "evaluate_every": 10_000, "decay_from": 1.0}
    good, config = small("cgan", out=tmp_path / "good", **steady), small("cgan", **steady)
    with pytest.raises(Interrupted):
        train(good, synthetic(), cache=cache, clock=clock(stop_at=4))
    poison(lambda step: step in (6, 7, 8))  # step 5 is finite, and undone with the others
    listener = Listener()
    with pytest.raises(Interrupted):
        train(config, synthetic(), listener, cache, clock=clock(stop_at=8))
    assert listener.notes == ["three steps in a row were not finite: back to step 4, rates times 0.5"]
    assert records(config)[-1] == {"step": 4, "rolled_back": 1, "skipped": 3}
    one, other = (checkpoint.load(RunFolder(each.out).checkpoint) for each in (good, config))
    assert_same(one, other, "ema", "networks", "optimizers", "sampler", "noise")
    assert one["sampler"]["place"] == other["sampler"]["place"]

    with pytest.raises(Interrupted):
        train(config, synthetic(), listener, cache, resume=True, clock=clock(stop_at=1))
    optimizers = checkpoint.load(RunFolder(config.out).checkpoint)["optimizers"]
    rates = {name: optimizer["param_groups"][0]["lr"] for name, optimizer in optimizers.items()}
    assert rates == {"generator": config.generator_rate / 2, "discriminator": config.discriminator_rate / 2}


def test_a_roll_back_takes_back_its_steps_and_no_record_comes_twice(
    small: Small, synthetic: Synthetic, cache: Path, poison: Poison, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "RECORD_EVERY", 4)
    poison(lambda step: step in (6, 7, 8))
    config = small("vae", epochs=3, evaluate_every=10_000)
    closing = train(config, synthetic(), cache=cache)
    assert (closing["step"], closing["images"], closing["skipped"]) == (9, 144, 3)
    told = [
        (record["step"], "losses" in record) for record in records(config) if {"losses", "rolled_back"} & record.keys()
    ]
    assert told == [(4, True), (4, False), (8, True), (9, True)]
    assert all(record["losses"] for record in records(config) if "losses" in record)


def test_the_third_roll_back_ends_the_run_with_its_last_good_weights(
    small: Small, synthetic: Synthetic, cache: Path, tmp_path: Path, poison: Poison, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "RECORD_EVERY", 2)
    poison(lambda step: step in range(4, 13))
    config, listener = small("cvae", epochs=9), Listener()
    folder = RunFolder(config.out)
    with pytest.raises(RunError, match=r"not finite, 3 times.*last-good\.pt.*--init-from") as caught:
        train(config, synthetic(), listener, cache)
    assert caught.value.exit_code == 1
    assert [note.rpartition(" ")[2] for note in listener.notes] == ["0.5", "0.25"]
    assert [record["rolled_back"] for record in records(config) if "rolled_back" in record] == [1, 2, 3]
    assert not folder.finished()

    generator, _, state = load_generator(folder.last_good)
    assert state["guard"] == {"skipped": 9, "in_a_row": 0, "roll_backs": 3}
    assert all(weight.isfinite().all() for weight in generator.state_dict().values())
    closing = train(small("cvae", init_from=folder.last_good, out=tmp_path / "next"), synthetic(), listener, cache)
    assert closing["skipped"] == 0
    assert "did not fit" not in listener.notes[-1]


RATES = ("generator_rate", "discriminator_rate", "variational_rate")


@pytest.mark.parametrize("kind", ["gan", "cgan", "vae", "cvae"])
def test_rates_a_hundred_times_too_high_end_in_figures_or_one_line(
    small: Small, synthetic: Synthetic, cache: Path, kind: str
) -> None:
    rates = {name: min(1.0, 100 * getattr(small(kind), name)) for name in RATES}
    config, listener = small(kind, epochs=10, evaluate_every=240, **rates), Listener()
    refusal = ""
    try:
        train(config, synthetic(), listener, cache)
    except RunError as error:
        refusal = str(error)
    assert "last-good.pt" in refusal or (RunFolder(config.out).finished() and listener.alarms)
    assert_finite(config)


def test_an_encoder_beyond_all_bounds_is_rolled_back_and_said(small: Small, synthetic: Synthetic, cache: Path) -> None:
    config, listener = small("vae", epochs=4, evaluate_every=10_000, variational_rate=1.0), Listener()
    train(config, synthetic(), listener, cache)
    assert any("back to step 0, rates times 0.5" in note for note in listener.notes)
    assert_finite(config)


def test_where_no_prior_can_be_fitted_it_is_said_and_the_run_goes_on(
    small: Small, synthetic: Synthetic, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(self: learner.Learner) -> None:
        raise ValueError("the posterior samples are not finite")

    monkeypatch.setattr(learner.Learner, "fit_prior", fit)
    config, listener = small("vae"), Listener()
    train(config, synthetic(), listener, cache)
    assert listener.notes[-1] == "no prior can be fitted at step 3: the posterior samples are not finite"
    assert load_generator(RunFolder(config.out).best)[2]["prior"] is None


# alarms

TRAINED = {"epochs": 10, "evaluate_every": 160}  # 30 steps, judged after 10, 20 and 30


def alarmed(config: TrainConfig, dataset: Dataset, cache: Path) -> list[str]:
    """Train: the codes of the alarms that were heard, which are those on record."""
    listener = Listener()
    train(config, dataset, listener, cache)
    assert [record["alarm"] for record in records(config) if "alarm" in record] == listener.alarms
    return listener.alarms


def test_a_discriminator_that_learns_nothing_is_called_blind(small: Small, synthetic: Synthetic, cache: Path) -> None:
    codes = alarmed(small("gan", discriminator_rate=1e-9, **TRAINED), synthetic(), cache)
    assert "discriminator-blind" in codes
    assert "discriminator-wins" not in codes


def test_a_discriminator_that_is_far_too_strong_is_said_to_win(small: Small, synthetic: Synthetic, cache: Path) -> None:
    strong = {"generator_rate": 1e-9, "discriminator_rate": 1e-3, "dropout": 0.0}
    codes = alarmed(small("gan", **strong, epochs=40, evaluate_every=640), synthetic(), cache)
    assert "discriminator-wins" in codes
    assert "discriminator-blind" not in codes


def test_an_unconditional_model_that_draws_one_class_misses_the_others(
    small: Small, synthetic: Synthetic, cache: Path
) -> None:
    assert "classes" in alarmed(small("gan", generator_rate=1e-9, **TRAINED), synthetic(), cache)


@pytest.mark.parametrize("kind", ["vae", "cvae"])
def test_a_divergence_that_outweighs_the_picture_collapses_the_posterior(
    small: Small, synthetic: Synthetic, cache: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def heavy(mean: Tensor, log_variance: Tensor, free_bits: float) -> Tensor:
        return 1e4 * divergence(mean, log_variance, free_bits)

    divergence = losses.divergence
    monkeypatch.setattr(losses, "divergence", heavy)
    assert "posterior-collapse" in alarmed(small(kind, epochs=30, evaluate_every=720), synthetic(), cache)


def test_an_encoder_that_says_something_raises_no_such_alarm(small: Small, synthetic: Synthetic, cache: Path) -> None:
    assert "posterior-collapse" not in alarmed(small("vae", **TRAINED), synthetic(), cache)


def one_picture(dataset: Dataset, *parts: str) -> Dataset:
    """The first training image in the place of all others of these parts."""
    splits = {part: getattr(dataset, part) for part in parts}
    first = dataset.train.images[:1]
    return replace(dataset, **{part: Images(first.repeat(len(old), 0), old.labels) for part, old in splits.items()})


@pytest.mark.parametrize("kind", ["vae", "cvae"])
def test_a_model_of_one_picture_has_collapsed_beside_real_ones(
    small: Small, synthetic: Synthetic, cache: Path, kind: str
) -> None:
    dataset = one_picture(synthetic(held=100), "train")  # enough others to be judged by them alone
    codes = alarmed(small(kind, **TRAINED), dataset, cache)
    assert {"collapse", "recall"} <= set(codes)


@pytest.mark.parametrize("kind", ["gan", "cgan"])
def test_a_game_over_one_picture_covers_none_of_the_real_ones(
    small: Small, synthetic: Synthetic, cache: Path, kind: str
) -> None:
    dataset = one_picture(synthetic(held=100), "train")
    codes = alarmed(small(kind, **TRAINED), dataset, cache)
    assert "recall" in codes


@pytest.mark.parametrize("kind", ["gan", "cgan", "vae", "cvae"])
def test_a_whole_set_of_one_picture_is_trained_to_its_end(
    small: Small, synthetic: Synthetic, cache: Path, kind: str
) -> None:
    config = small(kind)
    figures = train(config, one_picture(synthetic(), "train", "val", "test"), cache=cache)["quality"]
    assert RunFolder(config.out).finished()
    assert "within_class_variance_ratio" not in figures  # there is no variance to compare with
    assert_finite(config)


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Give the evaluations on the way these figures in turn; the closing one stays as it is."""

    def fabricate(name: str, *values: float) -> None:
        rest = iter(values)
        monkeypatch.setattr(loop, "Evaluation", lambda *of: lambda *given: {"fid": 9.0, name: next(rest)})

    return fabricate


@pytest.mark.parametrize(
    ("recall", "raised_at"),
    [
        ((0.0, 0.0, 0.0, 0.0, 0.0), [2]),  # step 1 is within the first quarter, where all young models look ill
        ((0.0, 0.9, 0.0, 0.0, 0.0), [3]),
        ((0.9, 0.0, 0.9, 0.9, 0.0), [2, 5]),
        ((0.0, 0.9, 0.9, 0.9, 0.9), []),
    ],
    ids=["stays on", "later", "off and on", "too early to say"],
)
def test_an_alarm_is_raised_once_while_it_stays_on(
    small: Small,
    synthetic: Synthetic,
    cache: Path,
    judged: Callable[..., None],
    recall: tuple[float, ...],
    raised_at: list[int],
) -> None:
    judged("recall", *recall)
    config = small("vae", epochs=5 * 16 / 48, evaluate_every=16)  # judged after each of five steps
    train(config, synthetic(), cache=cache)
    assert [record["step"] for record in records(config) if record.get("alarm") == "recall"] == raised_at


def test_an_alarm_that_is_on_is_not_raised_again_after_a_stop(
    small: Small, synthetic: Synthetic, cache: Path, clock: Clock, judged: Callable[..., None]
) -> None:
    judged("recall", *[0.0] * 9)
    config = small("vae", epochs=2, evaluate_every=16)
    with pytest.raises(Interrupted):
        train(config, synthetic(), cache=cache, clock=clock(stop_at=4))
    train(config, synthetic(), cache=cache, resume=True)
    assert [record["step"] for record in records(config) if record.get("alarm") == "recall"] == [2]


def test_an_alarm_reaches_the_console_as_a_line_with_its_mend(
    small: Small, synthetic: Synthetic, cache: Path, judged: Callable[..., None]
) -> None:
    judged("recall", *[0.02] * 3)
    file = io.StringIO()
    with TrainingProgress(Console(file=file, force_terminal=False, width=40), "training vae") as progress:
        train(small("vae", evaluate_every=16), synthetic(), progress, cache)
    (line,) = [line for line in file.getvalue().splitlines() if "pictures cover" in line]
    assert line.startswith("The pictures cover 2% of the real ones. Usual mend: ")
