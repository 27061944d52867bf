"""`limner evaluate` as a person runs it: on a run and on its bundle, with its report, and every refusal in one line."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from export.bundle import read

Evaluate = Callable[..., subprocess.CompletedProcess[str]]
FIGURES = ("fid", "kid", "precision", "recall", "density", "coverage", "sharpness_ratio", "copying", "copies")


@pytest.fixture
def evaluate(tmp_path: Path, environment: dict[str, str]) -> Evaluate:
    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "limner", "evaluate", *map(str, arguments)],
            cwd=tmp_path,
            env=environment | {"COLUMNS": "200", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )

    return run


def refused(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 1, result.stderr
    line = result.stderr.strip().splitlines()[-1]
    assert line.startswith("error: ")
    assert "Traceback" not in result.stderr
    return line


@pytest.fixture
def run(models: Path, tmp_path: Path) -> Path:
    """A copy of the run that the bundle `digits` is made of."""
    shutil.copytree(models.parent / "digits", tmp_path / "digits")
    return tmp_path / "digits"


def test_a_run_and_its_bundle_have_the_same_figures(evaluate: Evaluate, run: Path, models: Path) -> None:
    found = []
    for subject in (run, models / "digits", models / "digits" / "1"):
        result = evaluate(subject, "--samples", 60, "--repeats", 2, "--seed", 5, "--json")
        assert result.returncode == 0, result.stderr
        found.append(json.loads(result.stdout))
    ours, newest, version = found
    assert newest == version
    assert ours["title"] == "digits"
    assert newest["title"] == "digits@1"
    assert ours["protocol"] == newest["protocol"]
    manifest = read(models / "digits" / "1").manifest
    assert manifest.judge is not None
    assert ours["protocol"]["judge_sha256"] == manifest.judge.sha256
    assert set(FIGURES) <= ours["figures"].keys() == newest["figures"].keys()
    for name, figure in ours["figures"].items():
        assert newest["figures"][name]["value"] == pytest.approx(figure["value"], rel=0.05, abs=0.05)
        assert newest["figures"][name]["floor"] == figure["floor"]


def test_the_table_names_protocol_and_floor(evaluate: Evaluate, models: Path) -> None:
    result = evaluate(models / "plain", "--samples", 60, "--repeats", 1)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("plain@1: gan, data tinted, images 32x32x3")
    assert "domain FID" in result.stdout
    assert "real images" in result.stdout
    assert "60 pictures from seed 0 on, against 60 images of all splits" in result.stdout
    assert result.stderr.splitlines() == ["looking at real images", "drawing pictures", "measuring"]


def test_the_report_of_a_bundle_is_written_here_and_says_what_is_missing(
    evaluate: Evaluate, models: Path, tmp_path: Path
) -> None:
    result = evaluate(models / "digits", "--samples", 60, "--repeats", 1, "--html")
    assert result.returncode == 0, result.stderr
    said = "report: digits-1.html (without real images: Its images are not known here: name those of its training, "
    assert result.stderr.strip().splitlines()[-1] == f"{said}--data squares.)"
    page = (tmp_path / "digits-1.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "Its images are not known here: name those of its training, --data squares." in page
    assert sorted(path.name for path in (models / "digits" / "1").iterdir()) == [
        "judge.npz", "judge.onnx", "manifest.json", "model.onnx", "samples.png",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_run_finds_its_own_images(evaluate: Evaluate, tmp_path: Path, pictures: Path, environment: dict) -> None:
    """And its report is in the run; other images are refused, and a run that lost its own says so in the report."""
    trained = subprocess.run(
        [
            *(sys.executable, "-m", "limner", "train", "--model", "cvae", "--data", str(pictures), "--size", "28"),
            *("--out", "run", "--epochs", "1", "--set", "width=4", "--set", "latent=4"),
        ],
        cwd=tmp_path,
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert trained.returncode == 0, trained.stderr
    result = evaluate("run", "--samples", 60, "--repeats", 1, "--html")
    assert result.returncode == 0, result.stderr
    assert result.stderr.strip().splitlines()[-1] == "report: run/report.html"
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Real or fake?" in page
    assert "econstruct" in page

    assert "the images of mnist-5k, 5,000 of all, are not those" in refused(
        evaluate("run", "--samples", 60, "--repeats", 1, "--html", "--data", "mnist-5k")
    )
    assert "no data at 'nowhere'" in refused(evaluate("run", "--html", "--data", "nowhere"))
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(config | {"data": "lost"}))
    result = evaluate("run", "--samples", 60, "--repeats", 1, "-o", "page.html")
    assert result.returncode == 0, result.stderr
    page = (tmp_path / "page.html").read_text()
    assert "no data at &#39;lost&#39;" in page
    assert "Can you tell them apart?" not in page


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nowhere"], "no run or bundle at 'nowhere'. Train a run, or export one"),
        (["{run}", "-o", "missing/page.html"], "cannot write 'missing/page.html'. Name a file in a folder"),
        (["{run}", "-o", "."], "cannot write '.'"),
        (["{run}", "--data", "mnist-5k"], "--data is for a report or --inception. Add --html"),
        (["{models}"], "holds 2 models. Name one of digits, plain."),
        (["{models}/digits", "--engine", "tensorrt"], "digits@1 has no artifact for 'tensorrt'. There is onnxruntime"),
        (["{run}", "--engine", "onnxruntime"], "a run has no engines. Leave --engine out, or name a bundle."),
        (["{models}/digits", "--samples", "5"], "needs at least 6 pictures"),
        (["{models}/digits", "--inception", "net.onnx"], "Inception features need the real images"),
    ],
)  # fmt: skip
def test_what_cannot_be_evaluated_is_refused_in_one_line(
    evaluate: Evaluate, run: Path, models: Path, arguments: list[str], line: str
) -> None:
    given = [argument.format(models=models, run=run) for argument in arguments]
    assert line in refused(evaluate(*given))


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("judge.npz", "judge.npz, the features of the real images. Train again"),
        ("judge.pt", "no judge.pt in"),
        ("best.pt", "best.pt is damaged"),
    ],
)
def test_a_run_without_one_of_its_parts_says_which(evaluate: Evaluate, run: Path, name: str, line: str) -> None:
    (run / name).write_bytes(b"") if name == "best.pt" else (run / name).unlink()
    assert line in refused(evaluate(run))


def test_features_of_another_judge_are_refused(evaluate: Evaluate, run: Path, models: Path) -> None:
    shutil.copy(models.parent / "plain" / "judge.pt", run / "judge.pt")
    assert "the features of the real images are another judge's" in refused(evaluate(run))
