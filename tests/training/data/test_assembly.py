"""A set is the same in memory and in a mapped file, and a file half written is never taken for whole."""

import multiprocessing
import multiprocessing.context
import multiprocessing.synchronize
import os
import resource
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from training import data
from training.data import Dataset, Images, assembly, load, mapped
from training.errors import DataError


def parts(dataset: Dataset) -> tuple[Images, Images, Images]:
    return dataset.train, dataset.val, dataset.test


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two classes of 30, one broken file, one repeated picture."""
    noise = np.random.Generator(np.random.Philox(key=3))
    folder = tmp_path / "pictures"
    for index in range(60):
        place = folder / "ab"[index % 2] / f"{index}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (32, 32, 3), np.uint8)).save(place)
    (folder / "a" / "broken.png").write_bytes(b"")
    (folder / "b" / "again.png").write_bytes((folder / "a" / "0.png").read_bytes())
    return folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, and sets over 20,000 bytes are large."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(assembly, "MAPPED_OVER", 20_000)
    return tmp_path / "home" / ".cache" / "limner" / "data"


def same(one: Dataset, other: Dataset) -> bool:
    alike = [
        np.array_equal(a.images, b.images) and np.array_equal(a.labels, b.labels)  # type: ignore[arg-type]
        for a, b in zip(parts(one), parts(other), strict=True)
    ]
    return all(alike) and (one.class_names, one.note) == (other.class_names, other.note)


def test_a_mapped_set_is_the_set_in_memory(pictures: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, found = load(str(pictures)), load(str(pictures))
    assert len(list(home.glob("*.npy"))) == 1
    monkeypatch.setattr(assembly, "MAPPED_OVER", 10**9)
    in_memory = load(str(pictures))
    assert same(made, in_memory)
    assert same(found, in_memory)
    assert in_memory.note == "skipped 2 of 62 images: 1 unreadable, 1 repeated"


@pytest.mark.parametrize("large", [True, False])
def test_train_val_and_test_are_views_of_one_array(
    pictures: Path, home: Path, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    monkeypatch.setattr(assembly, "MAPPED_OVER", 20_000 if large else 10**9)
    dataset = load(str(pictures))
    starts = [part.images.__array_interface__["data"][0] for part in parts(dataset)]
    sizes = [part.images.nbytes for part in parts(dataset)]
    assert starts == [starts[0], starts[0] + sizes[0], starts[0] + sizes[0] + sizes[1]]
    assert home.exists() == large


def test_torch_takes_a_mapped_set_without_a_warning_and_writes_do_not_reach_the_file(
    pictures: Path, home: Path
) -> None:
    dataset = load(str(pictures))
    before = dataset.train.images.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tensor = torch.from_numpy(dataset.train.images)
        torch.from_numpy(dataset.train.labels)
    tensor.zero_()
    assert np.array_equal(load(str(pictures)).train.images, before)


def test_the_next_run_decodes_nothing(pictures: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(str(pictures))
    monkeypatch.setattr(assembly, "decode", lambda *_: pytest.fail("decoded again"))
    load(str(pictures))


def test_what_determines_the_set_determines_the_file(pictures: Path, home: Path) -> None:
    load(str(pictures))
    load(str(pictures), size=28)
    load(str(pictures), limit=40)
    (pictures / "a" / "2.png").unlink()
    assert "of 61 images" in load(str(pictures)).note
    assert len(list(home.glob("*.npy"))) == 4


def test_a_mapping_larger_than_the_memory_is_no_allocation(home: Path) -> None:
    """NumPy's own copy-on-write mapping of such a file is refused where memory is not overcommitted freely."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with mapped.opened("huge") as slot:
        array = slot.allocate((1, 1))
        slot.keep(array, None, {})
    with slot.array.open("r+b") as file:  # a sparse file of zeros in its place
        file.write(np.lib.format.magic(1, 0) + b"\x76\x00")
        header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({2 * memory},), }}".ljust(117) + "\n"
        file.write(header.encode())
        file.truncate(128 + 2 * memory)
    kept = slot.read()
    assert kept is not None
    assert (kept[0].nbytes, kept[0][-1]) == (2 * memory, 0)


def build_slowly(folder: str, started: "multiprocessing.synchronize.Event", seconds: float) -> None:
    decode = assembly.decode

    def slow(*arguments: object) -> np.ndarray:
        started.set()
        time.sleep(seconds)
        return decode(*arguments)  # type: ignore[arg-type]

    assembly.decode = slow
    assembly.MAPPED_OVER = 20_000
    load(folder)


def started_build(pictures: Path, seconds: float) -> "multiprocessing.context.SpawnProcess":
    """Another process that is decoding, `seconds` for each picture."""
    context = multiprocessing.get_context("spawn")
    started = context.Event()
    builder = context.Process(target=build_slowly, args=(str(pictures), started, seconds))
    builder.start()
    assert started.wait(60)
    return builder


def test_two_runs_make_one_file(pictures: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builder = started_build(pictures, 0.05)
    monkeypatch.setattr(assembly, "decode", lambda *_: pytest.fail("decoded by both"))
    assert len(load(str(pictures)).train) == 48
    builder.join()
    assert builder.exitcode == 0
    assert sorted(path.suffix for path in home.iterdir()) == [".npy", ".npz"]


def test_a_killed_build_is_not_taken_for_whole(pictures: Path, home: Path) -> None:
    builder = started_build(pictures, 30)
    assert [path.suffix for path in home.iterdir()] == [".part"]
    assert builder.pid is not None
    os.kill(builder.pid, signal.SIGKILL)
    builder.join()
    assert len(load(str(pictures)).train) == 48
    assert not list(home.glob("*.part"))


def test_a_damaged_file_is_made_again(pictures: Path, home: Path) -> None:
    whole = load(str(pictures))
    for suffix in ("npy", "npz"):
        (path,) = home.glob(f"*.{suffix}")
        start = path.read_bytes()[:100]
        path.unlink()  # `whole` goes on looking at it
        path.write_bytes(start)
        assert same(load(str(pictures)), whole)


@contextmanager
def files_at_most(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_no_room_for_the_file_is_one_line(pictures: Path, home: Path) -> None:
    with files_at_most(50_000), pytest.raises(DataError, match=r"no room for the images in .*--limit, or a smaller"):
        load(str(pictures))
    assert sum(path.stat().st_size for path in home.iterdir()) == 0
    assert len(load(str(pictures)).train) == 48  # as soon as there is room


def test_a_cache_that_cannot_be_made_is_one_line(pictures: Path, home: Path) -> None:
    home.parent.mkdir(parents=True)
    home.write_text("a file in its place")
    with pytest.raises(DataError, match=r"cannot write in .*limner/data"):
        load(str(pictures))


def test_without_a_home_the_file_goes_to_a_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.setattr(mapped.tempfile, "gettempdir", lambda: str(tmp_path))
    assert mapped.folder() == tmp_path / ".cache" / "limner" / "data"


def test_the_share_decoded_is_heard_of_large_sets_only(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shares: list[float] = []
    load(str(pictures), observe=shares.append)
    assert shares == []
    monkeypatch.setattr(assembly, "OBSERVED_FROM", 50)
    monkeypatch.setattr(assembly, "_BATCH", 16)
    load(str(pictures), observe=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert len(shares) >= 3


def test_rows_are_moved_in_place() -> None:
    order = np.random.Generator(np.random.Philox(key=9)).permutation(50)
    images = np.arange(60).reshape(60, 1, 1, 1) * np.ones((1, 2, 2, 1), int)
    assembly._rearrange(images, order)
    assert np.array_equal(images[:50, 0, 0, 0], order)
    assert sorted(images[:, 1, 1, 0].tolist()) == list(range(60))


def test_the_public_names_are_where_they_were() -> None:
    assert (data.Images, data.Dataset) == (Images, Dataset)
