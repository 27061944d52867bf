"""A process in, the bytes that it takes and that are left out: by its control groups' limits and the machine's."""

from pathlib import Path

from export.engines.groups import CGROUP, PROC, around

ENDLESS = 1 << 62


def available(cgroup: Path = CGROUP, proc: Path = PROC) -> int:
    """Bytes that may still be taken; as good as endless where nobody says."""
    limits = (_limit(group) for group in around(cgroup, proc))
    return min(*limits, _field(proc / "meminfo", "MemAvailable") or ENDLESS)


def taken(process: int, proc: Path = PROC) -> int:
    """Bytes of a process that no other shares; 0 where nobody says."""
    return _field(proc / str(process) / "status", "RssAnon")


def _limit(cgroup: Path) -> int:
    for most, now in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),  # version 1 of control groups
    ):
        try:
            limit, used = ((cgroup / name).read_text(encoding="ascii").strip() for name in (most, now))
        except OSError:
            continue
        if limit.isdigit() and used.isdigit():
            return max(0, int(limit) - int(used))
    return ENDLESS


def _field(file: Path, name: str) -> int:
    """Of a file of lines such as `MemAvailable:  4 kB`."""
    try:
        lines = file.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:")), 0)
