"""The batcher against engines that a test holds and lets go: no sleeping, no clock but the test's own."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.engines import EngineError, NonFinite
from server.batcher import Batch, Batcher, Generated
from server.errors import NotReady, Overloaded

PATIENCE = 20.0  # seconds until a test that would hang fails


class FakeEngine:
    """Draws the number in z into the pixels. Held: a batch starts, says so, and ends when `let_go` is called."""

    artifact = "fake"

    def __init__(self, largest: int = 4, held: bool = True) -> None:
        self.buckets = (1, largest)
        self.batches: list[list[int]] = []
        self.failing: set[int] = set()  # batches with one of these fail altogether
        self.bad: set[int] = set()  # these rows are not finite
        self.closed = False
        self.spent: Callable[[int], None] = lambda images: None
        self._held = held
        self._begun, self._go = threading.Semaphore(0), threading.Semaphore(0)

    def run(self, z: np.ndarray, label: np.ndarray | None) -> np.ndarray:
        numbers = z[:, 0].astype(np.int64)
        assert label is None or np.array_equal(label, numbers % 10)  # each row came with its own label
        self.batches.append(numbers.tolist())
        self._begun.release()
        if self._held:
            assert self._go.acquire(timeout=PATIENCE)
        self.spent(len(z))
        if self.failing.intersection(numbers):
            raise ValueError("the engine broke")
        images = np.stack([numbers >> 8, numbers & 255], axis=1).astype(np.uint8).reshape(-1, 1, 2, 1)
        rows = [row for row, number in enumerate(numbers) if number in self.bad]
        if rows:
            images[rows] = 99
            raise NonFinite(rows, images)
        return images

    def begun(self) -> list[int]:
        """Wait for the next batch to begin; its numbers."""
        assert self._begun.acquire(timeout=PATIENCE)
        return self.batches[-1]

    def let_go(self, batches: int = 1) -> None:
        self._go.release(batches)

    def let_all_go(self) -> None:
        self._held = False
        self._go.release(10_000)

    def describe(self) -> dict[str, str]:
        return {}

    def close(self) -> None:
        self.closed = True


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def ask(batcher: Batcher, *numbers: int) -> "Future[Generated]":
    z = np.array(numbers, np.float32)[:, None]
    return batcher.submit(z, np.array(numbers, np.int64) % 10)


def answer(future: "Future[Generated]") -> list[int]:
    """The numbers that were drawn into an answer's pictures."""
    images = future.result(PATIENCE).images
    assert images.dtype == np.uint8
    assert images.shape[1:] == (1, 2, 1)
    return [int(high) << 8 | int(low) for high, low in images.reshape(-1, 2)]


@contextmanager
def batching(engine: FakeEngine, capacity: int = 100, **arguments: Callable) -> Iterator[Batcher]:
    batcher = Batcher(engine, capacity, **arguments)
    try:
        yield batcher
    finally:
        engine.let_all_go()
        batcher.close()


def test_an_idle_engine_runs_a_single_image_at_once() -> None:
    engine = FakeEngine(largest=64)
    with batching(engine) as batcher:
        future = ask(batcher, 7)
        assert engine.begun() == [7]
        engine.let_go()
        assert answer(future) == [7]


def test_what_arrives_while_the_engine_runs_forms_one_batch() -> None:
    engine = FakeEngine()
    with batching(engine) as batcher:
        futures = [ask(batcher, 0)]
        engine.begun()
        futures += [ask(batcher, 1), ask(batcher, 2), ask(batcher, 3)]
        engine.let_go()
        assert engine.begun() == [1, 2, 3]
        engine.let_go()
        assert [answer(future) for future in futures] == [[0], [1], [2], [3]]


def test_small_requests_are_packed_and_large_ones_split_in_order() -> None:
    engine = FakeEngine(largest=4)
    with batching(engine) as batcher:
        first = ask(batcher, 0)
        engine.begun()
        futures = [ask(batcher, 1, 2), ask(batcher, *range(3, 13)), ask(batcher, 13), ask(batcher, 14, 15)]
        engine.let_all_go()
        assert [answer(future) for future in [first, *futures]] == [
            [0],
            [1, 2],
            [*range(3, 13)],
            [13],
            [14, 15],
        ]
    assert engine.batches == [[0], [1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 15]]


def test_a_request_without_labels_runs_without_labels() -> None:
    engine = FakeEngine(held=False)
    with batching(engine) as batcher:
        assert answer(batcher.submit(np.array([[3.0], [4.0]], np.float32), None)) == [3, 4]


def test_a_full_queue_refuses_until_there_is_room() -> None:
    engine = FakeEngine(largest=1)
    with batching(engine, capacity=3) as batcher:
        futures = [ask(batcher, 0)]
        engine.begun()  # what runs does not queue
        futures += [ask(batcher, 1, 2), ask(batcher, 3)]
        with pytest.raises(Overloaded) as refused:
            ask(batcher, 4)
        assert refused.value.status == 429
        assert refused.value.headers["Retry-After"] == "1"  # nothing is measured yet
        engine.let_go()
        engine.begun()
        futures.append(ask(batcher, 5))
        engine.let_all_go()
        assert [answer(future) for future in futures] == [[0], [1, 2], [3], [5]]


def test_retry_after_is_the_queue_at_the_measured_pace() -> None:
    engine, clock = FakeEngine(largest=1), Clock()

    def spend(images: int) -> None:
        clock.now += 2.5 * images

    engine.spent = spend
    with batching(engine, capacity=3, clock=clock) as batcher:
        ask(batcher, 0)
        engine.begun()
        engine.let_go()
        ask(batcher, 1)
        engine.begun()
        ask(batcher, 2, 3, 4)
        with pytest.raises(Overloaded) as refused:
            ask(batcher, 5)
        assert refused.value.headers["Retry-After"] == "8"  # 3 images of 2.5 s


def test_an_answer_says_how_long_it_waited_and_was_computed() -> None:
    engine, clock, seen = FakeEngine(largest=2), Clock(), []

    def spend(images: int) -> None:
        clock.now += 1.5

    def observe(batch: Batch) -> None:
        seen.append((batch.images, batch.compute_seconds, batch.queue_seconds, batch.error))

    engine.spent = spend
    with batching(engine, clock=clock, observe=observe) as batcher:
        first = ask(batcher, 0)
        engine.begun()
        clock.now += 0.25
        second = ask(batcher, 1, 2, 3)
        engine.let_all_go()
        assert (first.result(PATIENCE).queue_seconds, first.result().compute_seconds) == (0.0, 1.75)
        assert (second.result(PATIENCE).queue_seconds, second.result().compute_seconds) == (1.5, 3.0)
    assert seen == [(1, 1.75, (0.0,), None), (2, 1.5, (1.5,), None), (1, 1.5, (), None)]


def test_a_cancelled_request_frees_its_place_at_once_and_is_never_run() -> None:
    engine = FakeEngine(largest=2)
    with batching(engine, capacity=4) as batcher:
        first = ask(batcher, 0)
        engine.begun()
        kept, left, last = ask(batcher, 1), ask(batcher, 2, 3), ask(batcher, 4)
        with pytest.raises(Overloaded):
            ask(batcher, 5, 6)
        assert left.cancel()
        late = ask(batcher, 5, 6)
        engine.let_all_go()
        assert [answer(future) for future in (first, kept, last, late)] == [[0], [1], [4], [5, 6]]
    assert engine.batches == [[0], [1, 4], [5, 6]]


def test_the_rest_of_a_request_cancelled_halfway_is_never_run() -> None:
    engine = FakeEngine(largest=2)
    with batching(engine, capacity=6) as batcher:
        half = ask(batcher, *range(6))
        assert engine.begun() == [0, 1]
        other = ask(batcher, 6)
        assert half.cancel()
        room = ask(batcher, *range(7, 12))
        with pytest.raises(Overloaded):  # the places of 2 ... 5 came back, and no more
            ask(batcher, 12)
        engine.let_all_go()
        assert answer(other) == [6]
        assert answer(room) == [*range(7, 12)]
    assert engine.batches == [[0, 1], [6, 7], [8, 9], [10, 11]]


def test_a_failing_batch_fails_its_requests_alone_and_the_next_batch_runs() -> None:
    engine, seen = FakeEngine(largest=3), []
    engine.failing = {2}
    with batching(engine, observe=seen.append) as batcher:
        before = ask(batcher, 0)
        engine.begun()
        with_it = [ask(batcher, 1), ask(batcher, 2, 3, 4)]  # the second goes on in the batch after
        after = ask(batcher, 5)
        engine.let_all_go()
        assert answer(before) == [0]
        for future in with_it:
            with pytest.raises(EngineError, match="engine failed on a batch") as failed:
                future.result(PATIENCE)
            assert isinstance(failed.value.__cause__, ValueError)
        assert answer(after) == [5]
    assert engine.batches == [[0], [1, 2, 3], [5]]  # 4, the rest of a failed request, was not run
    assert [batch.error is None for batch in seen] == [True, False, True]


@pytest.mark.parametrize("made", [None, np.zeros((0, 1, 2, 1), np.uint8)])
def test_an_engine_that_gives_no_pictures_fails_its_batch_and_the_next_one_runs(made: np.ndarray | None) -> None:
    engine = FakeEngine(held=False)
    real = engine.run
    with batching(engine) as batcher:
        engine.run = lambda z, label: made  # type: ignore[method-assign, return-value]
        with pytest.raises(EngineError):
            ask(batcher, 1).result(PATIENCE)
        engine.run = real  # type: ignore[method-assign]
        assert answer(ask(batcher, 2)) == [2]


def test_an_observer_that_raises_does_not_stop_the_engine() -> None:
    def observe(batch: Batch) -> None:
        raise OSError("the log's pipe is closed")

    with batching(FakeEngine(held=False), observe=observe) as batcher:
        assert answer(ask(batcher, 1)) == [1]
        assert answer(ask(batcher, 2)) == [2]


def test_rows_that_are_not_finite_fail_only_the_requests_that_own_them() -> None:
    engine = FakeEngine(largest=6)
    engine.bad = {3}
    with batching(engine) as batcher:
        first = ask(batcher, 0)
        engine.begun()
        one, owner, other = ask(batcher, 1), ask(batcher, 2, 3), ask(batcher, 4, 5)
        engine.let_all_go()
        assert [answer(future) for future in (first, one, other)] == [[0], [1], [4, 5]]
        with pytest.raises(NonFinite):
            owner.result(PATIENCE)


def test_a_request_cancelled_while_it_runs_disturbs_nobody() -> None:
    engine = FakeEngine()
    with batching(engine) as batcher:
        gone = ask(batcher, 0)
        engine.begun()
        assert gone.cancel()
        other = ask(batcher, 1)
        engine.let_all_go()
        assert answer(other) == [1]


def test_close_finishes_what_is_queued_and_then_refuses() -> None:
    engine = FakeEngine(largest=1)
    batcher = Batcher(engine, 100)
    futures = [ask(batcher, 0), ask(batcher, 1), ask(batcher, 2, 3)]
    engine.begun()
    closing = threading.Thread(target=batcher.close)
    closing.start()
    assert not engine.closed
    engine.let_all_go()
    closing.join(PATIENCE)
    assert [answer(future) for future in futures] == [[0], [1], [2, 3]]
    assert engine.closed
    with pytest.raises(NotReady) as refused:
        ask(batcher, 4)
    assert refused.value.status == 503
    assert refused.value.headers["Retry-After"] == "1"


def test_requests_from_many_threads_at_once_all_get_their_own_images() -> None:
    engine = FakeEngine(largest=8, held=False)
    wrong: list[list[int]] = []

    def asker(first: int) -> None:
        mine = [[*range(number, number + 4)] for number in range(first, first + 200, 4)]
        wrong.extend(numbers for numbers in mine if answer(ask(batcher, *numbers)) != numbers)

    with batching(engine) as batcher:
        threads = [threading.Thread(target=asker, args=(1000 * place,)) for place in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
    assert not wrong
    assert sum(map(len, engine.batches)) == 8 * 200


steps = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(1, 9)),
        st.tuples(st.just("cancel"), st.integers(0, 30)),
        st.tuples(st.just("run"), st.just(0)),
    ),
    max_size=40,
)
numbers = st.sets(st.integers(0, 60), max_size=3)


@given(steps=steps, largest=st.integers(1, 8), failing=numbers, bad=numbers)
@settings(max_examples=150, deadline=None)
def test_no_image_is_lost_doubled_or_moved(
    steps: list[tuple[str, int]], largest: int, failing: set[int], bad: set[int]
) -> None:
    """Whatever is asked, cancelled, broken and however it interleaves with the batches."""
    engine, capacity = FakeEngine(largest), 20
    engine.failing, engine.bad = failing, bad
    asked: list[tuple[list[int], Future[Generated]]] = []
    next_number = 0
    with batching(engine, capacity) as batcher:
        for step, value in steps:
            if step == "ask":
                mine = [*range(next_number, next_number + value)]
                waiting = sum(len(other) for other, future in asked if not future.done())
                try:
                    asked.append((mine, ask(batcher, *mine)))
                    next_number += value
                except Overloaded:
                    assert waiting + value > capacity
            elif step == "cancel" and asked:
                asked[value % len(asked)][1].cancel()
            elif step == "run":
                engine.let_go()
        engine.let_all_go()
        batcher.close()

    run = [number for batch in engine.batches for number in batch]
    assert run == sorted(set(run))  # each at most once, in the order of asking
    assert max(map(len, engine.batches), default=0) <= largest
    broken = {number for batch in engine.batches if failing.intersection(batch) for number in batch}
    broken |= bad.intersection(run)
    for mine, future in asked:
        assert future.done()
        if future.cancelled():
            continue
        if broken.intersection(mine):
            assert isinstance(future.exception(), EngineError)
        else:
            assert answer(future) == mine


@given(sizes=st.lists(st.integers(1, 6), min_size=1, max_size=8), data=st.data())
@settings(max_examples=50, deadline=None)
def test_the_queue_is_empty_again_after_any_mix_of_cancels_and_failures(sizes: list[int], data: st.DataObject) -> None:
    """No place leaks: what was refused before fits again once everything is settled."""
    capacity = sum(sizes)
    engine = FakeEngine(largest=4)
    engine.failing = data.draw(st.sets(st.integers(0, capacity), max_size=2))
    with batching(engine, capacity + 1) as batcher:
        ask(batcher, 5000)
        engine.begun()
        ends = np.cumsum(sizes).tolist()
        futures = [ask(batcher, *range(end - size, end)) for size, end in zip(sizes, ends, strict=True)]
        for place in data.draw(st.sets(st.integers(0, len(sizes) - 1))):
            futures[place].cancel()
        engine.failing.add(5000)
        engine.let_go(1000)
        for future in futures:
            if not future.cancelled():
                future.exception(PATIENCE)
        assert len(answer(ask(batcher, *range(6000, 6000 + capacity + 1)))) == capacity + 1
