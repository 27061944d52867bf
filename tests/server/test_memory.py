"""Whether there is room, by files such as the kernel's."""

import mmap
import os
from pathlib import Path

import pytest

from server import memory, repository
from server.settings import Settings
from training.errors import ConfigError

PAGES = "anon 500\ninactive_file 100\nactive_file 200\ntotal_inactive_file 150\ntotal_active_file 250"


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({}, 4096 << 10),
        ({"memory.max": "max", "memory.current": "5"}, 4096 << 10),
        ({"memory.max": "1000", "memory.current": "400"}, 600),
        ({"memory.max": "1000", "memory.current": "1400"}, 0),
        ({"memory/memory.limit_in_bytes": "1000", "memory/memory.usage_in_bytes": "1"}, 999),
        ({"memory.max": "1000", "memory.current": "900", "memory.stat": PAGES}, 400),
        (
            {
                "memory/memory.limit_in_bytes": "1000",
                "memory/memory.usage_in_bytes": "900",
                "memory/memory.stat": PAGES,
            },
            500,
        ),
    ],
)
def test_memory_is_what_container_and_machine_leave(tmp_path: Path, files: dict[str, str], left: int) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:  9 kB\nMemAvailable:    4096 kB\n")
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    assert memory.available(tmp_path, tmp_path) == left
    assert memory.available(tmp_path / "none", tmp_path / "none") >= 1 << 60


def test_memory_of_a_process_is_what_it_does_not_share() -> None:
    before = memory.taken(os.getpid())
    with mmap.mmap(-1, 64 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as held:
        held.write(bytes(64 << 20))
        assert (60 << 20) < memory.taken(os.getpid()) - before < (100 << 20)
    assert memory.taken(2**30) == 0


def test_a_container_is_refused_below_what_any_server_takes(tmp_path: Path) -> None:
    (tmp_path / "memory.current").write_text("1000\n")
    for limit in ("max", str(memory.MOST_TOO_LITTLE + 1)):
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        memory.require(tmp_path)
    (tmp_path / "memory.max").write_text(f"{memory.MOST_TOO_LITTLE}\n")
    with pytest.raises(ConfigError, match="the container's memory ends at 96 MiB"):
        memory.require(tmp_path)


def test_a_model_is_refused_where_its_weights_alone_do_not_fit(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = (models / "plain" / "1" / "model.onnx").stat().st_size
    monkeypatch.setattr(memory, "available", lambda: size)
    repository.open_repository(Settings(models=models / "plain"), lambda title, batch: None).close()
    monkeypatch.setattr(memory, "available", lambda: size - 1)
    with pytest.raises(ConfigError, match="plain@1 takes 0 MiB of memory and more, of which 0 MiB is there"):
        repository.open_repository(Settings(models=models / "plain"), lambda title, batch: None)
    assert memory.shown(3 << 29) == "1.5 GiB"
    assert memory.shown(300 << 20) == "300 MiB"
