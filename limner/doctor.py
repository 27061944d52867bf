"""This machine in, a table of the engines that run on it out: `limner doctor`."""

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from limner.console import err, out, print_json


def doctor(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Say which engines are installed, load and really run here (or build plans at least), and what mends the others.

    Exits with 1 where none runs.
    """
    from dataclasses import asdict

    from export.doctor import UNSEEN, examine, rivals

    with err.status("trying each engine"):
        found, clash = examine(), rivals()
    if json:
        print_json({"engines": [asdict(finding) for finding in found], "clash": clash, "never_run_on_a_gpu": UNSEEN})
    else:
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
        for column in ("engine", "here", "version", "precisions", "device"):
            table.add_column(column, no_wrap=True, overflow="fold")
        for finding in found:
            state = "[green]runs[/]" if finding.runs else "[yellow]builds[/]" if finding.builds else "[red]no[/]"
            facts = (finding.version or "not installed", " ".join(finding.precisions), finding.device)
            table.add_row(finding.engine, state, *map(escape, facts))
        out.print(table)
        for finding in found:
            if finding.why:
                out.print(f"[bold]{finding.engine}[/]: {escape(f'{finding.why}. {finding.mend}')}")
        out.print(
            f"limner's own tests have not yet run {', '.join(UNSEEN)} on a GPU. The gates check their pictures.",
            style="dim",
        )
        if clash is not None:
            out.print(
                f"Installed together, {clash} overwrite each other's files. In limner's folder: "
                f"pip uninstall {clash.replace(',', '')}, then pip install '.[cpu]', or '.[gpu]'.",
                style="bold red",
                markup=False,
            )
    if not any(finding.runs for finding in found):
        raise typer.Exit(1)
