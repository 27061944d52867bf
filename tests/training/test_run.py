"""A run folder is made, recorded, gone on with and found again, and never takes away what is not its own."""

import json
from pathlib import Path

import pytest
import yaml

from training.config import TrainConfig
from training.errors import RunError
from training.run import RunFolder


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    return TrainConfig(out=tmp_path / "runs" / "digits", seconds=3, model="vae", seed=2**63 - 1)


@pytest.fixture
def folder(config: TrainConfig) -> RunFolder:
    folder = RunFolder(config.out)
    folder.create(config)
    return folder


def test_the_written_config_is_the_config(folder: RunFolder, config: TrainConfig) -> None:
    assert TrainConfig.model_validate(yaml.safe_load(folder.config.read_text())) == config


def test_a_run_is_named_after_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert RunFolder(Path()).name == tmp_path.name


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_new_or_empty_folder_is_free(tmp_path: Path, overwrite: bool) -> None:
    RunFolder(tmp_path / "new").guard(overwrite)
    RunFolder(tmp_path).guard(overwrite)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_is_in_the_way(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "thesis").write_text("")
    with pytest.raises(RunError, match="thesis is a file"):
        RunFolder(tmp_path / "thesis").guard(overwrite)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_is_no_run_is_in_the_way(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(RunError, match="no run"):
        RunFolder(tmp_path).guard(overwrite)


def test_a_run_is_in_the_way_until_it_may_be_overwritten(folder: RunFolder) -> None:
    with pytest.raises(RunError, match="--resume or --overwrite"):
        folder.guard(overwrite=False)
    folder.guard(overwrite=True)


def test_creating_removes_the_older_runs_files_and_no_others(folder: RunFolder, config: TrainConfig) -> None:
    own = (folder.checkpoint, folder.best, folder.last_good, folder.judge, folder.metrics, folder.samples / "real.png")
    others = (folder.path / "notes.txt", folder.samples / "paper.svg")
    for path in (*own, *others):
        path.write_text("older")
    folder.create(config.model_copy(update={"seed": 5}))
    assert [path.name for path in own if path.exists()] == []
    assert [path.read_text() for path in others] == ["older", "older"]
    assert yaml.safe_load(folder.config.read_text())["seed"] == 5


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path, config: TrainConfig) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write"):
        RunFolder(tmp_path / "file" / "run").create(config)


def test_records_are_lines_of_json(folder: RunFolder) -> None:
    folder.record(step=50, losses={"generator": 0.5})
    folder.record(step=100)
    records = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    assert records == [{"step": 50, "losses": {"generator": 0.5}}, {"step": 100}]


def test_going_on_takes_back_what_came_after_the_step(folder: RunFolder, config: TrainConfig) -> None:
    kept = ['{"init_from": "other", "taken": 5}', '{"step": 50, "losses": {}}', '{"step": 50, "alarm": "recall"}']
    gone = ['{"step": 51, "losses": {}}', '{"finished": true, "step": 50}', "[1]", '{"step": 50, "los']
    folder.metrics.write_text("\n".join(kept + gone))
    (folder.samples / "0000050.png").write_text("a picture")
    folder.checkpoint.write_text("weights")
    folder.reopen(config.model_copy(update={"seconds": 9.0}), 50)
    assert folder.metrics.read_text().splitlines() == kept
    folder.record(step=51)
    assert folder.metrics.read_text().splitlines() == [*kept, '{"step": 51}']
    assert (folder.samples / "0000050.png").exists()
    assert folder.checkpoint.exists()
    settings = folder.settings()
    assert settings is not None
    assert settings.seconds == 9


def test_going_on_without_records_begins_them(folder: RunFolder, config: TrainConfig) -> None:
    folder.samples.rmdir()
    folder.reopen(config, 50)
    assert folder.samples.is_dir()
    assert folder.metrics.read_text() == ""


def test_the_settings_of_a_run_are_those_that_it_was_made_with(
    folder: RunFolder, config: TrainConfig, tmp_path: Path
) -> None:
    assert folder.settings() == config
    assert RunFolder(tmp_path / "nowhere").settings() is None


@pytest.mark.parametrize("text", ["model: [", "model: gnu\n", "- 1\n", "bacth: 3\n", "\0"])
def test_settings_that_cannot_be_read_are_refused(folder: RunFolder, text: str) -> None:
    folder.config.write_text(text)
    with pytest.raises(RunError, match=r"config\.yaml is damaged.*--overwrite"):
        folder.settings()


@pytest.mark.parametrize(
    ("records", "checkpoint", "finished"),
    [
        ('{"step": 50}\n{"finished": true}\n', True, True),
        ('{"step": 50}\n{"finished": true}\n', False, False),
        ('{"finished": true}\n{"step": 50}\n', True, False),
        ('{"finished": false}\n', True, False),
        ('{"finished": true}\n{"finis', True, False),
        ("[1]\n", True, False),
        ("", True, False),
        (None, True, False),
    ],
    ids=["finished", "no checkpoint", "went on", "not", "cut off", "no record", "empty", "no records"],
)
def test_a_run_is_finished_when_its_last_record_says_so(
    folder: RunFolder, records: str | None, checkpoint: bool, finished: bool
) -> None:
    if records is not None:
        folder.metrics.write_text(records)
    if checkpoint:
        folder.checkpoint.write_bytes(b"")
    assert folder.finished() is finished


def test_the_best_checkpoint_is_exported_before_the_last(folder: RunFolder) -> None:
    with pytest.raises(RunError, match="holds no checkpoint"):
        folder.exported_checkpoint()
    folder.checkpoint.write_bytes(b"")
    assert folder.exported_checkpoint() == folder.checkpoint
    folder.best.write_bytes(b"")
    assert folder.exported_checkpoint() == folder.best


def test_a_run_that_is_nowhere_has_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no run at '.*nowhere'"):
        RunFolder(tmp_path / "nowhere").exported_checkpoint()
