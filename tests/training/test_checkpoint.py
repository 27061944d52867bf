"""A checkpoint is whole or absent, and reading one runs no code out of it."""

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from training.checkpoint import load, save
from training.errors import RunError

STATE: dict[str, Any] = {"weights": {"w": torch.arange(300.0)}, "step": 7, "name": "σ", "quality": None}


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    save(tmp_path / "a.pt", STATE)
    back = load(tmp_path / "a.pt")
    assert torch.equal(back["weights"]["w"], STATE["weights"]["w"])
    assert {**back, "weights": None} == {**STATE, "weights": None}
    assert files(tmp_path) == ["a.pt"]


def test_a_state_that_cannot_be_saved_leaves_the_old_file(tmp_path: Path) -> None:
    save(tmp_path / "a.pt", {"step": 1})
    with pytest.raises((AttributeError, pickle.PicklingError)):
        save(tmp_path / "a.pt", {"step": 2, "code": lambda: None})
    assert load(tmp_path / "a.pt") == {"step": 1}
    assert files(tmp_path) == ["a.pt"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: torch meets it inside its own writer."""
    save(tmp_path / "a.pt", {"step": 1})
    code = (
        "import pathlib, resource, signal, torch\n"
        "from training.checkpoint import save\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "save(pathlib.Path('a.pt'), {'weights': torch.zeros(1_000_000)})\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.stderr.splitlines()[-1].startswith("training.errors.RunError: cannot write a.pt")
    assert load(tmp_path / "a.pt") == {"step": 1}
    assert files(tmp_path) == ["a.pt"]


class Attack:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("zipped", [True, False], ids=["torch file", "bare pickle"])
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path: Path, zipped: bool) -> None:
    state = {"weights": Attack(tmp_path / "executed")}
    if zipped:
        torch.save(state, tmp_path / "a.pt")
    else:
        (tmp_path / "a.pt").write_bytes(pickle.dumps(state, protocol=2))
    with pytest.raises(RunError, match=r"a\.pt is damaged"):
        load(tmp_path / "a.pt")
    assert files(tmp_path) == ["a.pt"]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_a_cut_off_file_is_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "a.pt"
    save(path, STATE)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(RunError, match=r"a\.pt is damaged"):
        load(path)


@pytest.mark.parametrize("content", [b"}.", b".", b"0", b"\x80\x02}q", b"PK\x03\x04", b"model: cgan\n"])
def test_bytes_that_are_no_checkpoint_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(RunError, match=r"a\.pt is (damaged|no limner checkpoint)"):
        load(tmp_path / "a.pt")


def test_a_file_of_one_tensor_is_no_checkpoint(tmp_path: Path) -> None:
    torch.save(torch.zeros(3), tmp_path / "a.pt")
    with pytest.raises(RunError, match="no limner checkpoint"):
        load(tmp_path / "a.pt")


def test_a_missing_checkpoint_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no a\.pt in .*limner train"):
        load(tmp_path / "a.pt")
