"""The embedded digits in, a served model out: `limner demo`, which composes all the stages."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import BaseModel, Field

from limner.console import say
from limner.export import export_bundle, print_bundle
from limner.generate import address_of, asking
from limner.serve import run_server
from limner.train import train_run
from training.precedence import resolve

if TYPE_CHECKING:
    from export.bundle import Bundle

RUN, NAME, SECONDS = Path("runs/demo"), "digits", 60.0
COLUMNS, SCALE, SEED = 12, 2, 0
PORTS = 100  # tried from the first on, until one is free


def demo(
    once: Annotated[bool, typer.Option("--once", help="Ask the server for demo.png and stop.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Train again, also where a run is finished.")] = False,
) -> None:
    """Train on the embedded digits for a minute, export, serve: the whole chain in one command."""
    from export.bundle import find, hash_file
    from server.settings import Settings
    from training.config import TrainConfig
    from training.run import RunFolder

    run, models = RunFolder(RUN), Path("models")
    if run.finished() and not fresh:
        say(f"{run.path} is trained already (--fresh trains again)")
    else:
        if run.path.exists() and not fresh:
            say(f"{run.path} is unfinished: training anew")
        seconds = resolve(_Settings, {}, "LIMNER_DEMO_").seconds
        train_run(TrainConfig(model="cgan", data="mnist-5k", out=run.path, seconds=seconds), overwrite=True)
    bundle = find(models, NAME, hash_file(run.exported_checkpoint())) or export_bundle(run.path, models, NAME)
    print_bundle(bundle)
    if not once:
        run_server(resolve(Settings, {"models": bundle.folder}, "LIMNER_"), tries=PORTS, welcome=_welcome)
        return
    with address_of("", bundle.folder) as url:
        _draw_demo(url, bundle, Path("demo.png"))


class _Settings(BaseModel):
    """LIMNER_DEMO_SECONDS shortens the demo's training, for tests of everything around it."""

    seconds: float = Field(default=SECONDS, gt=0, le=3600)


def _welcome(url: str) -> None:
    say(f"  curl -fsS -X POST '{url}/generate?label=3' -o three.png")
    say(f"  playground: {url}/")
    say(f"  how good they are: limner evaluate {RUN} --html")
    _open_browser(url)


def _open_browser(url: str) -> None:
    """Only where there is a display; nobody wants a text browser to take the terminal."""
    if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or sys.platform == "darwin":
        import threading
        import webbrowser

        threading.Timer(1.0, webbrowser.open, [url]).start()


def _draw_demo(url: str, bundle: "Bundle", path: Path) -> None:
    """Ask the server for a row of each class, as an application would, and draw them with their labels."""
    from limner_client import Client

    from training.pictures import labelled_rows

    rows = []
    with asking(), Client(url) as client:
        for label, class_name in enumerate(bundle.manifest.class_names):
            rows.append((class_name, client.generate(label, COLUMNS, seed=SEED, format="npy").array()))
    labelled_rows(rows, SCALE).save(path)
    say(f"{path}: {len(rows)} classes, {COLUMNS} pictures each, from {url}")
