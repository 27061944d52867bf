"""`limner train`, in this process: what it makes of flags, files and the run that is there already."""

import functools
import itertools
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import limner
from training import loop, objectives
from training.run import RunFolder

SMALL = "{data: pictures, epochs: 1, batch: 16, width: 4, latent: 8, device: cpu}"  # 60 pictures, 3 steps


class Said(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line of a refusal, with nothing before it."""
        lines = self.err.splitlines()
        assert (self.code, len(lines)) == (1, 1), self
        return lines[0].removeprefix("error: ")


Train = Callable[..., Said]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of all commands here, so that the judge is trained once: with 60 pictures, dark and light ones."""
    home, noise = tmp_path_factory.mktemp("home"), np.random.default_rng(3)
    for name, level in (("dark", 0), ("light", 128)):
        (home / "pictures" / name).mkdir(parents=True)
        for index in range(30):
            pixels = noise.integers(level, level + 128, (32, 32), dtype=np.uint8)
            Image.fromarray(pixels).save(home / "pictures" / name / f"{index}.png")
    return home


@pytest.fixture
def train(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Train:
    """`limner train` in a folder of its own that has the pictures and `small.yaml`."""
    for name in [name for name in os.environ if name.startswith("LIMNER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loop, "SAMPLES", 100)
    Path("pictures").symlink_to(home / "pictures")
    Path("small.yaml").write_text(SMALL)

    def run(*arguments: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["limner", "train", *arguments])
        with pytest.raises(SystemExit) as ended:
            limner.main()
        code = ended.value.code or 0
        assert isinstance(code, int)
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return run


@pytest.fixture
def begun(train: Train, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Begin the run in `run` and stop it at its second step, by Ctrl-C."""

    def stop(*arguments: str) -> None:
        readings = itertools.count(1)  # two a step

        def clock() -> float:
            reading = next(readings)
            if reading == 4:
                os.kill(os.getpid(), signal.SIGINT)
            return float(reading)

        with monkeypatch.context() as stopped:
            stopped.setattr(loop, "train", functools.partial(loop.train, clock=clock))
            said = train("--out", "run", *arguments)
        assert said.code == 130
        assert "stopped at step 2. The checkpoint is saved: go on with limner train --resume --out run." in said.err

    return stop


def settings(run: str = "run") -> dict[str, object]:
    return yaml.safe_load((Path(run) / "config.yaml").read_text())


def resolved(said: Said) -> dict[str, object]:
    """What --dry-run prints."""
    assert said.code == 0, said.err
    return yaml.safe_load(said.out)


# settings


def test_a_run_says_what_it_saw_and_how_good_it_became(train: Train) -> None:
    said = train("--config", "small.yaml", "--out", "run")
    assert said.code == 0, said.err
    first, last, quality = said.out.splitlines()
    assert first == "pictures: 60 images of 32x32x1, 2 classes"
    assert re.fullmatch(r"trained 48 images in \d+ s: run", last)
    assert re.search(
        r"agrees with the label on [\d.]+%.*variance within classes .*FID [\d.]+ \(real images [\d.]+\).*recall",
        quality,
    )
    assert "training cgan: 100%  generator" in said.err


def test_set_gives_any_setting_over_a_file_and_under_a_flag(train: Train) -> None:
    Path("my.yaml").write_text("batch: 8\nclip: 2\nseconds: 7\n")
    given = [
        "--set",
        "batch=64",
        "--set",
        "beta1 = 0",
        "--set",
        "kl-warmup=0.5",
        "--set",
        "epochs=3",
        "--set",
        "seed=4",
    ]
    values = resolved(train("--config", "my.yaml", *given, "--seed", "5", "--dry-run"))
    chosen = {name: values[name] for name in ("batch", "beta1", "kl_warmup", "clip", "epochs", "seconds", "seed")}
    assert chosen == {
        "batch": 64, "beta1": 0, "kl_warmup": 0.5, "clip": 2, "epochs": 3, "seconds": None, "seed": 5,
    }  # fmt: skip
    assert not Path("runs").exists()


def test_a_budget_by_flag_takes_back_the_other_by_set(train: Train) -> None:
    values = resolved(train("--set", "epochs=3", "--seconds", "9", "--dry-run"))
    assert (values["epochs"], values["seconds"]) == (None, 9)


def test_a_recipe_is_settings_that_can_be_given_otherwise(train: Train) -> None:
    values = resolved(train("--recipe", "sn-hinge", "--set", "dropout=0.1", "--dry-run"))
    assert (values["loss"], values["spectral_norm"], values["dropout"]) == ("hinge", True, 0.1)


@pytest.mark.parametrize("text", ["batch", "=64", " =64", "batch=[", "", "batch=}{"])
def test_what_is_no_assignment_is_refused(train: Train, text: str) -> None:
    assert "is no NAME=VALUE. Write --set batch=64." in train("--set", text).error


@pytest.mark.parametrize(
    ("arguments", "what", "mend"),
    [
        (["--model", "cgann"], "model=cgann", "Did you mean cgan?"),
        (["--recipe", "sn-hing"], "recipe=sn-hing", "Did you mean sn-hinge?"),
        (["--set", "bacth=64"], "bacth", "Did you mean batch?"),
        (["--set", "weight-decay-=64"], "weight_decay_", "Did you mean weight_decay?"),
        (["--set", "xyzzy=64"], "xyzzy", "See --help."),
        (["--set", "batch=many"], "batch=many", "See --help."),
        (["--set", "batch=1"], "batch=1", "See --help."),
        (["--set", "loss=logistik"], "loss=logistik", "Did you mean logistic?"),
        (["--patience", "0"], "patience=0", "See --help."),
        (["--limit", "0"], "limit=0", "See --help."),
        (["--recipe", "dcgan", "--model", "vae"], "dcgan is one for gan and cgan, not for vae", "See --help."),
        (["--resume", "--overwrite"], "--resume keeps the run that --overwrite replaces", "Give one of them."),
    ],
)
def test_a_setting_that_cannot_be_is_refused_with_the_nearest(
    train: Train, arguments: list[str], what: str, mend: str
) -> None:
    line = train(*arguments).error
    assert what in line
    assert line.endswith(mend)
    assert not Path("runs").exists()


def test_cuda_where_there_is_none_is_refused(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    line = train("--config", "small.yaml", "--device", "cuda").error
    assert line == "no CUDA device answers. Train with --device cpu, or install a CUDA build of torch."
    assert not Path("runs").exists()


def test_too_little_memory_is_one_line_after_the_progress(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

    monkeypatch.setattr(objectives.Adversarial, "step", fail)
    said = train("--config", "small.yaml", "--out", "run")
    assert (said.code, said.err.splitlines()[-1]) == (
        1, "error: out of memory with 16 images a step. Try --set batch=8 with --overwrite.",
    )  # fmt: skip


def test_a_limit_takes_fewer_images(train: Train) -> None:
    said = train("--config", "small.yaml", "--limit", "40", "--out", "run")
    assert said.out.startswith("pictures: 40 images of ")
    assert settings()["limit"] == 40


def test_patience_ends_a_run_early_and_says_so(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    fids = itertools.count(1.0)  # ever worse
    monkeypatch.setattr(loop, "Evaluation", lambda *of: lambda *given: {"fid": next(fids)})
    said = train(
        "--config", "small.yaml", "--set", "evaluate_every=16", "--epochs", "9", "--patience", "2", "--out", "run"
    )
    assert said.code == 0, said.err
    assert re.search(r"trained 48 images in \d+ s, stopped early at step 3: run", said.out)


def test_a_run_begins_from_another_and_says_what_did_not_fit(train: Train) -> None:
    assert train("--config", "small.yaml", "--out", "run").code == 0
    said = train("--config", "small.yaml", "--init-from", "run", "--set", "latent=9", "--out", "next")
    assert said.code == 0, said.err
    assert re.search(r"run: \d+ of \d+ weights taken; 1 did not fit: generator\.project\.weight \(", said.err)
    before = {path: path.read_bytes() for path in Path("next").rglob("*") if path.is_file()}
    line = train("--config", "small.yaml", "--init-from", "small.yaml", "--out", "next", "--overwrite").error
    assert line.startswith("small.yaml is damaged")
    assert {path: path.read_bytes() for path in Path("next").rglob("*") if path.is_file()} == before


# TensorBoard


def test_tensorboard_gets_the_curves(train: Train) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert train("--config", "small.yaml", "--out", "run", "--tensorboard").code == 0
    events = EventAccumulator("run/tensorboard").Reload()
    assert {"loss/generator", "signal/told_apart", "val/fid"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("val/fid")] == [16, 32, 48]


def test_tensorboard_that_is_not_installed_is_named_with_its_extra(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [module for module in sys.modules if module.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # type: ignore[arg-type]  # as if there were none
    line = train("--config", "small.yaml", "--out", "run", "--tensorboard").error
    assert line == "tensorboard is not installed. In limner's folder: pip install '.[tensorboard]'."
    assert not Path("run").exists()


# going on


def test_resume_begins_where_there_is_nothing(train: Train) -> None:
    said = train("--config", "small.yaml", "--out", "run", "--resume")
    assert said.code == 0, said.err
    assert RunFolder(Path("run")).finished()


def test_resume_does_not_take_a_folder_that_is_no_run(train: Train) -> None:
    Path("run").mkdir()
    Path("run/thesis.tex").write_text("years of work")
    assert "holds files that are no run" in train("--config", "small.yaml", "--out", "run", "--resume").error


def test_resume_goes_on_with_the_settings_of_the_run(train: Train, begun: Callable[..., None]) -> None:
    begun("--config", "small.yaml", "--set", "beta1=0.25", "--seed", "7", "--epochs", "2")
    before = settings()
    said = train("--out", "run", "--resume")
    assert said.code == 0, said.err
    assert re.search(r"trained 96 images in \d+ s: run", said.out)
    assert settings() == before
    assert (before["beta1"], before["seed"], before["width"]) == (0.25, 7, 4)


def test_resume_takes_settings_that_are_the_same(train: Train, begun: Callable[..., None]) -> None:
    begun("--config", "small.yaml")
    assert train("--config", "small.yaml", "--out", "run", "--resume").code == 0


def test_resume_refuses_other_settings_by_name(
    train: Train, begun: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun("--config", "small.yaml")
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    monkeypatch.setenv("LIMNER_TRAIN_BETA2", "0.9")
    line = train("--out", "run", "--resume", "--seed", "3", "--set", "clip=1").error
    assert "run was begun with other settings: " in line
    for change in ("seed 0, not 3", "clip None, not 1.0", f"beta2 {settings()['beta2']}, not 0.9"):
        assert change in line
    assert line.count(", not ") == 3
    assert line.endswith("Leave them out, or add --override.")
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == before


def test_resume_with_override_takes_other_settings(train: Train, begun: Callable[..., None]) -> None:
    begun("--config", "small.yaml")
    said = train("--out", "run", "--resume", "--override", "--set", "clip=1", "--epochs", "3")
    assert said.code == 0, said.err
    assert (settings()["clip"], settings()["epochs"], settings()["width"]) == (1, 3, 4)
    assert re.search(r"trained 144 images", said.out)


@pytest.mark.parametrize("override", [[], ["--override"]], ids=["plain", "overridden"])
def test_a_run_keeps_its_recipe(train: Train, begun: Callable[..., None], override: list[str]) -> None:
    begun("--config", "small.yaml")
    line = train("--out", "run", "--resume", "--recipe", "dcgan", *override).error
    assert line.startswith("a run keeps its recipe (recipe default, not dcgan)")


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        (["--set", "width=8"], "holds another model (width 4, not 8)"),
        (["--limit", "40"], "are not those that run began"),
    ],
    ids=["another model", "other images"],
)
def test_a_change_that_no_run_can_make_is_refused_although_overridden(
    train: Train, begun: Callable[..., None], change: list[str], refusal: str
) -> None:
    begun("--config", "small.yaml")
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    said = train("--out", "run", "--resume", "--override", *change)
    assert said.code == 1
    assert refusal in said.err.splitlines()[-1]
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("place", ["run", "./run", "moved"])
def test_a_finished_run_says_so_and_stays_as_it_is(train: Train, place: str) -> None:
    assert train("--config", "small.yaml", "--out", "run").code == 0
    Path("run").rename(place)
    before = {path: path.read_bytes() for path in Path(place).rglob("*") if path.is_file()}
    said = train("--out", str(Path(place).resolve()), "--resume")
    assert said.code == 0, said.err
    assert "is finished; for more give --epochs or --seconds with --override" in said.out
    assert {path: path.read_bytes() for path in Path(place).rglob("*") if path.is_file()} == before


def test_a_moved_run_goes_on_where_it_is(train: Train, begun: Callable[..., None]) -> None:
    begun("--config", "small.yaml")
    Path("runs").mkdir()
    Path("run").rename("runs/model")  # where --out points when it is not given
    assert train("--resume").code == 0
    assert RunFolder(Path("runs/model")).finished()
    assert not Path("run").exists()


def test_a_finished_run_is_extended_by_a_larger_budget(train: Train) -> None:
    assert train("--config", "small.yaml", "--out", "run").code == 0
    assert "epochs 1.0, not 2.0" in train("--out", "run", "--resume", "--epochs", "2").error
    said = train("--out", "run", "--resume", "--epochs", "2", "--override")
    assert said.code == 0, said.err
    assert re.search(r"trained 96 images", said.out)
    assert settings()["epochs"] == 2
    assert "is finished" in train("--out", "run", "--resume").out


def test_dry_run_shows_the_settings_that_a_run_would_go_on_with(train: Train, begun: Callable[..., None]) -> None:
    begun("--config", "small.yaml", "--seed", "7")
    values = resolved(train("--out", "run", "--resume", "--override", "--epochs", "5", "--dry-run"))
    assert (values["seed"], values["epochs"]) == (7, 5)
    assert settings()["epochs"] == 1


@pytest.mark.parametrize(
    ("name", "content", "refusal"),
    [("config.yaml", "model: [", "config.yaml is damaged"), ("checkpoint.pt", "half", "checkpoint.pt is damaged")],
)
def test_a_damaged_run_is_refused(
    train: Train, begun: Callable[..., None], name: str, content: str, refusal: str
) -> None:
    begun("--config", "small.yaml")
    (Path("run") / name).write_text(content)
    said = train("--out", "run", "--resume")
    assert said.code == 1
    assert refusal in said.err.splitlines()[-1]
