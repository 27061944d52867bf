"""The page in a real browser: nothing to complain of, nothing to push sideways, and a blind test that counts right."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.evaluation.report import render
from training.evaluation.report.contents import Contents

LONG = "Llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogoch"
Visits = Callable[..., Any]


@pytest.fixture(scope="module")
def path(contents: Contents, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render(contents), encoding="utf-8")
    return path


WIDER = """
[...document.querySelectorAll("body *")].filter((part) => !part.closest("svg, .reel, thead, .unseen, .skip")
  && part.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5).map((part) => part.outerHTML)
"""


@pytest.mark.parametrize("width", [360, 700, 1000, 1440, 2560])
def test_nothing_is_pushed_sideways_and_nothing_complained_of(visit: Visits, path: Path, width: int) -> None:
    seen = visit(path.as_uri(), width, "dark" if width == 1000 else "light")
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
    assert seen.page.evaluate(WIDER) == []
    assert seen.complaints == []


def test_long_names_large_pictures_and_full_enlargement_fit_a_phone(
    visit: Visits, contents: Contents, tmp_path: Path
) -> None:
    rows = [(f"{LONG} {row}", np.full((10, 64, 64, 3), row, np.uint8)) for row in range(10)]
    long = replace(contents, title=LONG * 2, subject={LONG: LONG * 3}, generated=rows, real=rows, interpolations=rows)
    path = tmp_path / "report.html"
    path.write_text(render(replace(long, config={LONG: LONG * 3}, missing=[LONG * 3])), encoding="utf-8")
    page = visit(path.as_uri(), 360).page
    for factor in ("fit", "1", "4"):
        page.evaluate(f"document.querySelector('[name=zoom][value=\"{factor}\"]').click()")
        page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert page.evaluate(WIDER) == []
    assert page.evaluate("document.querySelector('#pictures img').getBoundingClientRect().width") == 4 * (640 + 9 * 2)


def test_the_names_stand_beside_their_rows(visit: Visits, path: Path) -> None:
    page = visit(path.as_uri()).page
    heights = page.evaluate(
        "['.names', '.mount img'].map((part) => document.querySelector(part).getBoundingClientRect().height)"
    )
    assert abs(heights[0] - heights[1]) < 2


def test_the_blind_test_shows_one_picture_at_a_time_and_counts(visit: Visits, contents: Contents, path: Path) -> None:
    assert contents.blind is not None
    seen = visit(path.as_uri())
    page = seen.page
    assert page.evaluate("document.getElementById('asking').hidden")
    page.evaluate("document.querySelector('#begin button').click()")
    right = 0
    for turn, real in enumerate(contents.blind.real):
        assert page.evaluate("document.getElementById('count').textContent") == f"Picture {turn + 1} of 12"
        said = turn < 10  # "real" ten times by the key, then "fake" by the button
        right += said == real
        if said:
            page.keyboard.press("r")
        else:
            page.evaluate("document.getElementById('is-fake').click()")
    assert page.evaluate("document.getElementById('score').textContent") == f"{right} of 12 right"
    assert page.evaluate("document.activeElement.id") == "score"
    assert page.evaluate("document.getElementById('verdict').textContent") == "You could not tell them apart."
    assert "between 3 and 9 right" in page.evaluate("document.getElementById('guessing').textContent")
    assert page.evaluate("document.querySelectorAll('#fooled .tile').length") == 12 - right
    page.evaluate("document.getElementById('again').click()")
    assert page.evaluate("document.getElementById('count').textContent") == "Picture 1 of 12"
    assert seen.complaints == []


@pytest.mark.parametrize(
    ("answers", "verdict"),
    [
        (lambda real: real, "You could tell them apart."),
        (lambda real: ~real, "You saw a difference, and took it the wrong way round."),
        (lambda real: real[:5], "Too few pictures to tell: even all of them right may be luck."),
    ],
)
def test_the_verdict_is_that_of_the_binomial(
    visit: Visits, contents: Contents, path: Path, answers: Any, verdict: str
) -> None:
    assert contents.blind is not None
    page = visit(path.as_uri(), 360).page
    page.keyboard.press("r")  # nobody asked yet
    page.evaluate("document.querySelector('#begin button').click()")
    for real in answers(contents.blind.real):
        page.keyboard.press("r" if real else "f")
    page.evaluate("document.getElementById('asking').hidden || document.getElementById('stop').click()")
    assert page.evaluate("document.getElementById('verdict').textContent") == verdict


def test_without_scripts_the_blind_test_says_so(visit: Visits, path: Path, tmp_path: Path) -> None:
    quiet = tmp_path / "report.html"
    quiet.write_text(path.read_text(encoding="utf-8").replace("script-src 'sha256-", "script-src 'sha256-A"))
    seen = visit(quiet.as_uri(), 360)
    assert seen.complaints  # the policy holds: a script that is not the one it names does not run
    assert seen.page.evaluate("document.getElementById('begin').hidden")
    assert "needs JavaScript" in seen.page.evaluate("document.querySelector('noscript').textContent")
