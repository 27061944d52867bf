"""A file of labels and seeds in, the pictures that are wanted out; what is wrong in it names its line.

CSV with a header, or a JSON object a line; `label` may be absent or empty, and is then a class from the seed:

    label,seed          {"label": 3, "seed": 7}
    3,7                 {"label": "trouser", "seed": "9223372036854775807"}
    ,8                  {"seed": 8}
"""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.errors import ConfigError

SEEDS = 2**63
COLUMNS = ("label", "seed")
ALLOWED = "Allowed: an integer from 0 to 2^63 - 1."
FORM = 'Give CSV with the header label,seed, or lines such as {"label": 3, "seed": 7}.'


@dataclass(frozen=True)
class Wanted:
    """One picture: a class name or index, or None for a class from the seed; 0 ≤ seed < 2^63. `where` it was said."""

    label: int | str | None
    seed: int
    where: str = field(default="", compare=False)

    def index(self, class_names: Sequence[str]) -> int | None:
        """The class that the server understands: a name first, then an index. Raises ConfigError."""
        if self.label is None:
            return None
        if not class_names:
            raise ConfigError(f"{self.where}label={self.label}, but the model has no classes", "Leave the label out.")
        if self.label in class_names:  # an integer is never a name
            return class_names.index(str(self.label))
        text = str(self.label)
        if text.isascii() and text.isdecimal() and len(text) < 10 and int(text) < len(class_names):
            return int(text)
        names = ", ".join(class_names[:10]) + (", ..." if len(class_names) > 10 else "")
        allowed = f"Allowed: a class name ({names}) or an index from 0 to {len(class_names) - 1}."
        raise ConfigError(f"{self.where}label={text} is not allowed", allowed)


def consecutive(label: str | None, seed: int, n: int) -> list[Wanted]:
    """The pictures of one request: seed, seed + 1 ..., wrapping. Raises ConfigError."""
    if not 0 <= seed < SEEDS:
        raise ConfigError(f"seed={seed} is not allowed", ALLOWED)
    return [Wanted(label, (seed + i) % SEEDS) for i in range(n)]


def read(path: Path) -> list[Wanted]:
    """The pictures of a list, in its order. Raises ConfigError, OSError."""
    try:
        text = path.read_text(encoding="utf-8-sig")  # with or without the mark that spreadsheets put in front
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no text", FORM) from error
    rows = _json_lines if text.lstrip().startswith("{") else _csv
    if not text.strip():
        raise ConfigError(f"{path} is empty", FORM)
    wanted = [_wanted(row, f"{path}, line {line}: ") for line, row in rows(text, str(path))]
    if not wanted:
        raise ConfigError(f"{path} names no picture", FORM)
    return wanted


def _csv(text: str, path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(text.splitlines(keepends=True), strict=True)
    try:
        header = [name.strip() for name in reader.fieldnames or ()]
        if "seed" not in header or len(set(header)) < len(header):
            raise ConfigError(f"{path}, line 1: no header with a column seed", FORM)
        reader.fieldnames = header
        for row in reader:
            if None in row:
                raise ConfigError(f"{path}, line {reader.line_num}: more cells than columns", FORM)
            yield reader.line_num, {name: value.strip() or None for name, value in row.items() if value is not None}
    except csv.Error as error:
        raise ConfigError(f"{path}, line {reader.reader.line_num}: {error}", FORM) from error


def _json_lines(text: str, path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{path}, line {number}: no JSON", FORM) from error
        if not isinstance(row, dict):
            raise ConfigError(f"{path}, line {number}: no JSON object", FORM)
        yield number, row


def _wanted(row: dict[str, Any], where: str) -> Wanted:
    for name in row:
        if name not in COLUMNS:
            raise ConfigError(f"{where}there is no '{name}'. There are {' and '.join(COLUMNS)}", FORM)
    label, seed = row.get("label"), row.get("seed")
    if not (label is None or isinstance(label, str) or (isinstance(label, int) and not isinstance(label, bool))):
        raise ConfigError(f"{where}label={json.dumps(label)} is no class name or index")
    if isinstance(seed, str) and seed.isascii() and seed.isdecimal() and len(seed) < 40:
        seed = int(seed)
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < SEEDS:
        shown = "no seed" if seed is None else f"seed={json.dumps(seed)}"
        raise ConfigError(f"{where}{shown}", ALLOWED)
    return Wanted(label, seed, where)
