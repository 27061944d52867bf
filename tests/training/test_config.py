"""A config is frozen, refuses what it does not know, and costs no torch."""

import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from training.config import ModelSpec, TrainConfig


def test_a_config_is_frozen() -> None:
    config = TrainConfig()
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 1
    assert config.seed == 0


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(ValidationError, match="learning_rate"):
        TrainConfig.model_validate({"learning_rate": 1e-3})


def test_epochs_and_seconds_together_are_refused() -> None:
    with pytest.raises(ValidationError, match="--epochs or --seconds, not both"):
        TrainConfig(epochs=1, seconds=1)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("model", "dcgan"),
        ("data", ""),
        ("size", 30),
        ("epochs", 0),
        ("seconds", 0),
        ("epochs", float("nan")),
        ("seconds", float("inf")),
        ("seed", -1),
        ("seed", 2**63),
        ("batch", 1),
        ("width", 3),
        ("latent", 0),
        ("dropout", 1.0),
        ("ema_decay", 1.0),
    ],
)
def test_a_value_out_of_range_is_refused(setting: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=setting):
        TrainConfig.model_validate({setting: value})


@pytest.mark.parametrize(
    ("given", "epochs"),
    [({}, 20.0), ({"epochs": 0.5}, 0.5), ({"seconds": 9}, None)],
    ids=["neither", "epochs", "seconds"],
)
def test_the_budget_is_the_given_one_or_20_epochs(given: dict[str, Any], epochs: float | None) -> None:
    assert TrainConfig.model_validate(given).budget_epochs == epochs


@pytest.mark.parametrize(
    ("kind", "conditional", "adversarial"),
    [("gan", False, True), ("cgan", True, True), ("vae", False, False), ("cvae", True, False)],
)
def test_a_kind_says_what_it_is(kind: Any, conditional: bool, adversarial: bool) -> None:
    config = TrainConfig(model=kind)
    assert (config.conditional, config.adversarial) == (conditional, adversarial)


def test_a_model_of_another_size_cannot_be_described() -> None:
    spec = {"kind": "gan", "latent": 8, "size": 28, "channels": 1, "width": 4}
    assert ModelSpec.model_validate(spec).classes == 0
    with pytest.raises(ValidationError, match="size"):
        ModelSpec.model_validate(spec | {"size": 48})


@pytest.mark.parametrize("module", ["training.config", "training.errors", "training.pictures", "training.run"])
def test_a_light_module_loads_no_torch(module: str) -> None:
    code = f"import sys, {module}; print(sorted({{'torch', 'mlxtend', 'scipy'}} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "[]"
