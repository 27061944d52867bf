"""Rendered objects against Kubernetes' own schemas, those of custom resources, and checkov's rules."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from checks.overlay import Overlay

K8S = Path(__file__).resolve().parents[2] / "k8s"
MODELS = K8S.parent / ".venv" / "k8s"
PATIENCE = 240

WITH_SCHEMA = {"Gateway", "HTTPRoute", "ScaledObject", "PodMonitor", "PrometheusRule"}
KSERVE = {"ServingRuntime", "InferenceService"}
FIELDS = {  # of custom resources, below spec and without what is Kubernetes' own; from their API references
    "Gateway": "gatewayClassName listeners listeners.name listeners.port listeners.protocol listeners.hostname "
    "listeners.tls listeners.tls.mode listeners.tls.certificateRefs listeners.tls.certificateRefs.name",
    "HTTPRoute": "parentRefs parentRefs.name parentRefs.sectionName rules rules.matches rules.matches.path "
    "rules.matches.path.type rules.matches.path.value rules.timeouts rules.timeouts.request rules.backendRefs "
    "rules.backendRefs.name rules.backendRefs.port rules.filters rules.filters.type rules.filters.requestRedirect "
    "rules.filters.requestRedirect.scheme rules.filters.requestRedirect.statusCode",
    "ScaledObject": "scaleTargetRef scaleTargetRef.name minReplicaCount maxReplicaCount triggers triggers.type "
    "triggers.metricType triggers.metadata triggers.metadata.serverAddress triggers.metadata.threshold "
    "triggers.metadata.query advanced advanced.horizontalPodAutoscalerConfig "
    "advanced.horizontalPodAutoscalerConfig.behavior",
    "PodMonitor": "jobLabel selector selector.matchLabels podMetricsEndpoints podMetricsEndpoints.port "
    "podMetricsEndpoints.path podMetricsEndpoints.interval podMetricsEndpoints.scrapeTimeout "
    "podMetricsEndpoints.relabelings podMetricsEndpoints.relabelings.sourceLabels "
    "podMetricsEndpoints.relabelings.regex podMetricsEndpoints.relabelings.action",
    "PrometheusRule": "groups groups.name groups.interval groups.rules groups.rules.record groups.rules.alert "
    "groups.rules.expr groups.rules.for groups.rules.labels groups.rules.annotations",
    "ServingRuntime": "annotations supportedModelFormats supportedModelFormats.name supportedModelFormats.version "
    "supportedModelFormats.autoSelect containers volumes",
    "InferenceService": "predictor predictor.minReplicas predictor.maxReplicas predictor.automountServiceAccountToken "
    "predictor.enableServiceLinks predictor.terminationGracePeriodSeconds predictor.securityContext predictor.model "
    "predictor.model.modelFormat predictor.model.modelFormat.name predictor.model.runtime predictor.model.storageUri",
}
KUBERNETES_OWN = {"containers", "volumes", "annotations", "predictor.securityContext", "selector.matchLabels"} | {
    "advanced.horizontalPodAutoscalerConfig.behavior",
    "groups.rules.labels",
    "groups.rules.annotations",
}


@pytest.fixture(scope="module")
def files(rendered: dict[str, Overlay], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The rendered overlays as files; what KServe makes a pod of, as the pod that it is made into."""
    home = tmp_path_factory.mktemp("rendered")
    paths = []
    for name, overlay in rendered.items():
        paths.append(home / f"{name.replace(' ', '-')}.yaml")
        paths[-1].write_text(yaml.safe_dump_all([*overlay.objects, *pods_of_kserve(overlay)]))
    return paths


def pods_of_kserve(overlay: Overlay) -> list[dict[str, Any]]:
    """Its controller adds the pod's fields of an InferenceService to those of a runtime."""
    own = ("minReplicas", "maxReplicas", "model")
    return [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "kserve", "namespace": "limner"},
            "spec": {key: runtime["spec"][key] for key in ("containers", "volumes")}
            | {key: value for key, value in service["spec"]["predictor"].items() if key not in own},
        }
        for runtime in overlay.of("ServingRuntime")
        for service in overlay.of("InferenceService")
    ]


def test_built_in_kinds_are_strictly_what_kubernetes_knows(files: list[Path], tool: Callable[[str], str]) -> None:
    program = tool("kubernetes-validate")
    done = subprocess.run([program, "--strict", *map(str, files)], capture_output=True, text=True, timeout=PATIENCE)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    warnings = [line for line in said.splitlines() if not line.startswith("INFO ")]
    custom = re.compile(r"WARN \S+ Couldn't find schema for kind (\w+) with")
    kinds = {found[1] if (found := custom.match(line)) else line for line in warnings}
    assert kinds == WITH_SCHEMA | KSERVE


def test_a_misspelt_field_of_a_built_in_kind_is_refused(
    rendered: dict[str, Overlay], tool: Callable[[str], str], tmp_path: Path
) -> None:
    deployment = rendered["dev"].named("Deployment", "limner")
    assert deployment is not None
    path = tmp_path / "misspelt.yaml"
    path.write_text(yaml.safe_dump(deployment).replace("failureThreshold", "failureTreshold"))
    program = tool("kubernetes-validate")
    done = subprocess.run([program, "--strict", str(path)], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode != 0
    assert "failureTreshold" in done.stdout + done.stderr


def custom(rendered: dict[str, Overlay], kinds: set[str]) -> list[dict[str, Any]]:
    return [each for overlay in rendered.values() for each in overlay.objects if each["kind"] in kinds]


def test_custom_resources_are_what_their_schemas_know(rendered: dict[str, Overlay]) -> None:
    objects = custom(rendered, WITH_SCHEMA)
    assert {each["kind"] for each in objects} == WITH_SCHEMA
    assert refused(objects) == []
    wrong = json.loads(json.dumps(objects))
    for each in wrong:
        match each["kind"]:
            case "Gateway":
                each["spec"]["listeners"][0]["port"] = "443"
            case "HTTPRoute":
                each["spec"]["rules"] = "all"
            case "ScaledObject":
                del each["spec"]["triggers"]
            case "PodMonitor":
                each["spec"]["podMetricsEndpoints"][0]["interval"] = 10
            case "PrometheusRule":
                del each["spec"]["groups"][0]["rules"][0]["expr"]
    assert len(refused(wrong)) == len(wrong)


def refused(objects: list[dict[str, Any]]) -> list[str]:
    node = shutil.which("node")
    if node is None or not (MODELS / "node_modules").is_dir():
        import os

        missing = "npm's @kubernetes-models are not installed (make tools)"
        if os.environ.get("LIMNER_TEST_ALL") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    command = [node, str(K8S / "tools" / "schemas.mjs"), str(MODELS / "node_modules")]
    done = subprocess.run(command, input=json.dumps(objects), capture_output=True, text=True, timeout=PATIENCE)
    assert done.stderr == ""
    assert (done.returncode == 0) == (done.stdout == "")
    return done.stdout.splitlines()


def test_custom_resources_have_no_field_that_their_references_lack(rendered: dict[str, Overlay]) -> None:
    """A cluster drops what it does not know, and the schemas from npm are open."""
    objects = custom(rendered, WITH_SCHEMA | KSERVE)
    assert {each["kind"] for each in objects} == FIELDS.keys()
    for each in objects:
        used = set(fields(each["spec"]))
        assert used == used & set(FIELDS[each["kind"]].split()), each["kind"]


def fields(node: Any, place: str = "") -> Iterator[str]:
    if place in KUBERNETES_OWN:
        return
    for key, value in node.items() if isinstance(node, dict) else ():
        yield f"{place}.{key}".strip(".")
        yield from fields(value, f"{place}.{key}".strip("."))
    for each in node if isinstance(node, list) else ():
        yield from fields(each, place)


def test_every_kind_is_one_that_is_held_against_something(rendered: dict[str, Overlay]) -> None:
    groups = {each["apiVersion"].partition("/")[0] for overlay in rendered.values() for each in overlay.objects}
    assert groups == {
        "v1", "apps", "batch", "policy", "autoscaling", "networking.k8s.io",
        "gateway.networking.k8s.io", "keda.sh", "serving.kserve.io", "monitoring.coreos.com",
    }  # fmt: skip


def test_checkov_finds_nothing_but_what_is_left_out_for_a_reason(files: list[Path], tool: Callable[[str], str]) -> None:
    rules = K8S / "tools" / "checkov.yaml"
    program = tool("checkov")
    command = [program, "--config-file", str(rules), "--directory", str(files[0].parent), "--output", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    summary = json.loads(done.stdout)
    failed = [f"{each['check_id']} {each['resource']}" for each in summary["results"]["failed_checks"]]
    assert failed == [], done.stdout[-3000:]
    assert summary["summary"]["passed"] > 500
    lines = rules.read_text().splitlines()
    skips = [number for number, line in enumerate(lines) if line.startswith("  - CKV")]
    assert len(skips) == 2
    assert all(lines[number - 1].startswith("  # ") for number in skips)  # its reason


def test_hadolint_has_nothing_to_say(tool: Callable[[str], str]) -> None:
    dockerfile = K8S.parent / "Dockerfile"
    done = subprocess.run([tool("hadolint"), str(dockerfile)], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
