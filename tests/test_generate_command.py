"""`limner generate` against a real server: many pictures, lists, and folders that are gone on with."""

import io
import json
import random
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
from rich.console import Console

import limner
from limner.counting import Counting
from limner.picture_folder import PictureFolder
from limner.picture_list import Wanted
from training.errors import ConfigError

Run = Callable[..., "Ran"]


@dataclass(frozen=True)
class Ran:
    """What a command came to."""

    code: int
    stdout: str
    stderr: str

    def done(self) -> str:
        assert self.code == 0, self.stderr
        return self.stdout

    def refused(self) -> str:
        """The one line of a failed command."""
        assert self.code == 1, self.stderr
        lines = self.stderr.strip().splitlines()
        assert len(lines) == 1, self.stderr
        return lines[0]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the command runs."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(home: Path, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line in this process: that a process of its own behaves so, `test_limner.py` and Ctrl-C show."""

    def ran(*arguments: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["limner", "generate", "--url", url, "--model", "digits", *arguments])
        with pytest.raises(SystemExit) as ended:
            limner.main()
        said = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Ran(ended.value.code, said.out, said.err)

    return ran


def asked(url: str, **parameters: str | int) -> bytes:
    return httpx.get(f"{url}/generate", params={"model": "digits", **parameters}).content


def write_list(home: Path, wanted: list[tuple[str, int]]) -> None:
    (home / "list.csv").write_text("label,seed\n" + "".join(f"{label},{seed}\n" for label, seed in wanted))


# a folder


def test_a_folder_has_a_file_for_each_picture_as_if_it_was_asked_for_alone(home: Path, url: str, run: Run) -> None:
    said = run("--label", "2", "-n", "70", "--seed", "5", "-o", "twos/").done()
    assert said == "twos: 70 of digits@1\n"
    files = {path.name: path.read_bytes() for path in (home / "twos").glob("*.png")}
    assert set(files) == {f"{seed}-1.png" for seed in range(5, 75)}  # the class named 2 has index 1
    for seed in (5, 40, 74):
        assert files[f"{seed}-1.png"] == asked(url, label=2, seed=seed)
    assert {path.name for path in (home / "twos").iterdir()} == {*files, "limner.json"}
    assert json.loads((home / "twos" / "limner.json").read_text())["model"] == "digits"


def test_what_is_there_is_not_made_again_and_what_is_half_there_is(home: Path, url: str, run: Run) -> None:
    folder = home / "all"
    ask = ["-n", "8", "--seed", "5", "--format", "webp", "--quality", "60", "--scale", "2", "-o", "all"]
    folder.mkdir()  # is a folder also without the slash
    run(*ask).done()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert before["7.webp"] == asked(url, seed=7, format="webp", quality=60, scale=2)
    kept = {path: path.stat().st_mtime_ns for path in folder.iterdir() if path.name not in ("7.webp", "9.webp")}
    (folder / "7.webp").write_bytes(before["7.webp"][:-20])
    (folder / "9.webp").unlink()
    assert run(*ask).done() == "all: 8 of digits@1, 6 were there\n"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_a_seed_that_was_drawn_is_found_again(home: Path, url: str, run: Run) -> None:
    run("-n", "3", "-o", "drawn/").done()
    first = sorted(path.name for path in (home / "drawn").iterdir())
    assert run("-n", "4", "-o", "drawn/").done() == "drawn: 4 of digits@1, 3 were there\n"
    second = sorted(path.name for path in (home / "drawn").iterdir())
    assert set(first) < set(second)
    assert len(second) == 5


def test_pictures_of_another_kind_are_not_mixed_with_those_of_a_folder(home: Path, url: str, run: Run) -> None:
    run("-n", "1", "--seed", "1", "-o", "mine/").done()
    for flags, said in (
        (["--scale", "3"], "scale=none, not 3"),
        (["--truncation", "0.5"], "truncation=none, not 0.5"),
        (["--format", "npy"], "format=png, not npy"),
        (["--model", "plain"], "model=digits, not plain"),
        ([], "Name it: --seed"),
    ):
        line = run("-n", "1", *(["--seed", "1"] if flags else []), *flags, "-o", "mine/").refused()
        assert said in line
        assert "Name another folder" in line or not flags
    (home / "other").mkdir()
    (home / "other" / "1.png").write_bytes(b"a holiday")
    assert "other/1.png is there" in run("--seed", "1", "-o", "other/").refused()
    assert (home / "other" / "1.png").read_bytes() == b"a holiday"


def test_a_damaged_limner_json_is_named(tmp_path: Path) -> None:
    folder = PictureFolder(tmp_path, "png", {"model": "digits"})
    for content in ("{", "[1]"):
        (tmp_path / "limner.json").write_text(content)
        with pytest.raises(ConfigError, match=r"limner\.json is no JSON"):
            folder.claim([])
    assert folder.file(Wanted("x", 7), 3) == tmp_path / "7-3.png"


# lists


def test_a_list_goes_into_a_folder_a_zip_and_an_npy_in_its_order(home: Path, url: str, run: Run) -> None:
    wanted = [("1", 70), ("0", 6), ("0", 7), ("", 8), ("2", 9), ("1", 70)]
    write_list(home, wanted)
    assert run("--from-file", "list.csv", "-o", "made/").done() == "made: 6 of digits@1\n"
    names = ["70-2.png", "6-0.png", "7-0.png", "8.png", "9-1.png"]
    assert {path.name for path in (home / "made").glob("*.png")} == set(names)
    run("--from-file", "list.csv", "-o", "made.zip").done()
    run("--from-file", "list.csv", "-o", "made.npy").done()
    with zipfile.ZipFile(home / "made.zip") as archive:
        entries = json.loads(archive.read("index.json"))["images"]
        assert [int(entry["seed"]) for entry in entries] == [seed for _, seed in wanted]
        pictures = [archive.read(entry["file"]) for entry in entries]
    assert pictures == [(home / "made" / name).read_bytes() for name in [*names, names[0]]]
    stack = np.load(home / "made.npy")
    assert stack.shape == (6, 28, 28, 1)
    alone = np.load(io.BytesIO(asked(url, label="0", seed=7, format="npy")))
    assert np.array_equal(stack[2:3], alone)
    assert np.array_equal(stack[0], stack[5])
    assert {path.name for path in home.iterdir()} == {"list.csv", "made", "made.zip", "made.npy"}


def test_a_zip_and_an_npy_of_a_list_are_the_servers_own(home: Path, url: str, run: Run) -> None:
    (home / "list.jsonl").write_text("".join(f'{{"label": "2", "seed": "{seed}"}}\n' for seed in range(3, 8)))
    run("--from-file", "list.jsonl", "-o", "list.zip", "--truncation", "0.7").done()
    run("--from-file", "list.jsonl", "-o", "list.npy", "--truncation", "0.7").done()
    whose = {"label": 2, "n": 5, "seed": 3, "truncation": "0.7"}
    assert (home / "list.npy").read_bytes() == asked(url, format="npy", **whose)
    theirs = zipfile.ZipFile(io.BytesIO(asked(url, format="zip", **whose)))
    with zipfile.ZipFile(home / "list.zip") as mine:
        assert mine.namelist() == theirs.namelist()
        assert all(mine.read(name) == theirs.read(name) for name in mine.namelist() if name != "index.json")
        assert json.loads(mine.read("index.json")) == json.loads(theirs.read("index.json"))


# what it refuses, before anything is made


@pytest.mark.parametrize(
    ("rows", "flags", "what"),
    [
        ("label,seed\n1,1\ncat,2\n", ["-o", "x/"], "list.csv, line 3: label=cat is not allowed. Allowed: a class name"),
        ("label,seed\n1,one\n", ["-o", "x/"], "list.csv, line 2: seed="),
        ("seed\n1\n", ["-o", "x.png"], "cannot write a list into 'x.png'"),
        ("seed\n1\n", ["-o", "x/", "--seed", "1"], "Leave --label, -n and --seed out"),
        ("seed\n1\n", ["-o", "x/", "--truncation", "9"], "truncation=9"),
        ("seed\n1\n", ["-o", "x/", "--quality", "9"], "png has no quality"),
        ("seed\n1\n", ["-o", "x/", "--format", "zip"], "no folder of 'zip'"),
        ("seed\n1\n", ["-o", "x/", "--priority", "high"], "normal or low"),
        ("seed\n1\n", ["-o", "x/", "--timeout", "3600"], "timeout_ms"),
        ("seed\n1\n", ["-o", "x.zip", "--scale", "17"], "scale=17"),
        ("seed\n1\n", ["-o", "nowhere/x.zip"], "no folder 'nowhere'"),
        ("seed\n1\n", ["-o", "list.csv/"], "list.csv"),
    ],
)
def test_a_list_that_cannot_be_made_is_refused_in_one_line(
    home: Path, run: Run, rows: str, flags: list[str], what: str
) -> None:
    (home / "list.csv").write_text(rows)
    assert what in run("--from-file", "list.csv", *flags).refused()
    assert [path.name for path in home.iterdir()] == ["list.csv"]


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        (["--label", "cat", "-o", "x/"], "label=cat is not allowed. Allowed"),
        (["--seed", "-1", "-o", "x/"], "seed=-1"),
        (["-n", "100001", "-o", "x.npy"], "n=100001"),
        (["--format", "webp", "-o", "x.png"], "--format is that of a folder's files"),
        (["--from-file", "nowhere.csv", "-o", "x/"], "nowhere.csv"),
        (["-o", "x"], "Name a folder/"),
        (["--url", "http://127.0.0.1:9", "-n", "5", "-o", "x/"], "limner serve"),
        (["--url", "localhost:8000", "-o", "x/"], "http://HOST:PORT"),
    ],
)
def test_a_request_that_cannot_be_made_is_refused_too(home: Path, run: Run, flags: list[str], what: str) -> None:
    assert what in run(*flags).refused()
    assert list(home.iterdir()) == []


# progress and Ctrl-C


def test_ctrl_c_leaves_whole_files_and_the_same_command_goes_on(home: Path, url: str, run: Run) -> None:
    seeds = random.Random(1).sample(range(2**40), 400)
    write_list(home, [("1", seed) for seed in seeds])
    arguments = [sys.executable, "-m", "limner", "generate", "--url", url, "--model", "digits", "--concurrency", "1"]
    arguments += ["--from-file", "list.csv", "-o", "made/"]
    process = subprocess.Popen(
        arguments,
        cwd=home,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
    )
    until = time.monotonic() + 60
    while len(list((home / "made").glob("*.png"))) < 5 and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    made = {path.name: path.read_bytes() for path in (home / "made").glob("*.png")}
    assert 5 <= len(made) < 400
    line = f"stopped: {len(made)} of 400 pictures are in made. The same command goes on."
    assert line in stderr
    assert "Traceback" not in stderr
    assert {path.suffix for path in (home / "made").iterdir()} == {".png", ".json"}  # and no part of a file
    said = run("--from-file", "list.csv", "-o", "made/").done()
    assert said == f"made: 400 of digits@1, {len(made)} were there\n"
    files = {path.name: path.read_bytes() for path in (home / "made").glob("*.png")}
    assert len(files) == 400
    assert made.items() <= files.items()
    assert files[f"{seeds[-1]}-2.png"] == asked(url, label=1, seed=seeds[-1])


def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere() -> None:
    for terminal in (True, False):
        console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
        with Counting(console, "many/", 2000) as counting:
            for number in range(0, 2001, 500):
                counting.count(number)
            counting.count(2000)
        text = console.file.getvalue()  # type: ignore[attr-defined]
        assert "2,000 of 2,000" in text
        assert ("100 %" in text) == terminal
        assert terminal or text.count("\n") == 1  # a line each ten seconds, and the last one once


def test_large_answers_say_how_far_they_are(home: Path, url: str, run: Run) -> None:
    result = run("-n", "1500", "--seed", "1", "-o", "many.npy")
    assert result.done() == "many.npy: 1500 of digits@1, seed 1\n"
    assert "many.npy: 1,500 of 1,500" in result.stderr
    assert np.load(home / "many.npy").shape == (1500, 28, 28, 1)
