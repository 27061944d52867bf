"""The cores that a process may use are those of its affinity, and no more than its container's quota."""

import os
from pathlib import Path

import pytest

from export.engines import cores


@pytest.fixture(autouse=True)
def _eight(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scheduler may put this process on eight cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)


def version_2(folder: Path, content: str) -> Path:
    (folder / "cpu.max").write_text(content)
    return folder


def version_1(folder: Path, quota: str, period: str = "100000\n") -> Path:
    (folder / "cpu").mkdir()
    (folder / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (folder / "cpu" / "cpu.cfs_period_us").write_text(period)
    return folder


QUOTAS = [
    ("200000", 2),
    ("150000", 2),  # one thread would leave half a core idle
    ("100001", 2),
    ("100000", 1),
    ("50000", 1),
    ("1000", 1),
    ("1600000", 8),  # a quota gives no cores that the affinity has not
]


@pytest.mark.parametrize(("quota", "expected"), QUOTAS)
def test_a_quota_is_rounded_up_to_cores(tmp_path: Path, quota: str, expected: int) -> None:
    assert cores.available(version_2(tmp_path, f"{quota} 100000\n")) == expected


@pytest.mark.parametrize(("quota", "expected"), QUOTAS)
def test_a_quota_of_version_1_counts_the_same(tmp_path: Path, quota: str, expected: int) -> None:
    assert cores.available(version_1(tmp_path, f"{quota}\n")) == expected


def test_a_quota_is_per_period(tmp_path: Path) -> None:
    assert cores.available(version_2(tmp_path, "30000 10000\n")) == 3


def test_version_2_goes_before_version_1(tmp_path: Path) -> None:
    assert cores.available(version_2(version_1(tmp_path, "100000\n"), "300000 100000\n")) == 3


@pytest.mark.parametrize(
    "content",
    [
        "max 100000\n",
        "",
        "100000\n",
        "1 2 3\n",
        "lots 100000\n",
        "-1 100000\n",
        "0 100000\n",
        "1.5 1\n",
        "1 lots\n",
        "é è\n",
    ],
)
def test_what_limits_nothing_or_says_nothing_leaves_the_affinity(tmp_path: Path, content: str) -> None:
    assert cores.available(version_2(tmp_path, content)) == 8


@pytest.mark.parametrize("quota", ["-1\n", "", "lots\n", "é\n", "0\n"])
def test_the_same_in_version_1(tmp_path: Path, quota: str) -> None:
    assert cores.available(version_1(tmp_path, quota)) == 8


def test_half_of_version_1_limits_nothing(tmp_path: Path) -> None:
    (version_1(tmp_path, "100000\n") / "cpu" / "cpu.cfs_period_us").unlink()
    assert cores.available(tmp_path) == 8


def test_a_period_of_nothing_divides_nothing(tmp_path: Path) -> None:
    assert cores.available(version_2(tmp_path, "2 0\n")) == 2


def test_without_control_groups_the_affinity_counts_and_without_it_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cores.available(tmp_path / "nowhere") == 8
    monkeypatch.delattr(os, "sched_getaffinity")  # macOS
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert cores.available(tmp_path / "nowhere") == 3
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores.available(tmp_path / "nowhere") == 1


def test_affinity_is_really_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert cores.available(tmp_path) == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert cores.available(tmp_path) == len(allowed)


def test_throttling_is_counted_in_seconds_in_both_versions(tmp_path: Path) -> None:
    assert cores.throttled(tmp_path) == 0.0
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.stat").write_text("nr_throttled 3\nthrottled_time 1500000000\n")
    assert cores.throttled(tmp_path) == pytest.approx(1.5)
    (tmp_path / "cpu.stat").write_text("usage_usec 9\nnr_throttled 3\nthrottled_usec 2500000\n")
    assert cores.throttled(tmp_path) == pytest.approx(2.5)
    (tmp_path / "cpu.stat").write_text("throttled_usec many\n")
    assert cores.throttled(tmp_path) == pytest.approx(1.5)
