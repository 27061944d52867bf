"""The same arrays give the same file, and what is no such file is refused without running anything in it."""

import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from training import arrays

SOME = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array("text"), "c": np.zeros(0, np.int64)}


@pytest.mark.parametrize("compressed", [False, True])
def test_arrays_come_back_as_they_were(tmp_path: Path, compressed: bool) -> None:
    arrays.save(tmp_path / "a.npz", SOME, compressed)
    found = arrays.load(tmp_path / "a.npz")
    assert list(found) == list(SOME)
    for name, array in SOME.items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name], array)
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        assert {info.compress_type for info in archive.infolist()} == {8 if compressed else 0}


def test_the_same_arrays_give_the_same_bytes_at_any_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays.save(tmp_path / "one", SOME)
    later = time.localtime(time.time() + 86_400)
    monkeypatch.setattr(time, "localtime", lambda *_: later)
    arrays.save(tmp_path / "other", SOME)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_what_is_no_such_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("text")
    np.savez(tmp_path / "pickled.npz", found=np.array([{}], object))
    for name in ("text.npz", "pickled.npz", "missing.npz"):
        with pytest.raises(ValueError, match=rf"{name} cannot be read"):
            arrays.load(tmp_path / name)
