"""`limner compare` as a person runs it: its table, its ranking with a sheet, its one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import limner


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working folder: pictures of a square that moves, alone, in a folder, in another size, and no pictures."""
    home = tmp_path_factory.mktemp("compare")
    (home / "squares" / "deeper").mkdir(parents=True)
    for index in range(12):
        place = "squares/deeper" if index > 9 else "squares"
        save(home / place / f"{index:02}.png", square(2 * index))
    save(home / "query.png", square(7))
    save(home / "large.png", square(7).repeat(2, axis=0).repeat(2, axis=1))
    save(home / "colour.png", np.stack([square(7), square(9), square(7)], axis=2))
    (home / "empty").mkdir()
    (home / "mixed").mkdir()
    save(home / "mixed" / "good.png", square(5))
    save(home / "mixed" / "large.png", square(5).repeat(2, axis=0).repeat(2, axis=1))
    (home / "mixed" / "[broken].png").write_bytes(b"\x89PNG")
    (home / "notes.txt").write_text("not a picture")
    return home


def square(left: int) -> np.ndarray:
    image = np.full((28, 28), 20, np.uint8)
    image[10:18, left : left + 8] = 230
    return image


def save(path: Path, image: np.ndarray) -> None:
    Image.fromarray(image).save(path)


def run(home: Path, *arguments: str, code: str = "import limner; limner.main()") -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LIMNER_")}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=home,
        env=clean | {"HOME": str(home), "COLUMNS": "80", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_two_pictures_are_a_table_of_measures_that_fits_80_columns(home: Path) -> None:
    result = run(home, "compare", "query.png", "squares/03.png")
    assert result.returncode == 0, result.stderr
    rows = result.stdout.splitlines()
    assert len(rows) == 8
    assert max(map(len, rows)) <= 80
    assert rows[0].split() == ["measure", "value", "range", "looks", "at"]
    for row, title in zip(rows[1:], ("SSIM", "MS-SSIM", "PSNR", "colour", "texture", "edges", "shape"), strict=True):
        assert row.split()[0] == title
        assert "er is nearer" in row
    assert "dB" in rows[3]


def test_a_picture_and_itself_are_equal(home: Path) -> None:
    assert "equal" in run(home, "compare", "query.png", "query.png").stdout
    found = json.loads(run(home, "compare", "query.png", "query.png", "--json").stdout)["measures"]
    assert found["psnr"] is None
    assert (found["colour"], found["edges"], found["shape"]) == (0, 1, 1)


def test_pictures_of_two_sizes_are_compared_at_one_that_is_asked_for(home: Path) -> None:
    found = json.loads(run(home, "compare", "query.png", "large.png", "--size", "28", "--json").stdout)
    assert found["size"] == 28
    assert found["measures"]["shape"] > 0.95


def test_a_folder_is_ranked_with_a_sheet(home: Path) -> None:
    result = run(home, "compare", "query.png", "squares", "--by", "psnr", "--top", "11")
    assert result.returncode == 0, result.stderr
    rows = result.stdout.splitlines()
    assert rows[0].split() == ["PSNR", "picture"]
    assert [row.split()[-1] for row in rows[1:3]] == ["03.png", "04.png"]  # as far, so by name
    assert len(rows) == 12  # a head, ten of them, a line about the sheet
    assert rows[-1].startswith("compare.png: the nearest 11 of 12, PSNR")
    with Image.open(home / "compare.png") as sheet:
        assert sheet.format == "PNG"
        assert sheet.width > 6 * 112


def test_the_sheet_is_not_ranked_the_next_time(home: Path) -> None:
    asked = ["compare", "query.png", "squares", "--size", "28", "--json", "-o", "squares/sheet.png"]
    first, second = (json.loads(run(home, *asked).stdout) for _ in range(2))
    (home / "squares" / "sheet.png").unlink()
    assert first == second
    assert first["compared"] == 12


def test_json_holds_the_ranking_and_what_was_left_out(home: Path) -> None:
    result = run(home, "compare", "query.png", "mixed", "--json", "-o", "sheet.png")
    found = json.loads(result.stdout)
    assert result.stderr == ""
    assert [Path(entry["file"]).name for entry in found["nearest"]] == ["good.png"]
    assert found["left_out"] == {"unreadable": 1, "of another size than 28x28": 1}
    assert (found["by"], found["sheet"], found["compared"]) == ("shape", "sheet.png", 1)


def test_what_is_left_out_is_said_in_one_line(home: Path) -> None:
    result = run(home, "compare", "query.png", "mixed")
    assert result.returncode == 0, result.stderr
    assert result.stderr.splitlines() == [
        "left out: 1 unreadable, 1 of another size than 28x28 (--size N brings all to one size)"
    ]


@pytest.mark.parametrize(
    ("arguments", "what", "mend"),
    [
        (["absent.png", "query.png"], "there is no 'absent.png'", "Give a picture"),
        (["query.png", "absent.png"], "there is no 'absent.png'", "or a folder"),
        (["notes.txt", "query.png"], "'notes.txt' is no picture", "PNG, JPEG"),
        (["query.png", "notes.txt"], "'notes.txt' is no picture", "PNG, JPEG"),
        (["mixed/[broken].png", "squares"], "'mixed/[broken].png' is no picture", "PNG, JPEG"),
        (["query.png", "large.png"], "'query.png' is 28x28 and 'large.png' 56x56", "--size 28"),
        (["query.png", "empty"], "'empty' holds no picture", "At least one is needed"),
        (["large.png", "squares"], "none of the 12 pictures in 'squares' is 56x56", "--size 28"),
        (["squares", "query.png"], "'squares' is a folder", "limner compare query.png squares"),
        (["squares", "mixed"], "'squares' is a folder", "Name one picture"),
        (["query.png", "query.png", "--size", "9"], "--size 9", "11 to 2048"),
        (["query.png", "squares", "--top", "0"], "--top 0", "1 to 1000"),
        (["query.png", "squares", "--by", "smell"], "no measure 'smell'", "ms_ssim"),
        (["query.png", "squares", "--by", "judge"], "needs a judge", "--judge"),
        (["query.png", "squares", "--judge", "nowhere"], "nowhere", "limner"),
        (["query.png", "squares", "-o", "sheet.jpg"], "cannot write 'sheet.jpg'", ".png"),
        (["query.png", "squares", "-o", "absent/sheet.png"], "no folder 'absent'", "Make it"),
        (["query.png", "squares", "-o", "query.png"], "would replace 'query.png'", "--output"),
        (["query.png", "large.png", "--by", "ssim"], "'large.png' is no folder", "Leave it out"),
    ],
)
def test_bad_input_gets_one_line_with_the_mend(
    home: Path,
    arguments: list[str],
    what: str,
    mend: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setattr(sys, "argv", ["limner", "compare", *arguments])
    with pytest.raises(SystemExit) as stopped:  # in this process: each of its own would take half a second
        limner.main()
    said = capsys.readouterr()
    assert stopped.value.code == 1
    assert said.out == ""
    lines = said.err.strip().splitlines()
    assert len(lines) == 1, said.err
    assert lines[0].startswith("error: ")
    assert what in lines[0]
    assert mend in lines[0]


def test_bad_input_of_a_process_of_its_own_is_one_line_too(home: Path) -> None:
    result = run(home, "compare", "query.png", "large.png")
    assert result.returncode == 1
    assert result.stderr.startswith("error: 'query.png' is 28x28 and 'large.png' 56x56.")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("asked", [["query.png"], ["squares", "--by", "texture"]])
def test_without_scikit_image_the_extra_is_named(home: Path, asked: list[str]) -> None:
    code = "import sys; sys.modules['skimage.feature'] = None; import limner; limner.main()"
    result = run(home, "compare", "query.png", *asked, code=code)
    assert result.returncode == 1
    assert result.stderr == "error: skimage is not installed. In limner's folder: pip install '.[evaluate]'.\n"


def test_a_judge_ranks_what_it_was_trained_on_and_refuses_other_sizes(home: Path, models: Path) -> None:
    bundle = str(models / "digits")
    pair = json.loads(run(home, "compare", "query.png", "squares/03.png", "--judge", bundle, "--json").stdout)
    assert 0 <= pair["measures"]["judge"] <= 1
    ranking = json.loads(run(home, "compare", "query.png", "squares", "--judge", bundle, "--json").stdout)
    assert ranking["by"] == "judge"
    assert ranking["compared"] == 12
    for asked in (["large.png", "large.png"], ["query.png", "squares", "--size", "32"], ["colour.png", "query.png"]):
        refused = run(home, "compare", *asked, "--judge", bundle)
        assert refused.returncode == 1
        assert refused.stderr.startswith("error: the judge looks at pictures of 28x28x1, these are of ")
        assert "--size" in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
