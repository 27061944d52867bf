"""What the rendered objects promise: security, disruption, probes, names, the reach of each component."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from checks.overlay import Overlay, containers, pods

from export.bundle import SCHEMA

ROOT = Path(__file__).resolve().parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
RECOMMENDED = {"name", "component", "part-of", "version"}
OVERLAYS = sorted(path.name for path in (ROOT / "k8s" / "overlays").iterdir())


def holders(overlay: Overlay) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Each pod's spec, and where the settings of the whole pod are: of KServe's, in the InferenceService."""
    predictors = [service["spec"]["predictor"] for service in overlay.of("InferenceService")]
    return [
        (template["spec"], predictors[0] if each["kind"] == "ServingRuntime" else template["spec"])
        for each, template in pods(overlay)
    ]


def test_every_pod_is_restricted(rendered: dict[str, Overlay]) -> None:
    """The restricted Pod Security Standard, and more: a root that nobody writes, no token, no links to services."""
    for overlay in rendered.values():
        assert holders(overlay)
        for pod, whole in holders(overlay):
            security = whole["securityContext"]
            assert (security["runAsNonRoot"], security["runAsUser"]) == (True, 10001)
            assert security["seccompProfile"] == {"type": "RuntimeDefault"}
            assert whole["automountServiceAccountToken"] is False
            assert whole["enableServiceLinks"] is False  # a Service named limner would set LIMNER_PORT=tcp://...
            assert not {"hostNetwork", "hostPID", "hostIPC"} & {*pod, *whole}
            assert all("hostPath" not in volume for volume in pod["volumes"])
            for container in containers(pod):
                assert container["securityContext"] == {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                    "readOnlyRootFilesystem": True,
                }
                assert {"cpu", "memory"} <= container["resources"]["limits"].keys()
                assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
        (namespace,) = overlay.of("Namespace")
        assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
        assert all(account["automountServiceAccountToken"] is False for account in overlay.of("ServiceAccount"))


def test_names_and_versions_are_those_of_the_project(rendered: dict[str, Overlay]) -> None:
    for name, overlay in rendered.items():
        for each in overlay.objects:
            labels = each["metadata"].get("labels", {})
            assert labels.get("app.kubernetes.io/version", VERSION) == VERSION
            if each["kind"] in {"Deployment", "Job"}:
                template = each["spec"]["template"]["metadata"]["labels"]
                assert {f"app.kubernetes.io/{part}" for part in RECOMMENDED} <= template.keys()
        images = {container["image"] for _, pod in pods(overlay) for container in containers(pod["spec"])}
        tag = "dev" if name.startswith("dev") else VERSION
        assert {image.partition(":")[2] for image in images} == {tag}
    assert f"ARG VERSION={VERSION}\n" in (ROOT / "Dockerfile").read_text()
    (runtime,) = rendered["kserve"].of("ServingRuntime")
    assert runtime["spec"]["supportedModelFormats"][0]["version"] == str(SCHEMA)


def test_a_server_is_replaced_without_a_gap(rendered: dict[str, Overlay]) -> None:
    for name, overlay in rendered.items():
        for deployment in overlay.of("Deployment"):
            update = deployment["spec"]["strategy"]["rollingUpdate"]
            gpu = name.startswith("gpu")  # where one more pod would wait for a GPU
            assert (update["maxUnavailable"], update["maxSurge"]) == ((1, 0) if gpu else (0, 1))
            (budget,) = overlay.of("PodDisruptionBudget")
            assert budget["spec"]["maxUnavailable"] == 1
            spread = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
            assert [each["topologyKey"] for each in spread] == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]


def test_a_server_may_ask_nobody_and_is_asked_by_those_whom_a_component_adds(rendered: dict[str, Overlay]) -> None:
    for name, overlay in rendered.items():
        for policy in overlay.of("NetworkPolicy"):
            if policy["metadata"]["name"] != "limner":
                continue
            assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
            assert "egress" not in policy["spec"]
            assert len(policy["spec"]["ingress"]) == 1 + ("gateway" in name) + ("monitoring" in name)


def test_what_a_server_writes_lies_in_volumes_of_its_own(rendered: dict[str, Overlay]) -> None:
    deployment = rendered["cpu"].named("Deployment", "limner")
    assert deployment is not None
    pod = deployment["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: mount for mount in pod["containers"][0]["volumeMounts"]}
    for place in ("/tmp", "/run/limner", "/home/limner/.cache"):
        assert "sizeLimit" in volumes[mounts[place]["name"]]["emptyDir"]
    assert mounts["/models"]["readOnly"] is True
    (settings,) = rendered["cpu"].of("ConfigMap")
    assert settings["data"]["LIMNER_METRICS_FOLDER"] == "/run/limner"


def test_a_pod_with_a_gpu_builds_for_it_before_it_serves(rendered: dict[str, Overlay]) -> None:
    for name in ("gpu", "gpu from an image"):
        deployment = rendered[name].named("Deployment", "limner")
        assert deployment is not None
        pod = deployment["spec"]["template"]["spec"]
        copy, build = pod["initContainers"]
        (server,) = pod["containers"]
        own = {"name": "own-models", "mountPath": "/models"}
        assert own in copy["volumeMounts"]
        assert own in build["volumeMounts"]
        assert own | {"readOnly": True} in server["volumeMounts"]
        assert {each["image"] for each in (copy, build, server)} == {server["image"]}
        assert build["args"][0] == "export"
        assert [each["resources"]["limits"].get("nvidia.com/gpu") for each in (copy, build, server)] == [None, "1", "1"]
        assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
        probe = server["startupProbe"]
        assert probe["periodSeconds"] * probe["failureThreshold"] >= 1200
        assert probe["httpGet"]["path"] == "/readyz"


def test_a_training_goes_on_after_an_eviction(rendered: dict[str, Overlay]) -> None:
    (job,) = rendered["training-job"].of("Job")
    spec = job["spec"]
    assert spec.get("parallelism", 1) == spec.get("completions", 1) == 1
    assert spec["podReplacementPolicy"] == "Failed"
    evicted, refused = spec["podFailurePolicy"]["rules"]
    assert (evicted["action"], evicted["onPodConditions"][0]["type"]) == ("Ignore", "DisruptionTarget")
    assert (refused["action"], refused["onExitCodes"]["values"]) == ("FailJob", [1, 2])  # not 130, a saved interruption
    pod = spec["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    (train,) = pod["initContainers"]
    assert "--resume" in train["args"]
    out = Path(train["args"][train["args"].index("--out") + 1])
    claims = {volume["name"]: volume.get("persistentVolumeClaim", {}).get("claimName") for volume in pod["volumes"]}
    held = {mount["mountPath"]: claims[mount["name"]] for mount in train["volumeMounts"]}
    assert held[str(out.parent)] == "limner-runs"
    (export,) = pod["containers"]
    assert export["args"][:2] == ["export", str(out)]
    assert held[export["args"][export["args"].index("--models") + 1]] == "limner-models"


def test_no_overlay_is_long() -> None:
    for name in OVERLAYS:
        lines = (ROOT / "k8s" / "overlays" / name / "kustomization.yaml").read_text().splitlines()
        assert len(lines) <= 22, name
        assert lines[0].startswith("# "), name


@pytest.mark.parametrize("path", sorted((ROOT / "k8s").rglob("*.yaml")), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_yaml_says_a_thing_twice(path: Path) -> None:
    """YAML's parsers take the last of two equal keys in silence."""

    class Once(yaml.SafeLoader):
        pass

    def mapping(loader: Once, node: yaml.MappingNode) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"{path}:{node.start_mark.line + 1}: {keys}"
        loader.flatten_mapping(node)
        return loader.construct_mapping(node, deep=True)

    Once.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    assert list(yaml.load_all(path.read_text(), Once))
