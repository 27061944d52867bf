"""`limner export`, `inspect`, `serve --engine` as a person runs them: a real process, its tables, its one line."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

from export.engines import obstacle


@pytest.fixture
def bundle(models: Path, tmp_path: Path) -> Path:
    """A copy of `digits`, to be extended."""
    shutil.copytree(models / "digits", tmp_path / "models" / "digits")
    return tmp_path / "models" / "digits"


def manifest(bundle: Path) -> dict[str, Any]:
    return json.loads((bundle / "1" / "manifest.json").read_text())


def run(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LIMNER_")}
    return subprocess.run(
        [sys.executable, "-m", "limner", *arguments],
        cwd=home,
        env=clean | {"HOME": str(home), "COLUMNS": "120", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def test_a_run_becomes_a_bundle_for_every_engine_in_one_call(models: Path, tmp_path: Path) -> None:
    """The sentence that people know limner by, where there is no GPU."""
    targets = ["--to", "onnx", "--to", "openvino", "--to", "tensorrt-rtx", "--precision", "fp16", "--name", "small"]
    done = run(tmp_path, "export", str(models.parent / "digits"), *targets)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("models/small/1: cgan, 28x28x1, 3 classes\n")
    table = [line.split() for line in done.stdout.splitlines()[1:]]
    assert table[0] == ["artifact", "difference", "FID", "change", "batch", "sizes", "file"]
    assert [row[0] for row in table[1:5]] == [
        "onnxruntime:fp32",
        "onnxruntime:fp16",
        "openvino:fp16",
        "tensorrt-rtx:fp16",
    ]
    assert table[4][1:4] == ["not", "run", "here"]
    assert "Where it runs: limner export models/small/1 --to tensorrt-rtx --precision fp16" in done.stdout
    manifest = json.loads((tmp_path / "models/small/1/manifest.json").read_text())
    assert all(("gates" in artifact) != ("not_run" in artifact) for artifact in manifest["artifacts"])
    assert 'name: "small"' in (tmp_path / "models/small/config.pbtxt").read_text()
    runs = obstacle("openvino", "fp16") is None  # not on a CPU without the instructions
    for stage in ("onnxruntime:fp16: drift", "building tensorrt-rtx:fp16", *["openvino:fp16: drift"][:runs]):
        assert stage in done.stderr.splitlines()

    shown = run(tmp_path, "inspect", "models/small").stdout
    assert "openvino:fp16" in shown
    assert "tensorrt-rtx:fp16: no NVIDIA driver is installed. " in shown
    assert "plan for 8.6, 8.9, 12.0" in shown


def test_a_bundle_is_extended_without_its_run_and_served_by_what_was_added(
    bundle: Path, tmp_path: Path, start_server: Callable[..., AbstractContextManager[str]]
) -> None:
    done = run(tmp_path, "export", "models/digits", "--to", "openvino")
    assert done.returncode == 0, done.stderr
    references = [artifact["gates"]["parity"]["reference"] for artifact in manifest(bundle)["artifacts"]]
    assert references[0] == "torch"
    assert references[1].startswith("onnxruntime-fp32-")
    again = run(tmp_path, "export", "models/digits", "--to", "openvino")
    assert again.stdout.splitlines()[1] == "openvino:fp32 is there already"
    for engine in ("auto", "openvino:fp32", "onnxruntime"):
        with start_server(bundle, "--engine", engine) as url:
            (version,) = httpx.get(f"{url}/models/digits").json()["versions"]
            assert version["artifact"].startswith("onnxruntime-" if engine == "onnxruntime" else "openvino-fp32-")
            assert httpx.post(f"{url}/generate?label=2&seed=1").headers["content-type"] == "image/png"


def test_what_a_gate_refuses_is_a_table_and_one_line_and_force_is_shown(bundle: Path, tmp_path: Path) -> None:
    """A graph of 8 bits, of a barely trained model, whose gates were narrowed: what must be seen is the refusal."""
    narrow = "import export.gates as g; g.REDUCED = g.Limits(0, 1e-9, 0, 99.0); import limner; limner.main()"
    arguments = ["export", "models/digits", "--precision", "int8"]

    def narrowed(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", narrow, *arguments, *more],
            cwd=tmp_path, env=os.environ | {"COLUMNS": "120"}, capture_output=True, text=True, check=False, timeout=240,
        )  # fmt: skip

    before = sorted(path.name for path in (bundle / "1").iterdir())
    done = narrowed()
    assert done.returncode == 1
    *_, head, first, second, third, line = done.stderr.splitlines()
    assert head.split() == ["artifact", "gate", "found", "allowed"]
    assert {row.split()[0] for row in (first, second, third)} == {"onnxruntime:int8"}
    assert "PSNR" in third
    assert line.startswith("error: onnxruntime:int8 failed parity: nothing was added. Leave it out")
    assert sorted(path.name for path in (bundle / "1").iterdir()) == before

    done = narrowed("--force")
    assert done.returncode == 0, done.stderr
    assert "onnxruntime:int8: forced past parity" in done.stdout
    assert "onnxruntime:int8: forced past parity" in run(tmp_path, "inspect", "models/digits").stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--to", "tensorrt"], "TensorRT|tensorrt"),
        (["--to", "tensorrt-rtx", "--compute-capability", "9.0"], r"does not build for compute capability 9\.0"),
        (["--name", "other"], "--name and --models say where a run's bundle goes, and this is a bundle"),
        (["--triton", "tensorrt"], r"digits@1 has none\. Add --to tensorrt"),
    ],
)
def test_what_cannot_be_made_here_is_one_line(
    bundle: Path, tmp_path: Path, arguments: list[str], complaint: str
) -> None:
    done = run(tmp_path, "export", "models/digits", *arguments)
    assert done.returncode == 1
    *_, line = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert re.search(complaint, line)


def test_a_precision_that_a_target_has_not_is_said_and_fp32_taken(bundle: Path, tmp_path: Path) -> None:
    done = run(tmp_path, "export", "models/digits", "--to", "onnx", "--precision", "bf16")
    assert done.returncode == 0
    assert done.stderr.splitlines()[0] == "onnx has no bf16: fp32 instead"
    assert "onnxruntime:fp32 is there already" in done.stdout
