"""k8s/README.md's own overlay, names and paths are real."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

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


def test_every_overlay_and_component_is_in_its_table() -> None:
    for folder in ("overlays", "components"):
        for path in (ROOT / "k8s" / folder).iterdir():
            assert f"`{path.name}`" in README or path.name in {"namespace", "models-claim"}, path


def test_what_it_links_to_is_there() -> None:
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / "k8s" / link).exists(), link
