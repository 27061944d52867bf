"""An examination in, a table for people or JSON for programs out."""

from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table

from training.alarms import alarms
from training.evaluation.examine import Examined
from training.evaluation.figures import MEANINGS, Figure, number
from training.evaluation.subject import Subject

ENOUGH = 1_000  # pictures for FID and its like to say anything
BEST = {"low": "lower", "high": "higher", "real": "as near to real"}


def as_table(subject: Subject, examined: Examined, inception: dict[str, Any] | None = None) -> Group:
    """Figures beside those of real images, how they were taken, and what is alarming."""
    protocol = examined.protocol
    about = ", ".join(f"{value}" if name == "kind" else f"{name} {value}" for name, value in _short(subject).items())
    table = Table(title=escape(f"{subject.title}: {about}"), title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    table.add_column("this model", justify="right", no_wrap=True)
    if protocol["repeats"] > 1:
        table.add_column("±", justify="right", no_wrap=True)
    table.add_column("real images", justify="right", no_wrap=True)
    table.add_column("better is")
    for name, figure in examined.figures.items():
        table.add_row(*_row(name, figure, protocol["repeats"] > 1))
    lines = [
        f"{protocol['samples']:,} pictures from seed {protocol['seed']} on{_again(protocol)}, against "
        f"{protocol['reference']:,} images of {_split(protocol)}; "
        f"judge {protocol['judge_sha256'][:12]}",
        "FID and KID are domain figures: compare them under the same judge and the same numbers alone. A KID around 0, "
        "also below, says that no difference was found.",
    ]
    if protocol["samples"] < ENOUGH:
        lines.append(
            f"{protocol['samples']:,} pictures are few: below {ENOUGH:,} FID, KID and transfer accuracy say little."
        )
    if inception is not None:
        lines.append(
            f"Inception-FID, of other features and never to be compared with the above: {inception['fid']:.2f} "
            f"({inception['samples']:,} pictures, {inception['reference']:,} images, {inception['features']} "
            f"{inception['features_sha256'][:12]})"
        )
    warnings = [f"[yellow]{escape(str(alarm))}[/]" for alarm in alarms(values(examined))]
    return Group(table, *map(escape, lines), *warnings)


def as_json(subject: Subject, examined: Examined, inception: dict[str, Any] | None = None) -> dict[str, Any]:
    """The same, whole; figures to six digits behind the point."""
    figures = {
        name: {
            "value": round(figure.value, 6),
            "spread": None if figure.spread is None else round(figure.spread, 6),
            "floor": None if figure.floor is None else round(figure.floor, 6),
        }
        for name, figure in examined.figures.items()
    }
    raised = [{"code": alarm.code, "what": alarm.what, "mend": alarm.mend} for alarm in alarms(values(examined))]
    found: dict[str, Any] = {"title": subject.title, "about": subject.about, "figures": figures}
    found |= {"protocol": examined.protocol, "alarms": raised}
    return found if inception is None else found | {"inception": inception}


def values(examined: Examined) -> dict[str, float]:
    return {name: figure.value for name, figure in examined.figures.items()}


def _short(subject: Subject) -> dict[str, str]:
    return {name: value for name, value in subject.about.items() if name != "digest"}


def _row(name: str, figure: Figure, spread: bool) -> list[str]:
    meaning = MEANINGS[name]
    shown = [figure.value, figure.spread, figure.floor] if spread else [figure.value, figure.floor]
    cells = [number(value, meaning.digits) for value in shown]
    return [meaning.title, *cells, BEST[meaning.best]]


def _again(protocol: dict[str, Any]) -> str:
    repeats = protocol["repeats"]
    return f", {repeats} times with other seeds (mean, ± standard deviation)" if repeats > 1 else ""


def _split(protocol: dict[str, Any]) -> str:
    if protocol["split"] == "all":
        return "all splits, training among them"
    return f"the split {protocol['split']} and {protocol['training']:,} of training"
