"""One order of precedence, one validation, and the nearest word to what is unknown."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from server.settings import Settings
from training.config import TrainConfig
from training.errors import ConfigError
from training.precedence import assignments, resolve


class Sample(BaseModel):
    colour: str = "default"
    number: int = 1


def test_precedence_is_flag_then_environment_then_file_then_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "sample.yaml"
    assert resolve(Sample, {"colour": None}, "LIMNER_TRY_").colour == "default"
    file.write_text("colour: file\nnumber: 2\n")
    assert resolve(Sample, {}, "LIMNER_TRY_", file) == Sample(colour="file", number=2)
    monkeypatch.setenv("LIMNER_TRY_COLOUR", "environment")
    assert resolve(Sample, {}, "LIMNER_TRY_", file) == Sample(colour="environment", number=2)
    assert resolve(Sample, {"colour": "flag"}, "LIMNER_TRY_", file) == Sample(colour="flag", number=2)
    monkeypatch.setenv("LIMNER_TRY_NUMBER", "many")
    with pytest.raises(ConfigError, match="number=many"):
        resolve(Sample, {}, "LIMNER_TRY_")


def test_a_source_that_gives_one_budget_takes_back_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMNER_TRY_SECONDS", "5")
    assert resolve(TrainConfig, {"epochs": 3}, "LIMNER_TRY_").seconds is None
    assert resolve(TrainConfig, {"seed": 3}, "LIMNER_TRY_").seconds == 5


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"name": "数字"}, "name"),
        ({"name": "two words"}, "name"),
        ({"queue_images": 4}, "queue_images"),
        ({"engine_threads": 0}, "engine_threads"),
    ],
)
def test_settings_that_could_not_serve_are_refused_at_once(given: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        resolve(Settings, given, "LIMNER_TRY_")


@pytest.mark.parametrize(
    ("given", "what", "mend"),
    [
        ({"model": "cgna"}, "model=cgna", "Did you mean cgan?"),
        ({"widht": 3}, "there is no setting 'widht'", "Did you mean width?"),
        ({"model": "transformer"}, "model=transformer", "See --help."),
        ({"batch": 1}, "batch=1", "See --help."),
    ],
)
def test_what_is_unknown_is_named_with_the_nearest_word(given: dict[str, object], what: str, mend: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(TrainConfig, given, "LIMNER_TRY_")
    assert what in caught.value.what
    assert caught.value.mend == mend


def test_assignments_have_the_types_of_yaml() -> None:
    given = ["batch=64", "augment=true", "clip=0.5", "data=mnist-5k", "init-from=a=b", "clip=null"]
    assert assignments(given) == {
        "batch": 64, "augment": True, "clip": None, "data": "mnist-5k", "init_from": "a=b",
    }  # fmt: skip
    for nonsense in ("batch", "=3", "batch=[1"):
        with pytest.raises(ConfigError, match="NAME=VALUE"):
            assignments([nonsense])
