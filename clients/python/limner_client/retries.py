"""A call that failed and the time in, the seconds until it is tried again out, or the end of it."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from limner_client.errors import ApiError, ClientError, ConnectionFailed, IncompleteAnswer, InvalidAddress, TimedOut

STATUSES = (429, 502, 503)  # come back later; a gateway that found nobody; draining, or not up yet
JITTER = 0.25  # of a wait at least


@dataclass(frozen=True)
class Retries:
    """How a call is tried again where another try can help: after 429, 502 and 503, and where no connection was had.

    Never after any other answer: a refused request stays refused, a server that failed has tried twice itself, an
    expired request (504) was already waited for, and an answer breaks off where the server failed while it made it.

    attempts   tries in all; 1 is no retry
    seconds    from the first try on: no other begins later
    first      seconds before the second try at most; each further wait may be twice as long
    longest    seconds of a wait at most; but the server's Retry-After is never cut short
    timeouts   whether a try that had no answer within the client's `timeout` is followed by another

    A call with `timeout_ms` ends with it: its retries say what is left of it, and none begins when nothing is.
    """

    attempts: int = 4
    seconds: float = 60.0
    first: float = 0.5
    longest: float = 8.0
    timeouts: bool = False

    def __post_init__(self) -> None:
        if self.attempts < 1 or min(self.seconds, self.first, self.longest) < 0:
            raise ValueError(f"{self}: attempts are from 1 on, seconds from 0 on")


OFF = Retries(attempts=1)


class Effort:
    """The tries of one call. Knows no clock: `now` is in seconds of any monotonic one."""

    def __init__(
        self, retries: Retries, now: float, deadline: float = math.inf, draw: Callable[[], float] = random.random
    ) -> None:
        """`deadline` is in seconds after now; `draw` gives uniform numbers from 0 to 1."""
        self._retries, self._draw = retries, draw
        self._until = now + min(retries.seconds, deadline)
        self._began, self._deadline = now, deadline
        self._failures = 0

    def left(self, now: float) -> float:
        """Seconds until the deadline of the call; all of them for its first try, which is sent as it was given."""
        return self._deadline - (now - self._began if self._failures else 0.0)

    def wait(self, error: ClientError, now: float) -> float:
        """Seconds until the next try. Raises the error where there is none."""
        self._failures += 1
        if self._failures >= self._retries.attempts or not self._helps(error):
            raise error
        longest = min(self._retries.first * 2.0 ** min(self._failures - 1, 60), self._retries.longest)
        seconds = longest * (JITTER + (1 - JITTER) * self._draw())
        if isinstance(error, ApiError) and error.retry_after is not None:
            seconds += error.retry_after  # never earlier than asked, and not all at one moment
        if now + seconds >= self._until:
            raise error
        return seconds

    def _helps(self, error: ClientError) -> bool:
        if isinstance(error, ApiError):
            return error.status in STATUSES
        if isinstance(error, TimedOut):
            return self._retries.timeouts
        return isinstance(error, ConnectionFailed) and not isinstance(error, InvalidAddress | IncompleteAnswer)
