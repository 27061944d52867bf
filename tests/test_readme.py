"""The README's commands and code run as they stand there, in their order, in one empty folder."""

import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(bash|python|js)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXEMPT = ("make demo", "make test", "make image", "kubectl")


def commands(block: str) -> list[str]:
    """The lines of a block that a person types, continuation lines joined, comments dropped."""
    joined = block.replace("\\\n", " ")
    lines = (line.partition("  #")[0].strip() for line in joined.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


@contextmanager
def serving(command: str, folder: Path, environment: dict[str, str]) -> Iterator[None]:
    """`limner serve` in the background until the block ends."""
    arguments = [sys.executable, "-m", *shlex.split(command)]
    process = subprocess.Popen(arguments, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert "serves on" in line, line
        yield
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.mark.slow
def test_every_command_and_example_runs(tmp_path: Path, program: Callable[..., Path]) -> None:
    node = program("node", "Debian's package nodejs")
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "limner-client").symlink_to(ROOT / "clients" / "js")  # as npm installs a folder
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    bin_folder = Path(sys.executable).parent
    path = f"{bin_folder}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "HOME": str(tmp_path), "LIMNER_PORT": port, "PATH": path}
    environment["LIMNER_URL"] = f"http://127.0.0.1:{port}"
    ran = []
    with ExitStack() as servers:
        for language, block in BLOCK.findall(README):
            here = block.replace("8000", port)
            if language in ("python", "js"):
                (tmp_path / "example.py").write_text(here)
                (tmp_path / "example.mjs").write_text(here)
                run = [sys.executable, "example.py"] if language == "python" else [node, "example.mjs"]
                subprocess.run(run, cwd=tmp_path, env=environment, check=True, timeout=60)
                ran.append(language)
                continue
            for command in commands(here):
                if command.startswith(EXEMPT):
                    continue
                assert command.startswith(("limner ", "curl ", "printf ")), f"an untested line in the README: {command}"
                if command.startswith("limner serve"):
                    servers.enter_context(serving(command, tmp_path, environment))
                else:
                    subprocess.run(["bash", "-ec", command], cwd=tmp_path, env=environment, check=True, timeout=200)
                ran.append(command.split()[0])
    assert {"limner", "curl", "python", "js"} <= set(ran)
    for file in ("three.png", "three-7.png", "three-8.png"):
        assert (tmp_path / file).read_bytes().startswith(b"\x89PNG")


def test_every_link_to_a_file_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)|src(?:set)?=\"([^\"]+)\"", README):
        place = target[0] or target[1]
        assert place.startswith("http") or (ROOT / place).exists(), place
