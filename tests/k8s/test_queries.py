"""What the autoscalers ask Prometheus for, answered by promtool from series that are known."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import yaml
from checks.overlay import Overlay

K8S = Path(__file__).resolve().parents[2] / "k8s"
SERIES = {  # of namespace limner: a pod of 2 workers, 0.5 s busy a second; one of 1, 0.5 s by two models
    'limner_busy_seconds_total{namespace="limner",pod="a",model="x@1"}': "0+30x20",
    'limner_workers{namespace="limner",pod="a"}': "2x20",
    'limner_busy_seconds_total{namespace="limner",pod="b",model="x@1"}': "0+15x20",
    'limner_busy_seconds_total{namespace="limner",pod="b",model="y@1"}': "0+15x20",
    'limner_workers{namespace="limner",pod="b"}': "1x20",
    'limner_busy_seconds_total{namespace="other",pod="c",model="x@1"}': "0+30x20",
    'limner_workers{namespace="other",pod="c"}': "1x20",
}


def test_both_autoscalers_see_how_busy_engines_are(
    rendered: dict[str, Overlay], tool: Callable[[str], str], tmp_path: Path
) -> None:
    (scaled,) = rendered["cpu with keda and gateway"].of("ScaledObject")
    (rule,) = yaml.safe_load((K8S / "components/autoscaling-hpa/prometheus-adapter.yaml").read_text())["rules"][
        "custom"
    ]
    adapter = rule["metricsQuery"].replace("<<.GroupBy>>", "pod").replace("<<.LabelMatchers>>", 'namespace="limner"')
    keda = scaled["spec"]["triggers"][0]["metadata"]["query"]
    expected = [
        {"expr": adapter, "eval_time": "15m", "exp_samples": [
            {"labels": '{pod="a"}', "value": 0.25}, {"labels": '{pod="b"}', "value": 0.5}]},
        {"expr": keda, "eval_time": "15m", "exp_samples": [{"labels": "{}", "value": 0.75}]},
    ]  # fmt: skip
    series = [{"series": name, "values": values} for name, values in SERIES.items()]
    test = {"rule_files": [], "tests": [{"interval": "1m", "input_series": series, "promql_expr_test": expected}]}
    path = tmp_path / "test.yml"
    path.write_text(json.dumps(test))
    done = subprocess.run([tool("promtool"), "test", "rules", str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_both_autoscalers_aim_at_the_same(rendered: dict[str, Overlay]) -> None:
    (scaler,) = rendered["cpu with hpa and gateway"].of("HorizontalPodAutoscaler")
    (scaled,) = rendered["cpu with keda and gateway"].of("ScaledObject")
    target = scaler["spec"]["metrics"][0]["pods"]["target"]
    (trigger,) = scaled["spec"]["triggers"]
    assert (target["type"], target["averageValue"]) == (trigger["metricType"], "700m")
    assert float(trigger["metadata"]["threshold"]) == 0.7
    replicas = (scaler["spec"]["minReplicas"], scaler["spec"]["maxReplicas"])
    assert replicas == (scaled["spec"]["minReplicaCount"], scaled["spec"]["maxReplicaCount"])
    (deployment,) = rendered["cpu"].of("Deployment")
    assert deployment["spec"]["replicas"] == replicas[0]
