"""Every overlay and every combination of components, rendered once a session."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import check
import pytest
from checks.overlay import Overlay, render

ROOT = Path(__file__).resolve().parents[2]
K8S = ROOT / "k8s"
TOOLS = ROOT / ".venv" / "k8s"
OVERLAYS = ("dev", "cpu", "gpu", "kserve", "training-job")
COMBINATIONS = {  # overlay -> components on top of it
    "dev with hpa": ("dev", "autoscaling-hpa"),
    "dev with gateway": ("dev", "gateway"),
    "dev with monitoring": ("dev", "monitoring"),
    "cpu with monitoring": ("cpu", "monitoring"),
    "cpu with hpa, gateway and monitoring": ("cpu", "autoscaling-hpa", "gateway", "monitoring"),
    "cpu with hpa and gateway": ("cpu", "autoscaling-hpa", "gateway"),
    "cpu with keda and gateway": ("cpu", "autoscaling-keda", "gateway"),
    "gpu with hpa": ("gpu", "autoscaling-hpa"),
    "gpu with keda, gateway and monitoring": ("gpu", "autoscaling-keda", "gateway", "monitoring"),
}
IMAGE_VOLUMES = {"cpu from an image": (), "gpu from an image": ("gpu",)}  # and components after models-image


def needed(program: str, brought_by: str = "make tools") -> str:
    """The program's path; without it the test skips, and with LIMNER_TEST_ALL=1 fails."""
    folders = [str(TOOLS / "bin"), str(TOOLS / "checkov" / "bin"), os.environ.get("PATH", "")]
    found = shutil.which(program, path=os.pathsep.join(folders))
    if found is None:
        missing = f"{program} is not installed ({brought_by})"
        if os.environ.get("LIMNER_TEST_ALL") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    return found


def kustomization(folder: Path, resource: Path, components: tuple[str, ...], k8s: Path = K8S, more: str = "") -> Path:
    """A folder with a kustomization of one resource and components of `k8s`."""
    folder.mkdir(parents=True)
    lines = ["kind: Kustomization", "namespace: limner", "resources:", f"  - {os.path.relpath(resource, folder)}"]
    lines += ["components:"] if components else []
    lines += [f"  - {os.path.relpath(k8s / 'components' / name, folder)}" for name in components]
    (folder / "kustomization.yaml").write_text("\n".join([*lines, more]) + "\n")
    return folder


@pytest.fixture(scope="session")
def kubectl() -> str:
    return needed("kubectl")


@pytest.fixture(scope="session")
def rendered(kubectl: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Overlay]:
    home = tmp_path_factory.mktemp("combinations")
    folders = {name: K8S / "overlays" / name for name in OVERLAYS}
    for name, (overlay, *components) in COMBINATIONS.items():
        folders[name] = kustomization(home / name.replace(" ", "-"), K8S / "overlays" / overlay, tuple(components))
    image = "images:\n  - name: limner-server\n    newName: limner/server-cpu\n    newTag: 0.1.0"
    for name, components in IMAGE_VOLUMES.items():
        wanted = ("namespace", "models-image", *components)
        folders[name] = kustomization(home / name.replace(" ", "-"), K8S / "base", wanted, more=image)
    return {name: render(folder, kubectl) for name, folder in folders.items()}


@pytest.fixture
def problems(kubectl: str) -> Callable[[Path], list[str]]:
    """What `k8s/check.py` says of a folder, places relative to its k8s/."""

    def found(folder: Path) -> list[str]:
        wrong = check.problems(render(folder, kubectl))
        return [str(problem).partition("/k8s/")[2] or str(problem) for problem in wrong]

    return found


@pytest.fixture(scope="session")
def combine() -> Callable[..., Path]:
    """`kustomization`."""
    return kustomization


@pytest.fixture(scope="session")
def tool() -> Callable[[str], str]:
    """`needed`."""
    return needed
