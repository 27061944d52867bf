"""The client's README runs as it stands there, example after example, against a real server."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

README = (Path(__file__).parents[3] / "clients" / "python" / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def one_model(start_server: Callable[..., AbstractContextManager[str]], models: Path) -> Iterator[str]:
    with start_server(models / "digits") as url:
        yield url


def test_every_example_runs(one_model: str, tmp_path: Path) -> None:
    assert len(EXAMPLES) >= 6
    said = ""
    for example in EXAMPLES:
        code = example.replace("http://127.0.0.1:8000", one_model)
        ran = subprocess.run(
            [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert ran.returncode == 0, f"{example}\n{ran.stderr}"
        said += ran.stdout
    assert "(16, 28, 28, 1)" in said
    assert "5000 of 5000" in said
    assert "label=cat is not allowed" in said
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"sheet.png", "many.npy", *(f"{seed}.png" for seed in range(8))}
