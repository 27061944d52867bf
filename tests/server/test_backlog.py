"""Members of a batch: in order, as many as there is room for, and of both priorities."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.backlog import Backlog, Request


def batch(backlog: Backlog) -> list[tuple[Request, int, int]]:
    return [(request, start, stop) for request, start, stop in backlog.take()]


def filled(*requests: Request, largest: int = 4) -> Backlog:
    backlog = Backlog(1000, largest)
    assert all(backlog.add(request) for request in requests)
    return backlog


def test_small_requests_share_a_batch_and_large_ones_are_taken_in_pieces() -> None:
    one, six, two = Request(1), Request(6), Request(2)
    backlog = filled(one, six, two)
    assert batch(backlog) == [(one, 0, 1), (six, 0, 3)]
    assert batch(backlog) == [(six, 3, 6), (two, 0, 1)]
    assert batch(backlog) == [(two, 1, 2)]
    assert batch(backlog) == []


def test_it_holds_no_more_images_than_it_may() -> None:
    backlog = Backlog(5, 2)
    assert backlog.add(Request(3))
    assert not backlog.add(Request(3))
    assert backlog.add(Request(2, low=True))
    backlog.take()
    assert backlog.images == 3
    assert backlog.add(Request(2))


def test_the_rest_of_a_dropped_request_is_never_taken() -> None:
    gone, kept = Request(6), Request(1)
    backlog = filled(gone, kept)
    backlog.take()
    backlog.drop(gone)
    backlog.drop(gone)
    assert backlog.images == 1
    assert batch(backlog) == [(kept, 0, 1)]


def test_what_is_late_is_swept_and_nothing_else() -> None:
    late, soon, never = Request(2, deadline=1.0), Request(3, deadline=2.0, low=True), Request(4)
    backlog = filled(late, soon, never)
    assert backlog.sweep(0.9) == []
    assert backlog.sweep(1.0) == [late]
    assert backlog.images == 7
    assert backlog.sweep(5.0) == [soon]
    assert backlog.sweep(1e9) == []
    assert batch(backlog) == [(never, 0, 4)]


def test_low_requests_have_an_eighth_of_the_places_that_others_want() -> None:
    normal, low = Request(500), Request(100, low=True)
    backlog = filled(normal, low, largest=64)
    assert batch(backlog) == [(normal, 0, 56), (low, 0, 8)]


@pytest.mark.parametrize("largest", [1, 2, 3, 8, 64])
def test_neither_priority_starves_however_small_a_batch_is(largest: int) -> None:
    normal, low = Request(900), Request(100, low=True)
    backlog = filled(normal, low, largest=largest)
    for _ in range(800 // largest):
        backlog.take()
    taken = normal.taken + low.taken
    assert taken == 800 // largest * largest
    assert abs(low.taken - taken / 8) <= 10


@pytest.mark.parametrize("most", [1, 2, 5, 64])
def test_a_batch_may_be_asked_to_be_smaller_and_neither_priority_starves_by_it(most: int) -> None:
    normal, low = Request(900), Request(100, low=True)
    backlog = filled(normal, low, largest=64)
    for _ in range(400 // most):
        assert sum(part.stop - part.start for part in backlog.take(most)) == most
    taken = normal.taken + low.taken
    assert abs(low.taken - taken / 8) <= 10


def test_places_that_one_priority_does_not_want_are_the_other_s() -> None:
    low = Request(100, low=True)
    backlog = filled(low, largest=64)
    assert batch(backlog) == [(low, 0, 64)]
    normal = Request(3)
    backlog.add(normal)
    assert batch(backlog) == [(normal, 0, 3), (low, 64, 100)]


@given(
    asked=st.lists(st.tuples(st.integers(1, 200), st.booleans()), min_size=1, max_size=20),
    largest=st.sampled_from([1, 2, 7, 64]),
    count=st.integers(1, 100),
)
def test_what_comes_before_a_new_request_is_never_underestimated_while_nothing_else_comes(
    asked: list[tuple[int, bool]], largest: int, count: int
) -> None:
    for low in (False, True):
        backlog = Backlog(100_000, largest)
        for size, is_low in asked:
            backlog.add(Request(size, low=is_low))
        before, mine, taken = backlog.before(low, count), Request(count, low=low), 0
        backlog.add(mine)
        while mine.taken < count:
            parts = backlog.take()
            taken += sum(part.stop - part.start for part in parts)
        assert taken <= before + count + largest  # of the last batch, some may be others'


@given(st.lists(st.tuples(st.integers(1, 60), st.booleans()), max_size=30), st.integers(1, 10) | st.just(64))
def test_each_image_is_taken_once_and_in_order(asked: list[tuple[int, bool]], largest: int) -> None:
    requests = [Request(count, low=low) for count, low in asked]
    backlog = filled(*requests, largest=largest)
    taken: dict[Request, list[int]] = {request: [] for request in requests}
    begun: dict[bool, list[Request]] = {False: [], True: []}
    while parts := backlog.take():
        size = sum(part.stop - part.start for part in parts)
        assert size == largest or not backlog.images  # as full as can be
        for request, start, stop in parts:
            taken[request] += range(start, stop)
            if start == 0:
                begun[request.low].append(request)
    assert all(rows == list(range(request.count)) for request, rows in taken.items())
    order = {request: place for place, request in enumerate(requests)}
    for line in begun.values():
        assert all(order[one] < order[other] for one, other in pairwise(line))
