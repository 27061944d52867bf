"""docs/training.md says of every setting what TrainConfig says of it."""

from pathlib import Path

from training.config import BY_KIND, RECIPES, TrainConfig

PAGE = Path(__file__).parents[2] / "docs" / "training.md"


def rows() -> list[str]:
    shown = {name: field.default for name, field in TrainConfig.model_fields.items() if name not in BY_KIND["gan"]}
    defaults = {name: "" if value is None else f"`{str(value).lower()}`" for name, value in shown.items()}
    return [
        f"| `{name}` | {defaults.get(name, '')} | {field.description} |"
        for name, field in TrainConfig.model_fields.items()
    ]


def test_the_page_has_the_table_of_settings_as_the_code_has_them() -> None:
    table = PAGE.read_text(encoding="utf-8").partition("| setting | default | what it does |\n|---|---|---|\n")[2]
    assert table.strip().splitlines() == rows()


def test_the_page_names_every_recipe() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert [name for name in RECIPES if f"| `{name}` |" not in text] == []
