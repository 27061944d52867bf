"""Flags, environment and a file in, one validated object of settings out. Imports no torch."""

from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_settings import EnvSettingsSource

from training.errors import ConfigError

Schema = TypeVar("Schema", bound=BaseModel)


def resolve(schema: type[Schema], flags: dict[str, Any], prefix: str, file: Path | None = None) -> Schema:
    """Flag > environment > config file > default, written once, validated once. Raises ConfigError."""
    return validated(schema, given_settings(schema, flags, prefix, file))


def given_settings(schema: type[BaseModel], flags: dict[str, Any], prefix: str, file: Path | None) -> dict[str, Any]:
    """What was asked for, the stronger source over the weaker, without the defaults."""
    layers: list[dict[str, Any]] = []
    if file is not None:
        try:
            loaded = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise ConfigError(f"cannot read {file} ({error})", "Give a YAML file: --config run.yaml.") from error
        if not isinstance(loaded, dict):
            raise ConfigError(f"{file} is no mapping of settings", "Write lines such as seconds: 60.")
        layers.append({str(name): value for name, value in loaded.items()})
    layers.append(EnvSettingsSource(schema, env_prefix=prefix)())  # type: ignore[arg-type]  # reads fields only
    layers.append({name: value for name, value in flags.items() if value is not None})
    values: dict[str, Any] = {}
    for layer in layers:
        values = over(schema, values, layer)
    return values


def over(schema: type[BaseModel], under: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """One layer over another; of settings that exclude each other the upper layer's stands alone."""
    exclusive = set(getattr(schema, "exclusive", ()))
    if exclusive & values.keys():
        under = {name: value for name, value in under.items() if name not in exclusive}
    return under | values


def validated(schema: type[Schema], values: dict[str, Any]) -> Schema:
    """The settings, or the first thing wrong with them as ConfigError: what, and the nearest word to an unknown one."""
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            raise ConfigError(f"there is no setting '{name}'", _nearest(schema, name, "") or "See --help.") from error
        shown = f" ({name}={first['input']})" if name else ""
        raise ConfigError(f"{message}{shown}", _nearest(schema, name, str(first["input"])) or "See --help.") from error


def _nearest(schema: type[BaseModel], name: str, value: str) -> str:
    """Did you mean: the nearest setting to an unknown one, or the nearest of a setting's own words."""
    field = schema.model_fields.get(name)
    words = [word for word in get_args(field.annotation) if isinstance(word, str)] if field else schema.model_fields
    near = get_close_matches(value if field else name, words, 1)
    return f"Did you mean {near[0]}?" if near else ""


def assignments(texts: list[str] | None) -> dict[str, Any]:
    """NAME=VALUE, the value as YAML has it."""
    values: dict[str, Any] = {}
    for text in texts or []:
        name, equals, value = text.partition("=")
        try:
            values[name.strip().replace("-", "_")] = yaml.safe_load(value)
        except yaml.YAMLError:
            equals = ""
        if not equals or not name.strip():
            raise ConfigError(f"--set {text} is no NAME=VALUE", "Write --set batch=64.")
    return values
