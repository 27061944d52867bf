"""A folder in, the places and records of one run out. Imports no torch, so that asking about a run is quick."""

import json
from pathlib import Path
from typing import Any

import yaml

from training.config import TrainConfig
from training.errors import RunError


class RunFolder:
    """`runs/<name>/`: config.yaml, checkpoint.pt, best.pt, judge.pt, metrics.jsonl, samples/."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.checkpoint = path / "checkpoint.pt"
        self.best = path / "best.pt"
        self.judge = path / "judge.pt"
        self.metrics = path / "metrics.jsonl"
        self.samples = path / "samples"

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
            raise RunError(f"{self.path} holds a run already", "Choose another --out, or add --overwrite.")

    def create(self, config: TrainConfig) -> None:
        """Make the folder and write the resolved config. An older run's own files go; others stay."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.config.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))  # now it is a run
            self.samples.mkdir(exist_ok=True)
            for path in (self.checkpoint, self.best, self.judge, self.metrics, *self.samples.glob("*.png")):
                path.unlink(missing_ok=True)
        except OSError as error:
            raise RunError(f"cannot write {self.path} ({error.strerror})", "Choose another --out.") from error

    def record(self, **figures: Any) -> None:
        """Append one line to metrics.jsonl."""
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(figures) + "\n")

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
