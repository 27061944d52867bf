"""Curves stand whatever a training left, show the floor, and take their colours from the page."""

import re
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from training.evaluation.report.charts import VARIABLES, Chart, thousands
from training.evaluation.report.curves import MOST, curves, history
from training.evaluation.report.distances import distances

Records = list[dict[str, Any]]


def drawn(records: Records, **floors: float) -> list[Chart]:
    charts = curves(history(records), floors)
    for chart in charts:
        ElementTree.fromstring(chart.svg)  # well-formed
    return charts


def texts(chart: Chart) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", chart.svg)


def evaluation(step: int, **quality: float) -> dict[str, Any]:
    return {"step": step, "images": 32 * step, "quality": quality, "best": False}


def test_the_charts_of_a_training_are_all_there(records: Records) -> None:
    titles = [chart.title for chart in drawn(records)]
    assert titles[:5] == ["domain FID", "recall", "precision", "label agreement", "variance within classes"]
    assert titles[5:] == ["losses of generator and discriminator"]


def test_the_floor_of_the_closing_line_is_drawn_and_named(records: Records) -> None:
    fid, recall, *_ = drawn(records, fid=99.0)
    assert "real images 4.11" in texts(fid)
    assert "real images 0.958" in texts(recall)
    assert "real images 4.11" in fid.says


def test_the_floor_of_the_report_stands_in_while_a_training_is_not_finished(records: Records) -> None:
    fid, recall, *_ = drawn(records[:-1], fid=3.5)
    assert "real images 3.50" in texts(fid)
    assert not any(text.startswith("real images") for text in texts(recall))


def test_the_best_evaluation_is_the_last_that_was_kept(records: Records) -> None:
    assert history(records).best == (32 * 400, 22.5)  # 500 was better, but not marked
    assert "best 22.50 at 12,800 images" in drawn(records)[0].note
    assert history([evaluation(1, fid=9.0), evaluation(2, fid=3.0), evaluation(3, fid=5.0)]).best == (64, 3.0)


def test_what_happened_is_told_at_its_place(records: Records) -> None:
    found = history(records)
    assert found.breaks == [32 * 250]
    began, back, alarm = found.events
    assert "runs/older" in began
    assert back.startswith("At 8,000 images: steps were not finite")
    assert alarm == "At 8,000 images: The pictures cover 4%. Usual mend: more."


def test_text_stays_text_and_colours_are_the_pages(records: Records) -> None:
    for chart in drawn(records):
        assert "images seen" in texts(chart)
        assert "var(--minium)" in chart.svg
        assert not re.search("|".join(VARIABLES), chart.svg)
        assert not re.search(r"#[0-9a-f]{6}\b", chart.svg)
        assert "font-family" not in chart.svg


def test_ids_of_several_charts_differ(records: Records) -> None:
    found = [name for chart in drawn(records) for name in re.findall(r'\sid="([^"]+)"', chart.svg)]
    assert len(found) == len(set(found))


@pytest.mark.parametrize(
    "records",
    [
        [],
        [{}],
        [{"step": 1}],
        [{"step": 1, "images": None, "quality": None, "losses": "none"}],
        [{"rolled_back": 1}],
        [{"finished": True}],
        [evaluation(1, fid=float("nan"), recall=float("inf"))],
        [{"step": 1, "images": 32, "losses": {"generator": float("nan")}}],
    ],
)
def test_nothing_to_draw_is_no_chart(records: Records) -> None:
    assert drawn(records) == []


@pytest.mark.parametrize(
    "records",
    [
        [evaluation(1, fid=9.0)],
        [evaluation(1, fid=0.0, recall=0.0)],
        [evaluation(step, fid=fid) for step, fid in enumerate((9.0, float("inf"), float("nan"), 2.0))],
        [evaluation(2, fid=1e-8), evaluation(1, fid=1e9)],
        [{"quality": {"fid": 3.0}}],
        [{"step": 1, "images": 32, "losses": {"generator": 1e30}}],
        [{"step": n, "images": 32 * n, "losses": {"reconstruction": -1e3 * n, "divergence": n}} for n in (1, 2)],
    ],
)
def test_few_and_odd_points_are_drawn(records: Records) -> None:
    charts = drawn(records, fid=1.0)
    assert charts
    assert not any(re.search(r"\b(nan|inf)\b", chart.svg) for chart in charts)


def test_a_long_training_is_thinned_to_means(records: Records) -> None:
    many = [{"step": n, "images": 32 * n, "losses": {"generator": 1.0}} for n in range(1, 10_001)]
    (chart,) = drawn(many)
    path = max(re.findall(r' d="([^"]*)"', chart.svg), key=len)
    assert len(re.findall("[ML]", path)) <= MOST
    assert len(chart.svg) < 20_000


def test_a_mean_over_a_few_steps_before_an_evaluation_is_left_out() -> None:
    ends = [50, 100, 149, 150, 200, 100, 150]  # of each line, the last two after going back
    found = history([{"step": n, "images": 32 * n, "losses": {"generator": float(n)}} for n in ends])
    assert [value for _, value in found.losses["generator"]] == [50, 100, 149, 200, 100, 150]


def test_losses_of_other_units_have_charts_of_their_own() -> None:
    losses = {"reconstruction": -900.0, "divergence": 20.0, "discriminator": 1.0}
    charts = drawn([{"step": n, "images": 32 * n, "losses": losses} for n in (1, 2, 3)])
    assert [chart.title for chart in charts] == ["discriminator's loss", "reconstruction loss", "divergence loss"]


def test_distances_of_both_sides_are_named_and_drawn() -> None:
    chart = distances(np.linspace(1, 5, 100), np.linspace(2, 9, 80))
    assert chart is not None
    assert {"generated", "unseen real"} <= set(texts(chart))
    assert chart.says.endswith("median 3 of generated, 5.5 of unseen real")


@pytest.mark.parametrize(
    ("generated", "held_out"), [([0.0], [0.0]), ([1.0, 1.0], [1.0]), ([np.nan, 2.0], [3.0]), ([1e-9], [1e9])]
)
def test_odd_distances_are_drawn(generated: list[float], held_out: list[float]) -> None:
    assert distances(np.array(generated), np.array(held_out)) is not None


def test_no_distances_are_no_chart() -> None:
    assert distances(np.array([]), np.array([1.0])) is None
    assert distances(np.array([np.nan]), np.array([1.0])) is None


@pytest.mark.parametrize(("value", "said"), [(0, "0"), (950, "950"), (1500, "1.5k"), (2e6, "2M"), (3e9, "3G")])
def test_counts_are_short(value: float, said: str) -> None:
    assert thousands(value) == said
