"""Where there is no terminal, progress is a few plain lines."""

import io

import pytest
from rich.console import Console

from training.loop import Progress
from training.progress import PLAIN_EVERY, TrainingProgress


def at(seconds: float, fraction: float) -> Progress:
    return Progress(
        step=50, images=3200, seconds=seconds, fraction=fraction, losses={"generator": 0.694, "critic": 1.5}
    )


def lines(*reports: Progress) -> list[str]:
    file = io.StringIO()
    with TrainingProgress(Console(file=file, force_terminal=False, width=40), "training gan") as progress:
        for report in reports:
            progress(report)
    return file.getvalue().splitlines()


def test_a_line_says_how_far_how_good_how_fast_and_how_long() -> None:
    (line,) = lines(at(8.0, 0.25))
    assert line == "training gan:  25%  generator 0.69  critic 1.50  400 images/s  24 s left"


@pytest.mark.parametrize(
    ("seconds", "printed"), [((1, 2, 3), 1), ((1, 1 + PLAIN_EVERY, 2 + PLAIN_EVERY), 2)], ids=["soon", "later"]
)
def test_lines_come_at_a_distance(seconds: tuple[float, ...], printed: int) -> None:
    assert len(lines(*(at(second, 0.1) for second in seconds))) == printed


def test_the_last_line_always_comes() -> None:
    assert "100%" in lines(at(1, 0.5), at(2, 1.0))[-1]


def test_the_judges_training_is_announced_once() -> None:
    file = io.StringIO()
    with TrainingProgress(Console(file=file, force_terminal=False), "training gan") as progress:
        for fraction in (0.0, 0.5, 1.0):
            progress.judge(fraction)
    (line,) = file.getvalue().splitlines()
    assert line.startswith("training judge")


def test_a_terminal_gets_a_bar_and_no_lines() -> None:
    file = io.StringIO()
    with TrainingProgress(Console(file=file, force_terminal=True, width=120), "training gan") as progress:
        progress(at(8.0, 0.25))
    assert "25 %" in file.getvalue()
    assert "s left" not in file.getvalue()
