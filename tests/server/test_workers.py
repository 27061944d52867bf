"""Several processes on one port, as clients, Prometheus and an operating system see them."""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

from server import memory, workers
from server.listening import bind
from server.settings import Settings
from training.errors import ConfigError, LimnerError
from training.precedence import resolve

PATIENCE = 30.0  # seconds until a test that would hang fails

Launch = Callable[..., AbstractContextManager[Any]]  # of conftest.Launched


IMAGES = 'limner_images_total{model="plain@1"}'


def metrics(url: str) -> dict[str, float]:
    """Name and labels -> value, from whichever worker answers."""
    lines = httpx.get(f"{url}/metrics", timeout=PATIENCE).text.splitlines()
    return {key: float(value) for key, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))}


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def children(process: int) -> list[int]:
    return [int(number) for number in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def alive(process: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


ANSWERED = 'limner_requests_total{code="200",route="/generate"}'


class Load:
    """Clients that ask all the time, each over connections of its own, until the block ends."""

    def __init__(self, url: str, clients: int) -> None:
        self.url, self.clients = url, clients
        self.answered, self.cut, self.others, self.pictures = 0, 0, list[int](), set[bytes]()
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def _ask(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(httpx.TransportError), httpx.Client(base_url=self.url, timeout=PATIENCE) as client:
                for _ in range(20):  # and then over another connection, perhaps to another worker
                    try:
                        answer = client.get("/generate?model=plain&seed=1")
                    except httpx.TransportError:
                        with self._lock:
                            self.cut += 1
                        raise
                    with self._lock:
                        if answer.status_code == 200:
                            self.answered += 1
                            self.pictures.add(answer.content)
                        else:
                            self.others.append(answer.status_code)


@pytest.fixture(scope="module")
def team(launch: Launch, models: Path) -> Iterator[Any]:
    with launch(models, "--workers", "2") as server:
        yield server


def test_all_workers_answer_and_any_of_them_knows_what_all_have_done(team: Any) -> None:
    before = metrics(team.url)
    with Load(team.url, 8) as load:
        until(lambda: load.answered >= 400)
    assert (load.cut, load.others) == (0, [])
    assert len(load.pictures) == 1
    scrapes = [metrics(team.url) for _ in range(10)]  # each over a connection of its own
    for now in scrapes:
        assert now[ANSWERED] - before.get(ANSWERED, 0) == load.answered
        assert now[IMAGES] - before[IMAGES] == load.answered
        assert now["limner_workers"] == 2
        assert now["limner_in_flight_requests"] >= 1
        assert now['limner_load_seconds{model="plain@1"}'] > 0
        assert now['limner_request_seconds_bucket{le="+Inf",route="/generate"}'] == now[ANSWERED]
    told = [httpx.get(f"{team.url}/v2/models/plain/stats", timeout=PATIENCE).json() for _ in range(10)]
    assert {each["model_stats"][0]["inference_count"] for each in told} == {scrapes[-1][IMAGES]}
    used = [cpu(process) for process in children(team.process.pid)]
    assert len(used) == 2
    assert min(used) > 0.1 * max(used)  # both have worked


def cpu(process: int) -> float:
    user, system = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def test_the_figures_of_the_processes_are_those_of_all(team: Any) -> None:
    processes = [team.process.pid, *children(team.process.pid)]
    said = metrics(team.url)
    assert said["process_cpu_seconds_total"] == pytest.approx(sum(map(cpu, processes)), abs=0.2)
    assert said["process_open_fds"] > max(len(os.listdir(f"/proc/{process}/fd")) for process in processes)
    one = max(int(Path(f"/proc/{process}/statm").read_text().split()[1]) * 4096 for process in processes)
    assert said["process_resident_memory_bytes"] > 1.5 * one
    assert said["process_start_time_seconds"] <= time.time()


def test_a_killed_worker_costs_its_own_requests_and_no_metric(launch: Launch, models: Path) -> None:
    with launch(models, "--workers", "2") as server, Load(server.url, 8) as load:
        until(lambda: load.answered >= 200)
        victim = children(server.process.pid)[0]
        os.kill(victim, signal.SIGKILL)
        seen = load.answered
        until(lambda: metrics(server.url)["limner_worker_restarts_total"] == 1)
        until(lambda: metrics(server.url)["limner_workers"] == 2)
        assert victim not in children(server.process.pid)
        assert len(children(server.process.pid)) == 2
        until(lambda: load.answered >= seen + 200)
        load.__exit__()
        assert load.cut <= load.clients  # at most what each of them waited for
        assert (load.others, len(load.pictures)) == ([], 1)
        after = metrics(server.url)
        assert abs(after[ANSWERED] - load.answered) <= load.clients  # killed between an answer and its count
        assert after[IMAGES] >= load.answered
        assert after["process_cpu_seconds_total"] > sum(map(cpu, children(server.process.pid)))
        (line,) = [line for line in server.complained().splitlines() if '"worker died"' in line]
        assert '"reason": "worker 0 ended with SIGKILL' in line
        assert '"starts_again_in": 0.0' in line


def test_a_worker_that_keeps_dying_is_given_a_pause(launch: Launch, models: Path) -> None:
    with launch(models / "plain", "--workers", "2") as server:
        for place in range(2):
            here = children(server.process.pid)
            os.kill(here[-1] if place else here[0], signal.SIGKILL)
            until(lambda known=here: len(set(children(server.process.pid)) - set(known)) == 1)
        lines = [line for line in server.complained().splitlines() if '"worker died"' in line]
        assert ['"starts_again_in": 0.0' in line for line in lines] == [True, False]
        assert server.stop() == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_drains_every_worker(
    launch: Launch, models: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    folder = tmp_path / "metrics"
    folder.mkdir()
    with launch(models, "--workers", "2", LIMNER_METRICS_FOLDER=str(folder)) as server:
        processes = children(server.process.pid)
        asked: list[httpx.Response] = []

        def ask() -> None:
            asked.append(httpx.get(f"{server.url}/generate?model=plain&n=1024&format=npy", timeout=PATIENCE))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        until(lambda: metrics(server.url)["limner_in_flight_requests"] > 2)
        os.kill(server.process.pid, number)
        assert server.process.wait(PATIENCE) == code
        for thread in threads:
            thread.join(PATIENCE)
        assert {answer.status_code for answer in asked} <= {200, 503}
        assert 200 in {answer.status_code for answer in asked}
        assert not any(map(alive, processes))
        assert "Traceback" not in server.complained()
        assert server.complained().count('"stopped"') == 2
        assert not [*folder.iterdir()]  # where they counted


def test_ctrl_c_of_a_terminal_reaches_the_supervisor_alone(team: Any) -> None:
    """Otherwise each worker would hear it twice, and would not wait for what is in flight."""
    groups = {os.getpgid(process) for process in children(team.process.pid)}
    assert os.getpgid(team.process.pid) not in groups
    assert len(groups) == 2


def test_workers_do_not_outlive_their_supervisor(launch: Launch, models: Path) -> None:
    with launch(models / "plain", "--workers", "2") as server:
        processes = children(server.process.pid)
        server.process.kill()
        until(lambda: not any(map(alive, processes)))


def test_what_keeps_workers_from_serving_is_one_line(launch: Launch, tmp_path: Path, models: Path) -> None:
    listener = bind("127.0.0.1", 0, shared=True)
    settings: dict[str, Any] = {"models": models / "plain", "workers": 2}
    with listener:
        cases: list[tuple[dict[str, Any], str]] = [
            ({"models": tmp_path}, "holds no bundle"),
            ({"metrics_folder": tmp_path / "nowhere"}, "cannot write metrics into"),
            ({"engine": "tensorrt"}, "tensorrt"),
        ]
        for given, reason in cases:
            with pytest.raises(LimnerError, match=reason) as error:
                workers.serve(Settings(**settings | given), listener, lambda count: pytest.fail("it serves"))
            assert "\n" not in str(error.value)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_more_workers_than_memory_allows_are_refused_and_auto_takes_fewer(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "taken", lambda process: 1 << 30)
    monkeypatch.setattr(memory, "available", lambda: 3 << 29)  # 1.5 GiB: one more
    monkeypatch.setattr(workers.cores, "available", lambda: 3)
    with bind("127.0.0.1", 0, shared=True) as listener:
        with pytest.raises(ConfigError) as refused:
            workers.serve(Settings(models=models / "plain", workers=3), listener, print)
        said = "3 workers take 3.0 GiB of memory, of which 2.5 GiB is there. Take --workers 2, or auto."
        assert str(refused.value) == said
        served: list[int] = []

        def ready(count: int) -> None:
            served.append(count)
            os.kill(os.getpid(), signal.SIGTERM)

        workers.serve(Settings(models=models / "plain", workers="auto"), listener, ready)
        assert served == [2]


def test_the_cores_are_divided_among_the_workers(launch: Launch, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int | None] = []

    class Told(Exception):
        pass

    def team(settings: Settings, *_: Any) -> Any:
        seen.append(settings.engine_threads)
        raise Told

    monkeypatch.setattr(workers, "_Team", team)
    monkeypatch.setattr(workers.cores, "available", lambda: 8)
    with socket.socket() as listener:
        asked: list[tuple[Any, int | None]] = [(3, None), ("auto", None), (16, None), (2, 3)]
        for count, threads in asked:
            with pytest.raises(Told):
                workers.serve(Settings(models=models, workers=count, engine_threads=threads), listener, print)
    assert seen == [2, 1, 1, 3]


@pytest.mark.parametrize("count", ["0", "-1", "1.5", "1025", "all", ""])
def test_what_is_no_number_of_workers_is_refused(count: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMNER_WORKERS", count)
    with pytest.raises(ConfigError, match="take a number from 1 to 1024, or auto"):
        resolve(Settings, {}, "LIMNER_")


def test_a_port_in_use_is_refused_although_it_is_shared(team: Any) -> None:
    port = httpx.URL(team.url).port
    assert port is not None
    for shared in (False, True):
        with pytest.raises(ConfigError, match="cannot listen"):
            bind("127.0.0.1", port, shared=shared)
