"""Workers of one port in, one set of figures out: what each counts lies in a folder that all of them read.

A worker that is started again in a dead one's place goes on with its counters, which are files: nothing is lost by
`kill -9`, and nothing is left over. Gauges of the dead are removed by whoever starts them again.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric, ProcessCollector, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

PROCESSES = "processes"  # the file with their numbers: the supervisor's, then the workers'


@dataclass(frozen=True)
class Group:
    """`place` of this worker among its group, from 0; `starts` of it before this one."""

    folder: Path
    place: int
    starts: int = 0

    def join(self) -> None:
        """From now on, metrics that this process makes are counted in the folder."""
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(self.folder)
        values.ValueClass = values.MultiProcessValue(lambda: self.place)

    def registry(self) -> CollectorRegistry:
        """What all of them count, and the figures of their processes."""
        registry = CollectorRegistry()
        MultiProcessCollector(registry, str(self.folder))
        registry.register(_Processes(self.folder / PROCESSES))
        return registry


def bury(folder: Path, place: int) -> None:
    """The worker in that place has died: remove what it alone was."""
    mark_process_dead(place, str(folder))


def write_processes(folder: Path, supervisor: int, workers: list[int]) -> None:
    """Say whose figures belong to the group. Replaced at once: others read it meanwhile."""
    new = folder / f"{PROCESSES}.new"
    new.write_text(" ".join(map(str, (supervisor, *workers))), encoding="ascii")
    new.replace(folder / PROCESSES)


class _Processes(Collector):
    """process_...: sums over the group, and the start of its supervisor. CPU seconds include those of the dead.

    Pages that processes share count for each in process_resident_memory_bytes.
    """

    def __init__(self, processes: Path) -> None:
        self._processes = processes

    def collect(self) -> Iterator[Metric]:
        supervisor, *workers = (int(text) for text in self._processes.read_text(encoding="ascii").split())
        whole: dict[str, Metric] = {}
        for process in (supervisor, *workers):
            for metric in ProcessCollector(pid=lambda process=process: process, registry=None).collect():
                first = whole.setdefault(metric.name, metric)
                if first is not metric and metric.name != "process_start_time_seconds":
                    (sample,), (more,) = first.samples, metric.samples
                    first.samples = [sample._replace(value=sample.value + more.value)]
        if "process_cpu_seconds" in whole:
            (sample,) = whole["process_cpu_seconds"].samples
            whole["process_cpu_seconds"].samples = [sample._replace(value=sample.value + _of_the_dead(supervisor))]
        yield from whole.values()


def _of_the_dead(supervisor: int) -> float:
    """CPU seconds of its children that have ended; Linux's proc(5): cutime and cstime."""
    stat = Path(f"/proc/{supervisor}/stat").read_text(encoding="ascii", errors="replace")
    user, system = stat.rpartition(")")[2].split()[13:15]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
