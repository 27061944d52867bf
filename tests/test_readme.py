"""The README's commands and code run as they stand there, in their order, in one empty folder."""

import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
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
def test_every_command_and_example_runs(tmp_path: Path) -> None:
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
            if language == "python":
                subprocess.run([sys.executable, "-c", here], cwd=tmp_path, env=environment, check=True, timeout=60)
                ran.append("python")
                continue
            for command in commands(here):
                if command.startswith(EXEMPT):
                    continue
                assert command.startswith(("limner ", "curl ")), f"an untested line in the README: {command}"
                if command.startswith("limner serve"):
                    servers.enter_context(serving(command, tmp_path, environment))
                else:
                    subprocess.run(["bash", "-ec", command], cwd=tmp_path, env=environment, check=True, timeout=200)
                ran.append(command.split()[0])
    assert {"limner", "curl", "python"} <= set(ran)
    assert (tmp_path / "three.png").read_bytes().startswith(b"\x89PNG")


def test_every_link_to_a_file_leads_somewhere() -> None:
    root = Path(__file__).parents[1]
    for target in re.findall(r"\]\(([^)#]+)\)|src=\"([^\"]+)\"", README):
        place = target[0] or target[1]
        assert place.startswith("http") or (root / place).exists(), place
