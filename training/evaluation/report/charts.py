"""A matplotlib drawing in, inline SVG out: its text stays text, its colours are the page's, in light and in dark."""

import io
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

# Colours that stand for CSS variables until the SVG is written.
MODEL, SECOND, REAL, FAINT, HAIR = "#010101", "#020202", "#030303", "#040404", "#050505"
VARIABLES = {MODEL: "--minium", SECOND: "--second", REAL: "--ink", FAINT: "--faint", HAIR: "--hair"}
WIDTH, HEIGHT = 5.0, 2.7  # inches of 72 CSS pixels: a chart is read at this size on a phone, somewhat larger elsewhere
LOOK: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.size": 10.5,
    "text.color": FAINT,
    "axes.edgecolor": HAIR,
    "axes.labelcolor": FAINT,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": HAIR,
    "grid.linewidth": 0.75,
    "lines.linewidth": 1.75,
    "xtick.color": HAIR,
    "xtick.labelcolor": FAINT,
    "ytick.color": HAIR,
    "ytick.labelcolor": FAINT,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
}
REAL_LINE = {"color": REAL, "linewidth": 1.25, "linestyle": (0, (4, 3))}


@dataclass(frozen=True)
class Chart:
    """`says` is what the chart shows, for those who do not see it; `note` how to read it."""

    title: str
    note: str
    says: str
    svg: Markup


def drawn(name: str, says: str, draw: Callable[[Axes], None]) -> Markup:
    """What `draw` puts on the axes, as an <svg> element. `name` makes its ids differ from those of other charts.

    It is letters, digits and hyphens: a name that comes from a file belongs into `says`, which is escaped.
    """
    assert re.fullmatch(r"[a-z0-9-]+", name)
    look: Any = LOOK | {"svg.hashsalt": name}
    with matplotlib.rc_context(look):
        figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        draw(axes)
        written = io.BytesIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(written, format="svg", transparent=True, metadata=nothing)
    return _inline(written.getvalue().decode(), name, says)


def along_images(axes: Axes, images: Iterable[float]) -> None:
    """An x axis of images seen, with few round numbers."""
    most = max(images, default=1.0)
    axes.set_xlim(0, max(most, 1.0) * 1.02)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: thousands(value)))
    axes.xaxis.get_major_locator().set_params(nbins=5)  # type: ignore[attr-defined] # of the AutoLocator
    axes.set_xlabel("images seen")


def thousands(value: float) -> str:
    """1500 -> "1.5k"."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _inline(svg: str, name: str, says: str) -> Markup:
    svg = svg[svg.index("<svg") :]
    # a <style> within an <svg> is the whole page's
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"|\sversion="1\.1"', "", svg)
    svg = svg.replace("xlink:href", "href")
    # ids are counted from 1 in each drawing
    svg = re.sub(r'\sid="([^"]+)"', rf' id="{name}-\1"', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\1{name}-", svg)
    # the font is the page's; matplotlib says it in one property or in two
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", svg)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    svg = re.sub(r'^<svg ([^>]*?)(height|width)="[^"]*"', r"<svg \1", svg)
    svg = re.sub(r'^<svg ([^>]*?)(height|width)="[^"]*"', r"<svg \1", svg)
    svg = f'<svg role="img" aria-label="{escape(says)}" {svg.removeprefix("<svg").lstrip()}'
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return Markup(re.sub(r"\n\s*", "\n", svg).strip())  # noqa: S704 # matplotlib has escaped its texts
