"""A path in, what lies there out: a run or the newest bundle, with its subject, its judge and its images."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from limner.console import needs
from training.errors import ConfigError, LimnerError

if TYPE_CHECKING:
    from export.bundle import Bundle
    from training.data import Dataset
    from training.evaluation.sight import Sees
    from training.evaluation.subject import Subject


def is_run(path: Path) -> bool:
    """Whether a run was begun at `path`."""
    from training.run import RunFolder

    folder = RunFolder(path)
    return any(file.is_file() for file in (folder.config, folder.best, folder.checkpoint))


def newest(path: Path, what: str = "bundle") -> "Bundle":
    """The newest version at `path`: a version's folder, a model's, or a repository of one model."""
    from export.bundle import BundleError, read, version_folders

    folders = version_folders(path)
    if not folders:
        raise BundleError(f"no {what} at '{path}'", "Train a run, or export one: limner export RUN.")
    names = {folder.parent.resolve().name for folder in folders}
    if len(names) > 1:
        raise BundleError(f"'{path}' holds {len(names)} models", f"Name one of {', '.join(sorted(names))}.")
    return read(folders[-1])


@contextmanager
def subject_at(path: Path, engine: str | None = None) -> Iterator["Subject"]:
    """What there is to evaluate at `path`: a run, or a bundle (the newest version)."""
    if not is_run(path):
        from export.bundle_subject import bundle_subject

        with bundle_subject(newest(path, "run or bundle"), engine) as subject:
            yield subject
        return
    if engine is not None:
        raise ConfigError("a run has no engines", "Leave --engine out, or name a bundle.")
    with needs("train"):
        from training.run_subject import run_subject
    yield run_subject(path)


def images_of(subject: "Subject", data: str | None, observe: Callable[[float], None]) -> tuple["Dataset | None", str]:
    """The images that a subject was trained on, or None and why they are not there."""
    name = data or (subject.config or {}).get("data")
    if name is None:
        return None, f"Its images are not known here: name those of its training, --data {subject.reference.data}."
    with needs("train"):
        from training.data import load
    try:
        return load(name, subject.reference.size, subject.reference.limit, observe), ""
    except LimnerError as error:
        if data is not None:
            raise
        return None, str(error)


def judge_at(path: Path) -> "Sees":
    """The judge of a run or a bundle."""
    if not is_run(path):
        from export.bundle_subject import bundle_judge

        return bundle_judge(newest(path, "run or bundle"))
    with needs("train"):
        from training.judge import Judge
        from training.run import RunFolder
    return Judge.load(RunFolder(path).judge)
