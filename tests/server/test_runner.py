"""Who runs what waits: the event loop, turn by turn, or a thread. And which of them a model gets."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server import repository
from server.backlog import Request
from server.batcher import Batcher, Generated, Settled
from server.cost import Cost
from server.repository import open_repository
from server.runner import MOST_TURNS, Callers, InLoop, InThread, Runner
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

    def run(self, z: np.ndarray, label: np.ndarray | None) -> np.ndarray:
        self.batches.append(z[:, 0].astype(int).tolist())
        self.threads.add(threading.current_thread().name)
        return z.astype(np.uint8).reshape(-1, 1, 1, 1)

    def describe(self) -> dict[str, str]:
        return {}

    def close(self) -> None:
        self.closed = True


def running(runner: Runner, largest: int, deliver: Callable[[Settled], None] = lambda settled: None) -> Any:
    """An engine and a batcher that the runner runs."""

    def compose(parts: Any) -> tuple[np.ndarray, None]:
        return np.concatenate([one.request.rows[one.start : one.stop] for one in parts])[:, None], None

    engine = Drawer(largest)
    cost = Cost(dict.fromkeys(engine.buckets, 0.0))
    batcher = Batcher(engine, cost, 10_000, compose, deliver, wake=runner.wake)
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
    runner.close()
    assert not wrong
    assert sum(map(len, engine.batches)) == 8 * 200
    assert engine.threads == {"engine of a test"}
    assert engine.closed


@pytest.mark.parametrize("runner", [InLoop(Callers()), InThread("engine")], ids=["in the loop", "in a thread"])
def test_what_waits_when_a_batcher_is_closed_is_done_before_its_engine_is_closed(runner: Runner) -> None:
    told = list[Any]()
    engine, batcher = running(runner, 2, told.extend)

    async def ask_and_leave() -> None:
        for number in range(5):
            batcher.submit(asked(number))
        batcher.close()

    asyncio.run(ask_and_leave())
    runner.close()
    assert [request.rows.tolist() for request, _ in told] == [[0], [1], [2], [3], [4]]
    assert engine.closed
    assert not [thread for thread in threading.enumerate() if thread.name == "engine"]


def test_between_two_batches_the_loop_has_a_turn() -> None:
    """What came in meanwhile is queued, and whoever was answered hears of it, before the next batch is run."""
    runner, seen = InLoop(Callers()), list[str]()
    engine, batcher = running(runner, 2, lambda settled: seen.append(f"{len(settled)} made"))

    async def ask() -> None:
        loop = asyncio.get_running_loop()
        for number in range(3):
            batcher.submit(asked(number))
        assert not engine.batches  # whoever asks does not run them himself
        loop.call_soon(lambda: (batcher.submit(asked(3)), seen.append("one more came")))
        while len(engine.batches) < 2:
            await asyncio.sleep(0)

    asyncio.run(ask())
    assert engine.batches == [[0, 1], [2, 3]]
    assert seen == ["2 made", "one more came", "2 made"]


@pytest.mark.parametrize(("connections", "batches"), [(5, [[0, 1, 2, 3, 4, 5]]), (MOST_TURNS + 3, None)])
def test_while_connections_come_the_loop_turns_again_for_some_time(
    connections: int, batches: list[list[int]] | None
) -> None:
    """In each of its turns one of them is accepted, and what it asks is read in the next."""
    callers = Callers()
    engine, batcher = running(InLoop(callers), 1024)

    async def ask() -> None:
        loop = asyncio.get_running_loop()

        def accept(number: int) -> None:
            if number < connections:
                callers.came += 1
                loop.call_soon(accept, number + 1)
            batcher.submit(asked(number))

        accept(0)
        while sum(map(len, engine.batches)) <= connections:
            await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(ask(), PATIENCE))
    if batches is not None:
        assert engine.batches == batches
    assert max(map(len, engine.batches)) <= MOST_TURNS + 1


def test_one_loop_after_another_is_served() -> None:
    """Also where one of them ended before it had its turn."""
    engine, batcher = running(InLoop(Callers()), 1)
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
