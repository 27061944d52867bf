"""A checkpoint is whole or absent, and reading one runs no code out of it."""

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from training.checkpoint import load, save, transfer
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


def test_a_flipped_byte_among_the_weights_is_told(tmp_path: Path) -> None:
    """torch alone would load them: it does not look at the check sums of its own archive."""
    path = tmp_path / "a.pt"
    save(path, STATE)
    whole = bytearray(path.read_bytes())
    whole[whole.index(torch.arange(300.0).numpy().tobytes()) + 600] ^= 1
    path.write_bytes(whole)
    assert not torch.equal(torch.load(path, weights_only=True)["weights"]["w"], STATE["weights"]["w"])
    with pytest.raises(RunError, match=r"a\.pt is damaged"):
        load(path)


def test_a_tensor_that_is_marked_as_a_folder_is_told(tmp_path: Path) -> None:
    """torch alone would give whatever the memory held: a folder is nothing to be read."""
    path = tmp_path / "a.pt"
    save(path, STATE)
    whole = bytearray(path.read_bytes())
    entry = whole.rindex(b"PK\x01\x02", 0, whole.rindex(b"/data/0"))  # in the directory at the file's end
    assert whole[entry + 38] == 0
    whole[entry + 38] = 0x10
    path.write_bytes(whole)
    with pytest.raises(RunError, match=r"a\.pt is damaged"):
        load(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_file_with_any_byte_changed_is_refused_or_reads_the_same(tmp_path: Path, place: float, flip: int) -> None:
    path = tmp_path / "a.pt"
    save(path, STATE)
    whole = bytearray(path.read_bytes())
    whole[int(place * len(whole))] ^= flip
    path.write_bytes(whole)
    try:
        back = load(path)
    except RunError:
        return
    assert torch.equal(back["weights"]["w"], STATE["weights"]["w"])
    assert {**back, "weights": None} == {**STATE, "weights": None}


class Two(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(2, 3), nn.Linear(3, classes)
        self.register_buffer("seen", torch.zeros(2))


def test_what_fits_is_taken_and_what_does_not_is_listed_with_its_reason() -> None:
    network, other = Two(4), Two(5)
    weights = {name: torch.full_like(weight, 7) for name, weight in other.state_dict().items()}
    del weights["seen"]
    weights["elsewhere"] = torch.zeros(3)
    before = network.head.weight.clone()
    taken, left = transfer(network, weights)
    assert taken == 2
    assert left == ["seen (missing, not 2)", "head.weight (5x3, not 4x3)", "head.bias (5, not 4)"]
    assert (network.first.weight == 7).all()
    assert (network.first.bias == 7).all()
    assert torch.equal(network.head.weight, before)


def test_a_network_of_the_same_shape_is_taken_whole() -> None:
    network, other = Two(4), Two(4)
    assert transfer(network, other.state_dict()) == (5, [])
    torch.testing.assert_close(network.state_dict(), other.state_dict(), rtol=0, atol=0)


def test_nothing_fits_where_there_is_nothing() -> None:
    network = Two(4)
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    taken, left = transfer(network, {})
    assert (taken, len(left)) == (0, 5)
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)
