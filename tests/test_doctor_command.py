"""`limner doctor` says what runs here and why the rest does not, and exits with 1 where nothing runs."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import limner
from export import doctor
from export.doctor import Finding
from export.engines import ENGINES

ABSENT = {
    "tensorrt-rtx": ("tensorrt_rtx is not installed", "tensorrt-rtx"),
    "onnxruntime-cuda": ("onnxruntime is not installed", "gpu"),
    "openvino": ("openvino is not installed", "openvino"),
    "onnxruntime": ("onnxruntime is not installed", "cpu"),
}
FOUND = [
    Finding("tensorrt", False, builds=False, why="tensorrt is not installed", mend="Install it."),
    Finding("tensorrt-rtx", False, "1.7.1", builds=True, why="no driver [/red]", mend="Install one."),
    Finding("onnxruntime-cuda", False, why="its process ended with exit code 1", mend="Install it anew."),
    Finding("openvino", True, "2026.4.1", "cpu-x86_64-avx512f", ("fp32", "fp16", "bf16", "int8")),
    Finding("onnxruntime", True, "1.32.0", "cpu-x86_64-avx512f", ("fp32", "fp16", "int8")),
]


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "limner", "doctor", *arguments],
        cwd=folder,
        env=os.environ | {"HOME": str(folder), "COLUMNS": "80", "CUDA_VISIBLE_DEVICES": ""} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """`said(found, "--json", clash=...)`: exit code and stdout of the command where this is found."""

    def call(found: list[Finding], *arguments: str, clash: str | None = None) -> tuple[int, str]:
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.setattr(doctor, "examine", lambda: found)
        monkeypatch.setattr(doctor, "rivals", lambda: clash)
        monkeypatch.setattr(sys, "argv", ["limner", "doctor", *arguments])
        with pytest.raises(SystemExit) as stopped:
            limner.main()
        assert isinstance(stopped.value.code, int)
        return stopped.value.code, capsys.readouterr().out

    return call


def test_the_table_shows_what_runs_and_each_other_engine_has_its_line(said: Callable[..., tuple[int, str]]) -> None:
    code, text = said(FOUND)
    assert code == 0
    lines = [line.rstrip() for line in text.splitlines()]
    assert lines == [
        "engine            here    version        precisions           device",
        "tensorrt          no      not installed",
        "tensorrt-rtx      builds  1.7.1",
        "onnxruntime-cuda  no      not installed",
        "openvino          runs    2026.4.1       fp32 fp16 bf16 int8  cpu-x86_64-avx512f",
        "onnxruntime       runs    1.32.0         fp32 fp16 int8       cpu-x86_64-avx512f",
        "tensorrt: tensorrt is not installed. Install it.",
        "tensorrt-rtx: no driver [/red]. Install one.",
        "onnxruntime-cuda: its process ended with exit code 1. Install it anew.",
        "limner's own tests have not yet run tensorrt, tensorrt-rtx, onnxruntime-cuda on a GPU. "
        "The gates check their pictures.",
    ]


def test_distributions_that_overwrite_each_other_are_told_with_the_mend(said: Callable[..., tuple[int, str]]) -> None:
    code, text = said(FOUND, clash="onnxruntime, onnxruntime-gpu")
    assert code == 0
    assert text.splitlines()[-1] == (
        "Installed together, onnxruntime, onnxruntime-gpu overwrite each other's files. In limner's folder: "
        "pip uninstall onnxruntime onnxruntime-gpu, then pip install '.[cpu]', or '.[gpu]'."
    )


def test_json_holds_all_of_it(said: Callable[..., tuple[int, str]]) -> None:
    code, text = said(FOUND, "--json", clash="onnxruntime, onnxruntime-gpu")
    told = json.loads(text)
    assert (code, told["clash"]) == (0, "onnxruntime, onnxruntime-gpu")
    assert told["never_run_on_a_gpu"] == ["tensorrt", "tensorrt-rtx", "onnxruntime-cuda"]
    assert [Finding(**finding) for finding in told["engines"]] == FOUND


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_the_exit_code_is_1_where_nothing_runs(
    said: Callable[..., tuple[int, str]], arguments: tuple[str, ...]
) -> None:
    code, text = said(FOUND[:3], *arguments)
    assert code == 1
    assert "builds" in text


def test_this_machine_is_examined_from_any_folder(tmp_path: Path) -> None:
    for name in ("export.py", "json.py", "onnxruntime.py"):
        (tmp_path / name).write_text("raise SystemExit(3)")
    done = run(tmp_path, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert [finding["engine"] for finding in told["engines"]] == list(ENGINES)
    assert [finding["engine"] for finding in told["engines"] if finding["runs"]] == ["openvino", "onnxruntime"]


def test_where_no_extra_is_installed_each_engine_names_its_own(tmp_path: Path) -> None:
    missing = ["tensorrt", "tensorrt_rtx", "onnxruntime", "openvino", "onnx", "torch", "cuda"]
    (tmp_path / "sitecustomize.py").write_text(f"import sys; sys.modules.update(dict.fromkeys({missing}))")
    done = run(tmp_path, PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    for engine, (why, extra) in ABSENT.items():
        (line,) = [line for line in lines if line.startswith(f"{engine}:")]
        assert line.startswith(f"{engine}: {why}. In limner's folder: pip install ")
        assert f"'.[{extra}]'" in line
    (line,) = [line for line in lines if line.startswith("tensorrt:")]
    assert line.startswith(
        "tensorrt: TensorRT builds on the GPU that the plan is for, and no NVIDIA driver is installed."
    )
