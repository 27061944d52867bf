"""docs/operations.md says what there is: every setting, every log event, and nothing that there is not."""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

from checks import metrics

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
LEVELS = ("debug", "info", "warning", "error", "critical", "exception")


def events() -> Iterator[tuple[str, str, set[str]]]:
    """What the server's code logs: event, level, and what it is told with."""
    for path in [*(ROOT / "server").rglob("*.py"), ROOT / "limner" / "serve.py"]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS):
                continue
            if isinstance(node.func.value, ast.Name) and node.func.value.id == "log":
                (event,) = node.args
                assert isinstance(event, ast.Constant), ast.unparse(node)
                yield str(event.value), node.func.attr, {str(keyword.arg) for keyword in node.keywords}


def test_the_tables_of_settings_and_metrics_are_those_of_the_code(script: Callable[[str], ModuleType]) -> None:
    assert PAGE.count("| `LIMNER_") > 15
    assert script("docs/tables.py").written(PAGE) == PAGE, "run .venv/bin/python docs/tables.py"
    assert " None |" not in PAGE  # each has its sentence


def test_every_log_event_has_its_row_with_its_level_and_fields() -> None:
    rows = re.findall(r"^\| `([^`]+)` \| (\w+) \| [^|]+ \|(.*)\|$", PAGE, re.MULTILINE)
    told = {(event, level): set(re.findall(r"`(\w+)`", more)) for event, level, more in rows if level in LEVELS}
    said = {(event, level): fields for event, level, fields in events()}
    assert len(said) >= 8
    assert told == said


def test_metrics_panels_and_files_that_it_names_are_there() -> None:
    named = metrics.names(" ".join(re.findall(r"`(?:limner_|process_)[^`]*`", PAGE)))
    assert len(named) > 20
    assert named <= metrics.known()
    titles = set(re.findall(r'"title": "([^"]+)"', (ROOT / "k8s/components/monitoring/dashboard.json").read_text()))
    alerts = PAGE.partition("## Alerts")[2].partition("## Log events")[0]
    asked = set(re.findall(r"(?<!\*)\*([^*]+)\*(?!\*)", alerts))
    assert len(asked) > 10
    assert asked <= titles
    for link in re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)|src=\"([^\"]+)\"", PAGE):
        assert (ROOT / "docs" / "".join(link)).exists(), link


def test_its_own_links_lead_to_its_headings() -> None:
    anchors = {heading.lower().replace(" ", "-") for heading in re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE)}
    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= anchors
