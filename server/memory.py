"""A process in, the bytes that it takes and that are left out: by its control groups' limits and the machine's."""

from pathlib import Path

from export.engines.groups import CGROUP, PROC, around, field
from training.errors import ConfigError

ENDLESS = 1 << 62
KIB = 1 << 10
MOST_TOO_LITTLE = 96 << 20  # with it, the kernel ended a server of the demo's model each time, before it could say why
MEND = "Raise the container's memory limit."


def require(cgroup: Path = CGROUP, proc: Path = PROC) -> None:
    """Raises ConfigError where the container's limit is below what any server takes.

    Asked first of all: the kernel ends whoever passes the limit, and nobody could say why.
    """
    most = min(_limited(group)[0] for group in around(cgroup, proc))
    if most <= MOST_TOO_LITTLE:
        what = f"the container's memory ends at {shown(most)}, a server takes more than {shown(MOST_TOO_LITTLE)}"
        raise ConfigError(what, MEND)


def reserve(title: str, weights: int) -> None:
    """Raises ConfigError where the `weights`, bytes that an engine holds at least once, are more than is left."""
    left = available()
    if weights > left:
        raise ConfigError(f"{title} takes {shown(weights)} of memory and more, of which {shown(left)} is there", MEND)


def available(cgroup: Path = CGROUP, proc: Path = PROC) -> int:
    """Bytes that may still be taken; as good as endless where nobody says."""
    limits = (max(0, most - used) for most, used in map(_limited, around(cgroup, proc)))
    return min(*limits, KIB * field(proc / "meminfo", "MemAvailable") or ENDLESS)


def taken(process: int, proc: Path = PROC) -> int:
    """Bytes of a process that no other shares; 0 where nobody says."""
    return KIB * field(proc / str(process) / "status", "RssAnon")


def shown(size: int) -> str:
    """In GiB, or in MiB where it is less than one."""
    return f"{size / (1 << 30):.1f} GiB" if size >= 1 << 30 else f"{size / (1 << 20):.0f} MiB"


def _limited(cgroup: Path) -> tuple[int, int]:
    """A control group's limit and what counts against it, less pages of files, which the kernel takes back."""
    for folder, most, now, total in (
        (cgroup, "memory.max", "memory.current", ""),
        (cgroup / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),  # version 1 of control groups
    ):
        try:
            limit, used = ((folder / name).read_text(encoding="ascii").strip() for name in (most, now))
        except OSError:
            continue
        if limit.isdigit() and used.isdigit():
            pages = sum(field(folder / "memory.stat", f"{total}{kind}_file") for kind in ("active", "inactive"))
            return int(limit), max(0, int(used) - pages)
    return ENDLESS, 0
