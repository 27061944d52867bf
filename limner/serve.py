"""Bundles in, a listening server out: `limner serve`."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from limner.console import needs, out
from training.errors import Interrupted, LimnerError, as_limner
from training.precedence import resolve

if TYPE_CHECKING:
    from server.settings import Settings


def serve(
    models: Annotated[
        Path | None, typer.Option(help="Folder of bundles, or one bundle.", show_default="models")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(help="0 = any free port.", show_default="8000")] = None,
    name: Annotated[str | None, typer.Option(help="Serve a single model under this name.")] = None,
    default_model: Annotated[str | None, typer.Option(help="Answers requests that name no model.")] = None,
    engine: Annotated[
        str | None,
        typer.Option(help="Of each bundle: NAME or NAME:PRECISION, such as openvino:bf16.", show_default="auto"),
    ] = None,
    engine_threads: Annotated[int | None, typer.Option(help="CPU threads of a batch.", show_default="all")] = None,
    workers: Annotated[
        str | None, typer.Option(help="Processes that serve: a number, or auto for one a core.", show_default="1")
    ] = None,
    drain_seconds: Annotated[
        float | None, typer.Option(help="For requests in flight after SIGTERM.", show_default="20")
    ] = None,
) -> None:
    """Serve bundles over HTTP until SIGTERM or Ctrl-C.

    Every setting also comes from LIMNER_..., such as LIMNER_QUEUE_IMAGES; a flag wins.
    """
    from server import memory

    flags = {"models": models, "host": host, "port": port, "name": name, "default_model": default_model}
    flags |= {"engine": engine, "engine_threads": engine_threads, "drain_seconds": drain_seconds, "workers": workers}
    with _stoppable(), _logged():
        memory.require()
        from server.settings import Settings

        run_server(resolve(Settings, flags, "LIMNER_"))


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM ends what has not begun to serve: process 1 of a container would not hear it otherwise."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _logged() -> Iterator[None]:
    """What keeps a server from serving, as a line of its log; for people at a terminal, as any command says it."""
    try:
        yield
    except (LimnerError, OSError, MemoryError) as error:
        if isinstance(error, Interrupted) or sys.stderr.isatty() or "--debug" in sys.argv:
            raise
        reason = as_limner(error)
        with needs("serve"):
            from server.telemetry import configure_logging, log
        configure_logging()
        log.critical("cannot serve", error=reason.what, mend=reason.mend)
        raise typer.Exit(reason.exit_code) from error


def run_server(settings: "Settings", tries: int = 1, welcome: Callable[[str], None] = lambda url: None) -> None:
    """Serve until a signal, on the first free one of `tries` ports; `welcome` gets the address to say more of it."""
    from export.engines import cores

    several = (cores.available() if settings.workers == "auto" else settings.workers) > 1
    with needs("serve"):
        from server import workers
        from server.listening import address, bind
    listener = bind(settings.host, settings.port, tries, several)
    url = address(listener)

    def ready(number: int = 1) -> None:
        who = "serves" if number == 1 else f"serves with {number} workers"
        out.print(f"[bold]limner[/] {who} on [bold]{url}[/]  (playground /, API /docs, metrics /metrics; Ctrl-C stops)")
        welcome(url)

    if several:
        workers.serve(settings, listener, ready)
        return
    with needs("serve"):
        from server.app import create_app
        from server.process import serve
    application = create_app(settings)
    ready()
    serve(application, settings, listener)
