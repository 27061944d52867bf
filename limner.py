"""The command line: flags in, one stage run, one line on failure; and the demo, which composes them all.

Longer than other files because every command is declared here and nowhere else. A stage is imported when its command
runs, so that `--help` is quick and never loads torch.
"""

import importlib.metadata
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from pydantic import BaseModel, Field
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from training.errors import ConfigError, LimnerError
from training.precedence import assignments, given_settings, over, resolve, validated

if TYPE_CHECKING:
    from export.bundle import Bundle
    from server.settings import Settings
    from training.config import TrainConfig

app = typer.Typer(
    help="Train small image generators, export them to ONNX, serve them in batches over HTTP.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_enable=False,
)
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

DEMO_RUN, DEMO_NAME, DEMO_SECONDS = Path("runs/demo"), "digits", 60.0
DEMO_COLUMNS, DEMO_SCALE, DEMO_SEED = 12, 2, 0
DEMO_PORTS = 100  # tried from the first on, until one is free


def main() -> None:
    """Run a command; a LimnerError becomes its one line and its exit code."""
    debug = "--debug" in sys.argv
    try:
        app()
    except LimnerError as error:
        if debug:
            raise
        _complain(str(error), error.exit_code)
    except OSError as error:  # a full disk, a name too long: the system's words say what and where
        if debug:
            raise
        _complain(f"{error.filename or 'the system'}: {error.strerror or error}. Try another place.")
    except KeyboardInterrupt:
        sys.exit(130)


def _complain(text: str, exit_code: int = 1) -> NoReturn:
    err.print(f"[bold red]error:[/] {escape(text)}" if exit_code == 1 else escape(text))
    sys.exit(exit_code)


def _say(text: str) -> None:
    """A line for the user, with no markup in it: names and paths may hold brackets."""
    out.print(text, markup=False)


def _version(asked: bool) -> None:
    if asked:
        _say(f"limner {importlib.metadata.version('limner')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    pass


Models = Annotated[Path, typer.Option("--models", help="Folder of bundles.", show_default="models")]


@app.command()
def train(
    model: Annotated[str | None, typer.Option(help="gan, cgan, vae or cvae.", show_default="cgan")] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="mnist-5k, fashion-mnist, mnist, cifar10, imagenet (each with :FOLDER), photo-patches, hf:OWNER/NAME, "
            "or a folder of images.",
            show_default="mnist-5k",
        ),
    ] = None,
    out_: Annotated[Path | None, typer.Option("--out", help="Run folder.", show_default="runs/model")] = None,
    recipe: Annotated[
        str | None, typer.Option(help="default, dcgan, sn-hinge or rpgan.", show_default="default")
    ] = None,
    size: Annotated[int | None, typer.Option(help="Pixels: 28, 32 or 64.", show_default="the set's own")] = None,
    limit: Annotated[int | None, typer.Option(help="Use at most so many images.", show_default="all")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the images.", show_default="20")] = None,
    seconds: Annotated[float | None, typer.Option(help="Wall seconds in the training loop, instead.")] = None,
    patience: Annotated[
        int | None, typer.Option(help="Stop after so many evaluations without a better FID.", show_default="never")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.", show_default="0")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.", show_default="auto")] = None,
    init_from: Annotated[
        Path | None, typer.Option(help="Start from the weights of a run or checkpoint, as far as they fit.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file with any setting, also those without a flag.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any setting, such as --set batch=64.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out, if there is one.")] = False,
    override: Annotated[bool, typer.Option("--override", help="With --resume: also with other settings.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in --out.")] = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write OUT/tensorboard as well.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved settings and stop.")] = False,
) -> None:
    """Train a generator into a run folder.

    Ctrl-C saves the checkpoint, --resume goes on with it. Settings also come from LIMNER_TRAIN_... and --config; a flag
    wins.
    """
    from training.config import TrainConfig
    from training.run import RunFolder

    if resume and overwrite:
        raise ConfigError("--resume keeps the run that --overwrite replaces", "Give one of them.")
    if override and not resume:
        raise ConfigError("--override changes the settings of a run that goes on", "Add --resume, or leave it out.")
    flags = {"model": model, "data": data, "out": out_, "recipe": recipe, "size": size, "limit": limit}
    flags |= {"epochs": epochs, "seconds": seconds, "patience": patience, "seed": seed, "device": device}
    flags = {name: value for name, value in (flags | {"init_from": init_from}).items() if value is not None}
    given = given_settings(TrainConfig, over(TrainConfig, assignments(set_), flags), "LIMNER_TRAIN_", config)
    settings = validated(TrainConfig, given)
    stored = RunFolder(settings.out).settings() if resume else None
    if stored is not None:
        stored = stored.model_copy(update={"out": settings.out})  # it may have been moved
        settings = _resumed(stored, given, override)
    if dry_run:
        import yaml

        _say(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False).rstrip())
        return
    if stored == settings and RunFolder(settings.out).finished():
        _say(f"{settings.out} is finished; for more give --epochs or --seconds with --override")
        return
    _train(settings, overwrite, resume=stored is not None, tensorboard=tensorboard)


def _resumed(stored: "TrainConfig", given: dict[str, Any], override: bool) -> "TrainConfig":
    """The settings of the run that is there, and what was given over them. Raises ConfigError where that differs."""
    from training.config import TrainConfig

    base = {name: value for name, value in stored.model_dump().items() if value is not None}
    settings = validated(TrainConfig, over(TrainConfig, base, given))
    changed = {
        name: f"{name} {getattr(stored, name)}, not {value}"
        for name, value in settings.model_dump().items()
        if value != getattr(stored, name)
    }
    if "recipe" in changed:
        raise ConfigError(
            f"a run keeps its recipe ({changed['recipe']})", "Change single settings by --set, or start another run."
        )
    if changed and not override:
        raise ConfigError(
            f"{settings.out} was begun with other settings: {', '.join(changed.values())}",
            "Leave them out, or add --override.",
        )
    return settings


def _train(config: "TrainConfig", overwrite: bool, resume: bool = False, tensorboard: bool = False) -> None:
    from training.run import RunFolder

    if not resume:
        RunFolder(config.out).guard(overwrite)
    with _needs("train"):
        from training import data, loop
        from training.progress import Board, Observers, TrainingProgress

    loop.check(config, going_on=resume and RunFolder(config.out).checkpoint.is_file())
    with _needs("tensorboard"):
        observers = [Board(RunFolder(config.out).board)] if tensorboard else []
    with TrainingProgress(err, f"training {config.model}") as progress:
        with _needs("train"):
            dataset = data.load(config.data, config.size, config.limit, progress.data)
        count = len(dataset.train) + len(dataset.val) + len(dataset.test)
        classes = f"{len(dataset.class_names)} classes" if dataset.class_names else "no classes"
        _say(f"{dataset.name}: {count} images of {dataset.size}x{dataset.size}x{dataset.channels}, {classes}")
        if dataset.note:
            progress.note(dataset.note)
        closing = loop.train(config, dataset, Observers(progress, *observers), resume=resume)
    early = f", stopped early at step {closing['step']:,}" if closing["stopped_early"] else ""
    _say(f"trained {closing['images']:,} images in {closing['seconds']:.0f} s{early}: {config.out}")
    _say(_quality_line(closing["quality"]))


def _quality_line(quality: dict[str, Any]) -> str:
    floor = quality.get("floor") or {}
    agreement, ratio, fid = (quality.get(name) for name in ("agreement", "within_class_variance_ratio", "fid"))
    said = [] if agreement is None else [f"the judge agrees with the label on {agreement:.1%} of samples"]
    said += [] if ratio is None else [f"variance within classes {ratio:.2f} of real"]
    said += [] if fid is None else [f"FID {fid:.1f}" + (f" (real images {floor['fid']:.1f})" if "fid" in floor else "")]
    said += [f"{name} {quality[name]:.2f}" for name in ("precision", "recall") if quality.get(name) is not None]
    return "; ".join(said) or "not judged"


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    to: Annotated[list[str] | None, typer.Option(help="Target: onnx.", show_default="onnx")] = None,
    models: Models = Path("models"),
    name: Annotated[str | None, typer.Option(help="Model name.", show_default="the run's")] = None,
) -> None:
    """Export a run to a bundle, through the gates.

    The file's pictures must be torch's pictures, or nothing is written.
    """
    for target in to or ["onnx"]:
        if target != "onnx":
            raise ConfigError(f"there is no target '{target}'", "This version exports --to onnx.")
    _print_bundle(_export(run, models, name))


def _export(run: Path, models: Path, name: str | None) -> "Bundle":
    with _needs("export"), err.status("exporting"):
        from export.to_onnx import export as export_run

        return export_run(run, models, name)


@contextmanager
def _needs(extra: str) -> Iterator[None]:
    """A package that an extra brings is missing: say which."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{(error.name or '').partition('.')[0]} is not installed", f"In limner's folder: pip install '.[{extra}]'."
        ) from error


def _print_bundle(bundle: "Bundle") -> None:
    manifest = bundle.manifest
    artifact = manifest.artifacts[0]
    _say(
        f"{bundle.folder}: {manifest.kind}, {manifest.height}x{manifest.width}x{manifest.channels}, "
        f"{manifest.classes or 'no'} classes, {artifact.engine} {artifact.precision}"
    )
    _say(
        f"parity with {artifact.parity.reference}: at most {artifact.parity.max_levels} of 255 grey levels apart; "
        f"bit-exact batches: {', '.join(map(str, artifact.buckets))}"
    )


@app.command()
def inspect(
    bundle: Annotated[Path, typer.Argument(help="A bundle, such as models/digits or models/digits/1.")],
    json: Annotated[bool, typer.Option("--json", help="Print the manifest.")] = False,
) -> None:
    """Show a bundle: what it is, where it comes from, its gates and quality. Every hash is checked."""
    from export.bundle import BundleError, read, version_folders

    folders = version_folders(bundle)
    if not folders:
        raise BundleError(f"no bundle at '{bundle}'", "Make one: limner export RUN.")
    found = read(folders[-1])
    names = {folder.parent.resolve().name for folder in folders}
    if len(names) > 1:
        raise BundleError(f"'{bundle}' holds {len(names)} models", f"Name one of {', '.join(sorted(names))}.")
    manifest = found.manifest
    if json:
        print(manifest.model_dump_json(indent=2, by_alias=True, exclude_none=True))
        return
    table = Table(title=found.title, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")  # a hash is not cut off
    rows = {
        "kind": manifest.kind,
        "images": f"{manifest.height}x{manifest.width}x{manifest.channels}, latent {manifest.latent}",
        "classes": ", ".join(manifest.class_names) or "none",
        "digest": found.digest,
        "run": f"{manifest.source.run} on {manifest.source.data}, {manifest.source.images_seen:,} images seen",
        "checkpoint": manifest.source.checkpoint_sha256,
        "quality": _quality_line(manifest.quality.model_dump()) if manifest.quality else "not judged",
    }
    for artifact in manifest.artifacts:
        parity = artifact.parity
        rows[f"{artifact.engine} {artifact.precision}"] = (
            f"{artifact.file}; parity with {parity.reference} {parity.max_levels} of {parity.allowed_levels} levels; "
            f"bit-exact batches {', '.join(map(str, artifact.buckets))}"
        )
    for key, value in rows.items():
        table.add_row(f"[bold]{escape(key)}[/]", escape(value))
    out.print(table)
    if len(folders) > 1:
        _say(f"{len(folders) - 1} older: {', '.join(folder.name for folder in folders[:-1])}")


@app.command()
def serve(
    models: Annotated[
        Path | None, typer.Option(help="Folder of bundles, or one bundle.", show_default="models")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(help="0 = any free port.", show_default="8000")] = None,
    name: Annotated[str | None, typer.Option(help="Serve a single model under this name.")] = None,
    default_model: Annotated[str | None, typer.Option(help="Answers requests that name no model.")] = None,
    engine_threads: Annotated[int | None, typer.Option(help="CPU threads of a batch.", show_default="all")] = None,
    drain_seconds: Annotated[
        float | None, typer.Option(help="For requests in flight after SIGTERM.", show_default="20")
    ] = None,
) -> None:
    """Serve bundles over HTTP until SIGTERM or Ctrl-C.

    Every setting also comes from LIMNER_..., such as LIMNER_QUEUE_IMAGES; a flag wins.
    """
    from server.settings import Settings

    flags = {"models": models, "host": host, "port": port, "name": name, "default_model": default_model}
    flags |= {"engine_threads": engine_threads, "drain_seconds": drain_seconds}
    _serve(resolve(Settings, flags, "LIMNER_"))


def _serve(settings: "Settings", tries: int = 1, demo: bool = False) -> None:
    with _needs("serve"):
        from server.app import create_app
        from server.process import address, bind, serve
    listener = bind(settings.host, settings.port, tries)
    application = create_app(settings)
    url = address(listener)
    out.print(f"[bold]limner[/] serves on [bold]{url}[/]  (playground /, API /docs, metrics /metrics; Ctrl-C stops)")
    if demo:
        _say(f"  curl -fsS -X POST '{url}/generate?label=3' -o three.png")
        _say(f"  playground: {url}/")
        _open_browser(url)
    serve(application, settings, listener)


def _open_browser(url: str) -> None:
    """Only where there is a display; nobody wants a text browser to take the terminal."""
    if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or sys.platform == "darwin":
        import threading
        import webbrowser

        threading.Timer(1.0, webbrowser.open, [url]).start()


@app.command()
def generate(
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write: .png, .json or .npy.")],
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

    format = output.suffix.removeprefix(".").lower()
    if format not in ("png", "json", "npy"):
        raise ConfigError(f"cannot write '{output}'", "Name a file that ends in .png, .json or .npy.")
    asked = {"label": label, "n": n, "seed": seed, "truncation": truncation, "model": model, "version": version}
    with _address(url, models) as place, _asking(), Client(place) as client:
        answer = client.generate(**asked, format=format)  # type: ignore[arg-type]
    answer.save(output)
    _say(f"{output}: {n} of {answer.model}, seed {answer.seed}")


@contextmanager
def _address(url: str, models: Path | None) -> Iterator[str]:
    if models is None:
        yield url
        return
    with _needs("serve"):
        from server.process import in_background
        from server.settings import Settings
    with in_background(resolve(Settings, {"models": models}, "LIMNER_")) as place:
        yield place


@contextmanager
def _asking() -> Iterator[None]:
    """What a client raises, as limner's one line; only where nobody answers is starting a server the mend."""
    from limner_client import ClientError, ConnectionFailed

    try:
        yield
    except ConnectionFailed as error:
        raise LimnerError(str(error), "Start one with limner serve, or use --models.") from error
    except ClientError as error:
        raise LimnerError(str(error).rstrip(".")) from error


@app.command()
def demo(
    once: Annotated[bool, typer.Option("--once", help="Ask the server for demo.png and stop.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Train again, also where a run is finished.")] = False,
) -> None:
    """Train on the embedded digits for a minute, export, serve: the whole chain in one command."""
    from export.bundle import find, hash_file
    from server.settings import Settings
    from training.config import TrainConfig
    from training.run import RunFolder

    run, models = RunFolder(DEMO_RUN), Path("models")
    if run.finished() and not fresh:
        _say(f"{run.path} is trained already (--fresh trains again)")
    else:
        if run.path.exists() and not fresh:
            _say(f"{run.path} is unfinished: training anew")
        seconds = resolve(_DemoSettings, {}, "LIMNER_DEMO_").seconds
        _train(TrainConfig(model="cgan", data="mnist-5k", out=run.path, seconds=seconds), overwrite=True)
    bundle = find(models, DEMO_NAME, hash_file(run.exported_checkpoint())) or _export(run.path, models, DEMO_NAME)
    _print_bundle(bundle)
    if not once:
        _serve(resolve(Settings, {"models": bundle.folder}, "LIMNER_"), tries=DEMO_PORTS, demo=True)
        return
    with _address("", bundle.folder) as url:
        _draw_demo(url, bundle, Path("demo.png"))


class _DemoSettings(BaseModel):
    """LIMNER_DEMO_SECONDS shortens the demo's training, for tests of everything around it."""

    seconds: float = Field(default=DEMO_SECONDS, gt=0, le=3600)


def _draw_demo(url: str, bundle: "Bundle", path: Path) -> None:
    """Ask the server for a row of each class, as an application would, and draw them with their labels."""
    import io

    import numpy as np
    from limner_client import Client

    from training.pictures import labelled_rows

    rows = []
    with _asking(), Client(url) as client:
        for label, class_name in enumerate(bundle.manifest.class_names):
            answer = client.generate(label=label, n=DEMO_COLUMNS, seed=DEMO_SEED, format="npy")
            rows.append((class_name, np.load(io.BytesIO(answer.content), allow_pickle=False)))
    labelled_rows(rows, DEMO_SCALE).save(path)
    _say(f"{path}: {len(rows)} classes, {DEMO_COLUMNS} pictures each, from {url}")


if __name__ == "__main__":
    main()
