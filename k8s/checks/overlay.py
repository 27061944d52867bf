"""A folder for `kubectl apply -k` in, its rendered objects out, and of any text in them the line it comes from."""

import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

Node = dict[str, Any]
SERVERS = {"server", "kserve-container"}  # names of containers that run `limner serve`
DASHBOARD = "grafana_dashboard"  # the label of a ConfigMap with dashboards


class RenderError(Exception):
    """kubectl refused the overlay; its own words."""


@dataclass(frozen=True)
class Problem:
    """What is wrong, at a line of a file where there is one (0: somewhere in the folder)."""

    place: Path
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.place}:{self.line}: {self.what}" if self.line else f"{self.place}: {self.what}"


@dataclass(frozen=True)
class Overlay:
    """`objects` as rendered; `sources` are the files that they come from, those that have the last word first."""

    folder: Path
    objects: list[Node]
    sources: list[Path]

    def of(self, kind: str) -> list[Node]:
        return [each for each in self.objects if each["kind"] == kind]

    def named(self, kind: str, name: str) -> Node | None:
        return next((each for each in self.of(kind) if each["metadata"]["name"] == name), None)

    def kustomizations(self) -> Iterator[tuple[Path, Node]]:
        for path in self.sources:
            if path.name == "kustomization.yaml":
                yield path, yaml.safe_load(path.read_text(encoding="utf-8"))

    def problem(self, what: str, *texts: str, kind: str = "") -> Problem:
        """At the first line that holds the first of the `texts` that is found, in files of that kind if it is given."""
        for text in texts:
            for path in self.sources:
                if f"kind: {kind}" in path.read_text(encoding="utf-8") and (line := line_of(path, text)):
                    return Problem(path, line, what)
        return Problem(self.folder, 0, what)


def line_of(path: Path, text: str) -> int:
    """The first line of a file that holds the text as whole words and not in a comment; 0 where none does."""
    whole = re.compile(rf"(?<![\w.]){re.escape(text)}(?![\w.-])")
    lines = path.read_text(encoding="utf-8").splitlines()
    return next((number for number, line in enumerate(lines, 1) if whole.search(line.partition(" #")[0])), 0)


def render(folder: Path, kubectl: str | None = None) -> Overlay:
    """Raises RenderError, also where there is no kubectl."""
    program = kubectl or shutil.which("kubectl")
    if program is None:
        raise RenderError("kubectl is not installed. make tools brings one into .venv/k8s.")
    done = subprocess.run([program, "kustomize", str(folder)], capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode or done.stderr:
        raise RenderError(done.stderr.strip())
    objects = [each for each in yaml.safe_load_all(done.stdout) if each]
    return Overlay(folder, objects, list(dict.fromkeys(_files(folder.resolve()))))


def _files(folder: Path) -> Iterator[Path]:
    """kustomization.yaml, the patches of its own, then what it builds on."""
    path = folder / "kustomization.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    yield path
    named = [patch["path"] for patch in content.get("patches", []) if "path" in patch]
    generated = [name for each in content.get("configMapGenerator", []) for name in each.get("files", [])]
    named += [name.rpartition("=")[2] for name in generated]
    for name in [*named, *reversed(content.get("components", [])), *content.get("resources", [])]:
        place = (folder / name).resolve()
        if place.is_dir():
            yield from _files(place)
        else:
            yield place


def near(name: str, known: Iterable[str]) -> str:
    """A question whether another name was meant; nothing where none is like it."""
    found = get_close_matches(name, sorted(known), 1)
    return f" Did you mean {found[0]}?" if found else ""


def pods(overlay: Overlay) -> Iterator[tuple[Node, Node]]:
    """Each object that makes pods, with its pod template: metadata and spec."""
    for each in overlay.objects:
        if each["kind"] in {"Deployment", "Job"}:
            yield each, each["spec"]["template"]
        elif each["kind"] == "ServingRuntime":
            yield each, {"metadata": each["metadata"], "spec": each["spec"]}


def containers(pod: Node) -> list[Node]:
    """Of a pod's spec, those that run first among them."""
    return [*pod.get("initContainers", []), *pod["containers"]]
