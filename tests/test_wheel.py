"""The wheel holds what the checkout runs: who installs limner has its packages, its page and the page's client."""

import subprocess
import sys
import zipfile
from pathlib import Path

from server.settings import CHECKOUT_OR_SITE, JS_CLIENT, Settings

ROOT = Path(__file__).parents[1]


def test_the_wheel_has_every_package_and_all_that_the_playground_loads(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", tmp_path]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    [wheel] = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    served = [JS_CLIENT, *Settings().playground.iterdir()]
    assert {file.relative_to(CHECKOUT_OR_SITE).as_posix() for file in served} <= held
    assert {"limner/__init__.py", "limner_client/__init__.py", "limner_client/py.typed", "server/app.py"} <= held
    assert not [name for name in held if "node_modules" in name or name.startswith("tests/")]
