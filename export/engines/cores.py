"""A process in, the CPU cores that it may use out, by affinity and its groups' quotas, and what those cost."""

import os
from pathlib import Path

from export.engines.groups import CGROUP, PROC, around, field

ENDLESS = 1 << 20


def available(cgroup: Path = CGROUP, proc: Path = PROC) -> int:
    """At least 1. A quota of 1.5 cores counts as 2: an engine with one thread would leave half a core idle."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(affinity, *(_quota(group) for group in around(cgroup, proc)))


def _quota(cgroup: Path) -> int:
    """Cores of CPU time for each second of the clock, rounded up; ENDLESS where nothing limits it."""
    try:
        limit, period = (cgroup / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        try:  # version 1 of control groups
            limit = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text(encoding="ascii").strip()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return ENDLESS
    if not limit.isdigit() or int(limit) == 0 or not period.isdigit():
        return ENDLESS
    return -(-int(limit) // max(1, int(period)))


def throttled(cgroup: Path = CGROUP, proc: Path = PROC) -> float:
    """Seconds in which the group, or one around it, had used up its quota; 0 where nobody counts them."""
    return max(_throttled(group) for group in around(cgroup, proc))


def _throttled(cgroup: Path) -> float:
    microseconds = field(cgroup / "cpu.stat", "throttled_usec")
    return microseconds / 1e6 or field(cgroup / "cpu" / "cpu.stat", "throttled_time") / 1e9  # ns of version 1
