"""A folder in, the places and records of one run out. Imports no torch, so that asking about a run is quick."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from training.config import TrainConfig
from training.errors import RunError


class RunFolder:
    """`runs/<name>/`: config.yaml, checkpoint.pt, best.pt, last-good.pt, judge.pt and .npz, metrics.jsonl, samples/."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.checkpoint = path / "checkpoint.pt"
        self.best = path / "best.pt"
        self.last_good = path / "last-good.pt"
        self.judge = path / "judge.pt"
        self.reference = path / "judge.npz"
        self.metrics = path / "metrics.jsonl"
        self.report = path / "report.html"
        self.samples = path / "samples"
        self.board = path / "tensorboard"

    @property
    def name(self) -> str:
        return self.path.resolve().name

    def guard(self, overwrite: bool) -> None:
        """Raise RunError where `create` would destroy something that the user did not offer."""
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise RunError(f"{self.path} is a file", "Choose another --out.")
        if not any(self.path.iterdir()):
            return
        if not self.config.is_file():
            raise RunError(f"{self.path} holds files that are no run", "Choose another --out, or remove it.")
        if not overwrite:
            raise RunError(f"{self.path} holds a run already", "Choose another --out, or add --resume or --overwrite.")

    def create(self, config: TrainConfig) -> None:
        """Make the folder and write the resolved config. An older run's own files go; others stay."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._write(config)  # now it is a run
            self.samples.mkdir(exist_ok=True)
            written = [self.checkpoint, self.best, self.last_good, self.judge, self.reference, self.metrics]
            for path in (*written, self.report, *self.samples.glob("*.png"), *self.board.glob("events.*")):
                path.unlink(missing_ok=True)
        except OSError as error:
            raise RunError(f"cannot write {self.path} ({error.strerror})", "Choose another --out.") from error

    def reopen(self, config: TrainConfig, step: int) -> None:
        """Go on with a run from `step`: records of later steps, which a crash left over, go."""
        try:
            self._write(config)
            self.samples.mkdir(exist_ok=True)
            lines = self.metrics.read_text(encoding="utf-8").splitlines() if self.metrics.is_file() else []
            kept = [line for line in lines if _step(line) <= step]
            _replace(self.metrics, "".join(line + "\n" for line in kept))
        except OSError as error:
            raise RunError(f"cannot write {self.path} ({error.strerror})", "Check its permissions.") from error

    def settings(self) -> TrainConfig | None:
        """The settings of the run that is there, or None. Raises RunError where they cannot be read."""
        if not self.config.is_file():
            return None
        try:
            return TrainConfig.model_validate(yaml.safe_load(self.config.read_text(encoding="utf-8")))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise RunError(f"{self.config} is damaged", "Restore it, or train again with --overwrite.") from error

    def _write(self, config: TrainConfig) -> None:
        _replace(self.config, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))

    def record(self, **figures: Any) -> None:
        """Append one line to metrics.jsonl."""
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(figures) + "\n")

    def records(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; one that a crash tore is left out."""
        try:
            lines = self.metrics.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError):
            return []
        found = []
        for line in lines:
            with suppress(ValueError):
                found.append(json.loads(line))
        return [record for record in found if isinstance(record, dict)]

    def finished(self) -> bool:
        """Whether training came to its end: the last record says so and there is a checkpoint."""
        try:
            last = json.loads(self.metrics.read_text(encoding="utf-8").splitlines()[-1])
        except (OSError, ValueError, IndexError):
            return False
        return isinstance(last, dict) and last.get("finished") is True and self.checkpoint.is_file()

    def exported_checkpoint(self) -> Path:
        """What export takes: best.pt if there is one, else checkpoint.pt. Raises RunError where there is neither."""
        for path in (self.best, self.checkpoint):
            if path.is_file():
                return path
        what = f"{self.path} holds no checkpoint" if self.path.is_dir() else f"no run at '{self.path}'"
        raise RunError(what, "Name a run folder, or train one: limner train --out RUN.")


def _replace(path: Path, text: str) -> None:
    """Whole or not at all, also where the power goes."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def _step(line: str) -> float:
    """The step of a record; infinite for a line that a crash tore and for the closing one."""
    try:
        record = json.loads(line)
        return float("inf") if record.get("finished") else record.get("step", 0)
    except (ValueError, AttributeError):
        return float("inf")
