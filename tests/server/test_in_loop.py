"""What comes while the event loop itself makes a batch: it waits in its socket, and is neither lost nor forgotten."""

import contextlib
import select
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from server import repository

pytestmark = pytest.mark.usefixtures("in_loop")  # before the application is opened

PATIENCE = 20.0  # seconds until a test that would hang fails


def request(query: str = "") -> bytes:
    return f"GET /generate{query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()


def status(connection: Any) -> int:
    """Of the answer that is read to its end."""
    said = b""
    while part := connection.recv(1 << 16):
        said += part
    return int(said.split()[1])


class Held:
    """The first batch waits in the loop until `let_go`; `sizes` of all. Before each, `meanwhile` is called."""

    def __init__(self) -> None:
        self.running, self.let_go, self.sizes = threading.Event(), threading.Event(), list[int]()
        self.meanwhile: Callable[[], None] = lambda: None

    def __call__(self, made: np.ndarray) -> np.ndarray:
        assert threading.current_thread().name == "http"  # that of the event loop
        self.sizes.append(len(made))
        self.meanwhile()
        self.running.set()
        assert self.let_go.wait(PATIENCE)
        return made


@pytest.fixture
def in_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow this machine is."""
    monkeypatch.setattr(repository, "SHORT", 1e9)


@pytest.fixture
def held(application: Any) -> Iterator[Held]:
    application.engine.sabotage = held = Held()
    yield held
    held.let_go.set()


@pytest.mark.parametrize("application", [{"queue_images": 1, "max_images": 1}], indirect=True)
def test_whoever_does_not_fit_into_the_queue_is_refused_after_the_batch(application: Any, held: Held) -> None:
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(application.connected(request()))
        assert held.running.wait(PATIENCE)
        others = [stack.enter_context(application.connected(request())) for _ in range(4)]
        held.let_go.set()
        assert status(first) == 200
        assert sorted(map(status, others)) == [200, 429, 429, 429]
    assert held.sizes == [1, 1]


def test_a_deadline_that_comes_during_a_batch_is_told_after_it(application: Any, held: Held) -> None:
    with application.connected(request("?n=128&format=npy&timeout_ms=500")) as connection:
        assert held.running.wait(PATIENCE)
        time.sleep(0.7)
        held.let_go.set()
        assert status(connection) == 504
    assert held.sizes == [64]
    assert application.metric('limner_deadline_missed_total{model="plain@1"} 1.0')


def test_an_answer_is_sent_before_the_next_batch_is_made(application: Any, held: Held) -> None:
    """On the ordinary way, too, where whoever waits is woken and goes on in a turn of his own."""
    sent = list[list[bool]]()
    with contextlib.ExitStack() as stack:
        most = request("?n=64&format=npy")
        connections = [stack.enter_context(application.connected(most))]

        def there() -> None:
            sent.append([bool(select.select([one], [], [], 0)[0]) for one in connections])

        held.meanwhile = there
        assert held.running.wait(PATIENCE)
        connections += [stack.enter_context(application.connected(most)) for _ in range(2)]
        held.let_go.set()
        assert [status(one) for one in connections] == [200] * 3
    assert [sum(each) for each in sent[-2:]] == [1, 2]
