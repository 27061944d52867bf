"""Who runs what waits: the event loop, turn by turn, or a thread. And which of them a model gets."""

import asyncio
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server import repository
from server.backlog import Request
from server.batcher import Batch, Batcher, Generated, Settled
from server.cost import Cost
from server.repository import open_repository
from server.runner import MOST_TURNS, InLoop, InThread, Runner
from server.settings import Settings
from training.latents import Asked

PATIENCE = 20.0  # seconds until a test that would hang fails


class Drawer:
    """Draws the number in z into the pixels."""

    artifact = "drawer"
    on_cpu = True

    def __init__(self, largest: int) -> None:
        self.buckets: tuple[int, ...] = (1, largest) if largest > 1 else (1,)
        self.batches: list[list[int]] = []
        self.threads: set[str] = set()
        self.closed = False
        self.meanwhile: Callable[[], object] = lambda: None

    def run(self, z: np.ndarray, label: np.ndarray | None) -> np.ndarray:
        self.batches.append(z[:, 0].astype(int).tolist())
        self.threads.add(threading.current_thread().name)
        self.meanwhile()
        return z.astype(np.uint8).reshape(-1, 1, 1, 1)

    def describe(self) -> dict[str, str]:
        return {}

    def close(self) -> None:
        self.closed = True


def running(
    runner: Runner,
    largest: int,
    deliver: Callable[[Settled], None] = lambda settled: None,
    observe: Callable[[Batch], None] = lambda batch: None,
) -> Any:
    """An engine and a batcher that the runner runs."""

    def compose(parts: Any) -> tuple[np.ndarray, None]:
        return np.concatenate([one.request.rows[one.start : one.stop] for one in parts])[:, None], None

    engine = Drawer(largest)
    cost = Cost(dict.fromkeys(engine.buckets, 0.0))
    batcher = Batcher(engine, cost, 10_000, compose, deliver, observe, runner.wake)
    runner.start(batcher)
    return engine, batcher


def asked(*numbers: int) -> Request:
    return Request(len(numbers), np.array(numbers, np.float32))


def test_requests_from_many_threads_at_once_all_get_their_own_images() -> None:
    arrived, wrong = threading.Semaphore(0), list[Any]()

    def deliver(settled: Settled) -> None:
        for request, outcome in settled:
            if not isinstance(outcome, Generated) or outcome.images.ravel().tolist() != request.rows.tolist():
                wrong.append((request, outcome))
            arrived.release()

    runner = InThread("engine of a test")
    engine, batcher = running(runner, 8, deliver)

    def asker() -> None:
        for number in range(0, 200, 4):
            batcher.submit(asked(*range(number, number + 4)))

    threads = [threading.Thread(target=asker) for _ in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(8 * 50):
        assert arrived.acquire(timeout=PATIENCE)
    batcher.close()
    runner.close(batcher)
    assert not wrong
    assert sum(map(len, engine.batches)) == 8 * 200
    assert engine.threads == {"engine of a test"}
    assert engine.closed


@pytest.mark.parametrize("runner", [InLoop(), InThread("engine")], ids=["in the loop", "in a thread"])
def test_what_waits_when_a_batcher_is_closed_is_done_before_its_engine_is_closed(runner: Runner) -> None:
    told = list[Any]()
    engine, batcher = running(runner, 2, told.extend)

    async def ask_and_close() -> None:
        for number in range(5):
            batcher.submit(asked(number))
        batcher.close()
        runner.close(batcher)
        assert engine.closed
        assert len(told) == 5

    asyncio.run(ask_and_close())
    assert [request.rows.tolist() for request, _ in told] == [[0], [1], [2], [3], [4]]
    assert not [thread for thread in threading.enumerate() if thread.name == "engine"]


def test_between_two_batches_the_loop_has_turns_for_others() -> None:
    """Whoever was answered goes on, and what he then asks is in the next batch."""
    engine, batcher = running(InLoop(), 2)

    async def ask() -> None:
        loop = asyncio.get_running_loop()
        for number in range(3):
            batcher.submit(asked(number))
        assert not engine.batches  # whoever asks does not run them himself
        last = [asked(3)]  # by whoever is answered, two turns after the first batch
        engine.meanwhile = lambda: last and loop.call_soon(loop.call_soon, batcher.submit, last.pop())
        while len(engine.batches) < 2:
            await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(ask(), PATIENCE))
    assert engine.batches == [[0, 1], [2, 3]]


def test_several_batchers_of_a_loop_take_turns_and_none_counts_the_others_batches() -> None:
    runner, order, batchers, batches = InLoop(), list[str](), list[Batcher](), list[Batch]()

    def works(name: str) -> None:
        order.append(name)
        time.sleep(0.01)

    for name in ("one", "other"):
        engine, batcher = running(runner, 1, observe=batches.append)
        engine.meanwhile = partial(works, name)
        batchers.append(batcher)

    async def ask() -> None:
        for batcher in batchers:
            for number in range(3):
                batcher.submit(asked(number))
        while len(order) < 6:
            await asyncio.sleep(0)

    began = time.monotonic()
    asyncio.run(asyncio.wait_for(ask(), PATIENCE))
    assert order == ["one", "other"] * 3
    assert 6 * 0.01 <= sum(batch.busy_seconds for batch in batches) <= time.monotonic() - began


def test_what_one_batcher_raises_keeps_the_loop_from_nobody() -> None:
    runner = InLoop()
    engine, batcher = running(runner, 1)
    broken: Any = running(runner, 1)[1]
    faults = iter([ZeroDivisionError()])
    step = broken.step

    def raises_once(busy_since: float) -> bool:
        for fault in faults:
            raise fault
        return step(busy_since)

    broken.step = raises_once

    async def ask() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        batcher.submit(asked(1))
        broken.submit(asked(2))
        while batcher.queued or broken.queued:
            await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(ask(), PATIENCE))
    assert engine.batches == [[1]]


@pytest.mark.parametrize("connections", [5, MOST_TURNS + 3])
def test_while_connections_come_the_loop_turns_again_for_some_time(connections: int) -> None:
    """In each of its turns one of them is accepted, and what it asks is read in the next."""
    runner = InLoop()
    engine, batcher = running(runner, 1024)

    async def ask() -> None:
        loop = asyncio.get_running_loop()

        def accept(number: int) -> None:
            if number < connections:
                runner.connected()
                loop.call_soon(accept, number + 1)
            batcher.submit(asked(number))

        accept(0)
        while sum(map(len, engine.batches)) <= connections:
            await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(ask(), PATIENCE))
    assert abs(len(engine.batches[0]) - min(connections + 1, MOST_TURNS)) <= 2
    assert len(engine.batches) == 1 + (connections > MOST_TURNS)


def test_one_loop_after_another_is_served() -> None:
    """Also where one of them ended before it had its turn."""
    engine, batcher = running(InLoop(), 1)
    loop = asyncio.new_event_loop()
    loop.call_soon(batcher.submit, asked(7))
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    assert not engine.batches

    async def ask() -> None:
        batcher.submit(asked(8))
        while len(engine.batches) < 2:
            await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(ask(), PATIENCE))
    assert engine.batches == [[7], [8]]


# which of them


@pytest.mark.parametrize(
    ("on_cpu", "short", "expected"), [(True, 1e9, InLoop), (True, 0.0, InThread), (False, 1e9, InThread)]
)
def test_short_batches_of_this_cpu_have_no_thread(
    models: Path, monkeypatch: pytest.MonkeyPatch, on_cpu: bool, short: float, expected: type
) -> None:
    real = repository.open_engine

    def open_engine(*arguments: Any) -> Any:
        engine: Any = real(*arguments)
        engine.on_cpu = on_cpu
        return engine

    monkeypatch.setattr(repository, "open_engine", open_engine)
    monkeypatch.setattr(repository, "SHORT", short)
    live = open_repository(Settings(models=models / "plain"), lambda title, batch: None)
    model = live.get(None, None)
    assert type(model.runner) is expected

    async def generated() -> Generated:
        return await model.generate(Asked(7, 100), PATIENCE)

    assert len(asyncio.run(generated()).images) == 100
    live.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "engine plain@1"]
