"""Rules and dashboard: by promtool with series that are known, and by a real Prometheus that watches a real server."""

import json
import math
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import check
import dashboard
import httpx
import prometheus
import pytest
import yaml
from checks import metrics
from checks.overlay import Overlay
from prometheus import Prometheus, Series

from server.app import APIS
from server.telemetry import ROUTES

ROOT = Path(__file__).resolve().parents[2]
MONITORING = ROOT / "k8s" / "components" / "monitoring"
RULES = [rule for group in prometheus.groups()["groups"] for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
CASES = yaml.load((Path(__file__).parent / "alerts.yaml").read_text(), yaml.BaseLoader)  # 0x5 is no number there
CONDITION = re.compile(r"(?:and |or )?(?P<left>.+?) (?:==|>=|>|<=|<) (?:on \(\) group_left \(\) )?(?P<right>.+)")
REQUESTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("/generate?model=digits&n=64&format=npy&timeout_ms=5000", {}),
    ("/generate?model=plain&n=64", {}),
    ("/generate?model=digits&label=1", {}),
    ("/interpolate?model=digits&frames=4", {}),
    ("/v1/images/generations", {"model": "digits", "prompt": "1"}),
    ("/v2/models/digits/infer", {"inputs": [], "parameters": {"seed": 7, "n": 2}}),
    ("/generate?model=digits&n=64&timeout_ms=1", {}),
)
PATIENCE = 90.0
WATCHED = "cpu with monitoring"
SCRAPED = 0.5  # seconds
EVALUATED = {"30m": "4m"}  # how often, where not with each sample: what a rule records is gone after five minutes


def conditions(expression: str) -> Iterator[tuple[str, str]]:
    """The two sides of each line of an alert's expression."""
    for line in expression.splitlines():
        found = CONDITION.fullmatch(line)
        assert found is not None, line
        yield found["left"], found["right"]


def dashboards() -> Iterator[tuple[str, str]]:
    content = json.loads((MONITORING / "dashboard.json").read_text())
    for panel in content["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]


# --- what is written


def test_the_dashboard_is_what_its_code_says() -> None:
    assert (MONITORING / "dashboard.json").read_text() == dashboard.built(), "run .venv/bin/python k8s/dashboard.py"


def test_every_panel_is_explained_by_its_title_or_a_sentence_and_has_a_unit() -> None:
    for panel in json.loads((MONITORING / "dashboard.json").read_text())["panels"]:
        if panel["type"] in ("stat", "timeseries", "heatmap"):
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        if panel["type"] != "row":
            assert panel["description"] or panel["title"].startswith(("Requests", "Images")), panel["title"]


def test_every_alert_has_a_severity_a_summary_and_an_entry_in_the_handbook() -> None:
    handbook = (ROOT / "docs" / "operations.md").read_text()
    for name, alert in ALERTS.items():
        assert alert["labels"]["severity"] in ("critical", "warning")
        assert alert["annotations"]["summary"].endswith(".")
        page, _, anchor = alert["annotations"]["runbook_url"].partition("#")
        assert (ROOT / page, anchor) == (ROOT / "docs" / "operations.md", name.lower())
        entry = re.search(rf"^### {name}$(.*?)^##", handbook, re.MULTILINE | re.DOTALL)
        assert entry is not None, name
        for part in ("**Means.**", "**Look.**", "**Do.**"):
            assert part in entry[1], (name, part)
    assert set(re.findall(r"^### (Limner\w+)$", handbook, re.MULTILINE)) == ALERTS.keys()


def test_requests_for_images_are_those_of_every_route_that_makes_some() -> None:
    (pattern,) = {found for rule in RULES for found in re.findall(r'route=~"([^"]+)"', rule["expr"])}
    assert f'route=~"{pattern}"' == dashboard.IMAGES
    paths = {getattr(route, "path") for module in APIS for route in module.router.routes}  # noqa: B009
    making = {path for path in paths if path.endswith("/infer")} | set(ROUTES)
    assert {path for path in paths if re.fullmatch(pattern, path)} == making


def test_the_pod_monitor_finds_the_pods_and_names_the_job_of_the_rules(rendered: dict[str, Overlay]) -> None:
    overlay = rendered[WATCHED]
    (monitor,) = overlay.of("PodMonitor")
    (deployment,) = overlay.of("Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert labels[monitor["spec"]["jobLabel"]] == "limner"
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert endpoint["port"] in [port["name"] for port in container["ports"]]
    assert 'job="limner"' in ALERTS["LimnerDown"]["expr"]
    (policy,) = overlay.of("NetworkPolicy")
    spaces = [each["from"][0].get("namespaceSelector", {}).get("matchLabels") for each in policy["spec"]["ingress"]]
    assert {"kubernetes.io/metadata.name": "monitoring"} in spaces


# --- renamed metrics


def test_a_renamed_metric_is_told_at_every_place_that_asks_for_it(
    rendered: dict[str, Overlay], monkeypatch: pytest.MonkeyPatch
) -> None:
    renamed = metrics.known() - {"limner_rejected_total"} | {"limner_refused_total"}
    monkeypatch.setattr(metrics, "known", lambda: renamed)
    said = [str(problem) for problem in check.problems(rendered[WATCHED])]
    places = sorted(f"{path.name}:{line}" for problem in said for path, line in [_place(problem)])
    expected, rule, counted = set[str](), "", ""
    for number, line in enumerate((MONITORING / "rules.yaml").read_text().splitlines(), 1):
        rule = line if re.match(r" +- (record|alert):", line) else rule
        if "limner_rejected_total" in line and rule != counted:
            expected.add(f"rules.yaml:{number}")  # the first line of each rule
            counted = rule
    for number, line in enumerate((MONITORING / "dashboard.json").read_text().splitlines(), 1):
        if "limner_rejected_total" in line:
            expected.add(f"dashboard.json:{number}")
    assert places == sorted(expected)
    assert len(places) >= 2
    assert all("there is no metric limner_rejected_total" in problem for problem in said), said
    assert any("panel 'Refused'" in problem for problem in said)
    assert any("record: namespace_model:limner_rejected:ratio_rate5m" in problem for problem in said)


def _place(problem: str) -> tuple[Path, str]:
    path, line, _ = problem.split(":", 2)
    return Path(path), line


# --- promtool


def test_promtool_finds_nothing_to_say_of_the_rules(program: Callable[..., Path], tmp_path: Path) -> None:
    promtool = program("promtool", "Debian's package prometheus")
    done = _run(promtool, "check", "rules", "--lint-fatal", _rules(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"SUCCESS: {len(RULES)} rules found" in done.stdout


def test_there_is_a_case_for_each_alert_both_ways() -> None:
    assert CASES.keys() == ALERTS.keys()
    assert all(case["fires"] and case["silent"] for case in CASES.values())


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_fires_when_it_must_and_stays_silent_when_not(
    name: str, program: Callable[..., Path], tmp_path: Path
) -> None:
    promtool = program("promtool", "Debian's package prometheus")
    cases = [*CASES[name]["fires"], *CASES[name]["silent"]]
    for every in {case.get("every", "1m") for case in cases}:
        tests = [
            {
                "interval": every,
                "input_series": [{"series": series, "values": values} for series, values in case["series"].items()],
                "alert_rule_test": [{"eval_time": case["at"], "alertname": name, "exp_alerts": expected(name, case)}],
            }
            for case in cases
            if case.get("every", "1m") == every
        ]
        path = tmp_path / f"{every}.yaml"
        often = EVALUATED.get(every, every)
        whole = {"rule_files": [_rules(tmp_path, name).name], "evaluation_interval": often, "tests": tests}
        path.write_text(json.dumps(whole))
        done = _run(promtool, "test", "rules", path)
        assert done.returncode == 0, done.stdout + done.stderr


def expected(name: str, case: dict[str, Any]) -> list[dict[str, Any]]:
    """The alert as promtool wants it, none for a case that says nothing."""
    if "says" not in case:
        return []
    alert = ALERTS[name]
    annotations = alert["annotations"] | {"summary": case["says"]}
    return [{"exp_labels": case["labels"] | alert["labels"], "exp_annotations": annotations}]


def _rules(folder: Path, alert: str | None = None) -> Path:
    """All of them; or an alert behind what it is made of, in one group: groups are evaluated in no order that one could
    know, and three days of all the others would take a minute.
    """
    path = folder / "rules.yaml"
    whole = prometheus.groups()
    if alert is not None:
        asked = metrics.names(ALERTS[alert]["expr"])
        needed = [rule for rule in RULES if rule.get("record") in asked]
        whole = {"groups": [{"name": alert, "rules": [*needed, ALERTS[alert]]}]}
    path.write_text(yaml.safe_dump(whole))
    return path


def _run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, timeout=PATIENCE)


# --- a real Prometheus


@dataclass(frozen=True)
class Watched:
    """A real Prometheus that has watched a real server of two workers, one of which was killed, under load."""

    prometheus: Prometheus

    def told(self, query: str) -> list[Series]:
        """What it says in the end, without what is not a number: it may take a scrape until all has been counted."""
        until = time.monotonic() + PATIENCE
        while True:
            found = [each for each in self.prometheus.ask(query) if not math.isnan(each.value)]
            if found or time.monotonic() > until:
                return found
            time.sleep(SCRAPED)


@pytest.fixture(scope="module")
def watched(program: Callable[..., Path], launch: Callable[..., Any], models: Path) -> Iterator[Watched]:
    prometheus_program = str(program("prometheus", "Debian's package prometheus"))
    crowded = {"LIMNER_QUEUE_IMAGES": "64", "LIMNER_MAX_IMAGES": "64"}
    with launch(models, "--workers", "2", **crowded) as server:
        address = server.url.removeprefix("http://")
        with prometheus.watching([address], seconds=SCRAPED, program=prometheus_program) as watching, busy(server.url):
            watched = Watched(watching)
            assert watched.told('up{job="limner"} == 1')
            os.kill(_a_worker(server.process.pid), signal.SIGKILL)
            yield watched


def test_every_rule_is_evaluated_and_every_recording_rule_gives_a_number(watched: Watched) -> None:
    for rule in RULES:
        if "record" in rule:
            assert watched.told(rule["record"]), rule["record"]
    assert {(rule["name"], rule["health"], rule.get("lastError", "")) for rule in watched.prometheus.rules()} == {
        (rule.get("record") or rule["alert"], "ok", "") for rule in RULES
    }


def test_both_sides_of_every_alert_are_there_and_meet(watched: Watched) -> None:
    for name, alert in ALERTS.items():
        for left, right in conditions(alert["expr"]):
            for side in (left, right):
                query = re.sub(
                    r"^absent\((.*)\)$|^\(.* unless (.*)\)$", r"\1\2", side
                )  # which is empty when all is well
                assert watched.told(query), (name, side)
        judged = re.sub(r" (==|>=|>|<=|<) ", r" \1 bool ", alert["expr"])  # true or not, and empty if labels do not fit
        assert watched.told(judged), name


def test_every_query_of_the_dashboard_gives_a_number(watched: Watched) -> None:
    asked = [*dashboards()]
    assert len(asked) > 40
    for title, query in asked:
        assert watched.told(prometheus.filled(query, "10s")), (title, query)
        assert watched.told(prometheus.filled(query, "10s", "limner", "(digits|plain)", "1")), (title, query)
        nobody = watched.prometheus.ask(prometheus.filled(query, "10s", "elsewhere"))
        assert nobody == [], (title, "whatever the namespace")


def test_variables_are_found_and_what_fires_is_drawn_into_it(watched: Watched) -> None:
    content = json.loads((MONITORING / "dashboard.json").read_text())
    variables = {each["name"]: each for each in content["templating"]["list"] if each["type"] == "query"}
    assert variables.keys() == {"namespace", "model", "version"}
    found: dict[str, set[str]] = {}
    for name, variable in variables.items():
        query = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"])
        assert query is not None
        values = {each.labels[query[2]] for each in watched.told(prometheus.filled(query[1], "10s"))}
        pattern = re.compile(variable["regex"].strip("/") or "(.*)")
        found[name] = {match[1] for match in map(pattern.search, values) if match}
    assert found == {"namespace": {"limner"}, "model": {"digits", "plain"}, "version": {"1"}}
    (annotation,) = content["annotations"]["list"]
    fired = watched.told(prometheus.filled(annotation["expr"], "10s"))
    assert {"LimnerRestarting"} <= {each.labels["alertname"] for each in fired}


def test_what_has_happened_is_what_it_has_seen(watched: Watched) -> None:
    for query in (
        'sum(rate(limner_requests_total{route="/generate", code="429"}[1m])) > 0',
        "namespace_model:limner_rejected:ratio_rate5m > 0",
        'sum(rate(limner_requests_total{route="/v2/models/{model}/infer", code="200"}[1m])) > 0',
        "sum(limner_worker_restarts_total) == 1",
        'sum(up{job="limner"}) == 1',
        "sum(limner_ready_workers) == 2",
        "sum(limner_drain_limit_seconds) == 20",
        "sum(limner_draining_seconds) == 0",
        "min(limner_memory_available_bytes) > 1e6",
    ):
        assert watched.told(query), query


@contextmanager
def busy(url: str) -> Iterator[None]:
    """Eight clients who ask for all that there is, until the end; more than there is room for."""
    over = threading.Event()

    def ask(place: int) -> None:
        while not over.is_set():
            with suppress(httpx.TransportError), httpx.Client(base_url=url, timeout=20) as client:
                for path, body in REQUESTS[place % 3 :]:
                    client.post(path, json=body or None)
                    over.wait(0.01)

    with ThreadPoolExecutor(8) as clients:
        for place in range(8):
            clients.submit(ask, place)
        try:
            yield
        finally:
            over.set()


def _a_worker(supervisor: int) -> int:
    """The last of its children to have come."""
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    return int(children[-1])
