"""A number of workers in, one port served by as many processes out: started, watched, started again, drained.

Each worker is a whole server: its own socket of the one port, among which the kernel divides new connections, its own
engines and queue. One that dies takes its own requests with it; who connects meanwhile waits for its successor.
"""

import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from export.engines import cores
from server import memory
from server.group import Group, bury, write_processes
from server.listening import another
from server.settings import Settings
from server.telemetry import configure_logging, log
from training.errors import ConfigError, Interrupted, LimnerError

LONGEST_PAUSE = 30.0  # seconds before a worker that keeps dying is started again; the first time, at once
STEADY = 60.0  # seconds after which a worker counts as one that does not keep dying
GRACE = 5.0  # seconds after the drain until what is left is killed


def serve(settings: Settings, listener: socket.socket, ready: Callable[[int], None]) -> None:
    """Serve with `settings.workers` until SIGTERM (return) or Ctrl-C (raise Interrupted); `auto` is one for each core
    that memory allows. `ready` hears how many serve. The listener is a shared one.

    Raises what kept a worker from serving at the start, and ConfigError where there is no memory or no folder for it.
    """
    configure_logging()
    exactly = settings.workers != "auto"
    most = settings.workers if isinstance(settings.workers, int) else cores.available()
    threads = settings.engine_threads or max(1, cores.available() // most)
    with _folder(settings.metrics_folder) as folder, _Signals() as signals:
        team = _Team(settings.model_copy(update={"engine_threads": threads}), folder, listener, signals)
        try:
            team.begin(most, exactly)
            if not signals.asked:
                ready(len(team.workers))
            team.watch()
        finally:
            team.end()
        if signals.interrupted:
            raise Interrupted("stopped")


@dataclass(frozen=True)
class Task:
    """What a worker needs to know, as one line of JSON."""

    settings: Settings
    group: Group
    listener: int
    status: int

    def line(self) -> bytes:
        group = asdict(self.group) | {"folder": str(self.group.folder)}
        said = {"settings": self.settings.model_dump(mode="json"), "group": group}
        return json.dumps(said | {"listener": self.listener, "status": self.status}).encode() + b"\n"

    @classmethod
    def read(cls, line: bytes) -> "Task":
        said = json.loads(line)
        group = said["group"] | {"folder": Path(said["group"]["folder"])}
        return cls(Settings.model_validate(said["settings"]), Group(**group), said["listener"], said["status"])


class _Signals:
    """SIGTERM and Ctrl-C, counted; `descriptor` can be read when one has come."""

    def __init__(self) -> None:
        self.asked, self.interrupted = 0, False
        self._reader, self._writer = socket.socketpair()
        self.descriptor = self._reader.fileno()

    def __enter__(self) -> "_Signals":
        self._writer.setblocking(False)
        self._wakeup = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._handlers = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        self._reader.close()
        self._writer.close()

    def heard(self) -> None:
        """Forget that `descriptor` can be read."""
        self._reader.recv(4096)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.interrupted |= not self.asked and number == signal.SIGINT
        self.asked += 1


@dataclass(eq=False)
class _Worker:
    """A place in the team, its socket, and the process that is in it now, if any."""

    place: int
    listener: socket.socket
    process: subprocess.Popen[bytes] | None = None
    status: int = -1  # our end of the pipe through which it tells
    told: bytes = b""
    began: float = 0.0
    starts: int = 0
    pause: float = 0.0

    @property
    def serves(self) -> bool:
        return self.process is not None and self.told == b"\0"


class _Team:
    def __init__(self, settings: Settings, folder: Path, listener: socket.socket, signals: _Signals) -> None:
        self.workers: list[_Worker] = []
        self._settings, self._folder, self._listener, self._signals = settings, folder, listener, signals
        self._selector = selectors.DefaultSelector()
        self._selector.register(signals.descriptor, selectors.EVENT_READ)
        self._due: dict[_Worker, float] = {}  # when each of the dead is started again

    def begin(self, most: int, exactly: bool) -> None:
        """One, which shows whether they can serve and what they take, and then the others."""
        self._add()
        self._until_all_serve()
        if self._signals.asked:
            return
        first = self.workers[0].process
        one = max(1, memory.taken(first.pid) if first else 0)
        left = memory.available()
        fit = 1 + left // one
        if most > fit and exactly:
            need, there = memory.shown(most * one), memory.shown(one + left)
            raise ConfigError(
                f"{most} workers take {need} of memory, of which {there} is there", f"Take --workers {fit}, or auto."
            )
        if most > fit:
            log.warning("fewer workers than cores", cores=most, workers=fit, reason="memory")
        for _ in range(1, min(most, fit)):
            self._add()
        self._until_all_serve()

    def watch(self) -> None:
        """Start again who dies, until a signal comes."""
        while not self._signals.asked:
            wait = min(self._due.values(), default=None)
            for worker in self._ended(None if wait is None else max(0.0, wait - time.monotonic())):
                self._died(worker)
            for worker in [worker for worker, when in self._due.items() if when <= time.monotonic()]:
                del self._due[worker]
                worker.starts += 1
                self._start(worker)

    def end(self) -> None:
        """Ask all to drain, ask again whenever somebody asks us, and in the end do not ask."""
        until = time.monotonic() + self._settings.drain_seconds + GRACE
        asked = -1
        while running := [
            worker.process for worker in self.workers if worker.process and worker.process.poll() is None
        ]:
            if asked != self._signals.asked:
                asked = self._signals.asked
                for process in running:
                    process.terminate()
            if time.monotonic() > until:
                for process in running:
                    process.kill()
            self._ended(0.05)
        for worker in self.workers:
            self._let_go(worker)
            if worker.place:
                worker.listener.close()
        self._selector.close()

    def _add(self) -> None:
        place = len(self.workers)
        worker = _Worker(place, self._listener if place == 0 else another(self._listener))
        self.workers.append(worker)
        self._start(worker)

    def _start(self, worker: _Worker) -> None:
        worker.status, theirs = os.pipe()
        task = Task(self._settings, Group(self._folder, worker.place, worker.starts), worker.listener.fileno(), theirs)
        worker.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "server.worker"],
            stdin=subprocess.PIPE,
            pass_fds=(task.listener, task.status),
            process_group=0,  # a Ctrl-C is for us, who ask each to drain
        )
        os.close(theirs)
        worker.told, worker.began = b"", time.monotonic()
        self._selector.register(worker.status, selectors.EVENT_READ, worker)
        self._count()
        assert worker.process.stdin is not None
        with suppress(BrokenPipeError):  # it is dead already: its pipe says so, too
            worker.process.stdin.write(task.line())
            worker.process.stdin.flush()

    def _until_all_serve(self) -> None:
        """Raises what kept one of them from it."""
        while not self._signals.asked and not all(worker.serves for worker in self.workers):
            for worker in self._ended(None):
                raise _reason(worker)

    def _ended(self, seconds: float | None) -> list[_Worker]:
        """Wait for news, so long at most; whose pipes have ended."""
        ended = []
        for key, _ in self._selector.select(seconds):
            if key.data is None:
                self._signals.heard()
            elif said := os.read(key.fd, 4096):
                key.data.told += said
            else:
                self._selector.unregister(key.fd)
                ended.append(key.data)
        return ended

    def _died(self, worker: _Worker) -> None:
        reason = _reason(worker)
        steady = worker.serves and time.monotonic() - worker.began > STEADY
        wait = 0.0 if steady else worker.pause
        worker.pause = min(LONGEST_PAUSE, max(1.0, 2 * wait))
        self._let_go(worker)
        bury(self._folder, worker.place)
        self._count()
        self._due[worker] = time.monotonic() + wait
        log.error("worker died", worker=worker.place, reason=str(reason), starts_again_in=wait)

    def _let_go(self, worker: _Worker) -> None:
        if worker.process is not None:
            assert worker.process.stdin is not None
            with suppress(BrokenPipeError):
                worker.process.stdin.close()
            worker.process.wait()
            os.close(worker.status)
            worker.process = None

    def _count(self) -> None:
        processes = [worker.process.pid for worker in self.workers if worker.process is not None]
        write_processes(self._folder, os.getpid(), processes)


def _reason(worker: _Worker) -> LimnerError:
    """Why it does not serve, or no longer: in its own words where it has said some."""
    assert worker.process is not None
    code = worker.process.wait()
    what, _, mend = worker.told.decode(errors="replace").strip("\0").partition("\n")
    if what:
        return LimnerError(what, mend)
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return LimnerError(f"worker {worker.place} ended with {how}", "Its last words are above.")


@contextmanager
def _folder(parent: Path | None) -> Iterator[Path]:
    """For what the workers count. Raises ConfigError."""
    try:
        folder = Path(tempfile.mkdtemp(prefix="limner-metrics-", dir=parent))
    except OSError as error:
        where = parent or tempfile.gettempdir()
        reason = error.strerror or error
        raise ConfigError(f"cannot write metrics into '{where}' ({reason})", "Set LIMNER_METRICS_FOLDER.") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
