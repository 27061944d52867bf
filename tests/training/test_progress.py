"""Progress is a live bar on a terminal, a few plain lines elsewhere, and curves in TensorBoard."""

import io
from pathlib import Path

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from training.alarms import Alarm
from training.observer import Observer, Progress
from training.progress import PLAIN_EVERY, Board, Observers, TrainingProgress

ALARM = Alarm("recall", "The pictures cover 2% of the real ones", "Usual mend: more epochs.")


def at(
    seconds: float,
    fraction: float,
    images: int = 3200,
    quality: dict[str, float] | None = None,
    alarms: tuple[Alarm, ...] = (),
) -> Progress:
    losses = {"generator": 0.694, "discriminator": 1.5}
    return Progress(images // 64, images, seconds, fraction, losses, {"told_apart": 0.75}, quality, alarms)


def shown(*reports: Progress, terminal: bool = False, width: int = 40) -> str:
    file = io.StringIO()
    with TrainingProgress(Console(file=file, force_terminal=terminal, width=width), "training gan") as progress:
        for report in reports:
            progress.progress(report)
    return file.getvalue()


# lines


def test_a_line_says_how_far_how_good_how_fast_and_how_long() -> None:
    first, second = shown(at(8.0, 0.2), at(18.0, 0.45, 7200, {"fid": 31.42})).splitlines()
    assert first == "training gan:  20%  generator 0.69  discriminator 1.50  400 images/s  32 s left"
    assert second == "training gan:  45%  generator 0.69  discriminator 1.50  FID 31.4  400 images/s  22 s left"


def test_the_speed_is_that_of_this_session() -> None:
    before = at(1_000.0, 0.5, 1_000_000)  # where a resumed run is at its first report
    assert "200 images/s" in shown(before, at(1_010.0, 1.0, 1_002_000)).splitlines()[-1]


@pytest.mark.parametrize(
    ("seconds", "printed"), [((1, 2, 3), 1), ((1, 1 + PLAIN_EVERY, 2 + PLAIN_EVERY), 2)], ids=["soon", "later"]
)
def test_lines_come_at_a_distance(seconds: tuple[float, ...], printed: int) -> None:
    assert len(shown(*(at(second, 0.1) for second in seconds)).splitlines()) == printed


def test_the_last_line_always_comes() -> None:
    assert "100%" in shown(at(1, 0.5), at(2, 1.0)).splitlines()[-1]


def test_an_alarm_is_a_line_with_its_mend_however_soon_it_comes() -> None:
    lines = shown(at(1, 0.3), at(2, 0.4, alarms=(ALARM, ALARM._replace(what="The other [red]")))).splitlines()
    assert lines[1:] == [
        "The pictures cover 2% of the real ones. Usual mend: more epochs.",
        "The other [red]. Usual mend: more epochs.",
    ]


@pytest.mark.parametrize(
    ("stage", "line"), [("judge", "training judge, once for each data set"), ("data", "reading images")]
)
def test_what_comes_before_the_training_is_announced_once(stage: str, line: str) -> None:
    file = io.StringIO()
    with TrainingProgress(Console(file=file, force_terminal=False), "training gan") as progress:
        for fraction in (0.0, 0.5, 1.0):
            getattr(progress, stage)(fraction)
    assert file.getvalue().splitlines() == [line]


# a terminal


def test_a_terminal_gets_a_bar_with_the_figures_and_no_lines() -> None:
    text = shown(at(4.0, 0.2, 1600), at(8.0, 0.25, 3200, {"fid": 31.42}), terminal=True, width=160)
    assert "25 %  generator 0.69  discriminator 1.50  FID 31.4  400 images/s" in text
    assert "s left" not in text


def test_an_alarm_stands_above_the_bar() -> None:
    assert str(ALARM) in shown(at(8.0, 0.25, alarms=(ALARM,)), terminal=True, width=160)


# TensorBoard


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard would draw: (images seen, value) by name."""
    events = EventAccumulator(str(folder)).Reload()
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_a_board_has_every_loss_signal_and_figure_over_the_images_seen(tmp_path: Path) -> None:
    board = Board(tmp_path)
    quality = {"fid": 31.5, "recall": 0.25}
    for report in (at(1, 0.1, 640), at(2, 0.2, 1280, quality, (ALARM,)), at(3, 0.3, 1920, quality)):
        board.progress(report)
    seen = [640, 1280, 1920]
    assert curves(tmp_path) == {
        "loss/generator": [(images, pytest.approx(0.694)) for images in seen],
        "loss/discriminator": [(images, 1.5) for images in seen],
        "signal/told_apart": [(images, 0.75) for images in seen],
        "val/fid": [(1280, 31.5)],  # where it was measured, not wherever it is still known
        "val/recall": [(1280, 0.25)],
    }
    assert EventAccumulator(str(tmp_path)).Reload().Tags()["tensors"] == ["alarm/text_summary"]


def test_a_resumed_board_goes_on_over_what_a_dead_run_left(tmp_path: Path) -> None:
    dead = Board(tmp_path)
    for images in (640, 1280, 1920):
        dead.progress(at(1, 0.1, images))
    Board(tmp_path).progress(at(1, 0.1, 1280))
    assert [images for images, _ in curves(tmp_path)["loss/generator"]] == [640, 1280]


# several


def test_several_observers_all_hear_everything() -> None:
    class Listener(Observer):
        def __init__(self) -> None:
            self.heard: list[object] = []

        def judge(self, fraction: float) -> None:
            self.heard.append(fraction)

        def progress(self, progress: Progress) -> None:
            self.heard.append(progress)

        def note(self, text: str) -> None:
            self.heard.append(text)

    one, other, report = Listener(), Listener(), at(1, 0.5)
    both = Observers(one, other)
    both.judge(0.5)
    both.progress(report)
    both.note("a line")
    assert one.heard == other.heard == [0.5, report, "a line"]
