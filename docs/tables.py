"""The server's Settings and metrics in, their tables in operations.md out: `.venv/bin/python docs/tables.py`."""

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from server.settings import Settings
from server.telemetry import Metrics

PATH = Path(__file__).with_name("operations.md")


def settings() -> str:
    """A row for each field: variable, default, what it is."""
    rows = ["| variable | default | what it is |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = _shown(name, field.get_default(call_default_factory=True))
        rows.append(f"| `LIMNER_{name.upper()}` | {default} | {field.description} |")
    return "\n".join(rows) + "\n"


def metrics() -> str:
    """A row for each of limner's own: name as it is asked for, type, labels, what it is."""
    declared = Metrics()
    declared.add_model("model@1", digest="", artifact="")
    declared.request.labels("/generate")
    rows = ["| metric | type | by | what it is |", "|---|---|---|---|"]
    for family in text_string_to_metric_families(declared.text().decode()):
        if family.name.startswith("limner_"):
            labels = sorted({label for sample in family.samples for label in sample.labels} - {"le"})
            name = {"counter": f"{family.name}_total", "histogram": f"{family.name}_bucket"}.get(
                family.type, family.name
            )
            by = ", ".join(labels)
            rows.append(f"| `{name}` | {family.type} | {by} | {family.documentation} |")
    return "\n".join([*rows[:2], *sorted(rows[2:])]) + "\n"


def _shown(name: str, default: object) -> str:
    if default in (None, ()):
        return ""
    return "the package's own" if name == "playground" else f"`{default}`"


def written(page: str) -> str:
    """The page with the tables of today."""
    for name, table in (("settings", settings), ("metrics", metrics)):
        start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, _, rest = page.partition(start)
        _, _, after = rest.partition(end)
        page = f"{before}{start}{table()}{end}{after}"
    return page


if __name__ == "__main__":
    PATH.write_text(written(PATH.read_text(encoding="utf-8")), encoding="utf-8")
