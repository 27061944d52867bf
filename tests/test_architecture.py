"""The import rules hold, and the linter that says so would notice if they did not."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ("training", "export", "server", "clients", "pyproject.toml")


def lint(tree: Path) -> subprocess.CompletedProcess[str]:
    linter = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    path = {"PYTHONPATH": f"{tree}:{tree / 'clients' / 'python'}", "PATH": "/usr/bin:/bin", "HOME": str(tree)}
    command = [sys.executable, "-c", linter, "--no-cache"]
    return subprocess.run(command, cwd=tree, env=path, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the packages alone, to plant faults in."""
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
        else:
            shutil.copy(source, tmp_path / part)
    return tmp_path


def test_the_import_rules_hold(tree: Path) -> None:
    result = lint(tree)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("place", "line", "rule"),
    [
        ("server/images.py", "import torch", "what serves never reaches torch"),
        ("server/images.py", "import training.loop", "what serves never reaches torch"),
        ("export/bundle.py", "import skimage", "what serves never reaches torch"),
        ("export/extend.py", "import training.sampling", "who has a bundle needs no torch"),
        ("export/gates.py", "import onnx", "what evaluates a bundle needs no onnx"),
        ("export/triton.py", "import torch", "who has a bundle needs no torch"),
        (
            "training/evaluation/metrics.py",
            "import training.judge",
            "who has a bundle needs no torch",
        ),
        ("server/images.py", "import export.to_onnx", "nothing that serves reaches what exports"),
        ("export/bundle.py", "import server.app", "server > export > training"),
        ("training/data.py", "import export.bundle", "server > export > training"),
        ("clients/python/limner_client/client.py", "import training.errors", "the client stands alone"),
    ],
)
def test_the_linter_refuses_a_planted_import(tree: Path, place: str, line: str, rule: str) -> None:
    file = tree / place
    file.write_text((file.read_text() if file.exists() else "") + f"\n{line}\n")
    result = lint(tree)
    assert result.returncode == 1, result.stdout
    assert f"{rule} BROKEN" in result.stdout


COMMANDS = ("train", "evaluate", "compare", "export", "inspect", "serve", "generate", "demo", "doctor")


@pytest.mark.parametrize("command", [[], ["--help"], *([command, "--help"] for command in COMMANDS)])
def test_help_loads_no_heavy_package(command: list[str]) -> None:
    code = (
        "import sys, limner\n"
        "try: limner.main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'fastapi', 'numpy', 'scipy', 'mlxtend'} & set(sys.modules)\n"
        "print('heavy:', sorted(heavy))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, *command], capture_output=True, text=True, check=True, timeout=60
    )
    assert "heavy: []" in result.stdout
    assert "Usage" in result.stdout
