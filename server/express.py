"""The commonest request in, its picture out, on the shortest way: one image as PNG, asked for by a URL alone.

Everything else - a body, another format, a condition, whatever is wrong with it - is left to the ordinary way, and
both say the same, byte for byte. What is saved is a task, an ASGI cycle and half a dozen objects for each request.
"""

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Protocol
from urllib.parse import parse_qsl

from starlette.responses import Response

from server import answering, images, schemas
from server.batcher import Generated
from server.errors import Expired, Overloaded, RequestError, problem, unexpected
from server.identity import Identity
from server.observer import CUT, LEFT, RequestObserver, request_id
from server.png import png
from server.repository import LiveModel, Waiting
from server.routes import generate
from server.schemas import GenerateRequest
from server.state import State
from training.errors import LimnerError
from training.latents import Asked

PATH = generate.PATH.encode()
QUESTION = PATH + b"?"
EXPECTED = {  # what a header has to say, where it may be there at all
    b"content-length": b"0",
    b"connection": b"keep-alive",
    **dict.fromkeys((b"transfer-encoding", b"if-none-match", b"origin", b"expect", b"upgrade")),
}
ANSWER = (  # seed, what does not change, label, timing, length, request id, picture
    b"x-limner-seed: %d\r\n%b%bserver-timing: "
    + answering.TIMING.encode()
    + b"\r\ncontent-length: %d\r\ncontent-type: image/png\r\nx-request-id: %b\r\n\r\n%b"
)
LONGEST = 256  # bytes of a URL or an Accept that is remembered
LONGEST_REQUEST = 1024  # bytes of a whole one
REMEMBERED = 1024  # of each


class Line(Protocol):
    """A connection that waits for one answer."""

    def answer(self, code: int, data: bytes, keep_alive: bool) -> None: ...


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a query asks for, understood once. `head`: the headers that do not change; `facts`: of its model, for the
    identity of a picture.
    """

    model: LiveModel
    facts: tuple[str, int, str, str]
    label: int | None
    seed: int | None
    truncation: float | None
    low: bool
    head: bytes


@dataclass(eq=False, slots=True, kw_only=True)
class Ride(Waiting):
    """A request on its way. To uvicorn it is the cycle of its connection."""

    express: "Express"
    line: Line
    plan: _Plan
    request_id: str
    response_complete: bool = False
    keep_alive: bool = True
    more_body: bool = False
    message_event: ClassVar["_Nobody"]

    def tell(self, outcome: Generated | LimnerError) -> None:
        self.express.arrived(self, outcome)

    @property
    def disconnected(self) -> bool:
        return self.response_complete

    @disconnected.setter
    def disconnected(self, gone: bool) -> None:
        self.express.left(self)


class _Nobody:
    """Who waits for the body of a request that has none."""

    def set(self) -> None: ...


Ride.message_event = _Nobody()


class Express:
    """The shortest way through a server. All of it happens in the thread of the event loop."""

    def __init__(self, state: State, observer: RequestObserver) -> None:
        self._state, self._observer = state, observer
        self._seconds = state.settings.timeout_seconds
        self._plan = lru_cache(REMEMBERED)(self._planned)
        self._known: dict[bytes, _Plan] = {}  # whole requests, as they came over the wire
        self._waiting: OrderedDict[Ride, None] = OrderedDict()  # as their deadlines come
        self._varies = b"vary: Origin\r\n" if state.settings.cors_origins else b""  # as the layers of CORS say
        self._timer: asyncio.TimerHandle | None = None

    def take(self, line: Line, method: bytes, url: bytes, headers: list[tuple[bytes, bytes]]) -> Ride | None:
        """The ride of a request without a body, if this is its way."""
        if url != PATH and not url.startswith(QUESTION):
            return None
        if method not in (b"POST", b"GET") or self._state.drain.started or len(url) > LONGEST or b"#" in url:
            return None
        accept = named = None
        for name, value in headers:
            name = name.lower()
            expected = EXPECTED.get(name, value)
            if expected is not value and value.lower() != expected:
                return None
            if name == b"accept":
                accept = value if accept is None else accept + b"," + value
            elif name == b"x-request-id" and named is None:
                named = value
        if accept is not None and len(accept) > LONGEST:
            return None
        plan = self._plan(method, url[len(QUESTION) :], accept or b"")
        return None if plan is None else self._started(line, plan, named or b"")

    def again(self, line: Line, request: bytes) -> Ride | None:
        """The ride of a request whose very bytes were understood before, if this is one."""
        plan = self._known.get(request)
        return None if plan is None or self._state.drain.started else self._started(line, plan, b"")

    def remember(self, request: bytes, ride: Ride) -> None:
        """These bytes, and nothing before or behind them, were what it was taken for."""
        if len(request) <= LONGEST_REQUEST and b"\r\nx-request-id:" not in request.lower():
            if len(self._known) >= REMEMBERED:
                self._known.clear()  # clients whose requests are all different, of which none comes again
            self._known[request] = ride.plan

    def _started(self, line: Line, plan: _Plan, named: bytes) -> Ride | None:
        seed = answering.drawn_seed() if plan.seed is None else plan.seed
        now = time.monotonic()
        ride = Ride(
            count=1,
            rows=Asked(seed, 1, plan.label, plan.truncation),
            low=plan.low,
            deadline=now + self._seconds,
            loop=asyncio.get_running_loop(),
            express=self,
            line=line,
            plan=plan,
            request_id=request_id(named),
        )
        try:
            plan.model.batcher.submit(ride)
        except Overloaded as refusal:  # who is overloaded has no time for a longer way
            self._state.metrics.rejected.labels(plan.model.title, refusal.code).inc()
            ride.loop.call_soon(self.arrived, ride, refusal)  # when its connection knows that it waits
        except RequestError:  # the ordinary way will say why
            return None
        self._state.drain.in_flight += 1
        self._waiting[ride] = None
        if self._timer is None:
            self._timer = ride.loop.call_later(self._seconds, self._expire)
        return ride

    def _planned(self, method: bytes, query: bytes, accept: bytes) -> _Plan | None:
        try:
            asked = schemas.validate(parse_qsl(query.decode("latin-1"), keep_blank_values=True), GenerateRequest)
            format = images.OFFERED.choose(asked.format, accept.decode("latin-1"))
            model = self._state.repository.get(asked.model, asked.version)
            label = model.label_index(asked.label)
        except RequestError:
            return None
        whole = asked.n == asked.scale == 1 and asked.quality is None and asked.timeout_ms is None
        if not whole or format != "png" or min(self._state.settings.max_images, self._state.settings.max_sheet) < 1:
            return None
        headers = {"x-limner-model": model.title} | generate.caching(method.decode(), asked, model, label, format)
        if self._varies:
            headers["Vary"] += ", Origin"
        head = "".join(f"{name.lower()}: {value}\r\n" for name, value in headers.items())
        return _Plan(
            model,
            (model.name, model.version, model.bundle.digest, model.artifact),
            label,
            asked.seed,
            asked.truncation,
            asked.priority == "low",
            head.encode("latin-1"),
        )

    def arrived(self, ride: Ride, outcome: Generated | LimnerError) -> None:
        """What became of it."""
        if ride.response_complete:
            return
        if isinstance(outcome, Generated):
            try:
                self._answer(ride, outcome)
            except Exception as fault:  # of limner, which is told as on every other way
                self._refuse(ride, unexpected(generate.PATH), fault)
            return
        if isinstance(outcome, Expired):
            self._state.metrics.missed.labels(ride.plan.model.title).inc()
        self._refuse(ride, problem(outcome), outcome)

    def left(self, ride: Ride) -> None:
        """Its client is gone."""
        if ride.response_complete:
            return
        ride.plan.model.batcher.cancel(ride)
        self._state.metrics.cancelled.labels(ride.plan.model.title).inc()
        self._done(ride, LEFT, None)

    def cut(self) -> None:
        """The drain is over: nobody who still waits is answered."""
        for ride in [*self._waiting]:
            ride.plan.model.batcher.cancel(ride)
            self._done(ride, CUT, None)

    def _answer(self, ride: Ride, made: Generated) -> None:
        plan, seed = ride.plan, ride.rows.seed
        label = plan.label if made.labels is None else int(made.labels[0])
        began = time.perf_counter()
        body = png(made.images[0], Identity(*plan.facts, seed, label, plan.truncation).text())
        seconds = time.perf_counter() - began
        self._state.metrics.encoded(plan.model.title, seconds)
        if time.monotonic() > ride.deadline:
            self._state.metrics.late.labels(plan.model.title).inc()
        labelled = b"" if label is None else b"x-limner-label: %d\r\n" % label
        took = made.queue_seconds * 1e3, made.compute_seconds * 1e3, seconds * 1e3, made.batch
        named = ride.request_id.encode("ascii")
        self._done(ride, 200, None, ANSWER % (seed, plan.head, labelled, *took, len(body), named, body))

    def _refuse(self, ride: Ride, answer: Response, failure: Exception) -> None:
        head = b"".join(b"%b: %b\r\n" % pair for pair in answer.raw_headers)
        named = b"x-request-id: %b\r\n" % ride.request_id.encode("ascii")
        self._done(ride, answer.status_code, failure, b"".join((head, named, self._varies, b"\r\n", answer.body)))

    def _done(self, ride: Ride, code: int, failure: Exception | None, data: bytes = b"") -> None:
        ride.response_complete = True
        self._waiting.pop(ride, None)
        self._state.drain.in_flight -= 1
        if data:
            ride.line.answer(code, data, ride.keep_alive)
        self._observer.account(generate.PATH, code, failure, time.monotonic() - ride.arrived, ride.request_id)

    def _expire(self) -> None:
        """The time of the first that waits has come: tell the batcher, which tells everybody."""
        now, self._timer = time.monotonic(), None
        for first in self._waiting:
            if first.deadline > now:
                self._timer = first.loop.call_later(first.deadline - now, self._expire)
                break
            first.plan.model.batcher.expire(first)
