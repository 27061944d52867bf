"""A folder of bundles in, live models out: each with an engine that was warmed up and checked on this machine."""

import asyncio
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from starlette.requests import ClientDisconnect

from export.bundle import Artifact, Bundle, BundleError, Manifest, load_prior, read, version_folders
from export.choice import chosen
from export.engines import Engine, open_engine
from export.invariance import invariant_buckets, probe
from server import memory
from server.backlog import Part, Request
from server.batcher import Batch, Batcher, Generated, Settled
from server.cost import Cost, measured
from server.errors import InvalidParameter, NotFound, shorten
from server.group import Group
from server.rows import Rows, compose
from server.runner import SHORT, InLoop, InThread, Runner
from server.settings import Settings
from server.statistics import Statistics
from server.telemetry import log
from training.errors import ConfigError, LimnerError
from training.prior import Prior

A_WHILE = 0.1  # seconds: most answers are there before, and need nobody who watches their client or their deadline
WARM_UP_SHIFTS = 2  # of the batch-invariance check, which the export ran in full


Answer = asyncio.Future[Generated]


@dataclass(eq=False, slots=True, kw_only=True)
class Waiting(Request):
    """A request for which an event loop waits: its thread calls `tell`, once. `rows` are its Rows."""

    loop: asyncio.AbstractEventLoop

    def tell(self, outcome: Generated | LimnerError) -> None:
        raise NotImplementedError


@dataclass(eq=False, slots=True, kw_only=True)
class _Awaited(Waiting):
    answer: Answer

    def tell(self, outcome: Generated | LimnerError) -> None:
        if self.answer.done():  # cancelled meanwhile
            return
        if isinstance(outcome, Generated):
            self.answer.set_result(outcome)
        else:
            self.answer.set_exception(outcome)


@dataclass(frozen=True)
class LiveModel:
    """One version of one model, ready to generate. `runner` runs its engine; no `prior`: latents of N(0, I).

    `turns`: how many blocks of large requests may wait at a time, which is half of the queue.
    """

    bundle: Bundle
    name: str
    engine: dict[str, str]
    artifact: str
    buckets: tuple[int, ...]
    batcher: Batcher
    runner: Runner
    load_seconds: float
    turns: asyncio.Semaphore
    statistics: Statistics
    prior: Prior | None = None

    @cached_property
    def title(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def version(self) -> int:
        return self.bundle.manifest.version

    def label_index(self, label: int | str | None, field: str = "label") -> int | None:
        """A class name first, then an index. Raises InvalidParameter of `field`, also for a model without classes."""
        if label is None:
            return None
        names = self.bundle.manifest.class_names
        if not names:
            raise InvalidParameter(field, label, f"no {field}", f"{self.title} has no classes")
        if label in names:
            return names.index(str(label))
        text = str(label)
        if text.isascii() and text.isdigit() and len(text) < 10 and int(text) < len(names):
            return int(text)
        indices = f"an index from 0 to {len(names) - 1}"
        spelt = indices if list(names) == [str(index) for index in range(len(names))] else _listed(names, indices)
        raise InvalidParameter(field, label, spelt)

    async def generate(
        self, asked: Rows, seconds: float, low: bool = False, left: Callable[[], Awaitable[None]] | None = None
    ) -> Generated:
        """Queue and wait, behind others if `low`. Whoever is cancelled leaves the queue, and so does he for whom `left`
        returns; it is asked only of those who wait for a while.

        Raises Overloaded, Expired after `seconds`, ClientDisconnect.
        """
        loop = asyncio.get_running_loop()
        answer: Answer = loop.create_future()
        deadline = time.monotonic() + seconds
        request = _Awaited(count=asked.count, rows=asked, low=low, deadline=deadline, loop=loop, answer=answer)
        self.batcher.submit(request)
        watchers: list[asyncio.TimerHandle | asyncio.Task[None]] = []

        def watch() -> None:
            watchers.append(loop.call_later(seconds - A_WHILE, self.batcher.expire, request))
            if left is not None:
                watchers.append(loop.create_task(_leave(left, answer)))

        timer = (
            loop.call_later(A_WHILE, watch)
            if seconds > A_WHILE
            else loop.call_later(seconds, self.batcher.expire, request)
        )
        try:
            return await answer
        except (asyncio.CancelledError, ClientDisconnect):
            self.batcher.cancel(request)
            raise
        finally:
            for one in (timer, *watchers):
                one.cancel()

    def close(self) -> None:
        """Refuse new requests, finish those that are queued, then close the engine."""
        self.batcher.close()
        self.runner.close(self.batcher)


async def _leave(left: Callable[[], Awaitable[None]], answer: Answer) -> None:
    await left()
    if not answer.done():
        answer.set_exception(ClientDisconnect())


def _deliver(statistics: Statistics, settled: Settled) -> None:
    """Wake those who wait, all of one loop at once."""
    statistics.settled(settled)
    loops: dict[asyncio.AbstractEventLoop, list[tuple[Waiting, Generated | LimnerError]]] = {}
    for request, outcome in settled:
        assert isinstance(request, Waiting)
        loops.setdefault(request.loop, []).append((request, outcome))
    here = None
    with suppress(RuntimeError):  # in a thread there is none
        here = asyncio.get_running_loop()
    for loop, told in loops.items():
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            (loop.call_soon if loop is here else loop.call_soon_threadsafe)(_wake, told)


def _wake(told: list[tuple[Waiting, Generated | LimnerError]]) -> None:
    for request, outcome in told:
        try:
            request.tell(outcome)
        except Exception:  # who shared its batch has still to hear
            log.error("an answer could not be told", trace=traceback.format_exc())


def _compose(
    manifest: Manifest, prior: Prior | None, statistics: Statistics, parts: Sequence[Part]
) -> tuple[np.ndarray, np.ndarray | None]:
    """The latents and labels of a batch."""
    began = time.perf_counter()
    rows = [one.rows if end - start == one.count else one.rows.part(start, end) for one, start, end in parts]
    made = compose(rows, manifest.latent, manifest.classes, prior)
    statistics.composed(parts, time.perf_counter() - began)
    return made


def _listed(names: tuple[str, ...], indices: str) -> str:
    shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    return f"a class name ({shown}) or {indices}"


def _missing(field: str, value: str, allowed: str, what: str) -> NotFound:
    return NotFound(what, f"Allowed: {allowed}.", field=field, value=shorten(value), allowed=allowed)


class Repository:
    """The live models, by name and version; `default` answers requests that name none: the only one, if it is.

    `in_loop` runs those whose batches are short, and wants to know of connections.
    """

    def __init__(self, models: list[LiveModel], default: str | None, in_loop: InLoop) -> None:
        self.in_loop = in_loop
        self._models: dict[str, dict[int, LiveModel]] = {}
        for model in models:
            self._models.setdefault(model.name, {})[model.version] = model
        self.default = default or (next(iter(self._models)) if len(self._models) == 1 else None)

    def get(self, name: str | None, version: int | None) -> LiveModel:
        """The model that a request means. Raises InvalidParameter or NotFound with the names there are."""
        names = ", ".join(self._models)
        if name is None:
            name = self.default
        if name is None:
            raise InvalidParameter("model", None, names, "several models are served and none is named")
        versions = self._models.get(name)
        if versions is None:
            raise _missing("model", name, names, f"there is no model '{shorten(name)}'")
        if version is None:
            version = max(versions)
        if version not in versions:
            there = ", ".join(map(str, sorted(versions)))
            raise _missing("version", str(version), there, f"{name} has no version {version}")
        return versions[version]

    def versions(self) -> dict[str, list[LiveModel]]:
        """Name -> its versions, ascending."""
        return {name: [models[version] for version in sorted(models)] for name, models in self._models.items()}

    def close(self) -> None:
        for models in self._models.values():
            for model in models.values():
                model.close()


def open_repository(
    settings: Settings, observe: Callable[[str, Batch], None], group: Group | None = None
) -> Repository:
    """Read, verify, open and warm up every bundle, for one worker of a `group`, if there is one.

    Raises BundleError, EngineError, ConfigError, also for want of memory: all or nothing.
    """
    bundles = [read(folder) for folder in version_folders(settings.models)]
    if not bundles:
        what = "holds no bundle" if settings.models.is_dir() else "is no folder"
        raise BundleError(
            f"'{settings.models}' {what}", f"Export a run into it: limner export RUN --models {settings.models}."
        )
    _refuse_twins(bundles)
    names = {bundle.manifest.name for bundle in bundles}
    if settings.name is not None and len(names) > 1:
        raise ConfigError(f"--name renames one model, '{settings.models}' holds {len(names)}", "Serve one of them.")
    served = sorted({settings.name} if settings.name is not None else names)
    if settings.default_model is not None and settings.default_model not in served:
        raise ConfigError(f"no model '{settings.default_model}' to be the default", f"There is {', '.join(served)}.")
    models, in_loop = list[LiveModel](), InLoop()
    try:
        models.extend(_open(bundle, settings, observe, group, in_loop) for bundle in bundles)
    except BaseException:
        Repository(models, None, in_loop).close()
        raise
    return Repository(models, settings.default_model, in_loop)


def _refuse_twins(bundles: list[Bundle]) -> None:
    """A copied folder still has the name and version in its manifest: one of the two would silently not be served."""
    folders: dict[str, Path] = {}
    for bundle in bundles:
        first = folders.setdefault(bundle.title, bundle.folder)
        if first is not bundle.folder:
            raise BundleError(f"'{first}' and '{bundle.folder}' are both {bundle.title}", "Remove one of them.")


def _open(
    bundle: Bundle, settings: Settings, observe: Callable[[str, Batch], None], group: Group | None, in_loop: InLoop
) -> LiveModel:
    began = time.monotonic()
    manifest = bundle.manifest
    name = settings.name or manifest.name
    title = f"{name}@{manifest.version}"
    artifact = chosen(bundle, settings.engine)
    memory.reserve(title, (bundle.folder / artifact.file).stat().st_size)
    prior = load_prior(bundle)
    z, label = probe(max(artifact.buckets), manifest.latent, manifest.classes)
    if prior is not None:
        z = prior.spread(z, label)
    engine = _opened(bundle, artifact, artifact.buckets, settings)
    buckets = artifact.buckets
    if not artifact.forced:  # which of them leave each row alone on this machine too
        buckets = invariant_buckets(engine, z, label, buckets, WARM_UP_SHIFTS)
    if buckets != artifact.buckets:
        engine.close()
        engine = _opened(bundle, artifact, buckets, settings)
    statistics = Statistics(title, group)

    def observed(batch: Batch) -> None:
        observe(title, batch)
        statistics.ran(batch)

    took = measured(engine, z, label)
    short = engine.on_cpu and max(took.values()) <= SHORT
    runner: Runner = in_loop if short else InThread(f"engine {title}")
    batcher = Batcher(
        engine,
        Cost(took),
        settings.queue_images,
        partial(_compose, manifest, prior, statistics),
        partial(_deliver, statistics),
        observed,
        runner.wake,
    )
    runner.start(batcher)
    seconds = time.monotonic() - began
    turns = asyncio.Semaphore(max(1, settings.queue_images // 2 // buckets[-1]))
    return LiveModel(
        bundle=bundle,
        name=name,
        engine=engine.describe(),
        artifact=engine.artifact,
        buckets=buckets,
        batcher=batcher,
        runner=runner,
        load_seconds=seconds,
        turns=turns,
        statistics=statistics,
        prior=prior,
    )


def _opened(bundle: Bundle, artifact: Artifact, buckets: tuple[int, ...], settings: Settings) -> Engine:
    path = bundle.folder / artifact.file
    threads, requirements = settings.engine_threads, artifact.requirements
    return open_engine(artifact.engine, artifact.precision, path, buckets, threads, requirements)
