"""Two pictures in, how near they are out; a picture and a folder in, its nearest and a sheet out: `limner compare`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from limner.console import err, needs, out, print_json, say
from limner.places import judge_at
from training.errors import ConfigError

BY = "shape"  # without a judge: of the ten nearest digits 93 % are the same, by MS-SSIM 85 %
ROWS, SHOWN, TOP = 10, 24, 1_000  # of the table, on the sheet, on the largest sheet
LARGEST = 2_048  # pixels of a side


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
    if size is not None and not SMALLEST <= size <= LARGEST:
        raise ConfigError(f"--size {size} is out of range", f"Take {SMALLEST} to {LARGEST} pixels.")
    if second.is_dir():
        _compare_folder(first, second, size, judge, by, top, output or Path("compare.png"), json)
        return
    given = {"--by": by, "--top": top, "--output": output}
    unused = [flag for flag, value in given.items() if value is not None]
    if unused and second.exists():
        raise ConfigError(f"{unused[0]} is for a ranking, and '{second}' is no folder", "Leave it out.")
    _compare_pair(first, second, size, judge, json)


def _compare_pair(first: Path, second: Path, size: int | None, judge: Path | None, json: bool) -> None:
    with needs("evaluate"):
        from training.evaluation.search import read_pair
        from training.evaluation.similarity import measures, similarities

        pair = read_pair(first, second, size)
        sees = None if judge is None else judge_at(judge)
        found = similarities(*pair, sees)
    if json:
        print_json({"first": str(first), "second": str(second), "size": size, "measures": found})
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
    with needs("evaluate"):
        from training.evaluation.search import draw, rank
        from training.evaluation.similarity import JUDGE, measures
        from training.progress import Stages

    if output.suffix.lower() != ".png":
        raise ConfigError(f"cannot write '{output}'", "Name a file that ends in .png.")
    if not output.parent.is_dir():
        raise ConfigError(f"there is no folder '{output.parent}' for the sheet", "Make it, or name another file.")
    if output.resolve() == query.resolve():
        raise ConfigError(f"the sheet would replace '{output}'", "Name another file: --output sheet.png.")
    if top is not None and not 1 <= top <= TOP:
        raise ConfigError(f"--top {top} is out of range", f"Take 1 to {TOP}.")
    if by == JUDGE and judge is None:
        raise ConfigError("--by judge needs a judge", "Name a run or a bundle: --judge runs/demo.")
    known = measures(None if judge is None else judge_at(judge))
    by = by or (JUDGE if judge is not None else BY)
    if by not in known:
        raise ConfigError(f"there is no measure '{by}'", f"Take one of {', '.join(known)}.")
    measure = known[by]
    with needs("evaluate"), Stages(err) as stages:
        watch = (lambda fraction: stages.stage("comparing", fraction)) if err.is_terminal else (lambda fraction: None)
        ranking = rank(query, folder, measure, size, (output,), watch)
    draw(query, folder, ranking, measure, size, top or SHOWN).save(output)
    nearest = ranking.found[: top or SHOWN]
    if json:
        rows = [{"file": str(folder / found.file), "value": found.value} for found in nearest]
        about = {"picture": str(query), "folder": str(folder), "size": size, "by": by}
        counts = {"compared": len(ranking.found), "left_out": ranking.left_out}
        print_json(about | counts | {"sheet": str(output), "nearest": rows})
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("", justify="right")
    table.add_column(measure.title, justify="right", no_wrap=True)
    table.add_column("picture", overflow="fold")
    for number, found in enumerate(nearest[:ROWS], 1):
        table.add_row(str(number), measure.text(found.value), escape(str(found.file)))
    out.print(table)
    if ranking.left_out:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in ranking.left_out.items())
        mend = "" if size else " (--size N brings all to one size)"
        err.print(f"left out: {reasons}{mend}", style="yellow", markup=False)
    say(f"{output}: the nearest {len(nearest):,} of {len(ranking.found):,}, {measure.title} {measure.scale()}")
