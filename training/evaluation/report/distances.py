"""Distances to the nearest training image in, two curves out: of generated pictures and of real ones never seen."""

import numpy as np
from matplotlib.axes import Axes

from training.evaluation.report.charts import FAINT, MODEL, REAL, Chart, drawn

BINS = 40
TAIL = 0.995  # share of the distances that the axis shows: one outlier would press the rest together


def distances(generated: np.ndarray, held_out: np.ndarray) -> Chart | None:
    """float [M] and [K] -> how often each distance comes; None where there is nothing finite on either side."""
    generated, held_out = (np.asarray(side, np.float64)[np.isfinite(side)] for side in (generated, held_out))
    if not len(generated) or not len(held_out):
        return None
    far = max(float(np.quantile(side, TAIL)) for side in (generated, held_out))
    beyond = max(float((side > far).mean()) for side in (generated, held_out))
    edges = np.linspace(0, far if far > 0 else 1.0, BINS + 1)
    border = float(np.quantile(held_out, 0.01))

    def draw(axes: Axes) -> None:
        highest = 0.0
        sides = ((held_out, REAL, "unseen real", 0.06, (0, (4, 3))), (generated, MODEL, "generated", 0.16, "-"))
        for line, (side, colour, name, fill, dashes) in enumerate(sides):
            share = np.histogram(side, edges)[0] / len(side)
            axes.stairs(share, edges, color=colour, alpha=fill, fill=True)
            axes.stairs(share, edges, color=colour, linewidth=1.5, linestyle=dashes)
            axes.text(1, 1 - 0.09 * line, name, color=colour, ha="right", va="top", transform=axes.transAxes)
            highest = max(highest, float(share.max()))
        axes.axvline(border, color=FAINT, linewidth=1, linestyle=(0, (1, 2)))
        axes.set_xlim(0, edges[-1])
        axes.set_ylim(0, 1.25 * highest or 1.0)
        axes.set_yticks([])
        axes.set_xlabel("distance to the nearest training image")

    medians = (float(np.median(generated)), float(np.median(held_out)))
    says = "distance to the nearest training image: median {:.3g} of generated, {:.3g} of unseen real".format(*medians)
    note = "How often each distance comes. Dotted: one in a hundred unseen real images is nearer than that."
    if beyond > 0:
        note += f" Up to {beyond:.1%} lie beyond the right end."
    return Chart("distance to the nearest training image", note, says, drawn("distances", says, draw))
