"""Flags, environment and a file in, a trained run folder out: `limner train`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from limner.console import err, needs, quality_line, say
from training.errors import ConfigError
from training.precedence import assignments, given_settings, over, validated

if TYPE_CHECKING:
    from training.config import TrainConfig


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

        say(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False).rstrip())
        return
    if stored == settings and RunFolder(settings.out).finished():
        say(f"{settings.out} is finished; for more give --epochs or --seconds with --override")
        return
    train_run(settings, overwrite, resume=stored is not None, tensorboard=tensorboard)


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


def train_run(config: "TrainConfig", overwrite: bool, resume: bool = False, tensorboard: bool = False) -> None:
    """Train into the folder that `config` names, with a bar on stderr and the closing figures on stdout."""
    from training.run import RunFolder

    if not resume:
        RunFolder(config.out).guard(overwrite)
    with needs("train"):
        from training import data, loop
        from training.progress import Board, Observers, TrainingProgress

    loop.check(config, going_on=resume and RunFolder(config.out).checkpoint.is_file())
    with needs("tensorboard"):
        observers = [Board(RunFolder(config.out).board)] if tensorboard else []
    with TrainingProgress(err, f"training {config.model}") as progress:
        with needs("train"):
            dataset = data.load(config.data, config.size, config.limit, progress.data)
        count = len(dataset.train) + len(dataset.val) + len(dataset.test)
        classes = f"{len(dataset.class_names)} classes" if dataset.class_names else "no classes"
        say(f"{dataset.name}: {count} images of {dataset.size}x{dataset.size}x{dataset.channels}, {classes}")
        if dataset.note:
            progress.note(dataset.note)
        closing = loop.train(config, dataset, Observers(progress, *observers), resume=resume)
    early = f", stopped early at step {closing['step']:,}" if closing["stopped_early"] else ""
    say(f"trained {closing['images']:,} images in {closing['seconds']:.0f} s{early}: {config.out}")
    say(quality_line(closing["quality"]))
