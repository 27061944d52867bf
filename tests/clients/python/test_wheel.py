"""The wheel of clients/python is enough: alone in an environment of its own, it fetches a picture."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CLIENT = Path(__file__).parents[3] / "clients" / "python"
CODE = """
import importlib.metadata, sys
from limner_client import Client, MissingExtra

with Client(sys.argv[1]) as client:
    client.wait_until_ready()
    answer = client.generate(label="2", seed=7, model="digits")
    answer.save("two.png")
    client.download("many.npy", n=1200, model="digits")
    try:
        answer.image()
    except MissingExtra as error:
        print(error)
print(sorted(distribution.name.lower() for distribution in importlib.metadata.distributions()))
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_wheel_installs_alone_and_fetches_a_picture(tmp_path: Path, url: str) -> None:
    def run(*command: str | Path) -> str:
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", tmp_path, CLIENT)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert "limner_client/py.typed" in archive.namelist()
        assert {name.partition("/")[0].partition("-")[0] for name in archive.namelist()} == {"limner_client"}
    run(sys.executable, "-m", "venv", "fresh")
    python = tmp_path / "fresh" / "bin" / "python"
    run(python, "-m", "pip", "install", "--disable-pip-version-check", wheel)
    missing, installed = run(python, "-I", "-c", CODE, url).splitlines()
    assert missing == ".image() needs pillow: pip install pillow"
    assert "limner-client" in installed
    assert not any(f"'{name}'" in installed for name in ("limner", "numpy", "pillow", "pydantic"))
    assert (tmp_path / "two.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "many.npy").read_bytes().startswith(b"\x93NUMPY")
