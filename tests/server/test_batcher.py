"""The batcher step by step: no sleeping, no thread, no clock but the test's own."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from export.engines import EngineError, NonFinite
from server import batcher
from server.backlog import Part, Request
from server.batcher import Batch, Batcher, Generated, Settled
from server.cost import Cost
from server.errors import Expired, Hopeless, NotReady, Overloaded


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class FakeEngine:
    """Draws the number in z into the pixels. A batch takes `seconds` of the clock."""

    artifact = "fake"
    on_cpu = True

    def __init__(self, largest: int = 4) -> None:
        self.buckets: tuple[int, ...] = (1, largest) if largest > 1 else (1,)
        self.closed = False
        self.mixed_up = False  # whether any row came with another's label
        self.batches: list[list[int]] = []
        self.broken: set[int] = set()  # batches with one of these fail altogether
        self.broken_once: set[int] = set()  # and with one of these the first time
        self.bad: set[int] = set()  # these rows are not finite
        self.failed: set[int] = set()  # rows of batches that failed altogether
        self.seconds = 0.0
        self.meanwhile: Callable[[], None] = lambda: None
        self.clock = Clock()

    def run(self, z: np.ndarray, label: np.ndarray | None) -> np.ndarray:
        numbers = z[:, 0].astype(np.int64)
        self.mixed_up |= label is not None and not np.array_equal(label, numbers % 10)
        self.batches.append(numbers.tolist())
        self.clock.now += self.seconds
        self.meanwhile()
        if self.broken.union(self.broken_once).intersection(numbers):
            self.failed.update(numbers.tolist())
        if self.broken.intersection(numbers):
            raise ValueError("the engine broke")
        if hit := self.broken_once.intersection(numbers):
            self.broken_once -= hit
            raise EngineError("the engine slipped")
        images = np.stack([numbers >> 8, numbers & 255], axis=1).astype(np.uint8).reshape(-1, 1, 2, 1)
        rows = [row for row, number in enumerate(numbers) if number in self.bad]
        if rows:
            images[rows] = 99
            raise NonFinite(rows, images)
        return images

    def describe(self) -> dict[str, str]:
        return {}

    def close(self) -> None:
        self.closed = True


def compose(parts: Sequence[Part]) -> tuple[np.ndarray, np.ndarray | None]:
    numbers = np.concatenate([request.rows[start:stop] for request, start, stop in parts])
    return numbers.astype(np.float32)[:, None], numbers % 10


class Bench:
    """A batcher, its engine and clock, and what was delivered."""

    def __init__(self, largest: int = 4, capacity: int = 100, deaf: bool = False, **more: Any) -> None:
        self.deaf = deaf  # whoever is told of an outcome raises
        self.engine, self.outcomes = FakeEngine(largest), dict[Request, Any]()
        self.clock = self.engine.clock
        self.batches: list[Batch] = []
        self.wrong = False  # whether any request was told twice
        cost = Cost({1: 0.0, largest: 0.0})
        given = {"cost": cost, "compose": compose, "observe": self.batches.append} | more
        self.batcher = Batcher(self.engine, capacity=capacity, deliver=self.deliver, clock=self.clock, **given)

    def deliver(self, settled: Settled) -> None:
        for request, outcome in settled:
            self.wrong |= request in self.outcomes
            self.outcomes[request] = outcome
        if self.deaf:
            raise ConnectionError("nobody listens")

    def ask(self, *numbers: int, **more: Any) -> Request:
        request = Request(len(numbers), np.array(numbers), **more)
        self.batcher.submit(request)
        return request

    def run(self) -> None:
        while self.batcher.step():
            pass

    def answer(self, request: Request) -> Any:
        """The numbers in its pictures, or the error."""
        outcome = self.outcomes[request]
        return drawn(outcome) if isinstance(outcome, Generated) else outcome


def drawn(made: Generated) -> list[int]:
    assert made.images.dtype == np.uint8
    assert made.images.shape[1:] == (1, 2, 1)
    assert made.labels is not None
    assert np.array_equal(made.labels, made.images.reshape(-1, 2) @ np.array([256, 1]) % 10)
    return [int(high) << 8 | int(low) for high, low in made.images.reshape(-1, 2)]


# batches


def test_small_requests_are_packed_and_large_ones_split_in_order() -> None:
    bench = Bench()
    asked = [bench.ask(1, 2), bench.ask(*range(3, 13)), bench.ask(13), bench.ask(14, 15)]
    bench.run()
    assert bench.engine.batches == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 15]]
    assert [bench.answer(request) for request in asked] == [[1, 2], [*range(3, 13)], [13], [14, 15]]
    assert [batch.reason for batch in bench.batches] == ["full", "full", "full", "drained"]


def test_a_batch_is_of_a_size_that_needs_no_padding_where_that_costs_less() -> None:
    bench = Bench(largest=4, cost=Cost({1: 0.3, 4: 1.0}))
    requests = [bench.ask(*range(start, start + 3)) for start in (0, 3)]
    bench.run()
    assert bench.engine.batches == [[0, 1, 2, 3], [4], [5]]
    assert [batch.reason for batch in bench.batches] == ["full", "fitted", "drained"]
    assert [bench.answer(request) for request in requests] == [[0, 1, 2], [3, 4, 5]]


def test_what_arrives_while_the_engine_runs_forms_the_next_batch() -> None:
    bench = Bench()
    late: list[Request] = []
    bench.engine.meanwhile = lambda: late.append(bench.ask(8)) if len(late) < 3 else None
    bench.ask(7)
    bench.run()
    assert bench.engine.batches == [[7], [8], [8], [8]]


def test_latents_are_drawn_only_when_the_members_of_a_batch_are_known() -> None:
    drawn: list[int] = []

    def draws(parts: Sequence[Part]) -> Any:
        drawn.append(sum(part.stop - part.start for part in parts))
        return compose(parts)

    bench = Bench(largest=4, compose=draws)
    gone, *_ = bench.ask(1, 2), bench.ask(3, 4), bench.ask(5, 6, 7)
    assert drawn == []
    bench.batcher.cancel(gone)
    bench.batcher.step()
    assert drawn == [4]
    bench.run()
    assert drawn == [4, 1]


def test_an_answer_is_delivered_when_its_last_image_is_made() -> None:
    bench = Bench(largest=2)
    five, one = bench.ask(1, 2, 3, 4, 5), bench.ask(6)
    for left in (2, 1):
        assert bench.batcher.step()
        assert not bench.outcomes
        assert bench.batcher.queued == 2 * left
    assert bench.batcher.step()
    assert (bench.answer(five), bench.answer(one)) == ([1, 2, 3, 4, 5], [6])
    assert not bench.batcher.step()


def test_an_answer_says_how_long_it_waited_and_was_computed() -> None:
    bench = Bench(largest=2)
    bench.engine.seconds = 1.5
    first, second = bench.ask(0), bench.ask(1, 2, 3)
    bench.clock.now += 0.25
    bench.run()
    told = [(made.queue_seconds, made.compute_seconds) for made in bench.outcomes.values()]
    assert told == [(0.25, 1.5), (0.25, 3.0)]
    assert list(bench.outcomes) == [first, second]
    assert [(batch.images, batch.rows, batch.compute_seconds, batch.queue_seconds) for batch in bench.batches] == [
        (2, 2, 1.5, (0.25, 0.25)),
        (2, 2, 1.5, ()),
    ]


def test_a_batch_costs_what_it_takes_out_of_a_server_that_is_never_idle() -> None:
    """Also what whoever steps does between it and the one before, and says when he asks for it."""
    cost = Cost({1: 1.0})
    bench = Bench(largest=1, cost=cost)
    bench.engine.seconds = 1.0
    bench.ask(*range(50))
    since = None
    while bench.batcher.step(since):
        since = bench.batcher.ended
        bench.clock.now += 0.5
    assert [batch.busy_seconds for batch in bench.batches] == [1.0, *[1.5] * 49]
    assert {batch.compute_seconds for batch in bench.batches} == {1.0}
    assert cost.batch(1) == pytest.approx(1.5, rel=0.05)


def test_padding_is_told() -> None:
    bench = Bench(largest=4)
    bench.ask(1, 2)
    bench.run()
    assert [(batch.images, batch.rows) for batch in bench.batches] == [(2, 4)]


# admission


def test_a_full_queue_refuses_until_there_is_room_and_says_when() -> None:
    bench = Bench(largest=1, capacity=3, cost=Cost({1: 2.5}))
    bench.ask(1)
    bench.ask(2, 3)
    with pytest.raises(Overloaded, match=r"3 of 3 places.*2 more do not fit") as refused:
        bench.ask(4, 5)
    assert (refused.value.status, refused.value.code) == (429, "queue-full")
    assert refused.value.headers["Retry-After"] == "5"  # two images have to go
    bench.batcher.step()
    bench.ask(4)


def test_what_cannot_be_done_in_time_is_refused_at_once() -> None:
    """Seconds of a batch are its images + 1: 4 + 1 for the four that wait, and so much for the next four."""
    bench = Bench(largest=4, cost=Cost({size: size + 1.0 for size in (1, 2, 4)}))
    bench.ask(1, 2, 3, 4)
    with pytest.raises(Hopeless) as refused:
        bench.ask(5, 6, 7, 8, deadline=bench.clock.now + 9.5)
    assert (refused.value.status, refused.value.code) == (429, "deadline-unreachable")
    assert refused.value.headers["Retry-After"] == "1"
    bench.ask(5, 6, 7, 8, deadline=bench.clock.now + 10.5)


def test_the_batch_under_way_counts_too() -> None:
    bench = Bench(largest=4, cost=Cost({4: 8.0, 1: 2.0}))
    refused: list[str] = []

    def ask() -> None:
        for deadline in (2.9, 3.1):
            try:
                bench.ask(9, deadline=bench.clock.now + deadline)
            except Hopeless:
                refused.append(str(deadline))

    bench.engine.meanwhile, bench.engine.seconds = ask, 7.0  # one second of eight is left
    bench.ask(1, 2, 3, 4)
    bench.batcher.step()
    assert refused == ["2.9"]


def test_an_idle_engine_refuses_nobody_so_that_a_wrong_estimate_mends_itself() -> None:
    bench = Bench(largest=1, cost=Cost({1: 1000.0}))
    bench.engine.seconds = 0.1
    for _ in range(200):
        bench.ask(1, deadline=bench.clock.now + 5)
        bench.run()
    bench.ask(1)
    bench.ask(2, deadline=bench.clock.now + 5)


def test_low_requests_wait_behind_others_but_not_for_ever() -> None:
    bench = Bench(largest=8)
    low, normal = bench.ask(*range(8), low=True), bench.ask(*range(100, 120))
    bench.batcher.step()
    assert bench.engine.batches == [[*range(100, 107), 0]]
    bench.run()
    assert bench.answer(low) == [*range(8)]
    assert bench.answer(normal) == [*range(100, 120)]


def test_after_close_new_requests_are_refused_and_those_that_wait_are_done() -> None:
    bench = Bench()
    waiting = bench.ask(1)
    bench.batcher.close()
    with pytest.raises(NotReady) as refused:
        bench.ask(2)
    assert (refused.value.status, refused.value.headers["Retry-After"]) == (503, "1")
    bench.batcher.finish()
    assert bench.answer(waiting) == [1]
    assert bench.engine.closed


# leaving


def test_a_cancelled_request_frees_its_places_at_once_and_hears_nothing() -> None:
    bench = Bench(largest=2, capacity=4)
    kept, left, last = bench.ask(1), bench.ask(2, 3), bench.ask(4)
    with pytest.raises(Overloaded):
        bench.ask(5, 6)
    bench.batcher.cancel(left)
    bench.batcher.cancel(left)
    late = bench.ask(5, 6)
    bench.run()
    assert [bench.answer(request) for request in (kept, last, late)] == [[1], [4], [5, 6]]
    assert left not in bench.outcomes
    assert bench.engine.batches == [[1, 4], [5, 6]]


def test_the_rest_of_a_request_cancelled_halfway_is_never_run() -> None:
    bench = Bench(largest=2)
    half, other = bench.ask(*range(6)), bench.ask(6)
    bench.batcher.step()
    bench.batcher.cancel(half)
    bench.run()
    assert bench.engine.batches == [[0, 1], [6]]
    assert bench.outcomes.keys() == {other}


def test_a_request_cancelled_while_it_runs_disturbs_nobody() -> None:
    bench = Bench()
    gone, other = bench.ask(0), bench.ask(1)
    bench.engine.meanwhile = lambda: bench.batcher.cancel(gone)
    bench.run()
    assert bench.outcomes.keys() == {other}
    assert bench.answer(other) == [1]


def test_a_deadline_that_has_come_is_told_before_the_next_batch_and_nothing_is_run_for_it() -> None:
    bench = Bench(largest=2)
    late, half = bench.ask(1, deadline=bench.clock.now + 1), bench.ask(2, 3, 4, deadline=bench.clock.now + 1.5)
    other = bench.ask(5)
    bench.clock.now += 1
    bench.batcher.step()
    assert isinstance(bench.answer(late), Expired)
    bench.clock.now += 1
    bench.run()
    assert bench.engine.batches == [[2, 3], [5]]
    assert "no picture after 1.5 s" in str(bench.answer(half))
    assert bench.answer(other) == [5]


def test_no_time_that_has_passed_is_less_than_none() -> None:
    bench = Bench()
    request = bench.ask(1, deadline=bench.clock.now - 1e-6)
    bench.run()
    assert "no picture after 0 s" in str(bench.answer(request))


def test_a_deadline_may_be_told_by_whoever_watches_the_clock() -> None:
    bench = Bench()
    request = bench.ask(1)
    bench.batcher.expire(request)
    bench.batcher.expire(request)
    assert isinstance(bench.answer(request), Expired)
    assert bench.batcher.queued == 0
    assert not bench.batcher.step()


# failures


def test_rows_that_are_not_finite_fail_only_the_requests_that_own_them() -> None:
    bench = Bench(largest=5)
    bench.engine.bad = {3}
    one, owner, other = bench.ask(1), bench.ask(2, 3), bench.ask(4, 5)
    bench.run()
    assert (bench.answer(one), bench.answer(other)) == ([1], [4, 5])
    assert isinstance(bench.answer(owner), NonFinite)
    assert len(bench.engine.batches) == 1


def test_a_batch_that_fails_is_run_once_more_in_halves() -> None:
    bench = Bench(largest=4)
    bench.engine.broken = {3}
    asked = [bench.ask(1), bench.ask(2), bench.ask(3), bench.ask(4), bench.ask(5)]
    bench.run()
    assert bench.engine.batches == [[1, 2, 3, 4], [1, 2], [3, 4], [5]]
    assert [bench.answer(request) for request in (*asked[:2], asked[4])] == [[1], [2], [5]]
    for request in asked[2:4]:
        assert isinstance(bench.answer(request).__cause__, ValueError)
    assert [batch.reason for batch in bench.batches] == ["full", "retry", "retry", "drained"]
    assert [batch.error is None for batch in bench.batches] == [False, True, False, True]


@pytest.mark.parametrize("numbers", [[1], [1, 2, 3, 4]])
def test_a_slip_costs_a_request_nothing_but_time(numbers: list[int]) -> None:
    bench = Bench(largest=4)
    bench.engine.broken_once = {1}
    request = bench.ask(*numbers)
    bench.run()
    assert bench.answer(request) == numbers


def test_what_is_left_of_a_failed_request_is_not_run() -> None:
    bench = Bench(largest=2)
    bench.engine.broken = {0, 1}
    failed, other = bench.ask(*range(6)), bench.ask(7)
    bench.run()
    assert isinstance(bench.answer(failed), EngineError)
    assert bench.answer(other) == [7]
    assert bench.engine.batches == [[0, 1], [0], [7]]


@pytest.mark.parametrize("made", [None, np.zeros((0, 1, 2, 1), np.uint8), np.zeros((3, 1, 2, 1), np.uint8)])
def test_an_engine_that_gives_other_than_its_rows_fails_the_batch_alone(made: np.ndarray | None) -> None:
    bench = Bench()
    real = bench.engine.run
    bench.engine.run = lambda z, label: made  # type: ignore[method-assign, return-value]
    failed = bench.ask(1, 2)
    bench.run()
    assert isinstance(bench.answer(failed), EngineError)
    bench.engine.run = real  # type: ignore[method-assign]
    other = bench.ask(3)
    bench.run()
    assert bench.answer(other) == [3]


def test_whatever_else_breaks_the_next_batch_is_run() -> None:
    def broken(parts: Sequence[Part]) -> Any:
        if parts[0].request.rows[0] == 1:
            raise MemoryError
        return compose(parts)

    def observe(batch: Batch) -> None:
        raise OSError("the log's pipe is closed")

    bench = Bench(deaf=True, compose=broken, observe=observe)
    failed = bench.ask(1)
    bench.run()
    other = bench.ask(2)
    bench.run()
    assert isinstance(bench.answer(failed).__cause__, MemoryError)
    assert bench.answer(other) == [2]


def test_latents_that_cannot_be_drawn_are_tried_once_more_and_told_as_a_batch() -> None:
    slips = [ValueError("no latents")]

    def slip(parts: Sequence[Part]) -> Any:
        if slips:
            raise slips.pop()
        return compose(parts)

    bench = Bench(compose=slip)
    asked = [bench.ask(1, 2), bench.ask(3)]
    bench.run()
    assert [bench.answer(request) for request in asked] == [[1, 2], [3]]
    assert [batch.reason for batch in bench.batches] == ["drained", "retry", "retry"]
    assert isinstance(bench.batches[0].error, EngineError)
    assert isinstance(bench.batches[0].error.__cause__, ValueError)


def test_images_that_cannot_be_put_together_fail_their_own_request_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(arrays: list[np.ndarray]) -> np.ndarray:
        if len(arrays) > 1:
            raise MemoryError
        return arrays[0]

    monkeypatch.setattr(batcher, "_joined", full)
    bench = Bench(largest=4)
    large, small = bench.ask(1, 2, 3, 4, 5), bench.ask(6)
    bench.run()
    assert isinstance(bench.answer(large).__cause__, MemoryError)
    assert bench.answer(small) == [6]


def test_a_request_that_waits_for_more_keeps_its_own_images_and_not_its_mates() -> None:
    bench = Bench(largest=8)
    waiting = bench.ask(*range(50), low=True)
    bench.ask(*range(200, 220))
    bench.batcher.step()
    assert [len(part) for part in waiting.parts] == [1]
    assert all(part.base is None for part in waiting.parts)


# anything, in any order


class Anything(RuleBasedStateMachine):
    """No image is lost, doubled or moved; the bound holds; the engine never idles while something waits."""

    @initialize(largest=st.sampled_from([1, 2, 4, 7]), capacity=st.integers(1, 30))
    def begin(self, largest: int, capacity: int) -> None:
        cost = Cost({size: 0.1 * size + 0.2 for size in {1, largest}})
        self.bench = Bench(largest, capacity, cost=cost, compose=self.compose, observe=self.observe, deaf=True)
        self.slips = 0
        self.failed: set[int] = set()  # images of batches without latents
        self.bench.engine.seconds = 0.3
        self.capacity = capacity
        self.bench.engine.meanwhile = self.meanwhile
        self.running, self.wrong = False, list[AssertionError]()
        self.soon: list[Callable[[], None]] = []
        self.waiting: dict[Request, int] = {}
        self.gone: set[Request] = set()
        self.number = 0

    def compose(self, parts: Sequence[Part]) -> tuple[np.ndarray, np.ndarray | None]:
        if self.slips:
            self.slips -= 1
            self.failed |= {number for request, start, stop in parts for number in request.rows[start:stop].tolist()}
            raise MemoryError("no latents")
        return compose(parts)

    def observe(self, batch: Batch) -> None:
        raise BrokenPipeError("nobody reads the log")

    def meanwhile(self) -> None:
        """While the engine runs, and with it whatever the test says: an assertion would be a failure of the engine."""
        soon, self.soon = self.soon, []
        self.running = True
        for act in soon:
            try:
                act()
            except AssertionError as wrong:
                self.wrong.append(wrong)
        self.running = False

    @rule(
        counts=st.lists(st.integers(1, 9), min_size=1, max_size=5),
        low=st.booleans(),
        patience=st.sampled_from([1e9, 2.0, 0.5]),
        soon=st.booleans(),
    )
    def ask(self, counts: list[int], low: bool, patience: float, soon: bool) -> None:
        """Now, or while the engine runs the next batch."""
        for count in counts:
            self.do(soon, partial(self.ask_one, count, low, patience))

    def ask_one(self, count: int, low: bool, patience: float) -> None:
        queued = self.bench.batcher.queued
        numbers = [*range(self.number, self.number + count)]
        try:
            request = self.bench.ask(*numbers, low=low, deadline=self.bench.clock.now + patience)
        except Hopeless:
            assert patience < 1e9
            assert queued or self.running
        except Overloaded:
            assert queued + count > self.capacity
        else:
            self.waiting[request] = self.number
            self.number += count

    @rule(place=st.integers(0, 20), how=st.sampled_from(["cancel", "expire"]), soon=st.booleans())
    def leave(self, place: int, how: str, soon: bool) -> None:
        self.do(soon, partial(self.leave_one, place, how))

    def leave_one(self, place: int, how: str) -> None:
        if not self.waiting:
            return
        request = list(self.waiting)[-1 - place % len(self.waiting)]
        done = request in self.bench.outcomes
        getattr(self.bench.batcher, how)(request)
        if not done and how == "cancel":
            self.gone.add(request)

    def do(self, soon: bool, act: Callable[[], None]) -> None:
        if soon:
            self.soon.append(act)
        else:
            act()

    @rule(kind=st.sampled_from(["broken", "broken_once", "bad", "slips"]), place=st.integers(-8, 8))
    def fault(self, kind: str, place: int) -> None:
        """Of an image that waits or will be asked for; or of the next latents, once or twice."""
        if kind == "slips":
            self.slips = 1 + place % 2
        elif not any(self.number + place in batch for batch in self.bench.engine.batches):
            getattr(self.bench.engine, kind).add(self.number + place)

    @rule(seconds=st.floats(0, 1))
    def time_passes(self, seconds: float) -> None:
        self.bench.clock.now += seconds

    @rule(times=st.integers(1, 4))
    def step(self, times: int) -> None:
        for _ in range(times):
            ran = len(self.bench.engine.batches)
            late = {request for request in self.waiting if request.deadline <= self.bench.clock.now}
            worked = self.bench.batcher.step()
            assert worked or len(self.bench.engine.batches) == ran
            assert worked or not self.bench.batcher.queued
            for numbers in self.bench.engine.batches[ran:]:
                assert len(numbers) <= self.bench.engine.buckets[-1]
                assert not {request for request in late if set(request.rows).intersection(numbers)}

    @invariant()
    def the_bound_holds(self) -> None:
        if hasattr(self, "bench"):
            assert 0 <= self.bench.batcher.queued <= self.capacity

    def teardown(self) -> None:
        if not hasattr(self, "bench"):
            return
        bench = self.bench
        bench.run()
        assert bench.batcher.queued == 0
        assert not self.wrong
        assert not bench.wrong
        assert not bench.engine.mixed_up
        assert bench.outcomes.keys() == self.waiting.keys() - self.gone
        for request, outcome in bench.outcomes.items():
            numbers = request.rows.tolist()
            if isinstance(outcome, Generated):
                assert drawn(outcome) == numbers
                assert not bench.engine.bad.union(bench.engine.broken).intersection(numbers)
            elif isinstance(outcome, NonFinite):
                assert bench.engine.bad.intersection(numbers)
            elif not isinstance(outcome, Expired):
                assert isinstance(outcome, EngineError)
                assert bench.engine.failed.union(self.failed).intersection(numbers)
        assert not any(request.parts or request.labels for request in self.waiting)  # nobody keeps pictures
        ran = [number for batch in bench.engine.batches for number in batch]
        assert all(ran.count(number) <= 2 for number in set(ran))  # once, and once in a half


Anything.TestCase.settings = settings(max_examples=500, stateful_step_count=40, deadline=None)
test_no_sequence_of_arrivals_leavings_deadlines_and_failures_breaks_it = Anything.TestCase
