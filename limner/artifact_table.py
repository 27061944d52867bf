"""Artifacts in, the tables of their gates out, for `export` and `inspect`."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from limner.console import out

if TYPE_CHECKING:
    from export.bundle import Artifact, Gates


def print_artifacts(artifacts: Sequence["Artifact"]) -> None:
    """The table, and a line for each artifact whose gates were passed over or not run."""
    out.print(_table(artifacts))
    for artifact in artifacts:
        if artifact.not_run is not None:
            out.print(
                f"{artifact.title}: {artifact.not_run.why.rstrip('.')}. Where it runs: {artifact.not_run.command}",
                markup=False,
            )
        if artifact.gates is not None and artifact.gates.failed:
            out.print(f"{artifact.title}: forced past {', '.join(artifact.gates.failed)}", style="bold red")


def _table(artifacts: Sequence["Artifact"]) -> Table:
    """A row for each artifact: the greatest difference of its pictures from torch's, or from the fp32 graph's where
    torch was not there, in grey levels, and their PSNR; what that does to their FID; the batch sizes in which a picture
    is the same bit for bit; its file.
    """
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for column in ("artifact", "difference", "FID change", "batch sizes", "file"):
        table.add_column(column, overflow="fold", no_wrap=column in ("artifact", "difference"))
    for artifact in artifacts:
        table.add_row(*map(escape, _row(artifact)))
    return table


def _row(artifact: "Artifact") -> list[str]:
    gates = artifact.gates
    if gates is None:
        return [artifact.title, "not run here", "", "", _file(artifact)]
    parity = gates.parity
    apart = f"{parity.max_levels} of 255"
    apart += "" if parity.psnr_db is None else f", {parity.psnr_db:.1f} dB"
    drift = "no judge"
    if gates.drift is not None:
        fid = gates.drift.figures.get("fid")
        drift = "" if fid is None else f"{fid:.3f}"
    return [artifact.title, apart, drift, batches(artifact.buckets), _file(artifact)]


def _file(artifact: "Artifact") -> str:
    """A plan by the GPUs that it is for: its name is too long to be read."""
    capabilities = (artifact.requirements or {}).get("compute_capability")
    return artifact.file if capabilities is None else f"plan for {capabilities}"


def batches(buckets: Sequence[int]) -> str:
    """(1, 2, 4, 8, 16) -> "1, 2 ... 16": not every power of two need be spelt out."""
    doubling = len(buckets) > 4 and all(larger == 2 * smaller for smaller, larger in pairwise(buckets))
    shown = [*map(str, buckets)]
    return f"{', '.join(shown[:2])} ... {shown[-1]}" if doubling else ", ".join(shown)


def refused_table(artifacts: Sequence["Artifact"]) -> Table:
    """A row for each limit of each gate that failed: what was found, what is allowed."""
    from export.gates import findings

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for column in ("artifact", "gate", "found", "allowed"):
        table.add_column(column)
    for artifact in artifacts:
        gates: Gates | None = artifact.gates
        for gate, found, allowed in findings(gates, artifact.buckets) if gates else []:
            table.add_row(*map(escape, (artifact.title, gate, found, allowed)))
    return table
