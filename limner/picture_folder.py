"""Wanted pictures in, their files in a folder out, and which of them are not there, or not whole.

7-3.png  8-3.png ...   seed and class index; 7.png where no label was asked for
limner.json            what they have in common, so that pictures of another model or form are not mixed with them
"""

import json
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limner.picture_list import Wanted
from training.errors import ConfigError

COMMON = "limner.json"
DRAWN_SEEDS = 2**53  # as the server draws them: exact in a JavaScript number, too
ENDINGS = {"png": "png", "jpeg": "jpg", "webp": "webp", "npy": "npy"}  # of a folder's files, by format


@dataclass(frozen=True)
class PictureFolder:
    """A folder of `format` files. `common` is what limner.json says."""

    path: Path
    format: str
    common: dict[str, Any]

    def file(self, wanted: Wanted, index: int | None) -> Path:
        name = f"{wanted.seed}" if index is None else f"{wanted.seed}-{index}"
        return self.path / f"{name}.{ENDINGS[self.format]}"

    def claim(self, files: Iterable[Path]) -> None:
        """Make the folder, or go on in one that was made for the same. Raises ConfigError, OSError."""
        from limner_client.files import write

        self.path.mkdir(parents=True, exist_ok=True)
        there = common(self.path)
        if there is None:
            in_the_way = next((file for file in files if file.exists()), None)
            if in_the_way is not None:
                raise ConfigError(f"{in_the_way} is there, and no {COMMON} that says whose", "Name another folder.")
            write(self.path / COMMON, json.dumps(self.common, indent=2).encode() + b"\n")
            return
        for name, value in self.common.items():
            if name == "drawn_seed" and name not in there:
                raise ConfigError(f"{self.path} was begun with a seed that was named", "Name it: --seed.")
            if there.get(name) != value:
                said = f"{self.path} holds pictures of {name}={_shown(there.get(name))}, not {_shown(value)}"
                raise ConfigError(said, "Name another folder, or remove it.")

    def missing(self, files: dict[Path, Wanted]) -> dict[Path, Wanted]:
        """Those that are not there, or not whole."""
        return {file: wanted for file, wanted in files.items() if not self._whole(file)}

    def _whole(self, file: Path) -> bool:
        from limner_client import IncompleteAnswer, bodies

        try:
            bodies.check(self.format, 1, file.read_bytes())
        except (FileNotFoundError, IncompleteAnswer):
            return False
        return True


def common(path: Path) -> dict[str, Any] | None:
    """What limner.json of a folder says, or None where there is none. Raises ConfigError."""
    try:
        said = json.loads((path / COMMON).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise ConfigError(f"{path / COMMON} is no JSON", "Name another folder.") from error
    if not isinstance(said, dict):
        raise ConfigError(f"{path / COMMON} is no JSON object", "Name another folder.")
    return said


def drawn_seed(path: Path) -> int:
    """The seed that was drawn for the pictures of a folder, or a new one."""
    drawn = (common(path) or {}).get("drawn_seed")
    return drawn if isinstance(drawn, int) else random.SystemRandom().randrange(DRAWN_SEEDS)


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)
