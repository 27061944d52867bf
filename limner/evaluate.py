"""A run or a bundle in, every figure beside that of real images out, as a table, JSON or a page: `limner evaluate`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from limner.console import err, needs, out, print_json
from limner.places import images_of, is_run, newest, subject_at
from training.errors import ConfigError


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
    with needs("evaluate"):
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
    with subject_at(subject, engine) as found, Stages(err) as stages, needs("evaluate"):
        real, missing, features, brought, page = None, "", None, None, None
        if where is not None or inception is not None:
            real, missing = images_of(found, data, stages.data)
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
        print_json(as_json(found, examined, brought))
    else:
        out.print(as_table(found, examined, brought))
    if where is not None and page is not None:
        where.write_text(page, encoding="utf-8")
        err.print(f"report: {where}{f' (without real images: {missing})' if missing else ''}", markup=False)


def _report_path(subject: Path) -> Path:
    """Into the run; a bundle's folder stays as it was exported."""
    if is_run(subject):
        from training.run import RunFolder

        return RunFolder(subject).report
    manifest = newest(subject, "run or bundle").manifest
    return Path(f"{manifest.name}-{manifest.version}.html")
