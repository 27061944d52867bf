"""A config is frozen, resolved by its recipe, refuses what it does not know, and costs no torch."""

import subprocess
import sys
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from training.config import BY_KIND, RECIPES, Kind, ModelSpec, Recipe, TrainConfig

KINDS = ("gan", "cgan", "vae", "cvae")


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
        ("model", ["gan"]),
        ("recipe", {}),
        ("recipe", "stylegan"),
        ("loss", "wasserstein"),
        ("likelihood", "cauchy"),
        ("critic", -1),
        ("normalization", "layer"),
        ("limit", 0),
        ("evaluate_every", 0),
        ("patience", 0),
        ("r1", -1),
        ("r2", -1),
        ("beta1", 1.0),
        ("beta2", 1.0),
        ("clip", 0),
        ("weight_decay", -0.1),
        ("decay_from", 1.1),
        ("kl_warmup", 1.1),
        ("free_bits", -1),
        ("components", 0),
        ("generator_rate", 0),
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


@pytest.mark.parametrize("recipe", [name for name in RECIPES if name != "default"])
def test_a_recipe_fills_in_what_was_not_given(recipe: Recipe) -> None:
    plain = TrainConfig(model="gan").model_dump()
    resolved = TrainConfig.model_validate({"model": "gan", "recipe": recipe}).model_dump()
    assert resolved == plain | RECIPES[recipe] | {"recipe": recipe}
    assert {name for name in resolved if resolved[name] != plain[name]} > {"recipe"}


@pytest.mark.parametrize("recipe", [name for name in RECIPES if name != "default"])
def test_what_was_given_wins_over_the_recipe(recipe: str) -> None:
    given = {
        "batch": 48,
        "generator_rate": 0.25,
        "discriminator_rate": 0.125,
        "beta1": 0.25,
        "r1": 0.25,
        "dropout": 0.1,
    }
    resolved = TrainConfig.model_validate({"model": "cgan", "recipe": recipe} | given).model_dump()
    assert {name: resolved[name] for name in given} == given


def test_a_setting_of_none_was_not_given() -> None:
    nothing = dict.fromkeys(("model", "latent", "batch", "loss", "clip", "seconds"))
    assert TrainConfig.model_validate(nothing | {"recipe": "sn-hinge"}) == TrainConfig(recipe="sn-hinge")
    assert TrainConfig.model_validate({"recipe": None}) == TrainConfig()


@pytest.mark.parametrize("kind", ["vae", "cvae"])
@pytest.mark.parametrize("recipe", [name for name in RECIPES if name != "default"])
def test_an_adversarial_recipe_is_refused_for_a_variational_kind(kind: str, recipe: str) -> None:
    with pytest.raises(ValidationError, match=f"the recipe {recipe} is one for gan and cgan, not for {kind}"):
        TrainConfig.model_validate({"model": kind, "recipe": recipe})


@pytest.mark.parametrize("kind", KINDS)
def test_latents_and_components_are_those_of_the_kind_unless_given(kind: Kind) -> None:
    own = TrainConfig.model_validate({"model": kind})
    assert {"latent": own.latent, "components": own.components} == BY_KIND[kind]
    assert own.latent > 1
    given = TrainConfig.model_validate({"model": kind, "latent": 7, "components": 3})
    assert (given.latent, given.components) == (7, 3)


@pytest.mark.parametrize(
    "given",
    [{"model": kind} for kind in KINDS]
    + [{"model": "cgan", "recipe": recipe, "beta2": 0.5, "seconds": 3, "clip": 1} for recipe in RECIPES]
    + [{"out": "σ/run", "init_from": "runs/old", "limit": 50, "balance": False, "size": 64, "epochs": 0.1}],
    ids=str,
)
def test_a_written_config_reads_back_equal(given: dict[str, Any]) -> None:
    config = TrainConfig.model_validate(given)
    written = yaml.safe_dump(config.model_dump(mode="json"))
    assert TrainConfig.model_validate(yaml.safe_load(written)) == config


def test_every_setting_says_what_it_does() -> None:
    assert [name for name, field in TrainConfig.model_fields.items() if not field.description] == []


def test_a_model_of_another_size_cannot_be_described() -> None:
    spec = {"kind": "gan", "latent": 8, "size": 28, "channels": 1, "width": 4}
    assert ModelSpec.model_validate(spec).classes == 0
    with pytest.raises(ValidationError, match="size"):
        ModelSpec.model_validate(spec | {"size": 48})


@pytest.mark.parametrize(
    "module", ["training.alarms", "training.config", "training.errors", "training.pictures", "training.run"]
)
def test_a_light_module_loads_no_torch(module: str) -> None:
    code = f"import sys, {module}; print(sorted({{'torch', 'mlxtend', 'scipy'}} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "[]"
