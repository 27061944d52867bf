"""Faults that kustomize and a cluster pass over in silence, each planted, each found at its line."""

import shutil
from collections.abc import Callable
from pathlib import Path

import check
import httpx
import pytest
import yaml
from checks import metrics, server
from checks.overlay import Overlay, RenderError, render

K8S = Path(__file__).resolve().parents[2] / "k8s"


def test_nothing_is_wrong_with_any_overlay_or_combination(rendered: dict[str, Overlay]) -> None:
    assert {name: [str(wrong) for wrong in check.problems(overlay)] for name, overlay in rendered.items()} == {
        name: [] for name in rendered
    }


FILES = {  # one of those below a path that is no page itself
    "/playground": "/index.html",
    "/js": "/limner-client.js",
    "/static-offline-docs": "/swagger-ui-bundle.js",
    "/v2/models": "/digits",
}


def test_paths_and_metrics_are_those_of_a_live_server(url: str) -> None:
    for path in server.paths():
        code = httpx.get(f"{url}{path}{FILES.get(path, '')}", follow_redirects=True).status_code
        assert code in (200, 405, 422), path  # there; there for POST; there, and no model is named of two
    lines = [line for line in httpx.get(f"{url}/metrics").text.splitlines() if not line.startswith("#")]
    live = {line.partition("{")[0].partition(" ")[0] for line in lines}
    assert {name for name in live if name.startswith("limner_")} == {
        name for name in metrics.known() if name.startswith("limner_")
    }


FAULTS = [
    (overlay, file, fault)
    for overlay, files in yaml.safe_load((Path(__file__).parent / "faults.yaml").read_text()).items()
    for file, faults in files.items()
    for fault in faults
]


@pytest.mark.parametrize(("overlay", "file", "fault"), FAULTS)
def test_a_fault_is_found_at_its_line(
    problems: Callable[[Path], list[str]],
    combine: Callable[..., Path],
    tmp_path: Path,
    overlay: str,
    file: str,
    fault: dict[str, str],
) -> None:
    k8s = shutil.copytree(K8S, tmp_path / "k8s")
    name, *components = overlay.split("+")
    folder = k8s / "overlays" / name
    if components:
        folder = combine(k8s / "mine", folder, tuple(components), k8s)
    before = (k8s / file).read_text()
    assert fault["text"] in before
    (k8s / file).write_text(before.replace(fault["text"], fault["planted"], 1))
    line = before[: before.index(fault["text"])].count("\n") + 1
    found = problems(folder)
    assert any(problem.startswith(f"{file}:{line}: ") and fault["said"] in problem for problem in found), found


def test_two_autoscalers_exclude_each_other(kubectl: str, combine: Callable[..., Path], tmp_path: Path) -> None:
    both = ("autoscaling-hpa", "autoscaling-keda")
    folder = combine(tmp_path / "both", K8S / "overlays" / "cpu", both)
    with pytest.raises(RenderError, match="/spec/replicas"):
        render(folder, kubectl)


def test_a_route_that_clients_need_and_nobody_leads_to_is_told(
    problems: Callable[[Path], list[str]], combine: Callable[..., Path], tmp_path: Path
) -> None:
    k8s = shutil.copytree(K8S, tmp_path / "k8s")
    route = k8s / "components" / "gateway" / "route.yaml"
    route.write_text(route.read_text().replace("        - path: {type: Exact, value: /openapi.json}\n", ""))
    (found,) = problems(combine(k8s / "mine", k8s / "overlays" / "dev", ("gateway",), k8s))
    assert found.startswith("components/gateway/route.yaml:12: no route leads to /openapi.json")


def test_the_command_says_each_fault_in_a_line_and_exits_1(
    kubectl: str, combine: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = K8S / "overlays" / "dev"
    assert check.main([str(good)]) == 0
    more = "configMapGenerator:\n  - name: limner-settings\n    behavior: merge\n    literals: [LIMNER_PORTS=1]"
    bad = combine(tmp_path / "bad", good, (), more=more)
    broken = combine(tmp_path / "broken", tmp_path / "nowhere", ())
    assert check.main([str(good), str(bad), str(broken)]) == 1
    said = capsys.readouterr()
    first, *rest = said.err.splitlines()
    assert first.endswith("bad/kustomization.yaml:8: server has no setting LIMNER_PORTS. Did you mean LIMNER_PORT?")
    assert rest
    assert "nowhere" in " ".join(rest)
    assert said.out == ""
