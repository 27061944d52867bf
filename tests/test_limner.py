"""The command line, run as a person runs it: a real process, its exit code, its one line."""

import importlib.metadata
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from PIL import Image

from limner.demo import COLUMNS, SCALE

COMMANDS = ("train", "evaluate", "compare", "export", "inspect", "serve", "generate", "demo", "doctor")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The working and the home folder of every command here."""
    return tmp_path


def run(home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LIMNER_")}
    return subprocess.run(
        [sys.executable, "-m", "limner", *arguments],
        cwd=home,
        env=clean | {"HOME": str(home), "COLUMNS": "200", "CUDA_VISIBLE_DEVICES": ""} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def refused(result: subprocess.CompletedProcess[str]) -> str:
    """The one line of a failed command."""
    assert result.returncode == 1, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    if "serve" in result.args:  # its stderr is a log
        said = json.loads(lines[0])
        assert (said["event"], said["level"]) == ("cannot serve", "critical")
        return f"{said['error']}. {said['mend']}"
    assert lines[0].startswith("error: ")
    return lines[0]


# what it says


def test_version_is_the_installed_one(home: Path) -> None:
    assert run(home, "--version").stdout == f"limner {importlib.metadata.version('limner')}\n"


def test_help_names_every_command_and_says_what_each_does(home: Path) -> None:
    text = run(home, "--help").stdout
    for command in COMMANDS:
        assert command in text
        assert run(home, command, "--help").returncode == 0


def test_an_unknown_option_is_the_parsers_business(home: Path) -> None:
    assert run(home, "train", "--nonsense").returncode == 2
    assert run(home, "train", "--epochs", "many").returncode == 2


# what it refuses, in one line with the mend


@pytest.mark.parametrize(
    ("arguments", "what", "mend"),
    [
        (["train", "--data", "nowhere"], "no data at 'nowhere'", "mnist-5k"),
        (["train", "--data", "mnist5k"], "no data at 'mnist5k'", "Did you mean mnist-5k?"),
        (["train", "--model", "diffusion"], "model=diffusion", "--help"),
        (["train", "--seconds", "0"], "seconds=0", "--help"),
        (["train", "--seconds", "5", "--epochs", "5"], "not both", "--help"),
        (["train", "--size", "30"], "size=30", "--help"),
        (["train", "--config", "absent.yaml"], "absent.yaml", "--config"),
        (["train", "--data", "x" * 300], "x" * 300, "another place"),
        (["export", "nowhere"], "no run or bundle at 'nowhere'", "Train a run"),
        (["export", "."], "no run or bundle at '.'", "Train a run"),
        (["export", ".", "--to", "paper"], "no target 'paper'", "onnx, openvino, tensorrt, tensorrt-rtx"),
        (["export", ".", "--precision", "fp8"], "no precision 'fp8'", "fp32, fp16, bf16, int8"),
        (["export", ".", "--triton", "python"], "no config.pbtxt for 'python'", "onnxruntime or tensorrt"),
        (["export", ".", "--to", "openvino", "--version-compatible"], "--to tensorrt", "Leave them out"),
        (["export", ".", "--to", "tensorrt", "--compute-capability", "8.9"], "--to tensorrt-rtx", "Leave it out"),
        (["serve", "--engine", "bf16"], "take auto or one of tensorrt, tensorrt-rtx", "engine=bf16"),
        (["inspect", "nowhere"], "no bundle at 'nowhere'", "limner export"),
        (["serve", "--models", "."], "holds no bundle", "limner export"),
        (["serve", "--models", "nowhere"], "is no folder", "limner export"),
        (["serve", "--port", "70000"], "port=70000", "--help"),
        (["generate", "-o", "grid.tiff"], "grid.tiff", ".png"),
        (["generate", "-o", "grid.png", "--url", "http://127.0.0.1:9"], "no limner server", "limner serve"),
    ],
)
def test_bad_input_gets_one_line_with_the_mend(home: Path, arguments: list[str], what: str, mend: str) -> None:
    line = refused(run(home, *arguments))
    assert what in line
    assert mend in line


def test_a_name_with_brackets_is_shown_as_it_is(home: Path, models: Path) -> None:
    result = run(home, "generate", "--models", str(models / "plain"), "-o", "a[old].png")
    assert result.stdout.startswith("a[old].png: 1 of plain@1")
    assert "'runs/[old]'" in refused(run(home, "export", "runs/[old]"))


def test_a_run_folder_that_was_never_filled_is_named_and_kept(home: Path) -> None:
    (home / "runs" / "demo" / "samples").mkdir(parents=True)
    result = run(home, "demo", "--once")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        "error: runs/demo holds files that are no run. Choose another --out, or remove it."
    )


def test_a_playground_that_is_not_there_is_refused_at_the_start(home: Path, models: Path) -> None:
    assert "LIMNER_PLAYGROUND" in refused(run(home, "serve", "--models", str(models), LIMNER_PLAYGROUND="nowhere"))


@pytest.mark.parametrize(
    ("package", "arguments", "extra"),
    [
        ("torch", ["train", "--data", "pictures"], "train"),
        ("mlxtend", ["train"], "train"),
        ("onnx", ["export", "run"], "export"),
        ("onnxruntime", ["export", "run"], "cpu"),
        ("onnxruntime", ["serve", "--models", "models"], "cpu"),
        ("fastapi", ["serve", "--models", "models"], "serve"),
        ("fastapi", ["generate", "--models", "models", "-o", "a.png"], "serve"),
    ],
)
def test_a_package_that_is_not_installed_is_named_with_its_extra(
    home: Path, pictures: Path, models: Path, package: str, arguments: list[str], extra: str
) -> None:
    places = {"pictures": pictures, "run": models.parent / "digits", "models": models / "digits"}
    arguments = [str(places.get(argument, argument)) for argument in arguments]
    code = f"import sys; sys.modules['{package}'] = None; import limner; limner.main()"
    environment = {**os.environ, "HOME": str(home)}
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    line = refused(result)
    assert f"{package} is not installed" in line
    assert f"'.[{extra}]'" in line


def test_debug_shows_the_traceback(home: Path) -> None:
    result = run(home, "--debug", "inspect", "nowhere")
    assert result.returncode == 1
    assert "Traceback" in result.stderr


def test_a_run_is_not_overwritten_unasked_and_bad_data_never_costs_it(home: Path, pictures: Path) -> None:
    train = ["train", "--model", "gan", "--data", str(pictures), "--epochs", "1", "--out", "run"]
    assert run(home, *train).returncode == 0
    before = (home / "run" / "checkpoint.pt").read_bytes()
    assert "--overwrite" in refused(run(home, *train))
    refused(run(home, "train", "--data", "nowhere", "--out", "run", "--overwrite"))
    assert (home / "run" / "checkpoint.pt").read_bytes() == before
    (home / "mine").mkdir()
    (home / "mine" / "thesis.tex").write_text("years of work")
    assert "no run" in refused(run(home, *train[:-1], "mine", "--overwrite"))
    assert (home / "mine" / "thesis.tex").read_text() == "years of work"


# settings


def test_dry_run_prints_the_resolved_settings_as_yaml(home: Path) -> None:
    (home / "my.yaml").write_text("batch: 32\nseconds: 5\n")
    result = run(home, "train", "--config", "my.yaml", "--model", "vae", "--dry-run", LIMNER_TRAIN_SEED="3")
    settings = yaml.safe_load(result.stdout)
    assert (settings["model"], settings["batch"], settings["seconds"], settings["seed"]) == ("vae", 32, 5, 3)
    assert not (home / "runs").exists()


def test_an_unknown_setting_in_a_file_is_named(home: Path) -> None:
    (home / "my.yaml").write_text("bacth: 32\n")
    assert "bacth" in refused(run(home, "train", "--config", "my.yaml"))


# Ctrl-C


@pytest.mark.slow
def test_ctrl_c_saves_a_checkpoint_that_can_be_exported_and_gone_on_with(home: Path, pictures: Path) -> None:
    command = ["train", "--model", "gan", "--data", str(pictures), "--seconds", "200", "--out", "run"]
    process = subprocess.Popen(
        [sys.executable, "-m", "limner", *command],
        cwd=home,
        env={**os.environ, "HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    metrics = home / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.is_file() and metrics.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "checkpoint is saved" in stderr
    assert "limner train --resume --out run" in stderr
    assert "Traceback" not in stderr
    exported = run(home, "export", "run")
    assert exported.returncode == 0, exported.stderr
    resumed = run(home, "train", "--resume", "--out", "run", "--override", "--seconds", "0.01")  # which are over
    assert resumed.returncode == 0, resumed.stderr
    assert "run had its whole budget already" in resumed.stderr
    assert "is finished" in run(home, "train", "--resume", "--out", "run").stdout


# the demo


def finished_run(home: Path, pictures: Path) -> None:
    """A finished runs/demo that took no minute."""
    arguments = ["train", "--data", str(pictures), "--size", "28", "--epochs", "1", "--out", "runs/demo"]
    assert run(home, *arguments).returncode == 0


def test_demo_reuses_a_finished_run_and_its_bundle(home: Path, pictures: Path) -> None:
    finished_run(home, pictures)
    first = run(home, "demo", "--once")
    assert first.returncode == 0, first.stderr
    assert "trained already" in first.stdout
    drawn = (home / "demo.png").read_bytes()
    second = run(home, "demo", "--once")
    assert second.returncode == 0, second.stderr
    assert (home / "demo.png").read_bytes() == drawn
    assert [path.name for path in (home / "models" / "digits").iterdir() if path.is_dir()] == ["1"]


def test_demo_serves_on_the_next_free_port_and_says_where(home: Path, pictures: Path) -> None:
    finished_run(home, pictures)
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        process = subprocess.Popen(
            [sys.executable, "-m", "limner", "demo"],
            cwd=home,
            env={**os.environ, "HOME": str(home), "LIMNER_PORT": str(port), "PYTHONUNBUFFERED": "1", "DISPLAY": ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(7)]
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
    text = "".join(said)
    url = text.partition("serves on ")[2].split()[0]
    assert int(url.rpartition(":")[2]) > port
    assert f"curl -fsS -X POST '{url}/generate?label=" in text
    assert f"playground: {url}/" in text


@pytest.mark.slow
def test_an_unfinished_demo_is_trained_anew_and_says_so(home: Path, pictures: Path) -> None:
    finished_run(home, pictures)
    metrics = home / "runs" / "demo" / "metrics.jsonl"
    metrics.write_text("\n".join(metrics.read_text().splitlines()[:-1]) + "\n")
    result = run(home, "demo", "--once", LIMNER_DEMO_SECONDS="1")
    assert result.returncode == 0, result.stderr
    assert "runs/demo is unfinished: training anew" in result.stdout
    assert "mnist-5k: 5000 images" in result.stdout


@pytest.mark.slow
def test_the_demo_draws_digits_that_the_judge_recognises(home: Path) -> None:
    result = run(home, "demo", "--once")
    assert result.returncode == 0, result.stderr
    manifest = yaml.safe_load(run(home, "inspect", "models/digits", "--json").stdout)
    assert manifest["quality"]["agreement"] >= 0.9
    assert manifest["quality"]["within_class_variance_ratio"] >= 0.5
    with Image.open(home / "demo.png") as picture:
        assert picture.width > 28 * COLUMNS * SCALE  # labels at the left
        assert picture.height == 10 * 28 * SCALE


# bundles in this process


def test_generate_writes_what_a_bundle_draws_without_a_server(home: Path, models: Path) -> None:
    ask = ["generate", "--models", str(models), "--model", "digits", "--label", "0", "-n", "4", "--seed", "7"]
    for name in ("grid.png", "again.png", "grid.npy", "grid.json"):
        result = run(home, *ask, "-o", name)
        assert result.returncode == 0, result.stderr
        assert "4 of digits@1, seed 7" in result.stdout
    assert (home / "grid.png").read_bytes() == (home / "again.png").read_bytes()
    assert (home / "grid.npy").read_bytes().startswith(b"\x93NUMPY")
    line = refused(run(home, *ask[:6], "cat", "-o", "cat.png"))
    assert "Allowed: " in line
    assert "limner serve" not in line  # the server answered: starting one is no mend
    assert not (home / "cat.png").exists()


def test_inspect_shows_a_bundle_as_table_and_as_json(home: Path, models: Path) -> None:
    table = run(home, "inspect", str(models / "digits")).stdout
    for fact in ("digits@1", "cgan", "28x28x1", "onnxruntime:fp32", "batch sizes", "1, 2 ... "):
        assert fact in table
    assert "Name one of digits, plain" in refused(run(home, "inspect", str(models)))
    manifest = yaml.safe_load(run(home, "inspect", str(models / "digits" / "1"), "--json").stdout)
    assert manifest["schema"] == 2
    assert manifest["artifacts"][0]["file"] == "model.onnx"
