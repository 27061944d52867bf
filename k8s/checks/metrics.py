"""An overlay in, where its autoscalers, rules and dashboards ask for what limner does not count."""

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from checks.overlay import DASHBOARD, Node, Overlay, Problem, line_of, near
from server.telemetry import Metrics

NAME = re.compile(r"(?<![\w:.])[a-zA-Z_][\w:]*")
QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')


def problems(overlay: Overlay) -> Iterator[Problem]:
    yield from _autoscalers(overlay)
    defined = {rule["record"] for rule in rules(overlay) if "record" in rule}
    kinds = [(rule, "record" if "record" in rule else "alert") for rule in rules(overlay)]
    asked = [(f"{kind}: {rule[kind]}", rule["expr"]) for rule, kind in kinds]
    for title, query in [*asked, *queries(overlay)]:
        for name in sorted(names(query) - known() - defined):
            kind, there = ("recording rule", defined) if ":" in name else ("metric", known())
            what = f"{title}: there is no {kind} {name}.{near(name, there)}"
            yield _where(overlay, title, query, name, what)


@cache
def known() -> frozenset[str]:
    """Every name in /metrics, as Prometheus stores it."""
    declared = Metrics()
    declared.add_model("model@1")
    declared.request.labels("/generate")  # exists from the first request on
    lines = declared.text().decode().splitlines()
    return frozenset(line.partition("{")[0].partition(" ")[0] for line in lines if not line.startswith("#"))


def rules(overlay: Overlay) -> list[Node]:
    """Recording and alert rules."""
    return [
        rule for each in overlay.of("PrometheusRule") for group in each["spec"]["groups"] for rule in group["rules"]
    ]


def queries(overlay: Overlay) -> Iterator[tuple[str, str]]:
    """Of each dashboard: who asks, and what. Also of one that Grafana has exported."""
    for each in overlay.of("ConfigMap"):
        if DASHBOARD not in each["metadata"].get("labels", {}):
            continue
        for content in each["data"].values():
            dashboard = json.loads(content)
            for panel in _panels(dashboard):
                for target in panel.get("targets", []):
                    yield f"panel '{panel.get('title', '')}'", target.get("expr", "")
            for variable in dashboard.get("templating", {}).get("list", []):
                query = variable.get("query", "") if variable["type"] == "query" else ""
                yield f"variable {variable['name']}", query.get("query", "") if isinstance(query, dict) else query
            for annotation in dashboard.get("annotations", {}).get("list", []):
                yield f"annotation {annotation['name']}", annotation.get("expr", "")


def _panels(holder: Node) -> Iterator[Node]:
    """Also those in rows that are closed."""
    for panel in holder.get("panels", []):
        yield panel
        yield from _panels(panel)


def names(query: str) -> set[str]:
    """Of limner's metrics, of its processes, and of recording rules."""
    found = set(NAME.findall(QUOTED.sub('""', query)))
    return {name for name in found if name.startswith(("limner_", "process_")) or ":" in name}


def _where(overlay: Overlay, title: str, query: str, name: str, what: str) -> Problem:
    """At the line of the rule or the panel that has the name; somewhere in the overlay where none is found."""
    for path in overlay.sources:
        lines = path.read_text(encoding="utf-8").splitlines()
        place = next(
            (
                nth
                for nth, line in enumerate(lines)
                if line.partition(" #")[0].strip(" -") == title or _holds(line, query)
            ),
            None,
        )
        if place is not None:
            line = next((nth for nth, text in enumerate(lines[place:], place + 1) if name in text), place + 1)
            return Problem(path, line, what)
    return overlay.problem(what, name)


def _holds(line: str, query: str) -> bool:
    return json.dumps(query) in line or json.dumps(query, ensure_ascii=False) in line


def _autoscalers(overlay: Overlay) -> Iterator[Problem]:
    """What one asks for is counted, or defined beside it for prometheus-adapter; in its own namespace."""
    adapters = [path.parent / "prometheus-adapter.yaml" for path in overlay.sources]
    defined = {name for path in adapters if path.is_file() for name in re.findall(r"as: (\w+)", path.read_text())}
    asked: list[tuple[str, Path | None]] = []
    for scaler in overlay.of("HorizontalPodAutoscaler"):
        asked += [(metric["pods"]["metric"]["name"], None) for metric in scaler["spec"]["metrics"]]
    for scaler in overlay.of("ScaledObject"):
        for trigger in scaler["spec"]["triggers"]:
            query = trigger["metadata"]["query"]
            asked += [(name, None) for name in sorted(names(query))]
            for namespace in set(re.findall(r'namespace="([^"]*)"', query)) - {scaler["metadata"]["namespace"]}:
                what = f"the query is for namespace {namespace}, the pods are in {scaler['metadata']['namespace']}"
                yield overlay.problem(what, f'namespace="{namespace}"')
    for path in dict.fromkeys(path for path in adapters if path.is_file()):
        asked += [(name, path) for name in re.findall(r"\blimner_[a-z_]+", path.read_text())]
    for name, path in asked:
        if name not in known() | defined:
            what = f"there is no metric {name}.{near(name, known())}"
            yield overlay.problem(what, name) if path is None else Problem(path, line_of(path, name), what)
