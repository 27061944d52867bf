"""Each alarm is raised by its own figure and by no other, and says how much and what usually mends it."""

import re
from typing import Any

import pytest

from training.alarms import alarms
from training.config import TrainConfig

HEALTHY = {
    "fid": 12.0,
    "precision": 0.8,
    "agreement": 0.97,
    "within_class_variance_ratio": 0.9,
    "class_histogram_distance": 0.05,
    "recall": 0.5,
    "sharpness_ratio": 1.0,
    "copies": 0.01,
    "told_apart": 0.8,
    "active_units": 0.9,
}
ILL = [
    ("collapse", "within_class_variance_ratio", 0.4, 0.2, "0.20 of real"),
    ("classes", "class_histogram_distance", 0.25, 0.4, "40% of the pictures"),
    ("recall", "recall", 0.1, 0.02, "2% of the real ones"),
    ("blurred", "sharpness_ratio", 0.5, 0.06, "6% of the strength"),
    ("noisy", "sharpness_ratio", 2.0, 2.5, "250% of the strength"),
    ("copies", "copies", 0.2, 0.5, "50% of the pictures are nearer to a training image"),
    ("discriminator-wins", "told_apart", 0.995, 0.999, "99.9% of the pairs"),
    ("discriminator-blind", "told_apart", 0.55, 0.51, "only 51% of the pairs"),
    ("posterior-collapse", "active_units", 0.1, 0.05, "5% of the latents"),
]


def codes(figures: dict[str, Any]) -> list[str]:
    return [alarm.code for alarm in alarms(figures)]


def test_healthy_figures_raise_nothing() -> None:
    assert codes(HEALTHY) == []


@pytest.mark.parametrize(("code", "name", "bound", "value", "words"), ILL)
def test_each_alarm_is_raised_by_its_figure_beyond_its_bound(
    code: str, name: str, bound: float, value: float, words: str
) -> None:
    (alarm,) = alarms(HEALTHY | {name: value})
    assert alarm.code == code
    assert words in alarm.what
    assert str(alarm) == f"{alarm.what}. {alarm.mend}"
    assert codes(HEALTHY | {name: bound}) == []
    just_beyond = bound + (1e-6 if value > bound else -1e-6)
    assert codes({name: just_beyond}) == [code]


@pytest.mark.parametrize("name", list(HEALTHY))
def test_a_figure_that_is_missing_or_none_raises_nothing(name: str) -> None:
    assert codes({key: value for key, value in HEALTHY.items() if key != name}) == []
    assert codes(HEALTHY | {name: None}) == []
    assert codes({}) == []


def test_several_things_can_go_wrong_at_once() -> None:
    ill = {name: value for _, name, _, value, _ in ILL}  # of told_apart the last
    assert codes(ill) == [
        "collapse",
        "classes",
        "recall",
        "noisy",
        "copies",
        "discriminator-blind",
        "posterior-collapse",
    ]


@pytest.mark.parametrize(("name", "value"), [(name, value) for _, name, _, value, _ in ILL])
def test_a_mend_names_settings_that_there_are(name: str, value: float) -> None:
    (alarm,) = alarms({name: value})
    assert alarm.mend.startswith("Usual mend: ")
    given = re.findall(r"--set (\w+)=([\w.]+)", alarm.mend)
    assert set(re.findall(r"[a-z]+_[a-z]+", alarm.mend)) <= TrainConfig.model_fields.keys()
    assert TrainConfig.model_validate(dict(given)).model_fields_set >= {setting for setting, _ in given}
