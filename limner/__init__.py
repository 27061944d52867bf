"""Flags in, one stage run, one line on failure: the command line, with a file for each group of commands.

A stage is imported when its command runs, so that `--help` is quick and never loads torch.
"""

import importlib.metadata
import sys
from typing import Annotated

import typer

from limner import compare, demo, doctor, evaluate, export, generate, inspect, serve, train
from limner.console import complain, say
from training.errors import LimnerError, as_limner

app = typer.Typer(
    help="Train small image generators, export them to ONNX, serve them in batches over HTTP.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run a command; a LimnerError becomes its one line and its exit code."""
    debug = "--debug" in sys.argv
    try:
        app()
    except (LimnerError, OSError, MemoryError) as error:
        if debug:
            raise
        reason = as_limner(error)
        complain(str(reason), reason.exit_code)
    except KeyboardInterrupt:
        complain("stopped", 130)


def _version(asked: bool) -> None:
    if asked:
        say(f"limner {importlib.metadata.version('limner')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    pass


for command in (
    train.train,
    evaluate.evaluate,
    export.export,
    inspect.inspect,
    compare.compare,
    serve.serve,
    generate.generate,
    demo.demo,
    doctor.doctor,
):
    app.command()(command)
