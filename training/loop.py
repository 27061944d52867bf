"""A config and a data set in, a trained run folder out: one loop for every kind of model."""

import ctypes
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training import checkpoint
from training.alarms import WAIT, Alarm, alarms
from training.config import ModelSpec, TrainConfig
from training.data import Dataset
from training.errors import ConfigError, DataError, Interrupted, RunError
from training.evaluation.evaluate import Evaluation, closing
from training.evaluation.reference import Reference
from training.guard import Guard
from training.judge import Judge, default_cache, digest, judge_for
from training.learner import Learner
from training.objectives import NonFinite
from training.observer import Observer, Progress
from training.prior import Prior
from training.run import RunFolder
from training.sampling import Grid, model_of, stored_prior

RECORD_EVERY = 50  # steps between two lines of metrics.jsonl
MILESTONES = 10  # over a run, where `evaluate_every` does not say otherwise: evaluation, grid, checkpoint
SAVE_SECONDS = 300.0  # between two checkpoints at most, so that a machine that dies costs minutes
MEMORY = 50  # steps whose pairs an alarm on the discriminator goes by
SAMPLES = 1_000  # pictures of an evaluation on the way; the closing one takes more


def train(
    config: TrainConfig,
    dataset: Dataset,
    observer: Observer | None = None,
    cache: Path | None = None,
    resume: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """Train into `config.out` and return the closing figures.

    Replaces the run that is there, or with `resume` goes on with it: on a CPU, and with a budget in epochs, as if it
    had never stopped, bit for bit. `clock` counts `config.seconds`, in the steps alone. The judge comes out of `cache`
    (default: the user's), or is trained first. What can be refused is refused, and the judge is there, before an older
    run is touched: DataError, ConfigError. Raises Interrupted after SIGINT or SIGTERM, with the checkpoint saved;
    RunError where steps stay infinite after three roll-backs, where memory runs out, or where a run cannot go on.
    """
    folder = RunFolder(config.out)
    going_on = resume and folder.checkpoint.is_file()
    device, start = check(config, going_on)
    spec = spec_for(config, dataset)
    _keep_memory()
    listener = observer or Observer()
    before = checkpoint.load(folder.checkpoint) if going_on else None
    with _memory(config):
        judge = _judge(dataset, cache or default_cache(), listener)
        training = Training(config, spec, dataset, judge, folder, listener, device, clock)
        if before is not None:
            training.resume(before)
            folder.reopen(config, training.learner.step)
        else:
            taken, left = training.learner.begin_from(start) if start is not None else (0, [])
            folder.create(config)
            if taken:
                training.began(taken, left)
        judge.save(folder.judge)
        training.reference.save(folder.reference)
        with _signals() as stopped:
            return training.run(stopped)


def check(config: TrainConfig, going_on: bool = False) -> tuple[torch.device, dict[str, Any] | None]:
    """What can be refused before any image is read: the device, and the state that --init-from names, if it does.

    A run that goes on needs its start no more. Raises ConfigError, RunError.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("no CUDA device answers", "Train with --device cpu, or install a CUDA build of torch.")
    cuda = config.device == "cuda" or (config.device == "auto" and torch.cuda.is_available())
    source = None if going_on else config.init_from
    if source is not None and source.is_dir():
        source = RunFolder(source).checkpoint  # which has all networks
    return torch.device("cuda" if cuda else "cpu"), None if source is None else checkpoint.load(source)


class Training:
    """One run: a learner within its budget, recorded, judged, saved, and held up when it falls."""

    def __init__(
        self,
        config: TrainConfig,
        spec: ModelSpec,
        dataset: Dataset,
        judge: Judge,
        folder: RunFolder,
        observer: Observer,
        device: torch.device,
        clock: Callable[[], float],
    ) -> None:
        self.config, self.spec, self.dataset, self.judge = config, spec, dataset, judge
        self.folder, self.observer, self.device, self.clock = folder, observer, device, clock
        self.learner = Learner(config, spec, dataset, device)
        self.guard = Guard(self.learner.objective.networks.values())
        self.reference = Reference.of(judge, dataset, "test", limit=config.limit)
        on_the_way = self.reference.instead(judge, dataset, "val")
        self.evaluation = Evaluation(judge, on_the_way, config.conditional, SAMPLES, config.seed)
        self._digest = digest(dataset.train)
        self.seconds = 0.0
        self.milestone = 0  # the last that was passed
        self.best: dict[str, Any] = {"fid": None, "step": 0, "waiting": 0}
        self.raised: list[str] = []  # codes of alarms that are on
        self.quality: dict[str, float] | None = None  # of the last evaluation
        self.means: dict[str, dict[str, float]] = {"losses": {}, "signals": {}}  # of the last record
        self.prior: Prior | None = None  # as fitted at the last milestone
        self._sums: dict[str, dict[str, Tensor]] = {"losses": {}, "signals": {}}
        self._summed = 0
        self._told_apart: list[Tensor] = []  # of the last MEMORY steps: one has too few pairs

    # the budget

    @property
    def fraction(self) -> float:
        """Share of the budget that is spent."""
        if self.config.seconds is not None:
            return min(1.0, self.seconds / self.config.seconds)
        assert self.config.budget_epochs is not None
        learner = self.learner
        return min(1.0, learner.images / max(learner.batch, round(self.config.budget_epochs * len(self.dataset.train))))

    def _passed(self) -> int:
        every = self.config.evaluate_every
        return self.learner.images // every if every else int(self.fraction * MILESTONES)

    # state

    # state

    def _checkpoint(self, finished: bool = False) -> dict[str, Any]:
        return {
            "schema": checkpoint.SCHEMA,
            "spec": self.spec.model_dump(mode="json"),
            "config": self.config.model_dump(mode="json"),
            "data": self.dataset.name,
            "data_digest": self._digest,
            "seconds": self.seconds,
            "finished": finished,
            "quality": None,  # of a checkpoint on the way nothing final is known
            "prior": None if self.prior is None else _tensors(self.prior),
            "guard": self.guard.state_dict(),
            "milestone": self.milestone,
            "best": self.best,
            "raised": self.raised,
            "sums": self._sums,
            "summed": self._summed,
            "told_apart": self._told_apart,
            **self.learner.state_dict(),
        }

    def _save(self, finished: bool = False) -> None:
        checkpoint.save(self.folder.checkpoint, self._checkpoint(finished))

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint. Raises RunError where it is that of another model, or of other images."""
        path = self.folder.checkpoint
        try:
            if state["schema"] != checkpoint.SCHEMA:
                raise ValueError("another schema")
            if state["data_digest"] != self._digest:
                raise RunError(
                    f"the images of {self.dataset.name} are not those that {self.folder.path} began with",
                    f"Start another run with --init-from {self.folder.path}.",
                )
            if ModelSpec.model_validate(state["spec"]) != self.spec:
                raise RunError(
                    f"{path} holds another model ({_differences(state['spec'], self.spec.model_dump(mode='json'))})",
                    f"Start another run with --init-from {self.folder.path}.",
                )
            self.learner.load_state_dict(state)
            self.guard.load_state_dict(state["guard"])
            self.seconds, self.milestone = state["seconds"], state["milestone"]
            self.best, self.raised = dict(state["best"]), list(state["raised"])
            self.prior = stored_prior(state)
            sums = {
                side: {name: total.to(self.device) for name, total in state["sums"][side].items()}
                for side in self._sums
            }
            self._sums, self._summed = sums, state["summed"]
            self._told_apart = [share.to(self.device) for share in state["told_apart"]]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            if _out_of_memory(error):
                raise
            raise RunError(f"{path} is no checkpoint of this version", "Train again with --overwrite.") from error
        if state["config"] | {"out": ""} != self.config.model_dump(mode="json") | {"out": ""}:
            self.best["waiting"] = 0  # other settings are another chance
        if self.config.evaluate_every is None:
            self.milestone = min(self.milestone, int(self.fraction * MILESTONES))  # a longer budget moves them

    def began(self, taken: int, left: list[str]) -> None:
        """Say and record what --init-from brought."""
        source = self.config.init_from
        self.folder.record(init_from=str(source), taken=taken, left=left)
        rest = f"; {len(left)} did not fit: {', '.join(left)}" if left else ""
        self.observer.note(f"{source}: {taken} of {taken + len(left)} weights taken{rest}")

    # the loop

    def run(self, stopped: threading.Event) -> dict[str, Any]:
        """Take steps until the budget is spent, patience ends or `stopped` is set."""
        if self.fraction >= 1:
            self.observer.note(f"{self.folder.path} had its whole budget already")
            if self.best["fid"] is None:  # it was stopped before the first evaluation of a larger budget
                self.prior = self._fit_prior()
                self._evaluate()
            return self._finish()
        grid = Grid(self.spec, self.dataset, self.folder, self.config.seed)
        self.guard.keep(self.learner.state_dict)
        saved = time.monotonic()
        while self.fraction < 1 and not self._patience_ended():
            further = self._advance()
            milestone = self._passed() > self.milestone or self.fraction >= 1
            if (further and self.learner.step % RECORD_EVERY == 0) or milestone:
                self._record()
                self.guard.keep(self.learner.state_dict)
                if not milestone:  # an evaluation reports by itself
                    self.observer.progress(self._progress())
            if milestone:
                self.prior = self._fit_prior()
            if milestone or self.learner.step == 1:
                grid.draw(self.learner.average, self.prior, self.learner.step)
            if milestone:
                self.milestone = self._passed()
                self._evaluate()
            if milestone or self.learner.step == 1 or time.monotonic() - saved > SAVE_SECONDS:
                self._save()
                saved = time.monotonic()
            if stopped.is_set():
                self.prior = self._fit_prior()  # what is saved may be exported
                self._save()
                raise Interrupted(
                    f"stopped at step {self.learner.step}",
                    f"The checkpoint is saved: go on with limner train --resume --out {self.folder.path}.",
                )
        return self._finish()

    def _advance(self) -> bool:
        """One step, or one that was skipped because it was not finite; False where it went back instead."""
        began = self.clock()
        self.guard.before()
        went_back = False
        try:
            step = self.learner.take(self.fraction, self.guard.factor)
        except NonFinite:
            went_back = self.guard.failed()
        else:
            self.guard.passed()
            self._add(step.losses, step.signals)
        if went_back:
            self._roll_back()
        else:
            self.learner.count()
        self.seconds += self.clock() - began  # time is the one thing that does not come back
        return not went_back

    def _roll_back(self) -> None:
        self.learner.load_state_dict(self.guard.good)
        self._sums, self._summed = {"losses": {}, "signals": {}}, 0
        self.folder.record(step=self.learner.step, rolled_back=self.guard.roll_backs, skipped=self.guard.skipped)
        if self.guard.spent:
            checkpoint.save(self.folder.last_good, self._checkpoint())
            raise RunError(
                f"three steps in a row were not finite, {self.guard.roll_backs} times, the last after step "
                f"{self.learner.step}",
                f"The weights before are in {self.folder.last_good}: start another run from it by --init-from, with "
                "lower rates or --set clip=1.",
            )
        self.observer.note(
            f"three steps in a row were not finite: back to step {self.learner.step}, rates times {self.guard.factor:g}"
        )

    def _add(self, losses: dict[str, Tensor], signals: dict[str, Tensor]) -> None:
        self._summed += 1
        if "told_apart" in signals:
            self._told_apart = [*self._told_apart[1 - MEMORY :], signals["told_apart"]]
        for sums, figures in ((self._sums["losses"], losses), (self._sums["signals"], signals)):
            for name, figure in figures.items():
                sums[name] = sums.get(name, torch.zeros_like(figure)) + figure

    def _record(self) -> None:
        """The means since the last record, to metrics.jsonl."""
        means = {
            side: {name: float(total) / self._summed for name, total in sums.items()}
            for side, sums in self._sums.items()
        }
        self._sums, self._summed = {"losses": {}, "signals": {}}, 0
        self.means = means
        counts = {"step": self.learner.step, "images": self.learner.images, "seconds": round(self.seconds, 3)}
        self.folder.record(**counts, **means, skipped=self.guard.skipped)

    def _progress(self, raised: tuple[Alarm, ...] = ()) -> Progress:
        counts = (self.learner.step, self.learner.images, self.seconds, self.fraction)
        return Progress(*counts, **self.means, quality=self.quality, alarms=raised)

    # evaluation

    def _fit_prior(self) -> Prior | None:
        try:
            return self.learner.fit_prior()
        except ValueError as error:  # the encoder's latents are out of bounds
            self.observer.note(f"no prior can be fitted at step {self.learner.step}: {error}")
            return None

    def _evaluate(self) -> None:
        """Judge the averaged generator against val, keep it if it is the best, and raise alarms."""
        self.quality = self.evaluation(model_of(self.learner.average, self.spec, self.prior))
        best = self.best["fid"] is None or self.quality["fid"] < self.best["fid"]
        if best:
            self.best = {"fid": self.quality["fid"], "step": self.learner.step, "waiting": 0}
            checkpoint.save(self.folder.best, self._exported(None))
        else:
            self.best["waiting"] += 1
        self.folder.record(step=self.learner.step, images=self.learner.images, quality=self.quality, best=best)
        raised = self._alarms() if self.fraction >= WAIT else ()
        for alarm in raised:
            self.folder.record(step=self.learner.step, alarm=alarm.code, what=alarm.what, mend=alarm.mend)
        self.observer.progress(self._progress(raised))

    def _alarms(self) -> tuple[Alarm, ...]:
        """Those that are new: one that stays on is raised once."""
        assert self.quality is not None
        told_apart = float(torch.stack(self._told_apart).mean()) if self._told_apart else None
        on = alarms({**self.quality, "told_apart": told_apart, "active_units": self.learner.active_units()})
        new = tuple(alarm for alarm in on if alarm.code not in self.raised)
        self.raised = [alarm.code for alarm in on]
        return new

    def _patience_ended(self) -> bool:
        patience = self.config.patience
        return patience is not None and self.best["waiting"] >= patience

    def _exported(self, quality: dict[str, Any] | None) -> dict[str, Any]:
        """What best.pt keeps: the averaged generator and its prior, without what only training needs."""
        state = self._checkpoint(finished=quality is not None)
        for name in ("networks", "optimizers", "sampler", "noise", "guard", "raised", "sums", "summed", "told_apart"):
            del state[name]
        return state | {"quality": quality}

    def _finish(self) -> dict[str, Any]:
        """The closing figures, of the best weights and against the test split; they go into best.pt and the records."""
        self._save(finished=True)
        best = checkpoint.load(self.folder.best)
        generator = self.learner.average
        generator.load_state_dict(best["ema"])
        model = model_of(generator, self.spec, stored_prior(best))
        quality = closing(self.judge, self.reference, self.config.conditional, self.config.seed, model)
        checkpoint.save(self.folder.best, best | {"quality": quality, "finished": True})
        figures = {
            "step": self.learner.step,
            "images": self.learner.images,
            "seconds": round(self.seconds, 3),
            "best_step": best["step"],
            "stopped_early": self.fraction < 1,
            "skipped": self.guard.skipped,
            "quality": quality,
        }
        self.folder.record(finished=True, **figures)
        return figures


def spec_for(config: TrainConfig, dataset: Dataset) -> ModelSpec:
    """The model that a config makes of a data set. Raises DataError for a conditional kind without classes."""
    names = dataset.class_names if config.conditional else ()
    if config.conditional and len(names) < 2:
        plain = config.model.removeprefix("c")
        raise DataError(
            f"{config.model} needs at least two classes, {dataset.name} has {len(names)}",
            f"Put the images into one sub-folder for each class, or train --model {plain}.",
        )
    return ModelSpec.model_validate(
        {
            "kind": config.model,
            "latent": config.latent,
            "size": dataset.size,
            "channels": dataset.channels,
            "class_names": names,
            "width": config.width,
        }
    )


def _keep_memory() -> None:
    """Let glibc keep freed blocks for the next step instead of giving them back: a CGAN step is 6 to 8 % faster."""
    with suppress(OSError, AttributeError, TypeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        for option in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
            mallopt(option, 2**30)


def _judge(dataset: Dataset, cache: Path, observer: Observer) -> Judge:
    try:
        return judge_for(dataset, cache, observer.judge)
    except KeyboardInterrupt:
        raise Interrupted("stopped before the training began", "Nothing was replaced.") from None


def _tensors(prior: Prior) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in prior.state().items()}


def _differences(old: dict[str, Any], new: dict[str, Any]) -> str:
    return ", ".join(f"{name} {old.get(name)}, not {value}" for name, value in new.items() if old.get(name) != value)


@contextmanager
def _memory(config: TrainConfig) -> Iterator[None]:
    """Where memory runs out: torch says so by type on CUDA and in words on a CPU. Raises RunError."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        less = f"--set batch={config.batch // 2}" if config.batch > 3 else "a smaller --size or --set width"
        raise RunError(f"out of memory with {config.batch} images a step", f"Try {less} with --overwrite.") from error


def _out_of_memory(error: BaseException) -> bool:
    said = str(error).lower()
    known = ("can't allocate memory", "out of memory", "alloc_failed")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(words in said for words in known)


@contextmanager
def _signals() -> Iterator[threading.Event]:
    """While inside, the first SIGINT or SIGTERM sets an event instead of tearing a step apart (main thread only).

    A second one does not wait.
    """
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def stop(*_: object) -> None:
        stopped.set()
        restore()

    for number in before:
        signal.signal(number, stop)
    try:
        yield stopped
    finally:
        restore()
