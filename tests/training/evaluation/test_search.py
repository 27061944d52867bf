"""Every picture that can be compared is ranked once, the others are counted, and the sheet shows the order."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.errors import DataError, EvaluationError
from training.evaluation.search import draw, rank, ranking_sheet, read, read_pair
from training.evaluation.similarity import MEASURES, Measure, pixels

PSNR = MEASURES["psnr"]


def level(value: int, side: int = 16, channels: int = 1) -> np.ndarray:
    return np.full((side, side, channels), value, np.uint8)


def put(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Grey levels 10, 40, 90 and 40 again, in folders: by PSNR they rank by their distance from a query's level."""
    put(tmp_path / "set" / "ten.png", level(10))
    put(tmp_path / "set" / "b" / "forty.png", level(40))
    put(tmp_path / "set" / "b" / "deep" / "ninety.png", level(90))
    put(tmp_path / "set" / "a" / "forty.bmp", level(40))
    return tmp_path / "set"


def files(query: Path, folder: Path, measure: Measure = PSNR, size: int | None = None) -> list[str]:
    return [str(found.file) for found in rank(query, folder, measure, size).found]


# ranking


def test_the_nearest_comes_first_and_ties_go_by_name(tmp_path: Path, folder: Path) -> None:
    query = put(tmp_path / "query.png", level(35))
    assert files(query, folder) == ["a/forty.bmp", "b/forty.png", "ten.png", "b/deep/ninety.png"]
    darker = put(tmp_path / "query.png", level(20))
    assert files(darker, folder) == ["ten.png", "a/forty.bmp", "b/forty.png", "b/deep/ninety.png"]


def test_an_equal_picture_is_first_and_has_no_figure_in_db(tmp_path: Path, folder: Path) -> None:
    found = rank(put(tmp_path / "query.png", level(90)), folder, PSNR).found
    assert (str(found[0].file), found[0].value) == ("b/deep/ninety.png", None)
    assert found[1].value is not None


def test_a_measure_where_less_is_nearer_ranks_from_the_least(tmp_path: Path, folder: Path) -> None:
    found = rank(put(tmp_path / "query.png", level(40)), folder, MEASURES["colour"]).found
    assert [found_.value for found_ in found] == [0, 0, 1, 1]


def test_the_query_itself_and_what_is_named_are_not_ranked(folder: Path) -> None:
    assert "ten.png" not in files(folder / "ten.png", folder)
    assert "ten.png" not in files(folder / "b" / ".." / "ten.png", folder)
    assert files(folder / "b" / "forty.png", folder)[0] == "a/forty.bmp"  # a copy is found
    ranked = rank(folder / "ten.png", folder, PSNR, without=[folder / "a" / "forty.bmp"])
    assert len(ranked.found) == 2


def test_hidden_files_and_what_is_no_picture_do_not_count(tmp_path: Path, folder: Path) -> None:
    put(folder / ".thumbnails" / "x.png", level(40))
    put(folder / "._ten.png", level(40))
    (folder / "notes.txt").write_text("not a picture")
    ranked = rank(put(tmp_path / "query.png", level(35)), folder, PSNR)
    assert (len(ranked.found), ranked.left_out) == (4, {})


def test_what_cannot_be_compared_is_left_out_and_counted(tmp_path: Path, folder: Path) -> None:
    (folder / "broken.png").write_bytes((folder / "ten.png").read_bytes()[:50])
    (folder / "gone.png").symlink_to(tmp_path / "nowhere.png")
    put(folder / "large.png", level(40, side=32))
    put(folder / "tiny.png", level(40, side=4))
    query = put(tmp_path / "query.png", level(35))
    ranked = rank(query, folder, PSNR)
    assert len(ranked.found) == 4
    assert ranked.left_out == {"unreadable": 2, "under 11 px": 1, "of another size than 16x16": 1}
    sized = rank(query, folder, PSNR, size=28)
    assert len(sized.found) == 5
    assert sized.left_out == {"unreadable": 2, "under 8 px": 1}


def test_one_picture_in_colour_brings_all_to_colour(tmp_path: Path, folder: Path) -> None:
    query = put(tmp_path / "query.png", level(40))
    grey = rank(query, folder, MEASURES["colour"])
    coloured = put(folder / "z.png", np.stack([level(40), level(40), level(90)], axis=2)[..., 0])
    found = rank(query, folder, MEASURES["colour"]).found
    assert [entry.file for entry in found[:2]] == [entry.file for entry in grey.found[:2]]
    assert found[0].value == found[1].value == 0
    assert {str(entry.file): entry.value for entry in found}["z.png"] == 1
    assert len(rank(coloured, folder, MEASURES["colour"]).found) == 4


def test_the_query_is_described_once_however_many_there_are(tmp_path: Path) -> None:
    described: list[int] = []

    def describe(pictures: np.ndarray) -> np.ndarray:
        described.append(len(pictures))
        return pictures

    for index in range(300):
        put(tmp_path / "set" / f"{index}.png", level(index % 256))
    heard: list[float] = []
    counting = Measure("PSNR", "high", PSNR.range, "", "", describe, PSNR.between)
    ranked = rank(put(tmp_path / "query.png", level(0)), tmp_path / "set", counting, observe=heard.append)
    assert described[0] == 1
    assert sum(described) == 301
    assert len(ranked.found) == 300
    assert heard == sorted(heard)
    assert heard[-1] == 1


def test_a_figure_that_is_not_finite_is_an_error_and_no_rank(tmp_path: Path, folder: Path) -> None:
    broken = Measure("SSIM", "high", (-1, 1), "", "", pixels, lambda first, second: np.full(len(first), np.nan))
    with pytest.raises(EvaluationError, match="SSIM came out as nan"):
        rank(put(tmp_path / "query.png", level(3)), folder, broken)


# reading


def test_a_picture_keeps_its_own_size_unless_one_is_asked_for(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    file = put(tmp_path / "a.png", image)
    np.testing.assert_array_equal(read(file), image)
    np.testing.assert_array_equal(read(file, 20), image[:, 5:25])  # the middle square
    assert read(file, 28).shape == (28, 28, 3)


def test_a_picture_is_read_upright_on_white_and_grey_as_grey(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by 90 degrees
    Image.new("L", (30, 20)).save(tmp_path / "turned.jpg", exif=turned)
    assert read(tmp_path / "turned.jpg").shape == (30, 20, 1)
    Image.new("RGBA", (16, 16), (9, 9, 9, 0)).save(tmp_path / "clear.png")
    assert (read(tmp_path / "clear.png") == 255).all()


@pytest.mark.parametrize(
    ("name", "size", "what"),
    [
        ("absent.png", None, "there is no '.*absent.png'"),
        ("notes.txt", None, "notes.txt' is no picture that can be read"),
        ("notes.txt", 28, "notes.txt' is no picture that can be read"),
        ("tiny.png", None, "tiny.png' is under 11 px. .*--size"),
        ("tinier.png", 28, "tinier.png' is under 8 px. Give a larger one"),
        ("huge.png", None, "huge.png' is over 17 million px. .*--size"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_the_mend(
    tmp_path: Path, name: str, size: int | None, what: str
) -> None:
    (tmp_path / "notes.txt").write_text("not a picture")
    put(tmp_path / "tiny.png", level(0, side=10))
    put(tmp_path / "tinier.png", level(0, side=7))
    if name == "huge.png":
        Image.new("1", (4100, 4100)).save(tmp_path / name)
    with pytest.raises(DataError, match=what):
        read(tmp_path / name, size)


def test_a_pair_of_two_sizes_is_refused_with_a_size_that_both_have(tmp_path: Path) -> None:
    wide = put(tmp_path / "wide.png", np.zeros((40, 60, 3), np.uint8))
    small = put(tmp_path / "small.png", level(0, side=32))
    with pytest.raises(DataError, match=r"wide.png' is 60x40 and '.*small.png' 32x32\. .*--size 32\."):
        read_pair(wide, small)
    assert [picture.shape for picture in read_pair(wide, small, 32)] == [(32, 32, 3), (32, 32, 1)]


# nothing to rank


def test_a_folder_without_pictures_is_refused(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty' holds no picture to compare with\. At least one is needed"):
        rank(folder / "ten.png", tmp_path / "empty", PSNR)
    query = put(tmp_path / "alone" / "query.png", level(3))
    with pytest.raises(DataError, match="holds no picture to compare with"):
        rank(query, tmp_path / "alone", PSNR)


def test_a_folder_of_other_sizes_is_refused_with_the_sizes_there_are(tmp_path: Path, folder: Path) -> None:
    put(folder / "other.png", level(3, side=20))
    (folder / "broken.png").write_bytes(b"")
    query = put(tmp_path / "query.png", level(3, side=64))
    with pytest.raises(DataError) as caught:
        rank(query, folder, PSNR)
    assert str(caught.value) == (
        f"none of the 6 pictures in '{folder}' is 64x64 as the query is: 4 are 16x16, 1 is 20x20, 1 unreadable. "
        "Bring all to one size: --size 16."
    )


def test_many_sizes_are_not_all_listed(tmp_path: Path) -> None:
    for side in range(20, 30):
        put(tmp_path / "set" / f"{side}.png", level(3, side=side))
    query = put(tmp_path / "query.png", level(3, side=64))
    with pytest.raises(DataError, match="1 is 20x20, 1 is 21x21, 1 is 22x22, 7 of other sizes"):
        rank(query, tmp_path / "set", PSNR)


def test_a_folder_of_broken_files_says_so(tmp_path: Path) -> None:
    query = put(tmp_path / "query.png", level(3))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "broken.png").write_bytes(b"PNG")
    with pytest.raises(DataError, match=r"none of the 1 pictures in '.*' can be used: 1 unreadable"):
        rank(query, tmp_path / "set", PSNR)


# the sheet


def found(count: int, side: int, name: str = "{}.png") -> list[tuple[str, str, np.ndarray]]:
    return [("0.500", name.format(index), level(100 + index, side)) for index in range(count)]


def squares(sheet: Image.Image, drawn: int, colour: int) -> int:
    """How many pixels show that level of grey: the pictures of it, enlarged."""
    return int((np.asarray(sheet) == colour).all(axis=2).sum()) // drawn**2


@pytest.mark.parametrize(("side", "drawn"), [(11, 121), (28, 112), (64, 128), (112, 112), (200, 200), (224, 224)])
def test_small_pictures_are_enlarged_by_whole_factors(side: int, drawn: int) -> None:
    sheet = ranking_sheet(("query.png", level(60, side)), found(8, side), "title", "note")
    assert squares(sheet, drawn, 60) == 1
    assert all(squares(sheet, drawn, 100 + index) == 1 for index in range(8))


def test_large_pictures_are_shrunk_and_keep_their_proportions() -> None:
    wide = np.full((300, 600, 3), 60, np.uint8)
    sheet = ranking_sheet(("query.png", wide), [("1", "a.png", wide)], "title", "note")
    dark = (np.asarray(sheet) == 60).all(axis=2)
    assert dark.any(axis=1).sum() == 2 * 112
    assert dark[16].sum() == 224


def test_pictures_lie_in_the_order_of_their_rank() -> None:
    sheet = np.asarray(ranking_sheet(("query.png", level(60, 28)), found(8, 28), "title", "note"))
    rows, columns = [128 + 32 + 4, 128 + 32 + 112 + 60], range(20, 700, 128)
    shown = [sheet[row, column, 0] for row in rows for column in columns]
    assert shown[:8] == [*range(100, 108)]  # six in a row
    assert shown[8:] == [255] * 4


def test_names_however_long_do_not_widen_the_sheet() -> None:
    short = ranking_sheet(("q.png", level(60, 28)), found(7, 28), "title", "note")
    long = ranking_sheet(("q" * 500, level(60, 28)), found(7, 28, "f" * 90 + "/" + "n" * 90 + "{}.png"), "t" * 400, "n")
    assert short.size == long.size
    gap = np.asarray(long)[170:, 16 + 113 : 16 + 127]  # between the first two columns, without their frames
    assert (gap == 255).all()


def test_the_sheet_of_a_ranking_shows_the_nearest(tmp_path: Path, folder: Path) -> None:
    query = put(tmp_path / "query.png", level(35))
    sheet = draw(query, folder, rank(query, folder, PSNR), PSNR, top=3)
    assert [squares(sheet, 112, value) for value in (35, 40, 10, 90)] == [1, 2, 1, 0]
