"""k8s/README.md's own overlay, names and paths are real."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from checks.overlay import Overlay, render

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "k8s" / "README.md").read_text()


def test_the_overlay_of_the_readme_builds_and_nothing_is_wrong_with_it(
    problems: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    shutil.copytree(ROOT / "k8s", tmp_path / "k8s")
    (own,) = re.findall(r"```yaml\n(kind: Kustomization.*?)```", README, re.DOTALL)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kustomization.yaml").write_text(own)
    assert problems(tmp_path / "mine") == []


def test_the_patches_of_the_manuals_change_what_they_say(
    kubectl: str, combine: Callable[..., Path], tmp_path: Path
) -> None:
    def patched(text: str) -> Iterator[Overlay]:
        for patch in re.findall(r"```yaml\n(patches:\n  - target: .*?)```", text, re.DOTALL):
            folder = tmp_path / str(len([*tmp_path.iterdir()]))
            yield render(combine(folder, ROOT / "k8s" / "overlays" / "cpu", ("monitoring",), more=patch), kubectl)

    (labelled,) = patched(README)
    for kind in ("PodMonitor", "PrometheusRule"):
        assert labelled.of(kind)[0]["metadata"]["labels"]["release"] == "kube-prometheus-stack"
    promised, without = patched((ROOT / "docs" / "operations.md").read_text())
    first = promised.of("PrometheusRule")[0]["spec"]["groups"][0]["rules"][0]
    assert first == {"record": "limner:failed_objective:ratio", "expr": "vector(0.01)"}
    assert without.of("PrometheusRule") == []
    assert without.of("PodMonitor")


def test_every_overlay_and_component_is_in_its_table() -> None:
    for folder in ("overlays", "components"):
        for path in (ROOT / "k8s" / folder).iterdir():
            assert f"`{path.name}`" in README or path.name in {"namespace", "models-claim"}, path


def test_what_it_links_to_is_there() -> None:
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / "k8s" / link).exists(), link
