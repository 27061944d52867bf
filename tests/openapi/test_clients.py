"""Clients that are generated from clients/openapi.json compile without a warning, and fetch a picture."""

import base64
import os
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

HERE = Path(__file__).parent
SCHEMA = HERE.parents[1] / "clients" / "openapi.json"
ASKED = {"model": "digits", "label": "2", "seed": 7}


def run(*command: str | Path, cwd: Path, path: Path) -> str:
    """Its stdout. `path` goes before the others."""
    environment = os.environ | {"PATH": f"{path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def pictures(said: str) -> list[bytes]:
    return [base64.b64decode(line, validate=True) for line in said.split()]


@pytest.fixture
def expected(http: httpx.Client) -> bytes:
    response = http.get("/generate", params=ASKED)
    assert response.headers["Content-Type"] == "image/png"
    return response.content


@pytest.mark.slow
def test_a_python_client_fetches_a_picture(python_tools: Path, url: str, expected: bytes, tmp_path: Path) -> None:
    shutil.copy(HERE / "picture.py", tmp_path)
    generate = ("openapi-python-client", "generate", "--path", SCHEMA, "--output-path", "generated")
    run(
        python_tools / generate[0],
        *generate[1:],
        "--meta",
        "none",
        "--fail-on-warning",
        cwd=tmp_path,
        path=python_tools,
    )
    run(python_tools / "python", "-W", "error", "-m", "compileall", "-q", "generated", cwd=tmp_path, path=python_tools)
    said = run(python_tools / "python", "-B", "picture.py", url, cwd=tmp_path, path=python_tools)
    assert pictures(said) == [expected] * 2


@pytest.mark.slow
def test_a_typescript_client_compiles_strictly_and_fetches_a_picture(
    node_modules: Path, url: str, expected: bytes, tmp_path: Path
) -> None:
    for file in ("picture.ts", "package.json"):
        shutil.copy(HERE / file, tmp_path)
    (tmp_path / "node_modules").symlink_to(node_modules)
    tools = node_modules / ".bin"
    run(tools / "openapi-typescript", SCHEMA, "--output", "schema.ts", cwd=tmp_path, path=tools)
    strict = ("--strict", "--module", "nodenext", "--target", "es2022", "--types", "node")
    run(tools / "tsc", *strict, "picture.ts", "schema.ts", cwd=tmp_path, path=tools)
    assert pictures(run("node", "picture.js", url, cwd=tmp_path, path=tools)) == [expected] * 2
