"""A run or a bundle in, a bundle with more artifacts out: `limner export`."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from limner.artifact_table import print_artifacts, refused_table
from limner.console import err, needs, say
from limner.places import is_run, newest
from training.errors import ConfigError

if TYPE_CHECKING:
    from export.bundle import Bundle
    from export.extend import Extended, Observe
    from export.targets import Wanted
    from export.tensorrt.build import Options


def export(
    source: Annotated[Path, typer.Argument(metavar="RUN|BUNDLE", help="Run folder, or a bundle to extend.")],
    to: Annotated[
        list[str] | None,
        typer.Option(help="onnx, openvino, tensorrt, tensorrt-rtx; again for more.", show_default="onnx"),
    ] = None,
    precision: Annotated[
        list[str] | None, typer.Option(help="fp32, fp16, bf16, int8; again for more.", show_default="fp32")
    ] = None,
    models: Annotated[Path | None, typer.Option(help="Folder of bundles.", show_default="models")] = None,
    name: Annotated[str | None, typer.Option(help="Model name.", show_default="the run's")] = None,
    force: Annotated[bool, typer.Option("--force", help="Publish also what failed a gate; it is recorded.")] = False,
    triton: Annotated[
        str | None, typer.Option(help="Backend in config.pbtxt: onnxruntime or tensorrt.", show_default="onnxruntime")
    ] = None,
    compute_capability: Annotated[
        str | None,
        typer.Option(help="Of tensorrt-rtx plans, such as '8.6, 8.9'.", show_default="this GPU's"),
    ] = None,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="TensorRT plans that later versions run as well.")
    ] = False,
    hardware_compatible: Annotated[
        bool, typer.Option("--hardware-compatible", help="TensorRT plans that later GPUs run as well.")
    ] = False,
) -> None:
    """Export a run to a bundle, or extend a bundle, through gates that compare the pictures.

    model.onnx, the fp32 graph, is always written; each target gives an artifact of the same bundle for each precision
    that it has. What fails a gate is not published. What cannot run here says which command tries it where it can. A
    bundle is extended without torch.
    """
    from export.bundle import version_folders
    from export.targets import wanted

    wants, notes = wanted(to or [], precision or [])
    targets = {want.target for want in wants}
    if triton not in (None, "onnxruntime", "tensorrt"):
        raise ConfigError(f"limner writes no config.pbtxt for '{triton}'", "Take onnxruntime or tensorrt.")
    if (version_compatible or hardware_compatible) and "tensorrt" not in targets:
        raise ConfigError("--version-compatible and --hardware-compatible are for --to tensorrt", "Leave them out.")
    if compute_capability is not None and "tensorrt-rtx" not in targets:
        raise ConfigError(
            "--compute-capability is for --to tensorrt-rtx", "Leave it out: TensorRT builds for the GPU that is there."
        )
    for note in notes:
        err.print(note, style="yellow", markup=False)
    with needs("export"):
        from export.extend import check
        from export.tensorrt.build import Options
    options = Options(compute_capability, version_compatible, hardware_compatible)
    for want in wants:
        check(want, options)  # before minutes are spent
    if is_run(source):
        if triton == "tensorrt" and "tensorrt" not in targets:
            raise ConfigError("--triton tensorrt describes TensorRT plans", "Add --to tensorrt.")
        models = models or Path("models")
        before = version_folders(models)
        bundle = export_bundle(source, models, name, force)
        say(_title(bundle))
        extended = _extended(bundle, wants, options, force, run=source)
        there = extended.there if bundle.folder in before else ()
    elif name is not None or models is not None:
        raise ConfigError("--name and --models say where a run's bundle goes, and this is a bundle", "Leave them out.")
    else:
        bundle = newest(source, "run or bundle")
        planned = {artifact.engine for artifact in bundle.manifest.artifacts} | targets
        if triton == "tensorrt" and "tensorrt" not in planned:
            raise ConfigError(f"--triton tensorrt describes plans, and {bundle.title} has none", "Add --to tensorrt.")
        say(_title(bundle))
        extended = _extended(bundle, wants, options, force)
        there = extended.there
    _describe(extended.bundle, triton)
    for artifact in there:
        say(f"{artifact.title} is there already")
    print_artifacts(extended.bundle.manifest.artifacts)


def export_bundle(run: Path, models: Path, name: str | None, force: bool = False) -> "Bundle":
    """Write the next version of `name` under `models`, with its fp32 graph and config.pbtxt alone.

    Raises GateError where its pictures are not the run's.
    """
    with needs("export"), _shown() as observe:
        from export.to_onnx import export as export_run

        bundle = export_run(run, models, name, force, observe)
    _describe(bundle, None)
    return bundle


def _extended(
    bundle: "Bundle", wants: list["Wanted"], options: "Options", force: bool, run: Path | None = None
) -> "Extended":
    """Held against torch where the run is there, else against the bundle's own fp32 graph."""
    with needs("export"), _shown() as observe:
        from export.extend import bundle_original, extend

        if run is not None:
            from export.to_onnx import run_original

            source = nullcontext(run_original(run, bundle))
        else:
            source = bundle_original(bundle)
        with source as original:
            return extend(bundle, wants, original, options, force, observe)


def _describe(bundle: "Bundle", triton: str | None) -> None:
    """Write config.pbtxt beside the versions. Without a backend named, one that is not limner's stays as it is."""
    from export.triton import CONFIG, edited, write

    if write(bundle, triton) is None and edited(bundle):
        say(f"{CONFIG} was changed by hand and stays; --triton onnxruntime writes it anew")


@contextmanager
def _shown() -> Iterator["Observe"]:
    """Progress bars; and a table of what failed, where a gate refuses."""
    from export.artifacts import Refused
    from training.progress import Stages

    try:
        with Stages(err) as stages:
            yield stages.stage
    except Refused as error:
        err.print(refused_table(error.artifacts))
        raise


def print_bundle(bundle: "Bundle") -> None:
    """What was exported and how each artifact passed the gates."""
    say(_title(bundle))
    print_artifacts(bundle.manifest.artifacts)


def _title(bundle: "Bundle") -> str:
    manifest = bundle.manifest
    shape = f"{manifest.height}x{manifest.width}x{manifest.channels}"
    return f"{bundle.folder}: {manifest.kind}, {shape}, {manifest.classes or 'no'} classes"
