"""Bundles in, a listening server out; a server in, a file of its pictures out: `limner serve`, `limner generate`."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from limner.console import needs, out, say
from training.errors import ConfigError, Interrupted, LimnerError, as_limner
from training.precedence import resolve

if TYPE_CHECKING:
    from server.settings import Settings

ENDINGS = ".png, .jpg, .webp, .json, .npy or .zip"


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


def generate(
    output: Annotated[Path, typer.Option("--output", "-o", help=f"File to write: {ENDINGS}.")],
    label: Annotated[str | None, typer.Option(help="Class name or index.", show_default="from the seed")] = None,
    n: Annotated[int, typer.Option("-n", help="How many images.")] = 1,
    seed: Annotated[int | None, typer.Option(help="Seed of the first.", show_default="drawn")] = None,
    truncation: Annotated[float | None, typer.Option(help="Latents within so many σ.")] = None,
    model: Annotated[str | None, typer.Option(help="Model name.")] = None,
    version: Annotated[int | None, typer.Option(help="Model version.", show_default="the highest")] = None,
    url: Annotated[str, typer.Option(envvar="LIMNER_URL", help="A running server.")] = "http://127.0.0.1:8000",
    models: Annotated[Path | None, typer.Option(help="No server: this folder of bundles, in this process.")] = None,
) -> None:
    """Ask a server, or a bundle in this process, for images."""
    from limner_client import Client
    from limner_client.client import Format

    ending = output.suffix.removeprefix(".").lower()
    format = "jpeg" if ending == "jpg" else ending
    if format not in get_args(Format):
        raise ConfigError(f"cannot write '{output}'", f"Name a file that ends in {ENDINGS}.")
    asked = {"label": label, "n": n, "seed": seed, "truncation": truncation, "model": model, "version": version}
    with address_of(url, models) as place, asking(), Client(place) as client:
        answer = client.generate(**asked, format=format)  # type: ignore[arg-type]
    answer.save(output)
    say(f"{output}: {n} of {answer.model}, seed {answer.seed}")


@contextmanager
def address_of(url: str, models: Path | None) -> Iterator[str]:
    """`url`, or without a server that of one in this process, which serves `models` until the block ends."""
    if models is None:
        yield url
        return
    with needs("serve"):
        from server.process import in_background
        from server.settings import Settings
    with in_background(resolve(Settings, {"models": models}, "LIMNER_")) as place:
        yield place


@contextmanager
def asking() -> Iterator[None]:
    """What a client raises, as limner's one line; only where nobody answers is starting a server the mend."""
    from limner_client import ClientError, ConnectionFailed

    try:
        yield
    except ConnectionFailed as error:
        raise LimnerError(str(error), "Start one with limner serve, or use --models.") from error
    except ClientError as error:
        raise LimnerError(str(error).rstrip(".")) from error
