"""Wanted pictures and a server in, a file for each in a folder out, or one zip or npy of them all."""

import asyncio
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limner.console import err
from limner.picture_archive import npy, pack
from limner.picture_list import Wanted
from training.errors import Interrupted, LimnerError

if TYPE_CHECKING:
    from limner_client import AsyncClient, Client, Format, Options, Retries

PARTS = {".zip": "png", ".npy": "npy"}  # the form of the pictures that go into one file
TOGETHER: "dict[str, Format]" = {"png": "zip", "npy": "npy"}  # what several pictures of a format come in
LONGEST = 64  # images of one request: a batch
COMMON = ("format", "scale", "quality", "truncation")  # what all files of a folder share, besides the model


@dataclass(frozen=True)
class Making:
    """Which pictures are wanted, of which server, how, and how many requests at a time.

    `drawn_seed` is that of the first, where nobody named one: it is written down, so that the same command finds it.
    """

    url: str
    wanted: Sequence[Wanted]
    options: "Options"
    concurrency: int
    drawn_seed: int | None = None


@dataclass(frozen=True)
class Files:
    """What a folder holds now: `paths` of the wanted pictures, in their order, and how many `were_there`."""

    paths: list[Path]
    were_there: int
    model: str
    class_names: list[str]


def patience() -> "Retries":
    """Whoever runs a command would rather wait for a busy server than run it again."""
    from limner_client import Retries

    return Retries(attempts=50, seconds=300)


def into_folder(making: Making, path: Path) -> Files:
    """Make the files that `path` lacks. Raises ConfigError, ClientError, OSError; Interrupted with what is there."""
    from limner_client import AsyncClient, Client

    from limner.counting import Counting
    from limner.picture_folder import PictureFolder

    with Client(making.url, retries=patience()) as client:
        options, common, class_names = _resolved(client, making)
    common |= {} if making.drawn_seed is None else {"drawn_seed": making.drawn_seed}
    folder = PictureFolder(path, common["format"], common)
    paths = [folder.file(one, one.index(class_names)) for one in making.wanted]
    files = dict(zip(paths, making.wanted, strict=True))  # who is wanted twice is made once
    folder.claim(files)
    missing = folder.missing(files)
    were_there = len(files) - len(missing)
    with Counting(err, str(path), len(missing)) as counting:
        try:
            client = AsyncClient(making.url, retries=patience())
            asyncio.run(_make(client, missing, options, making.concurrency, counting.count))
        except KeyboardInterrupt as error:
            said = f"stopped: {were_there + counting.done} of {len(files)} pictures are in {path}"
            raise Interrupted(said, "The same command goes on.") from error
    return Files(paths, were_there, f"{common['model']}@{common['version']}", class_names)


def into_file(making: Making, output: Path) -> Files:
    """All of a list in one zip or npy, in its order. Its parts wait in a folder beside it until all are there."""
    parts = output.with_name(f"{output.name}.parts")
    files = into_folder(making, parts)
    pack(files.paths, files.class_names, output)
    shutil.rmtree(parts)
    return files


def _resolved(client: "Client", making: Making) -> "tuple[Options, dict[str, Any], list[str]]":
    """Options that name model and version, what all files have in common, class names.

    One picture is asked for: whatever the server refuses is said before a folder is made.
    """
    answer = client.generate(**{**making.options, "seed": making.wanted[0].seed})
    name, _, version = answer.model.rpartition("@")
    served = next(one for one in client.model(name)["versions"] if one["version"] == int(version))
    common = {"model": name, "version": int(version), "digest": served["digest"]}
    common |= {key: making.options.get(key) for key in COMMON}
    return {**making.options, "model": name, "version": int(version)}, common, served["class_names"]


@dataclass(frozen=True)
class _Run:
    """Files of one label and consecutive seeds, which one request can ask for."""

    first: Wanted
    files: list[Path]

    def goes_on_with(self, wanted: Wanted) -> bool:
        follows = (self.first.label, self.first.seed + len(self.files)) == (wanted.label, wanted.seed)
        return follows and len(self.files) < LONGEST


def _runs(files: dict[Path, Wanted], format: str) -> list[_Run]:
    """In their order. A picture of another format than these comes alone: together they would be a sheet."""
    runs: list[_Run] = []
    for file, wanted in files.items():
        if runs and format in TOGETHER and runs[-1].goes_on_with(wanted):
            runs[-1].files.append(file)
        else:
            runs.append(_Run(wanted, [file]))
    return runs


async def _make(
    client: "AsyncClient", files: dict[Path, Wanted], options: "Options", concurrency: int, count: Callable[[int], None]
) -> None:
    """Ask for each and write it, `concurrency` requests at a time; `count` hears how many are written.

    Raises the first failure. What is under way then, or at Ctrl-C, is given up and leaves nothing.
    """
    runs = _runs(files, options.get("format", "png"))
    rest, written = iter(runs), 0

    async def work() -> None:
        nonlocal written
        for run in rest:
            await _make_run(client, run, options)
            written += len(run.files)
            count(written)

    async with client:
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(concurrency, len(runs))):
                    group.create_task(work())
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None


async def _make_run(client: "AsyncClient", run: _Run, options: "Options") -> None:
    from limner_client import ApiError
    from limner_client.files import write

    n, format = len(run.files), options.get("format", "png")
    asked: Options = {**options, "seed": run.first.seed, "format": TOGETHER[format] if n > 1 else format}
    try:
        answer = await client.generate(run.first.label, n, **asked)
    except ApiError as error:
        raise LimnerError(f"{run.first.where}{str(error).rstrip('.')}") from error
    if n == 1:
        contents = [answer.content]
    elif answer.format == "zip":
        contents = [entry.png for entry in answer.entries()]  # the very bytes of a picture that was asked for alone
    else:
        contents = [npy(image[None]) for image in answer.array()]
    for file, content in zip(run.files, contents, strict=True):
        write(file, content)
