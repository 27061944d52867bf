"""One answer as bytes, Pillow's images and NumPy's arrays: the same pixels, whatever the format."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from limner_client import Answer, Client, Format, MissingExtra

FORMATS: tuple[Format, ...] = ("png", "webp", "json", "npy", "zip")  # of which every pixel is kept


@pytest.mark.parametrize("model", ["digits", "plain"])
@pytest.mark.parametrize("n", [1, 3])
def test_every_format_holds_the_same_pictures(url: str, model: str, n: int) -> None:
    seed = 2**63 - 2
    with Client(url) as client:
        answers = [client.generate(n=n, seed=seed, model=model, format=format) for format in FORMATS]
        coarse = client.generate(n=n, seed=seed, model=model, format="jpeg", quality=95)
    expected = answers[FORMATS.index("npy")].array()
    assert expected.shape == (n, *((28, 28, 1) if model == "digits" else (32, 32, 3)))
    for answer in answers:
        made = answer.array()[..., :1] if model == "digits" else answer.array()  # a webp knows no grey
        assert np.array_equal(made, expected), answer.format
        assert [np.asarray(image).shape[:2] for image in answer.images()] == [expected.shape[1:3]] * n
        assert (answer.seed, answer.n) == (seed, n)
    assert coarse.array().shape == expected.shape
    assert np.abs(coarse.array().astype(int) - expected).mean() < 20


def test_a_scaled_sheet_is_cut_into_scaled_pictures(url: str) -> None:
    with Client(url) as client:
        images = client.generate(n=5, seed=1, model="plain", scale=2).images()
        alone = client.generate(seed=5, model="plain", scale=2).image()
    assert [image.size for image in images] == [(64, 64)] * 5
    assert np.array_equal(np.asarray(images[4]), np.asarray(alone))


def test_image_is_the_one_picture_or_the_sheet(url: str) -> None:
    with Client(url) as client:
        sheet = client.generate(n=5, seed=1, model="plain").image()
        assert sheet.size == (3 * 32, 2 * 32)
        one = client.generate(n=1, seed=1, model="plain", format="zip").image()
        assert one.size == (32, 32)
        assert np.array_equal(np.asarray(one), np.asarray(sheet)[:32, :32])
        with pytest.raises(ValueError, match=r"holds 5 pictures: take images\(\)"):
            client.generate(n=5, model="plain", format="npy").image()


@pytest.mark.parametrize("format", ["json", "zip"])
def test_entries_say_seed_class_and_file_of_each(url: str, format: Format) -> None:
    with Client(url) as client:
        entries = client.generate(n=12, seed=2**63 - 1, model="digits", format=format).entries()
        alone = client.generate(seed=0, model="digits")
        unlabelled = client.generate(n=2, model="plain", format=format).entries()
    assert [entry.seed for entry in entries] == [2**63 - 1, *range(11)]
    assert entries[1].png == alone.content
    assert entries[1].label == alone.label
    assert {entry.class_name for entry in entries} <= {"0", "2", "1"}
    assert [(entry.label, entry.class_name) for entry in unlabelled] == [(None, None)] * 2
    with pytest.raises(ValueError, match="ask for json or zip"):
        alone.entries()


@pytest.mark.parametrize(
    ("module", "call", "extra"),
    [("PIL", "image", "pillow"), ("PIL", "images", "pillow"), ("numpy", "array", "numpy")],
)
def test_what_is_not_installed_is_named_in_one_line(
    url: str, module: str, call: str, extra: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with Client(url) as client:
        answer: Any = client.generate(model="plain")
    names = [name for name in sys.modules if name.partition(".")[0] == module]
    for name in names:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra) as missing:
        getattr(answer, call)()
    assert str(missing.value) == f".{call}() needs {extra}: pip install {extra}"
    assert isinstance(missing.value, ImportError)
    assert answer.save(tmp_path / "a.png").read_bytes() == answer.content  # which needs neither


def test_an_answer_is_shown_without_its_bytes() -> None:
    answer = Answer(content=b"x" * 1000, format="png", n=1, seed=1, model="m@1", label=None)
    assert len(repr(answer)) < 200
    assert json.dumps(answer.seed) in repr(answer)
