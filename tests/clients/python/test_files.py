"""A file is there whole or not at all."""

import os
from pathlib import Path

import pytest
from limner_client.files import WholeFile, write


def test_it_appears_with_publish_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    with WholeFile(path) as file:
        file.write(b"one")
        assert not path.exists()
        file.write(b"two")
        assert file.publish() == path
    assert path.read_bytes() == b"onetwo"
    assert os.listdir(tmp_path) == ["a.png"]


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_of_a_failure_and_what_was_there_stays(tmp_path: Path, failure: type[BaseException]) -> None:
    path = write(tmp_path / "a.png", b"old")

    def half() -> None:
        with WholeFile(path) as file:
            file.write(b"new")
            raise failure

    with pytest.raises(failure):
        half()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.png"]


def test_it_has_the_rights_of_any_other_new_file(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"")
    assert write(tmp_path / "a.png", b"x").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "a.png").symlink_to(tmp_path / "kept" / "real.png")
    write(tmp_path / "a.png", b"x")
    assert (tmp_path / "a.png").is_symlink()
    assert (tmp_path / "kept" / "real.png").read_bytes() == b"x"


@pytest.mark.parametrize("place", ["missing/a.png", ".", "file/a.png", "n" * 300])
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError) as refused:  # noqa: PT011
        write(tmp_path / place, b"x")
    assert refused.value.filename == str(tmp_path / place)
    assert refused.value.strerror
