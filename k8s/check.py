"""Overlays in, what is wrong with them out, a line each: `.venv/bin/python k8s/check.py k8s/overlays/* my/overlay`.

kustomize is silent where a patch or an image's name fits nothing, and a cluster where a setting, a path or a metric is
one that limner has not. Needs kubectl and limner with its extra serve; no cluster.
"""

import shutil
import sys
from pathlib import Path

from checks import itself, metrics, server
from checks.overlay import Overlay, Problem, RenderError, render

TOOLS = Path(__file__).resolve().parents[1] / ".venv" / "k8s" / "bin"


def problems(overlay: Overlay) -> list[Problem]:
    return [*itself.problems(overlay), *server.problems(overlay), *metrics.problems(overlay)]


def kubectl() -> str | None:
    """The one that `make tools` brought, else the system's."""
    return shutil.which("kubectl", path=str(TOOLS)) or shutil.which("kubectl")


def main(folders: list[str]) -> int:
    """0 where nothing is wrong."""
    found = 0
    for folder in folders:
        try:
            wrong = problems(render(Path(folder), kubectl()))
        except RenderError as error:
            wrong = [Problem(Path(folder), 0, str(error))]
        for problem in wrong:
            print(problem, file=sys.stderr)  # noqa: T201
        found += len(wrong)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
