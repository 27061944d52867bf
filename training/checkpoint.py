"""State in, one file out, whole or not at all; back again without running any code that a file may carry."""

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.errors import RunError

SCHEMA = 2  # of what the loop saves


def save(path: Path, state: dict[str, Any]) -> None:
    """Write beside the target, flush to disk, rename: a reader sees the old file or the new one, never half of one."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, RuntimeError) as error:  # torch turns a full disk into a RuntimeError of its own words
        reason = getattr(error, "strerror", None) or "is the disk full?"
        raise RunError(f"cannot write {path} ({reason})", "Free some space, or choose another --out.") from error
    finally:
        part.unlink(missing_ok=True)


def load(path: Path) -> dict[str, Any]:
    """Read with `weights_only=True`. Raises RunError where the file is missing or damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            if (damaged := archive.testzip()) is not None:  # torch itself does not look at the check sums
                raise ValueError(f"{damaged} has another check sum")
            if any(info.external_attr & 0x10 for info in archive.infolist()):  # nor does it fill in such a tensor
                raise ValueError("a tensor is marked as a folder")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise RunError(f"no {path.name} in {path.parent}", "Train first: limner train --out RUN.") from error
    except Exception as error:  # on damaged bytes the unpickler raises nearly anything, IndexError among it
        raise RunError(f"{path} is damaged", "Train again, or restore the file.") from error
    if not isinstance(state, dict):
        raise RunError(f"{path} is no limner checkpoint", "Train again, or restore the file.")
    return state


def transfer(network: nn.Module, weights: Mapping[str, Tensor]) -> tuple[int, list[str]]:
    """Load what has the same name and shape: the number of tensors taken, and the others, each with its reason."""
    own = network.state_dict()
    fits = {name: weights[name] for name in own if name in weights and weights[name].shape == own[name].shape}
    network.load_state_dict(own | fits)
    shapes = {name: "x".join(map(str, weights[name].shape)) if name in weights else "missing" for name in own}
    unfit = [f"{name} ({shapes[name]}, not {'x'.join(map(str, own[name].shape))})" for name in own if name not in fits]
    return len(fits), unfit
