"""This process in, the control groups that limit it out: the folders of its container or service, their figures."""

from pathlib import Path

CGROUP, PROC = Path("/sys/fs/cgroup"), Path("/proc")


def around(cgroup: Path = CGROUP, proc: Path = PROC) -> list[Path]:
    """Of version 2: its own group and all around it, up to `cgroup`, which in a container is all that there is.

    cgroups(7): `0::/path` in /proc/self/cgroup. A path that is not there, or leads out, is that of another namespace.
    """
    try:
        lines = (proc / "self" / "cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return [cgroup]
    path = next((Path(line.removeprefix("0::/")) for line in lines if line.startswith("0::/")), Path())
    if ".." in path.parts or not (cgroup / path).is_dir():
        return [cgroup]
    return [cgroup / part for part in (path, *path.parents)]


def field(file: Path, name: str) -> int:
    """Of a file of lines such as `MemAvailable:  4 kB` or `throttled_usec 4096`; 0 where it has none."""
    try:
        lines = file.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0
    found = (words[1] for line in lines if (words := line.split()) and words[0] in (name, f"{name}:") and words[1:])
    return next((int(word) for word in found if word.isdigit()), 0)
