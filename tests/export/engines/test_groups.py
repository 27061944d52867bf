"""A process is limited by its own control group and by those around it, up to what its container shows it."""

from pathlib import Path

import pytest

from export.engines import cores, groups
from server import memory


def placed(home: Path, said: str, *folders: str) -> tuple[Path, Path]:
    """A tree of control groups with these folders, and a /proc that says where this process is."""
    cgroup, proc = home / "cgroup", home / "proc"
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text(said)
    for folder in ("", *folders):
        (cgroup / folder).mkdir(parents=True, exist_ok=True)
    return cgroup, proc


def test_a_service_is_limited_by_its_own_group_and_each_around_it(tmp_path: Path) -> None:
    cgroup, proc = placed(tmp_path, "0::/system.slice/limner.service\n", "system.slice/limner.service")
    inner = cgroup / "system.slice" / "limner.service"
    assert groups.around(cgroup, proc) == [inner, inner.parent, cgroup]
    (inner.parent / "cpu.max").write_text("100000 100000\n")
    (inner / "cpu.max").write_text("max 100000\n")
    assert cores.available(cgroup, proc) == 1
    for folder, limit in ((inner, 900), (inner.parent, 700)):
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text("400\n")
    assert memory.available(cgroup, proc) == 300


@pytest.mark.parametrize(
    "said",
    [
        "0::/\n",  # a container with a namespace of its own
        "0::/docker/0123\n",  # one without: the host's name, of a folder that is not shown
        "0::/../other\n",  # a process that was put there from outside
        "4:cpu:/x\n",  # version 1
        "",
    ],
)
def test_in_a_container_there_is_one_group(tmp_path: Path, said: str) -> None:
    cgroup, proc = placed(tmp_path, said, "x")
    assert groups.around(cgroup, proc) == [cgroup]


def test_where_nobody_says_there_is_one_group(tmp_path: Path) -> None:
    assert groups.around(tmp_path, tmp_path / "none") == [tmp_path]
