"""A bundle in, what it is out: `limner inspect`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from limner.artifact_table import print_artifacts
from limner.console import out, quality_line, say
from limner.places import newest


def inspect(
    bundle: Annotated[Path, typer.Argument(help="A bundle, such as models/digits or models/digits/1.")],
    json: Annotated[bool, typer.Option("--json", help="Print the manifest.")] = False,
) -> None:
    """Show a bundle: what it is, where it comes from, its gates and quality. Every hash is checked."""
    from export.bundle import version_folders

    found, folders = newest(bundle), version_folders(bundle)
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
        "quality": quality_line(manifest.quality.model_dump()) if manifest.quality else "not judged",
    }
    for key, value in rows.items():
        table.add_row(f"[bold]{escape(key)}[/]", escape(value))
    out.print(table)
    out.print()
    print_artifacts(manifest.artifacts)
    if len(folders) > 1:
        say(f"{len(folders) - 1} older: {', '.join(folder.name for folder in folders[:-1])}")
