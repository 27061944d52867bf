"""A run that was stopped, or whose machine died, goes on as if nothing had happened; or says why it cannot."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from training import checkpoint, learner, loop
from training.config import TrainConfig
from training.data import Dataset
from training.errors import Interrupted, RunError
from training.loop import train
from training.observer import Observer, Progress
from training.run import RunFolder
from training.sampling import load_generator

Small = Callable[..., TrainConfig]
Synthetic = Callable[..., Dataset]
Clock = Callable[..., Callable[[], float]]

RUN = {"epochs": 6, "batch": 10, "evaluate_every": 100, "dropout": 0.3}  # 29 steps, 4 an epoch; judged after 10, 20, 29
KINDS = {
    "gan": {"augment": True, "spectral_norm": True},
    "cgan": {"augment": True, "balance": True, "r1": 1.0, "clip": 1.0},
    "vae": {"kl_warmup": 0.5},
    "cvae": {"balance": True, "weight_decay": 0.01},
}


@pytest.fixture(autouse=True)
def _records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "RECORD_EVERY", 5)


def leaves(state: Any, place: str = "") -> dict[str, Any]:
    """A nested state as {place: value}, tensors as their bytes; without the folder that it was trained in."""
    if isinstance(state, dict | list | tuple):
        items = state.items() if isinstance(state, dict) else enumerate(state)
        parts = [leaves(value, f"{place}.{name}") for name, value in items]
        return {name: value for part in parts for name, value in part.items() if name != ".config.out"}
    return {place: state.numpy().tobytes() if isinstance(state, torch.Tensor) else state}


def assert_alike(one: Path, other: Path) -> None:
    """Two run folders hold the same bits."""
    for name in ("checkpoint.pt", "best.pt"):
        first, second = leaves(checkpoint.load(one / name)), leaves(checkpoint.load(other / name))
        assert [place for place in first | second if first.get(place) != second.get(place)] == []
    assert (one / "metrics.jsonl").read_text() == (other / "metrics.jsonl").read_text()
    grids = [{path.name: path.read_bytes() for path in (run / "samples").iterdir()} for run in (one, other)]
    assert grids[0] == grids[1]


# exactly


@pytest.mark.parametrize(
    ("kind", "stops"), [("gan", (13,)), ("gan", (13, 4)), ("cgan", (13, 4)), ("vae", (13, 4)), ("cvae", (13, 4))]
)
def test_a_run_that_was_stopped_ends_bit_for_bit_like_one_that_was_not(
    small: Small, synthetic: Synthetic, cache: Path, clock: Clock, tmp_path: Path, kind: str, stops: tuple[int, ...]
) -> None:
    whole, parts = (small(kind, **RUN | KINDS[kind], out=tmp_path / name) for name in ("whole", "parts"))
    train(whole, synthetic(), cache=cache, clock=clock())
    for stop in stops:  # amid an epoch, between two records
        with pytest.raises(Interrupted):
            train(parts, synthetic(), cache=cache, clock=clock(stop_at=stop), resume=True)
    train(parts, synthetic(), cache=cache, clock=clock(), resume=True)
    assert_alike(whole.out, parts.out)
    steps = [record.get("step") for record in records(parts.out) if "losses" in record]
    assert steps == [5, 10, 15, 20, 25, 29]


class Dying(Observer):
    """A machine that dies at a step: after the best weights are written, before the checkpoint is."""

    def __init__(self, step: int) -> None:
        self.step = step

    def progress(self, progress: Progress) -> None:
        if progress.step == self.step:
            raise ZeroDivisionError


def records(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_whose_machine_died_ends_bit_for_bit_like_one_that_lived(
    small: Small, synthetic: Synthetic, cache: Path, clock: Clock, tmp_path: Path
) -> None:
    whole, parts = (small("cvae", **RUN, out=tmp_path / name) for name in ("whole", "parts"))
    train(whole, synthetic(), cache=cache, clock=clock())
    with pytest.raises(ZeroDivisionError):
        train(parts, synthetic(), Dying(20), cache, clock=clock())
    assert (checkpoint.load(parts.out / "checkpoint.pt")["step"], records(parts.out)[-1]["step"]) == (10, 20)
    with (parts.out / "metrics.jsonl").open("a") as file:
        file.write('{"step": 20, "losses": {"recon')  # torn as it was written
    (parts.out / "samples" / "0000020.png").write_bytes(b"torn")
    train(parts, synthetic(), cache=cache, clock=clock(), resume=True)
    assert_alike(whole.out, parts.out)


def test_a_run_without_a_checkpoint_begins_afresh(
    small: Small, synthetic: Synthetic, cache: Path, clock: Clock, tmp_path: Path
) -> None:
    fresh, resumed = (small("gan", out=tmp_path / name) for name in ("fresh", "resumed"))
    RunFolder(resumed.out).create(resumed)
    train(fresh, synthetic(), cache=cache, clock=clock())
    train(resumed, synthetic(), cache=cache, clock=clock(), resume=True)
    assert_alike(fresh.out, resumed.out)


def test_a_budget_in_seconds_counts_all_sessions(small: Small, synthetic: Synthetic, cache: Path, clock: Clock) -> None:
    config = small("gan", epochs=None, seconds=7)
    with pytest.raises(Interrupted):
        train(config, synthetic(), cache=cache, clock=clock(stop_at=4))
    closing = train(config, synthetic(), cache=cache, clock=clock(), resume=True)
    assert (closing["step"], closing["seconds"]) == (7, 7.0)


def test_skipped_steps_and_halved_rates_outlive_a_stop(
    small: Small, synthetic: Synthetic, cache: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, path = small("vae", epochs=4, decay_from=1.0), RunFolder(small().out).checkpoint
    with monkeypatch.context() as poison:
        poison.setattr(learner, "to_unit", lambda images: images.permute(0, 3, 1, 2) * float("nan"))
        with pytest.raises(Interrupted):
            train(config, synthetic(), cache=cache, clock=clock(stop_at=4))
    assert checkpoint.load(path)["guard"] == {"skipped": 4, "in_a_row": 1, "roll_backs": 1}
    assert train(config, synthetic(), cache=cache, resume=True)["skipped"] == 4
    (group,) = checkpoint.load(path)["optimizers"]["variational"]["param_groups"]
    assert group["lr"] == pytest.approx(config.variational_rate / 2)


def test_a_run_stopped_after_a_skipped_step_can_still_be_rolled_back(
    small: Small, synthetic: Synthetic, cache: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learner, "to_unit", lambda images: images.permute(0, 3, 1, 2) * float("nan"))
    with pytest.raises(Interrupted):
        train(small("gan"), synthetic(), cache=cache, clock=clock(stop_at=1))
    with pytest.raises(Interrupted):
        train(small("gan"), synthetic(), cache=cache, clock=clock(stop_at=2), resume=True)
    assert checkpoint.load(RunFolder(small().out).checkpoint)["guard"]["roll_backs"] == 1


# with other settings


def test_a_longer_budget_goes_on_from_the_end_of_the_shorter(small: Small, synthetic: Synthetic, cache: Path) -> None:
    config = small("cvae", epochs=2)
    train(config, synthetic(), cache=cache)
    closing = train(config.model_copy(update={"epochs": 4}), synthetic(), cache=cache, resume=True)
    folder = RunFolder(config.out)
    assert (closing["step"], closing["stopped_early"]) == (12, False)
    settings = folder.settings()
    assert settings is not None
    assert settings.epochs == 4
    assert folder.finished()
    finals = [record for record in records(config.out) if record.get("finished")]
    assert finals == [{"finished": True} | closing]
    assert max(record["step"] for record in records(config.out) if "quality" in record) == 12


def test_rates_are_what_the_settings_say_now(small: Small, synthetic: Synthetic, cache: Path) -> None:
    config = small("vae", decay_from=1.0)
    train(config, synthetic(), cache=cache)
    lower = config.model_copy(update={"epochs": 2, "variational_rate": 1e-5, "weight_decay": 0.5})
    train(lower, synthetic(), cache=cache, resume=True)
    (group,) = checkpoint.load(RunFolder(config.out).checkpoint)["optimizers"]["variational"]["param_groups"]
    assert (group["lr"], group["weight_decay"]) == (1e-5, 0.5)


def test_a_finished_run_keeps_its_best_weights_and_figures(small: Small, synthetic: Synthetic, cache: Path) -> None:
    config = small("cgan", epochs=2)
    first = train(config, synthetic(), cache=cache)
    before = leaves(checkpoint.load(RunFolder(config.out).best))
    assert train(config, synthetic(), cache=cache, resume=True) == first
    assert leaves(checkpoint.load(RunFolder(config.out).best)) == before


def test_a_budget_cut_to_what_is_spent_ends_with_figures(
    small: Small, synthetic: Synthetic, cache: Path, clock: Clock
) -> None:
    config = small("vae", epochs=100)
    with pytest.raises(Interrupted):
        train(config, synthetic(), cache=cache, clock=clock(stop_at=3))  # long before the first evaluation
    closing = train(config.model_copy(update={"epochs": 1}), synthetic(), cache=cache, resume=True)
    assert (closing["step"], closing["best_step"]) == (3, 3)
    assert closing["quality"]["fid"] > 0
    assert RunFolder(config.out).finished()


# what cannot go on


def other_images(dataset: Dataset) -> Dataset:
    dataset.train.images[0, 0, 0] ^= 1
    return dataset


def other_labels(dataset: Dataset) -> Dataset:
    assert dataset.train.labels is not None
    dataset.train.labels[:] = np.roll(dataset.train.labels, 1)
    return dataset


@pytest.mark.parametrize("change", [other_images, other_labels])
def test_other_data_is_refused_and_the_run_kept(
    small: Small, synthetic: Synthetic, cache: Path, change: Callable[[Dataset], Dataset]
) -> None:
    config = small("cvae", epochs=0.01)
    train(config, synthetic(), cache=cache)
    before = {path: path.read_bytes() for path in config.out.rglob("*") if path.is_file()}
    with pytest.raises(RunError, match=r"images of bars are not those .*--init-from"):
        train(config, change(synthetic()), cache=cache, resume=True)
    assert {path: path.read_bytes() for path in config.out.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("change", "difference"),
    [({"width": 8}, "width 4, not 8"), ({"latent": 9}, "latent 8, not 9"), ({"model": "gan"}, "kind vae, not gan")],
)
def test_another_model_is_refused_by_its_difference(
    small: Small, synthetic: Synthetic, cache: Path, change: dict[str, Any], difference: str
) -> None:
    train(small("vae", epochs=0.01), synthetic(classes=0), cache=cache)
    with pytest.raises(RunError, match=rf"another model .{difference}.*--init-from"):
        train(small(**{"model": "vae"} | change), synthetic(classes=0), cache=cache, resume=True)


@pytest.mark.parametrize(
    "edit",
    [
        lambda state: state.update(schema=checkpoint.SCHEMA - 1),
        lambda state: state.pop("schema"),
        lambda state: state.pop("sampler"),
        lambda state: state["ema"].pop("project.bias"),
        lambda state: state["optimizers"].update(variational={}),
        lambda state: state.update(noise=None),
    ],
    ids=["older schema", "no schema", "no sampler", "a weight missing", "an empty optimiser", "no noise"],
)
def test_a_checkpoint_of_another_make_is_refused(
    small: Small, synthetic: Synthetic, cache: Path, edit: Callable[[dict[str, Any]], Any]
) -> None:
    path = RunFolder(small().out).checkpoint
    train(small("vae", epochs=0.01), synthetic(classes=0), cache=cache)
    state = checkpoint.load(path)
    edit(state)
    checkpoint.save(path, state)
    with pytest.raises(RunError, match=r"no checkpoint of this version\. Train again with --overwrite"):
        train(small("vae", epochs=1), synthetic(classes=0), cache=cache, resume=True)


def test_a_damaged_checkpoint_is_refused(small: Small, synthetic: Synthetic, cache: Path) -> None:
    path = RunFolder(small().out).checkpoint
    train(small("vae", epochs=0.01), synthetic(classes=0), cache=cache)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(RunError, match="is damaged"):
        train(small("vae", epochs=1), synthetic(classes=0), cache=cache, resume=True)


# from the weights of another run


class Listener(Observer):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def begun(
    small: Small, dataset: Dataset, cache: Path, tmp_path: Path, start: Path, kind: str = "gan", **settings: object
) -> tuple[str, dict[str, Any]]:
    """Train one step from other weights: the note, and the first record."""
    listener = Listener()
    config = small(kind, **{"init_from": start, "out": tmp_path / "next", "epochs": 0.01} | settings)
    train(config, dataset, listener, cache)
    return listener.notes[0], records(config.out)[0]


@pytest.fixture
def older(small: Small, synthetic: Synthetic, cache: Path) -> TrainConfig:
    """A finished CGAN of the classes a, b and c."""
    config = small("cgan", epochs=0.01)
    train(config, synthetic(), cache=cache)
    return config


@pytest.mark.parametrize("source", ["run", "run/checkpoint.pt"])
def test_a_run_begins_from_the_averaged_weights_of_another(
    small: Small, synthetic: Synthetic, cache: Path, tmp_path: Path, older: TrainConfig, source: str
) -> None:
    still = {"generator_rate": 1e-30, "discriminator_rate": 1e-30, "ema_decay": 0.0}
    note, record = begun(small, synthetic(), cache, tmp_path, tmp_path / source, "cgan", **still)
    assert "did not fit" not in note
    assert record == {"init_from": str(tmp_path / source), "taken": record["taken"], "left": []}
    assert f"{record['taken']} of {record['taken']} weights taken" in note
    state = checkpoint.load(tmp_path / "next" / "checkpoint.pt")
    before = checkpoint.load(RunFolder(older.out).checkpoint)
    for name, weight in load_generator(RunFolder(older.out).checkpoint)[0].named_parameters():
        assert torch.equal(state["networks"]["generator"][name], weight), name
    judged = state["networks"]["discriminator"]["head.weight"]
    assert torch.equal(judged, before["networks"]["discriminator"]["head.weight"])


def test_best_weights_are_a_start_for_the_generator_alone(
    small: Small, synthetic: Synthetic, cache: Path, tmp_path: Path, older: TrainConfig
) -> None:
    _, record = begun(small, synthetic(), cache, tmp_path, RunFolder(older.out).best, "cgan")
    assert record["taken"] > 0
    assert {name.partition(".")[0] for name in record["left"]} == {"discriminator"}


@pytest.mark.parametrize(
    ("kind", "classes", "settings", "left"),
    [
        ("cgan", 2, {}, "generator.embedding.weight (of other classes)"),
        ("cgan", 3, {"latent": 9}, "generator.project.weight (784x40, not 784x41)"),
        ("gan", 3, {}, "generator.project.weight (784x40, not 784x8)"),
        ("cvae", 3, {}, "encoder.embedding.weight (missing, not 3x32)"),
        ("cgan", 3, {"spectral_norm": True}, "discriminator.head.parametrizations.weight.original (missing, not 1x"),
    ],
    ids=["other classes", "another latent", "no classes", "a vae from a gan", "normed"],
)
def test_weights_that_do_not_fit_are_listed_with_their_reason(
    small: Small,
    synthetic: Synthetic,
    cache: Path,
    tmp_path: Path,
    older: TrainConfig,
    kind: str,
    classes: int,
    settings: dict[str, Any],
    left: str,
) -> None:
    note, record = begun(small, synthetic(classes=classes), cache, tmp_path, older.out, kind, **settings)
    assert left in note
    assert any(reason.startswith(left) for reason in record["left"])
    assert record["taken"] > 0


@pytest.mark.parametrize(
    ("make", "refusal"),
    [
        (lambda path: path.write_text("a poem"), "is damaged"),
        (lambda path: path.mkdir(), "no checkpoint.pt in"),
        (lambda path: None, "no start.pt in"),
        (lambda path: torch.save([1], path), "is no limner checkpoint"),
        (lambda path: torch.save({"conv.weight": torch.zeros(2)}, path), "is no limner checkpoint"),
        (lambda path: torch.save({"ema": 0.999, "networks": [1]}, path), "is no limner checkpoint"),
    ],
    ids=["a text", "an empty folder", "nothing", "a list", "another program's", "another program's words"],
)
def test_a_start_that_is_none_is_refused_and_the_older_run_kept(
    small: Small,
    synthetic: Synthetic,
    cache: Path,
    tmp_path: Path,
    older: TrainConfig,
    make: Callable[[Path], object],
    refusal: str,
) -> None:
    make(tmp_path / "start.pt")
    before = {path: path.read_bytes() for path in older.out.rglob("*") if path.is_file()}
    with pytest.raises(RunError, match=refusal):
        train(small("cgan", init_from=tmp_path / "start.pt"), synthetic(), cache=cache)
    assert {path: path.read_bytes() for path in older.out.rglob("*") if path.is_file()} == before


def test_a_run_may_begin_from_itself(small: Small, synthetic: Synthetic, cache: Path, older: TrainConfig) -> None:
    closing = train(small("cgan", init_from=older.out), synthetic(), cache=cache)
    assert closing["step"] == 3
    assert records(older.out)[0]["left"] == []


def test_going_on_needs_the_start_no_more(
    small: Small, synthetic: Synthetic, cache: Path, tmp_path: Path, clock: Clock, older: TrainConfig
) -> None:
    config = small("cgan", init_from=older.out, out=tmp_path / "next")
    with pytest.raises(Interrupted):
        train(config, synthetic(), cache=cache, clock=clock(stop_at=2))
    shutil.rmtree(older.out)
    train(config, synthetic(), cache=cache, resume=True)
    assert "init_from" in records(config.out)[0]
