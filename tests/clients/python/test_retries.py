"""When a call is tried again: pure arithmetic, with no clock and no server."""

import math

import pytest
from limner_client import (
    ApiError,
    ClientError,
    ConnectionFailed,
    Expired,
    Hopeless,
    IncompleteAnswer,
    InvalidAddress,
    InvalidParameter,
    NotReady,
    Overloaded,
    Retries,
    ServerFailed,
    TimedOut,
)
from limner_client.retries import OFF, Effort

LATE, EARLY = (lambda: 1.0), (lambda: 0.0)  # the ends of what is drawn


def api(kind: type[ApiError], status: int, retry_after: float | None = None) -> ApiError:
    return kind(status, "", "", retry_after=retry_after)


def waits(effort: Effort, error: ClientError, most: int = 100) -> list[float]:
    """All waits until the error is raised, on a clock that they alone move."""
    found: list[float] = []
    try:
        while len(found) < most:
            found.append(effort.wait(error, sum(found)))
    except type(error):
        return found
    raise AssertionError("it is tried for ever")


def test_waits_double_up_to_the_longest_and_tries_are_counted() -> None:
    retries = Retries(attempts=6, seconds=1000, first=1, longest=5)
    assert waits(Effort(retries, 0.0, draw=LATE), ConnectionFailed()) == [1, 2, 4, 5, 5]
    assert waits(Effort(retries, 0.0, draw=EARLY), ConnectionFailed()) == [0.25, 0.5, 1, 1.25, 1.25]


def test_waits_of_many_clients_are_spread() -> None:
    drawn = {Effort(Retries(), 0.0).wait(ConnectionFailed(), 0.0) for _ in range(50)}
    assert len(drawn) > 40
    assert all(Retries().first / 4 <= seconds <= Retries().first for seconds in drawn)


@pytest.mark.parametrize("draw", [LATE, EARLY])
def test_retry_after_is_never_cut_short(draw: type) -> None:
    seconds = Effort(Retries(longest=0.5), 0.0, draw=draw).wait(api(Overloaded, 429, retry_after=7), 0.0)
    assert 7 < seconds <= 7.5


def test_no_try_begins_after_the_whole_time_and_none_waits_in_vain() -> None:
    retries = Retries(attempts=1000, seconds=10, first=1, longest=1)
    assert sum(waits(Effort(retries, 0.0, draw=LATE), ConnectionFailed())) == 9
    assert waits(Effort(retries, 0.0), api(Overloaded, 429, retry_after=11)) == []


def test_a_deadline_ends_the_tries_earlier() -> None:
    effort = Effort(Retries(attempts=1000, seconds=60, first=1, longest=1), 100.0, deadline=3, draw=LATE)
    assert effort.left(100.1) == 3
    assert effort.wait(ConnectionFailed(), 100.5) == 1
    assert effort.left(102.5) == 0.5
    with pytest.raises(ConnectionFailed):
        effort.wait(ConnectionFailed(), 102.5)
    assert Effort(Retries(), 5.0).left(6.0) == math.inf


@pytest.mark.parametrize(
    "error",
    [
        api(Overloaded, 429),
        api(Hopeless, 429),
        api(NotReady, 503),
        api(ApiError, 502),
        api(ApiError, 503),
        ConnectionFailed(),
    ],
)
def test_what_passes_is_tried_again_and_off_is_off(error: ClientError) -> None:
    assert len(waits(Effort(Retries(attempts=3), 0.0), error)) == 2
    assert waits(Effort(OFF, 0.0), error) == []


@pytest.mark.parametrize(
    "error",
    [
        api(InvalidParameter, 422),
        api(ServerFailed, 500),
        api(Expired, 504),
        api(ApiError, 404),
        TimedOut(),
        InvalidAddress(),
        IncompleteAnswer(),
    ],
)
def test_what_stays_is_not(error: ClientError) -> None:
    assert waits(Effort(Retries(attempts=3), 0.0), error) == []


def test_a_timeout_is_tried_again_where_that_is_wanted() -> None:
    assert len(waits(Effort(Retries(attempts=3, timeouts=True), 0.0), TimedOut())) == 2


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"seconds": -1}, {"first": -1}, {"longest": -0.1}])
def test_nonsense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="from"):
        Retries(**wrong)  # type: ignore[arg-type]
