"""Whatever the OpenAPI document allows or forbids, the server does as it says: thousands of requests are made up."""

import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FINDS = 300.0  # seconds at most; it takes three quarters of a minute


@pytest.mark.slow
def test_schemathesis_finds_nothing(
    python_tools: Path,
    models: Path,
    start_server: Callable[..., AbstractContextManager[str]],
    environment: dict[str, str],
    tmp_path: Path,
) -> None:
    """All of its checks and one more, in all of its phases: schemathesis.toml says how, hooks.py with which values."""
    with start_server(models, "--default-model", "digits") as url:
        command = [python_tools / "schemathesis", "--no-color", "--config-file", HERE / "schemathesis.toml"]
        settings = {"LIMNER_URL": url, "PYTHONPATH": str(HERE), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [*command, "run", f"{url}/openapi.json"],
            cwd=tmp_path,
            env=environment | settings,
            capture_output=True,
            text=True,
            check=False,
            timeout=FINDS,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    for phase in ("Examples", "Coverage", "Fuzzing"):
        assert f"✅ {phase}" in done.stdout, done.stdout
