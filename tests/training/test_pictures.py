"""Each image of a sheet lies where its number says."""

from pathlib import Path

import numpy as np
import pytest

from training.pictures import labelled_rows, picture, sheet


def plain(*levels: int, side: int = 4, channels: int = 1) -> np.ndarray:
    return np.stack([np.full((side, side, channels), level, np.uint8) for level in levels])


@pytest.mark.parametrize(
    ("count", "columns", "layout"),
    [
        (1, None, [[1]]),
        (4, None, [[1, 2], [3, 4]]),
        (5, None, [[1, 2, 3], [4, 5, 0]]),
        (3, 3, [[1, 2, 3]]),
        (3, 2, [[1, 2], [3, 0]]),
        (3, 1, [[1], [2], [3]]),
    ],
)
def test_a_sheet_is_filled_row_by_row(count: int, columns: int | None, layout: list[list[int]]) -> None:
    images = np.zeros((count, 2, 3, 3), np.uint8) + np.arange(1, count + 1, dtype=np.uint8)[:, None, None, None]
    images[:, 1] += 100  # the lower half of each image, which must stay below
    expected = np.kron(np.array(layout, np.uint8), np.ones((2, 3), np.uint8))
    expected[1::2] += np.where(expected[1::2] > 0, 100, 0).astype(np.uint8)
    assert np.array_equal(sheet(images, columns), np.repeat(expected[:, :, None], 3, axis=2))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_is_enlarged_by_whole_pixels(channels: int) -> None:
    image = np.arange(4 * channels, dtype=np.uint8).reshape(2, 2, channels)
    drawn = np.asarray(picture(image, 3)).reshape(6, 6, channels)
    assert np.array_equal(drawn, image.repeat(3, axis=0).repeat(3, axis=1))


def test_labelled_rows_stand_beside_their_names() -> None:
    canvas = np.asarray(labelled_rows([("ankle boot", plain(10, 20, side=20)), ("bag", plain(30, side=20))], scale=2))
    left = canvas.shape[1] - 2 * 2 * 20
    assert canvas.shape == (2 * 2 * 20, left + 80, 3)
    pictures = canvas[:, left:]
    assert [int(pictures[y, x, 0]) for y, x in ((0, 0), (39, 39), (0, 40), (40, 0), (79, 39))] == [10, 10, 20, 30, 30]
    assert (pictures[40:, 40:] == 255).all()  # a shorter row leaves paper
    names = canvas[:, :left]
    assert names[:40].min() < 100  # ink in both
    assert names[40:].min() < 100
    assert (names[:, :1] == 255).all()  # and none cut off at the edge


def test_rows_without_names_leave_no_margin() -> None:
    assert labelled_rows([("", plain(1, 2)), ("", plain(3, 4))]).size == (8, 8)


def test_a_row_without_images_is_black() -> None:
    rows = [("", plain(1, 2)), ("", plain(9)[:0])]
    canvas = np.asarray(labelled_rows(rows))
    assert canvas.shape == (8, 8, 3)
    assert (canvas[4:, :4] == 0).all()


def test_a_colour_sheet_is_saved_and_read_back(tmp_path: Path) -> None:
    from PIL import Image

    images = np.random.default_rng(0).integers(0, 256, (4, 5, 5, 3), dtype=np.uint8)
    picture(sheet(images)).save(tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as saved:
        assert np.array_equal(np.asarray(saved)[5:, 5:], images[3])
