"""What an image is made of, as far as its Dockerfile says it; k8s/image-test.sh builds and runs it."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STAGES = dict(
    re.findall(r"^FROM \S+ AS (\S+)\n(.*?)(?=^FROM |\Z)", (ROOT / "Dockerfile").read_text(), re.DOTALL | re.MULTILINE)
)
RUN = {"server-cpu", "server-gpu", "trainer"}  # and demo, which is server-cpu with models


def test_every_target_is_there_and_runs_as_a_number() -> None:
    assert RUN | {"demo", "models"} <= STAGES.keys()
    for name in RUN:
        assert STAGES[name].count("USER 10001:10001\n") == 1, name
    assert STAGES["demo"].strip() == "COPY models /models"
    assert 'ENTRYPOINT ["limner"]' in STAGES["runtime"]  # no shell


def test_packages_are_those_of_the_constraints() -> None:
    installs = [line for body in STAGES.values() for line in body.splitlines() if "pip --python" in line]
    assert len(installs) == len(RUN)
    assert all("-c constraints.txt" in line for line in installs)
    extras = re.findall(r"install -c constraints.txt \S*\.\[([^\]]+)\]", "\n".join(installs))
    assert extras == ["${EXTRAS}", "serve,gpu,tensorrt", "train,tensorboard,export,cpu"]
    assert "ARG EXTRAS=serve,cpu\n" in STAGES["packages-cpu"]


def test_what_is_copied_is_let_through_and_nothing_else() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in ignored if not line.startswith("#")]
    assert (rules[0], rules[-1]) == ("*", "**/__pycache__")
    let_through = {line[1:] for line in rules if line.startswith("!")}
    copied: set[str] = set()
    for body in STAGES.values():
        for words in [line.split()[1:-1] for line in body.splitlines() if line.startswith("COPY ")]:
            copied |= set() if words[0].startswith("--from") else set(words)
    assert {name.partition("/")[0] for name in let_through} == copied


def test_what_the_wheel_is_made_of_is_let_through() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(wheel["only-include"]) <= let_through


def test_what_image_test_said_is_of_this_version() -> None:
    said = (ROOT / "docs" / "image-test.txt").read_text()
    assert said.rstrip().endswith("== done")
    assert "FAILED" not in said
    assert "limner/server-cpu:" in said
