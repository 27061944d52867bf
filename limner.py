"""The command line: flags in, one stage run, one line on failure; and the demo, which composes them all.

Longer than other files because every command is declared here and nowhere else. A stage is imported when its command
runs, so that `--help` is quick and never loads torch.
"""

import importlib.metadata
import os
import sys
from collections.abc import Callable, Iterator
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
    from training.data import Dataset
    from training.evaluation.sight import Sees
    from training.evaluation.subject import Subject

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
COMPARED_BY = "shape"  # without a judge: of the ten nearest digits 93 % are the same, by MS-SSIM 85 %
COMPARED_ROWS, COMPARED_SHOWN, COMPARED_TOP = 10, 24, 1_000  # of the table, on the sheet, on the largest sheet
COMPARED_SIZE = 2_048  # pixels of a side, at most


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
        _complain("stopped", 130)


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
def evaluate(
    subject: Annotated[Path, typer.Argument(metavar="RUN|BUNDLE", help="Run folder, or a bundle of models.")],
    engine: Annotated[
        str | None, typer.Option(help="Of a bundle: NAME or NAME:PRECISION.", show_default="its first")
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(min=1, max=10_000, help="Pictures.", show_default="as many as real ones, 1,000 or more"),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, max=100, help="Blocks of other seeds, for the spread.")] = 3,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of the first picture.", metavar="SEED")] = 0,
    data: Annotated[
        str | None, typer.Option(help="The real images, for the report.", show_default="a run's own")
    ] = None,
    inception: Annotated[
        Path | None, typer.Option(help="ONNX file of a feature network: its FID as well, in a table of its own.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    html: Annotated[
        bool, typer.Option("--html", help="Write report.html into the run, or NAME-VERSION.html here.")
    ] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the report to this file.")] = None,
) -> None:
    """Judge the pictures of a run or a bundle: every figure beside that of real images.

    A bundle is judged by its exported engine and judge, without torch and without the images.
    """
    with _needs("evaluate"):
        from export.features import Features, inception_fid
        from training.evaluation.examine import examine
        from training.evaluation.gather import gather, same_images
        from training.evaluation.report import render
        from training.evaluation.table import as_json, as_table
        from training.progress import Stages
    where = output or (_report_path(subject) if html else None)
    if where is not None and (where.is_dir() or not os.access(where.parent, os.W_OK)):
        raise ConfigError(f"cannot write '{where}'", "Name a file in a folder that can be written: -o report.html.")
    if data is not None and where is None and inception is None:
        raise ConfigError("--data is for a report or --inception", "Add --html, or leave it out.")
    with _subject(subject, engine) as found, Stages(err) as stages, _needs("evaluate"):
        real, missing, features, brought, page = None, "", None, None, None
        if where is not None or inception is not None:
            real, missing = _images(found, data, stages.data)
        if real is not None:
            same_images(found, real)  # refused before minutes are spent
        if inception is not None:
            if real is None:
                raise ConfigError("Inception features need the real images", missing)
            features = Features(inception)
        examined = examine(found, samples, repeats, seed, stages.stage)
        if features is not None and real is not None:
            brought = inception_fid(features, examined.pictures, same_images(found, real).images, stages.stage)
        if where is not None:
            stages.stage("writing the report", 0.0)
            page = render(gather(found, examined, real, [missing] if missing else [], brought))
            stages.stage("writing the report", 1.0)
    if json:
        _print_json(as_json(found, examined, brought))
    else:
        out.print(as_table(found, examined, brought))
    if where is not None and page is not None:
        where.write_text(page, encoding="utf-8")
        err.print(f"report: {where}{f' (without real images: {missing})' if missing else ''}", markup=False)


def _is_run(path: Path) -> bool:
    from training.run import RunFolder

    folder = RunFolder(path)
    return any(file.is_file() for file in (folder.config, folder.best, folder.checkpoint))


def _report_path(subject: Path) -> Path:
    """Into the run; a bundle's folder stays as it was exported."""
    if _is_run(subject):
        from training.run import RunFolder

        return RunFolder(subject).report
    manifest = _newest(subject, "run or bundle").manifest
    return Path(f"{manifest.name}-{manifest.version}.html")


@contextmanager
def _subject(path: Path, engine: str | None = None) -> Iterator["Subject"]:
    """What there is to evaluate at `path`: a run, or a bundle (the newest version)."""
    if not _is_run(path):
        from export.bundle_subject import bundle_subject

        with bundle_subject(_newest(path, "run or bundle"), engine) as subject:
            yield subject
        return
    if engine is not None:
        raise ConfigError("a run has no engines", "Leave --engine out, or name a bundle.")
    with _needs("train"):
        from training.run_subject import run_subject
    yield run_subject(path)


def _images(subject: "Subject", data: str | None, observe: Callable[[float], None]) -> tuple["Dataset | None", str]:
    """The images that a subject was trained on, or None and why they are not there."""
    name = data or (subject.config or {}).get("data")
    if name is None:
        return None, f"Its images are not known here: name those of its training, --data {subject.reference.data}."
    with _needs("train"):
        from training.data import load
    try:
        return load(name, subject.reference.size, subject.reference.limit, observe), ""
    except LimnerError as error:
        if data is not None:
            raise
        return None, str(error)


def _judge(path: Path) -> "Sees":
    """The judge of a run or a bundle."""
    if not _is_run(path):
        from export.bundle_subject import bundle_judge

        return bundle_judge(_newest(path, "run or bundle"))
    with _needs("train"):
        from training.judge import Judge
        from training.run import RunFolder
    return Judge.load(RunFolder(path).judge)


def _newest(path: Path, what: str = "bundle") -> "Bundle":
    """The newest version at `path`: a version's folder, a model's, or a repository of one model."""
    from export.bundle import BundleError, read, version_folders

    folders = version_folders(path)
    if not folders:
        raise BundleError(f"no {what} at '{path}'", "Train a run, or export one: limner export RUN.")
    names = {folder.parent.resolve().name for folder in folders}
    if len(names) > 1:
        raise BundleError(f"'{path}' holds {len(names)} models", f"Name one of {', '.join(sorted(names))}.")
    return read(folders[-1])


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
    from export.bundle import version_folders

    found, folders = _newest(bundle), version_folders(bundle)
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
def compare(
    first: Annotated[Path, typer.Argument(metavar="PICTURE", help="A picture.")],
    second: Annotated[Path, typer.Argument(metavar="PICTURE|FOLDER", help="Another, or a folder to rank.")],
    size: Annotated[
        int | None, typer.Option(help="Bring pictures to so many pixels a side: the middle square.", show_default="own")
    ] = None,
    judge: Annotated[Path | None, typer.Option(help="Also through the judge of this run or bundle.")] = None,
    by: Annotated[
        str | None,
        typer.Option(
            help="Rank by judge, shape, ssim, ms_ssim, psnr, colour, texture or edges.",
            show_default="judge if there is one, else shape",
        ),
    ] = None,
    top: Annotated[int | None, typer.Option(help="So many nearest on the sheet.", show_default="24")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The sheet of a ranking.", show_default="compare.png")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say how near two pictures are to each other, or rank a folder by how near its pictures are to one.

    A ranking draws a contact sheet. Pictures under the folder that are of another size are left out, unless --size
    brings all to one.
    """
    from training.evaluation.similarity import SMALLEST

    if first.is_dir():
        mend = "Name one picture of it." if second.is_dir() else f"Turn them round: limner compare {second} {first}."
        raise ConfigError(f"'{first}' is a folder, and a picture comes first", mend)
    if size is not None and not SMALLEST <= size <= COMPARED_SIZE:
        raise ConfigError(f"--size {size} is out of range", f"Take {SMALLEST} to {COMPARED_SIZE} pixels.")
    if second.is_dir():
        _compare_folder(first, second, size, judge, by, top, output or Path("compare.png"), json)
        return
    given = {"--by": by, "--top": top, "--output": output}
    unused = [flag for flag, value in given.items() if value is not None]
    if unused and second.exists():
        raise ConfigError(f"{unused[0]} is for a ranking, and '{second}' is no folder", "Leave it out.")
    _compare_pair(first, second, size, judge, json)


def _compare_pair(first: Path, second: Path, size: int | None, judge: Path | None, json: bool) -> None:
    with _needs("evaluate"):
        from training.evaluation.search import read_pair
        from training.evaluation.similarity import measures, similarities

        pair = read_pair(first, second, size)
        sees = None if judge is None else _judge(judge)
        found = similarities(*pair, sees)
    if json:
        _print_json({"first": str(first), "second": str(second), "size": size, "measures": found})
        return
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for column in ("measure", "value", "range", "looks at"):
        table.add_column(column, justify="right" if column == "value" else "left", no_wrap=column != "looks at")
    for name, measure in measures(sees).items():
        table.add_row(f"[bold]{measure.title}[/]", measure.text(found[name]), measure.scale(), measure.looks_at)
    out.print(table)


def _compare_folder(
    query: Path,
    folder: Path,
    size: int | None,
    judge: Path | None,
    by: str | None,
    top: int | None,
    output: Path,
    json: bool,
) -> None:
    with _needs("evaluate"):
        from training.evaluation.search import draw, rank
        from training.evaluation.similarity import JUDGE, measures
        from training.progress import Stages

    if output.suffix.lower() != ".png":
        raise ConfigError(f"cannot write '{output}'", "Name a file that ends in .png.")
    if not output.parent.is_dir():
        raise ConfigError(f"there is no folder '{output.parent}' for the sheet", "Make it, or name another file.")
    if output.resolve() == query.resolve():
        raise ConfigError(f"the sheet would replace '{output}'", "Name another file: --output sheet.png.")
    if top is not None and not 1 <= top <= COMPARED_TOP:
        raise ConfigError(f"--top {top} is out of range", f"Take 1 to {COMPARED_TOP}.")
    if by == JUDGE and judge is None:
        raise ConfigError("--by judge needs a judge", "Name a run or a bundle: --judge runs/demo.")
    known = measures(None if judge is None else _judge(judge))
    by = by or (JUDGE if judge is not None else COMPARED_BY)
    if by not in known:
        raise ConfigError(f"there is no measure '{by}'", f"Take one of {', '.join(known)}.")
    measure = known[by]
    with _needs("evaluate"), Stages(err) as stages:
        watch = (lambda fraction: stages.stage("comparing", fraction)) if err.is_terminal else (lambda fraction: None)
        ranking = rank(query, folder, measure, size, (output,), watch)
    draw(query, folder, ranking, measure, size, top or COMPARED_SHOWN).save(output)
    nearest = ranking.found[: top or COMPARED_SHOWN]
    if json:
        rows = [{"file": str(folder / found.file), "value": found.value} for found in nearest]
        about = {"picture": str(query), "folder": str(folder), "size": size, "by": by}
        counts = {"compared": len(ranking.found), "left_out": ranking.left_out}
        _print_json(about | counts | {"sheet": str(output), "nearest": rows})
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("", justify="right")
    table.add_column(measure.title, justify="right", no_wrap=True)
    table.add_column("picture", overflow="fold")
    for number, found in enumerate(nearest[:COMPARED_ROWS], 1):
        table.add_row(str(number), measure.text(found.value), escape(str(found.file)))
    out.print(table)
    if ranking.left_out:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in ranking.left_out.items())
        mend = "" if size else " (--size N brings all to one size)"
        err.print(f"left out: {reasons}{mend}", style="yellow", markup=False)
    _say(f"{output}: the nearest {len(nearest):,} of {len(ranking.found):,}, {measure.title} {measure.scale()}")


def _print_json(content: dict[str, Any]) -> None:
    import json

    print(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False))


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
        _say(f"  how good they are: limner evaluate {DEMO_RUN} --html")
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
