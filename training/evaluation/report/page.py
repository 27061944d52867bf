"""Contents in, the page out: template.html filled, with report.css, report.js and all pictures inside it."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from training.evaluation.figures import MEANINGS, Figure, Meaning, number
from training.evaluation.report.charts import Chart
from training.evaluation.report.contents import Blind, Contents, Neighbours, Rows
from training.evaluation.report.curves import History, curves, history
from training.evaluation.report.distances import distances
from training.evaluation.report.scales import QUESTIONS, Scale, headlines, scale
from training.evaluation.report.sprites import Sprite, in_rows, packed, png

HERE = Path(__file__).parent
MASK = 0x5A  # over the answers of the blind test, so that the source does not give them away at a glance
MINIUM = (194, 55, 27)
BETTER = {"low": ("↓", "lower is better"), "high": ("↑", "higher is better"), "real": ("≈", "as near real as can be")}
MOST = 10  # pictures in the head
SHORT = 16  # digits of a hash that is only mentioned


@dataclass(frozen=True)
class Line:
    """One figure as the page shows it."""

    name: str
    meaning: Meaning
    question: str
    value: str
    spread: str | None
    floor: str | None
    scale: Scale | None
    glyph: str
    better: str


@dataclass(frozen=True)
class Sheet:
    """A sheet of pictures; `names` is empty where no row has one."""

    title: str
    side: str  # "model" or "real"
    names: Sequence[str]
    sprite: Sprite
    alt: str


@dataclass(frozen=True)
class Pair:
    """Places in two packed sprites, and what stands below."""

    place: int
    caption: str


def page(contents: Contents) -> str:
    """See `training.evaluation.report.render`."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["said"] = said
    script = (HERE / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    lines = {name: _line(name, figure) for name, figure in contents.figures.items()}
    found = history(contents.records or ())
    floors = {name: figure.floor for name, figure in contents.figures.items()}
    return environment.get_template("template.html").render(
        contents=contents,
        icon=_icon(),
        style=_inside("style", (HERE / "report.css").read_text(encoding="utf-8")),
        script=_inside("script", script),
        script_sha256=digest,
        glance=[lines[name] for name in headlines(contents.figures)],
        lines=list(lines.values()),
        first=_first(contents.generated),
        sheets=_sheets(contents),
        paths=_paths(contents.interpolations),
        rebuilt=_rebuilt(contents),
        history=found,
        charts=curves(found, floors),
        floor_said=_floor_said(found, contents.protocol),
        copies=_copies(contents.neighbours),
        blind=_blind(contents.blind),
        judge=str(contents.protocol.get("judge_sha256", "")),
        short=SHORT,
    )


def said(value: Any) -> str:
    """A setting in words; numbers as they are, to be copied."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {said(part)}" for name, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(said, value))
    return str(value)


def _line(name: str, figure: Figure) -> Line:
    meaning = MEANINGS[name]
    glyph, better = BETTER[meaning.best]
    return Line(
        name=name,
        meaning=meaning,
        question=QUESTIONS.get(name, meaning.title),
        value=number(figure.value, meaning.digits),
        spread=None if figure.spread is None else number(figure.spread, meaning.digits),
        floor=None if figure.floor is None else number(figure.floor, meaning.digits),
        scale=scale(name, figure),
        glyph=glyph,
        better=better,
    )


def _first(rows: Rows) -> tuple[Sprite, int] | None:
    """The first picture of each row, for the head of the page, and how many those are."""
    pictures = [row[:1] if len(rows) > 1 else row[:MOST] for _, row in rows[:MOST]]
    if not any(map(len, pictures)):
        return None
    found = np.concatenate(pictures)
    return packed(found), len(found)


def _sheets(contents: Contents) -> list[Sheet]:
    sides = [("Generated", "model", contents.generated), ("Real", "real", contents.real or ())]
    return [_sheet(title, side, rows) for title, side, rows in sides if rows]


def _sheet(title: str, side: str, rows: Rows) -> Sheet:
    names = [name for name, _ in rows] if any(name for name, _ in rows) else []
    sprite = in_rows([images for _, images in rows])
    each = ", one row for each class" if names else ""
    alt = f"{title} pictures: {sprite.rows} {'row' if sprite.rows == 1 else 'rows'} of {sprite.columns}{each}"
    return Sheet(title, side, names, sprite, alt)


def _paths(rows: Rows) -> Sheet | None:
    return _sheet("Interpolated", "model", rows) if rows else None


def _rebuilt(contents: Contents) -> tuple[Sprite, Sprite, list[Pair]] | None:
    found = contents.reconstructions
    if found is None or not len(found.originals):
        return None
    pairs = [Pair(place, "") for place in range(len(found.originals))]
    return packed(found.originals), packed(found.reconstructions), pairs


def _copies(found: Neighbours | None) -> tuple[Sprite, Sprite, list[Pair], Chart | None] | None:
    if found is None or not len(found.generated):
        return None
    pairs = [Pair(place, number(float(distance), 2)) for place, distance in enumerate(found.distances)]
    return packed(found.generated), packed(found.training), pairs, distances(found.all_generated, found.held_out)


def _blind(found: Blind | None) -> tuple[Sprite, dict[str, Any]] | None:
    if found is None or not len(found.images):
        return None
    hidden = np.packbits(np.asarray(found.real, bool)) ^ np.uint8(MASK)
    answers = base64.b64encode(hidden.tobytes()).decode()
    sprite = packed(found.images)
    return sprite, {"count": len(found.images), "columns": sprite.columns, "answers": answers}


def _floor_said(found: History, protocol: Mapping[str, Any]) -> str:
    """Where the dashed lines of the curves come from: they are not of the evaluations that the curves show."""
    if not any(found.quality.values()):
        return ""
    if found.floor:
        samples, split = found.closing.get("samples"), found.closing.get("split")
        many = f" of {samples:,} pictures" if isinstance(samples, int) else ""
        against = f" against the split {split}" if split else ""
        return f"as measured for the closing evaluation of the training{many}{against}"
    samples = protocol.get("samples")
    return "as measured for this report" + (f" with {samples:,} pictures" if isinstance(samples, int) else "")


def _icon() -> str:
    """The two squares of the project, as the playground has them."""
    squares = np.zeros((4, 4, 4), np.uint8)
    squares[:2, :2] = squares[2:, 2:] = (*MINIUM, 255)
    return png(squares.repeat(8, axis=0).repeat(8, axis=1))


def _inside(element: str, text: str) -> Markup:
    assert f"</{element}" not in text.lower()  # it would end there
    return Markup(text)  # noqa: S704 # of this folder
