"""The server's Settings in, their table in operations.md out: `.venv/bin/python docs/settings.py`."""

from pathlib import Path

from server.settings import Settings

PATH = Path(__file__).with_name("operations.md")
START, END = "<!-- settings -->\n", "<!-- /settings -->"


def table() -> str:
    """A row for each field: variable, default, what it is."""
    rows = ["| variable | default | what it is |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = _shown(name, field.get_default(call_default_factory=True))
        rows.append(f"| `LIMNER_{name.upper()}` | {default} | {field.description} |")
    return "\n".join(rows) + "\n"


def _shown(name: str, default: object) -> str:
    if default in (None, ()):
        return ""
    return "the package's own" if name == "playground" else f"`{default}`"


def written(page: str) -> str:
    """The page with the table of today."""
    before, _, rest = page.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}{table()}{END}{after}"


if __name__ == "__main__":
    PATH.write_text(written(PATH.read_text(encoding="utf-8")), encoding="utf-8")
