"""The records of a training in, its curves out: what got better, and how far real images are."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from training.evaluation.figures import MEANINGS, number
from training.evaluation.report.charts import FAINT, MODEL, REAL, REAL_LINE, SECOND, Chart, along_images, drawn

MOST = 300  # points of a curve: more are means over as many neighbours as needed
MULTIPLES = ("recall", "precision", "agreement", "within_class_variance_ratio", "class_histogram_distance")
ADVERSARIAL = ("generator", "discriminator")  # on one chart: each is read beside the other
LOSSES = {"generator, discriminator": "losses of generator and discriminator", "discriminator": "discriminator's loss"}
SHORT = 0.25  # of the longest line: the mean over so few steps, where an evaluation came in between, is all noise
RULE = {"color": FAINT, "linewidth": 0.75, "linestyle": (0, (1, 2))}

Points = list[tuple[float, float]]


@dataclass
class History:
    """Of metrics.jsonl: (images, value) of each loss and of each figure of the evaluations; what happened, in words.

    `best` is the evaluation whose weights were kept, `floor` the figures of real images of the closing line, `closing`
    their protocol, `breaks` the places where training went back.
    """

    losses: dict[str, Points] = field(default_factory=dict)
    quality: dict[str, Points] = field(default_factory=dict)
    best: tuple[float, float] | None = None
    floor: dict[str, float] = field(default_factory=dict)
    closing: dict[str, Any] = field(default_factory=dict)
    breaks: list[float] = field(default_factory=list)
    events: list[str] = field(default_factory=list)


def history(records: Sequence[Mapping[str, Any]]) -> History:
    """Every line may lack anything: a run may be stopped, resumed, or of another version."""
    found = History()
    images_at: dict[float, float] = {}
    images, kept = 0.0, False
    before, widest = math.nan, 0.0  # of the lines with losses: where the last one ended, and the longest so far
    for record in records:
        step = _number(record.get("step"))
        at = _number(record.get("images"))
        if math.isfinite(at):
            images = images_at[step] = at
        here = images_at.get(step, images)  # a line of events has its step alone
        losses = _mapping(record, "losses")
        if losses:
            length, before = here - before, here
            widest = max(length, widest) if length > 0 else widest  # neither the first line nor one that went back
            cut_short = 0 < length < SHORT * widest
            for name, value in () if cut_short else losses.items():
                found.losses.setdefault(name, []).append((here, _number(value)))
        if record.get("finished"):
            quality = _mapping(record, "quality")
            found.floor = {name: _number(value) for name, value in _mapping(quality, "floor").items()}
            found.closing = dict(_mapping(quality, "protocol"))
        else:
            for name, value in _mapping(record, "quality").items():
                found.quality.setdefault(name, []).append((here, _number(value)))
            fid = _number(_mapping(record, "quality").get("fid"))
            if math.isfinite(fid):
                if record.get("best"):
                    found.best, kept = (here, fid), True
                elif not kept and (found.best is None or fid < found.best[1]):
                    found.best = (here, fid)
        if "rolled_back" in record:
            found.breaks.append(here)
            found.events.append(f"At {here:,.0f} images: steps were not finite, so it went back to the last good ones.")
        if "alarm" in record:
            said = ". ".join(str(record[part]).rstrip(".") for part in ("what", "mend") if part in record)
            found.events.append(f"At {here:,.0f} images: {said or record['alarm']}.")
        if "init_from" in record:
            found.events.append(f"It began with the weights of {record['init_from']}.")
    return found


def curves(found: History, floors: Mapping[str, float | None]) -> list[Chart]:
    """FID first, because it chose the weights; then the other figures; then the losses, which tell least.

    `floors` stand in for what the closing line does not have: figures of real images, by the names of MEANINGS.
    """
    known = {name: value for name, value in floors.items() if value is not None} | found.floor
    known = {name: value for name, value in known.items() if math.isfinite(value)}
    charts = [_fid(found, known.get("fid"))] if _finite(found.quality.get("fid", [])) else []
    charts += [_figure(name, found, known.get(name)) for name in MULTIPLES if len(_finite(found.quality.get(name, [])))]
    pair = [name for name in ADVERSARIAL if name in found.losses]
    together = [pair] if len(pair) == 2 else [[name] for name in pair]
    others = [[name] for name in found.losses if name not in ADVERSARIAL]
    groups = [names for names in (*together, *others) if any(_finite(found.losses[name]) for name in names)]
    return charts + [_losses(names, found, f"losses-{place}") for place, names in enumerate(groups)]


def _fid(found: History, floor: float | None) -> Chart:
    points = found.quality["fid"]
    values = [value for _, value in _finite(points)] + ([] if floor is None else [floor])
    logarithmic = min(values) > 0

    def draw(axes: Axes) -> None:
        _evaluations(axes, points, found)
        if found.best is not None:
            axes.plot(*found.best, "o", markersize=11, markerfacecolor="none", markeredgecolor=MODEL, zorder=3)
        if logarithmic:
            axes.set_yscale("log")
            low, high = min(values) / 1.5, max(values) * 1.5
            axes.set_ylim(low, high)
            axes.yaxis.set_major_locator(FixedLocator(_log_ticks(low, high)))
            axes.yaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        _floor(axes, floor, 2)

    best = "" if found.best is None else f"best {found.best[1]:.2f} at {found.best[0]:,.0f} images"
    says = "; ".join(filter(None, (f"domain FID in {_evaluations_said(points)}", best, _floor_said(floor, 2))))
    ring = f" The ring: {best}, whose weights were kept." if best else ""
    note = f"Lower is better{', on a log axis' if logarithmic else ''}.{ring}"
    return Chart(MEANINGS["fid"].title, note, says, drawn("fid", says, draw))


def _figure(name: str, found: History, floor: float | None) -> Chart:
    meaning, points = MEANINGS[name], found.quality[name]
    values = [value for _, value in _finite(points)] + ([] if floor is None else [floor])

    def draw(axes: Axes) -> None:
        _evaluations(axes, points, found)
        axes.set_ylim(min(0.0, *values), 1.2 * max(1.0, *values))  # room for a name over a floor of 1
        axes.yaxis.get_major_locator().set_params(nbins=5)  # type: ignore[attr-defined] # of the AutoLocator
        _floor(axes, floor, meaning.digits)

    best = {"low": "Lower is better.", "high": "Higher is better.", "real": "As near as can be to real images."}
    last = number(_finite(points)[-1][1], meaning.digits)
    floor_said = _floor_said(floor, meaning.digits)
    says = "; ".join(
        filter(None, (f"{meaning.title} in {_evaluations_said(points)}", f"at the end {last}", floor_said))
    )
    return Chart(meaning.title, best[meaning.best], says, drawn(name.replace("_", "-"), says, draw))


def _losses(names: list[str], found: History, drawing: str) -> Chart:
    styles = dict(zip(names, (MODEL, SECOND), strict=False))
    thinned = {name: _thin(found.losses[name]) for name in names}

    def draw(axes: Axes) -> None:
        for line, (name, points) in enumerate(thinned.items()):
            x, y = np.array(points).T
            few = len(points) < 3
            axes.plot(x, y, "o" if few else "-", color=styles[name], linewidth=1.25, markersize=4)
            if len(names) > 1:
                axes.text(1, 1 - 0.1 * line, name, color=styles[name], ha="right", va="top", transform=axes.transAxes)
        if len(names) > 1:  # room for their names
            low, high = axes.get_ylim()
            axes.set_ylim(low, high + 0.25 * (high - low))
        along_images(axes, [x for points in thinned.values() for x, _ in points])
        axes.yaxis.get_major_locator().set_params(nbins=5)  # type: ignore[attr-defined] # of the AutoLocator
        for place in found.breaks:
            axes.axvline(place, **RULE)

    joined = ", ".join(names)
    title = LOSSES.get(joined, f"{joined} loss")
    note = "It does not tell how good the pictures are."
    says = f"{title} over {max(x for name in names for x, _ in found.losses[name]):,.0f} images"
    return Chart(title, note, says, drawn(drawing, says, draw))


def _evaluations(axes: Axes, points: Points, found: History) -> None:
    x, y = np.array(points).T
    axes.plot(x, y, "-o", color=MODEL, markersize=4)
    along_images(axes, x)
    for place in found.breaks:
        axes.axvline(place, **RULE)


def _floor(axes: Axes, floor: float | None, digits: int) -> None:
    if floor is None:
        return
    axes.axhline(floor, **REAL_LINE)
    axes.annotate(
        f"real images {number(floor, digits)}",
        (0.005, floor),
        (0, 4),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        ha="left",
        va="bottom",
        color=REAL,
    )


def _evaluations_said(points: Points) -> str:
    return "one evaluation" if len(points) == 1 else f"{len(points)} evaluations"


def _floor_said(floor: float | None, digits: int) -> str:
    return "" if floor is None else f"real images {number(floor, digits)}"


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5 of each decade within a short axis; 1 alone of each within a long one."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1,) if math.log10(high / low) > 2.5 else (1, 3) if math.log10(high / low) > 1.5 else (1, 2, 5)
    return [10.0**decade * step for decade in decades for step in steps if low <= 10.0**decade * step <= high]


def _thin(points: Points) -> Points:
    """At most MOST points, means of neighbours; a mean leaves out what is not finite."""
    parts = np.array_split(np.array(points), min(len(points), MOST))
    thinned = []
    for part in parts:
        there = part[np.isfinite(part[:, 1])]
        thinned.append((float(part[:, 0].mean()), float(there[:, 1].mean()) if len(there) else math.nan))
    return thinned


def _finite(points: Points) -> Points:
    return [point for point in points if math.isfinite(point[1])]


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def _mapping(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = record.get(name)
    return value if isinstance(value, Mapping) else {}
