"""One worker of a group, started by server.workers: its settings on stdin, a socket and a pipe by number.

It tells through the pipe that it serves, or why it cannot. It drains when it is asked to (SIGTERM), and when its stdin
ends: then nobody is left who could ask.
"""

import os
import signal
import socket
import sys
import threading

import structlog

from server.app import create_app
from server.process import run
from server.telemetry import configure_logging
from server.workers import Task
from training.errors import LimnerError, as_limner


def main() -> None:
    """Serve until told to stop. Exit code 1 where it cannot."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    task = Task.read(sys.stdin.buffer.readline())
    task.group.join()
    configure_logging()
    structlog.configure(processors=[_named(task.group.place), *structlog.get_config()["processors"]])
    try:
        app = create_app(task.settings, task.group)
    except (LimnerError, OSError, MemoryError) as error:
        reason = as_limner(error)
        _tell(task.status, f"{reason.what}\n{reason.mend}")
        sys.exit(1)
    threading.Thread(target=_drain_with_stdin, daemon=True).start()
    with socket.socket(fileno=task.listener) as listener:
        run(app, task.settings, listener, started=lambda: _tell(task.status, ""))


def _named(place: int) -> structlog.typing.Processor:
    def add(logger: object, name: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        return {**event, "worker": place}

    return add


def _tell(status: int, text: str) -> None:
    os.write(status, text.encode() + b"\0")


def _drain_with_stdin() -> None:
    while os.read(sys.stdin.fileno(), 1):  # not through sys.stdin, whose lock a thread must not hold at the end
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
