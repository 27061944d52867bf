"""This process in, the folders of the control groups that limit it out: a container's, or those of its service."""

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
