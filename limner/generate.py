"""A server in, its pictures out, in one file or in a file each: `limner generate`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from limner.console import err, needs, say
from limner.picture_files import PARTS, Making, into_file, into_folder, patience
from training.errors import ConfigError, LimnerError
from training.precedence import resolve

if TYPE_CHECKING:
    from limner_client import Options

LIST_HELP = "A picture for each line: CSV with the columns label and seed, or JSON lines with these names."
OUTPUT_HELP = "A file (.png, .jpg, .webp, .json, .npy, .zip), or a folder/ for a file each."
FEW = 256  # images; so many are there before a bar would be read


def generate(
    output: Annotated[str, typer.Option("--output", "-o", help=OUTPUT_HELP)],
    label: Annotated[str | None, typer.Option(help="Class name or index.", show_default="from the seed")] = None,
    n: Annotated[int | None, typer.Option("-n", min=1, help="How many images.", show_default="1")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the first.", show_default="drawn")] = None,
    from_file: Annotated[Path | None, typer.Option("--from-file", help=LIST_HELP)] = None,
    truncation: Annotated[float | None, typer.Option(help="Latents within so many σ.")] = None,
    scale: Annotated[int | None, typer.Option(help="1-16: draw each pixel so large.")] = None,
    quality: Annotated[int | None, typer.Option(help="1-100, of jpeg and webp.")] = None,
    format: Annotated[
        str | None, typer.Option(help="Of a folder's files: png, jpeg, webp or npy.", show_default="png")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model name.")] = None,
    version: Annotated[int | None, typer.Option(help="Model version.", show_default="the highest")] = None,
    priority: Annotated[str | None, typer.Option(help="normal or low.", show_default="normal")] = None,
    timeout: Annotated[
        float | None, typer.Option(min=0.001, help="Seconds that a request may take.", show_default="the server's")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=1024, help="Requests at a time, for a file each.")] = 8,
    url: Annotated[str, typer.Option(envvar="LIMNER_URL", help="A running server.")] = "http://127.0.0.1:8000",
    models: Annotated[Path | None, typer.Option(help="No server: this folder of bundles, in this process.")] = None,
) -> None:
    """Ask a server, or a bundle in this process, for images.

    A folder/ is gone on with: the same command again makes only what is not there, or not whole. A list (--from-file)
    goes into a folder/, a .zip or a .npy.
    """
    from limner import picture_folder, picture_list

    path, to_folder = Path(output), output.endswith("/") or Path(output).is_dir()
    asked = {"truncation": truncation, "scale": scale, "quality": quality, "model": model, "version": version}
    asked |= {"priority": priority, "timeout_ms": None if timeout is None else max(1, round(timeout * 1e3))}
    options: Any = {name: value for name, value in asked.items() if value is not None}
    if from_file is not None and (label, n, seed) != (None, None, None):
        raise ConfigError("--from-file brings labels and seeds", "Leave --label, -n and --seed out.")
    _check(path, to_folder, from_file is not None, format)
    wanted = None if from_file is None else picture_list.read(from_file)
    with address_of(url, models) as place, asking():
        _greet(place)
        if wanted is None and not to_folder:
            options |= {} if seed is None else {"seed": seed}
            _one_answer(place, path, label, n or 1, options)
            return
        drawn = None
        if wanted is None and seed is None:
            seed = drawn = picture_folder.drawn_seed(path)
        wanted = wanted or picture_list.consecutive(label, seed or 0, n or 1)
        options["format"] = (format or "png") if to_folder else PARTS[path.suffix.lower()]
        making = Making(place, wanted, options, concurrency, drawn)
        files = into_folder(making, path) if to_folder else into_file(making, path)
    there = f", {files.were_there} were there" if files.were_there else ""
    say(f"{path}: {len(files.paths)} of {files.model}{there}")


def _check(path: Path, to_folder: bool, of_list: bool, format: str | None) -> None:
    """The output, before anybody is asked. Raises ConfigError."""
    from limner_client.calls import ENDINGS

    from limner.picture_folder import ENDINGS as OF_FOLDERS

    ending = path.suffix.lower()
    if to_folder:
        if format is not None and format not in OF_FOLDERS:
            raise ConfigError(f"no folder of '{format}'", f"Allowed: {', '.join(OF_FOLDERS)}.")
        return
    if of_list and ending not in PARTS:
        raise ConfigError(f"cannot write a list into '{path}'", "Name a folder/, or a file that ends in .zip or .npy.")
    if ending not in ENDINGS:
        raise ConfigError(f"cannot write '{path}'", f"Name a folder/, or a file that ends in {', '.join(ENDINGS)}.")
    if format is not None:
        raise ConfigError("--format is that of a folder's files", "A file's is its ending.")
    if not path.parent.is_dir():
        raise ConfigError(f"there is no folder '{path.parent}'", "Make it, or name another place.")


def _greet(url: str) -> None:
    """Whoever is not there is not waited for. Raises ClientError."""
    from limner_client import Client

    with Client(url, retries=None) as client:
        client.models()


def _one_answer(url: str, path: Path, label: str | None, n: int, options: "Options") -> None:
    """n images in one file: a sheet, or an npy or zip that is written while it arrives."""
    from limner_client import Client, Progress

    from limner.counting import Counting

    with Client(url, retries=patience()) as client, Counting(err, str(path), n) as counting:

        def show(progress: Progress) -> None:
            if n > FEW:
                counting.count(progress.images)

        saved = client.download(path, label, n, progress=show, **options)
    say(f"{path}: {n} of {saved.model}, seed {saved.seed}")


@contextmanager
def address_of(url: str, models: Path | None) -> Iterator[str]:
    """`url`, or without a server that of one in this process, which serves `models` until the block ends."""
    if models is None:
        yield url
        return
    with needs("serve"):
        from server.process import in_background
        from server.settings import Settings
    with in_background(resolve(Settings, {"models": models}, "LIMNER_")) as place:
        yield place


@contextmanager
def asking() -> Iterator[None]:
    """What a client raises, as limner's one line; only where nobody answers is starting a server the mend."""
    from limner_client import ClientError, ConnectionFailed, IncompleteAnswer, InvalidAddress, TimedOut

    try:
        yield
    except InvalidAddress as error:
        raise LimnerError(str(error), "Name another --url.") from error
    except (IncompleteAnswer, TimedOut) as error:
        raise LimnerError(str(error), "Ask again; the server's log says why.") from error
    except ConnectionFailed as error:
        raise LimnerError(str(error), "Start one with limner serve, or use --models.") from error
    except ClientError as error:
        raise LimnerError(str(error).rstrip(".")) from error
