"""Really trained bundles and a real server process, once a session; nothing is written to the home folder."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import httpx
import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from training.config import Kind
    from training.data import Dataset

settings.register_profile("limner", deadline=None)  # no timed assertions: an example waits for a busy machine
settings.load_profile("limner")

START_SECONDS = 60.0  # generous: a busy machine imports and warms up slowly
STOP_SECONDS = 30.0
DIGITS = ("0", "2", "1")  # label=2 is the class named "2", index 1: a name goes before an index


@pytest.fixture(scope="session")
def program(missing: Callable[[str], NoReturn]) -> Callable[..., Path]:
    """`program("promtool", "Debian's package prometheus")` -> its path, looked for on PATH or in the folder `at`.

    Where it is not installed the test skips, naming the package; it fails where LIMNER_TEST_ALL is 1.
    """

    def found(name: str, package: str, at: Path | None = None) -> Path:
        path = shutil.which(name, path=at)
        if path is None:
            missing(f"{package} is not installed")
        return Path(path)

    return found


@pytest.fixture(scope="module")
def browser(program: Callable[..., Path]) -> "Iterator[Browser]":
    """Debian's Chromium without a window. Not for the session: while it is open this thread has an event loop."""
    from playwright.sync_api import sync_playwright

    chromium = program("chromium", "Debian's package chromium")
    options = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=options)
        yield browser
        browser.close()


@dataclass(frozen=True)
class Visit:
    """A page in a browser; what it wrote to the console and threw, and what it asked for, so far."""

    page: "Page"
    complaints: list[str]
    asked: list[str]


@pytest.fixture
def visit(browser: "Browser") -> Iterator[Callable[..., Visit]]:
    """`visit(url, width=360, scheme="dark")` -> Visit, in a context of its own: no cookies, no cache of another."""
    contexts = []

    def visited(url: str, width: int = 1440, scheme: Literal["light", "dark"] = "light", **more: Any) -> Visit:
        contexts.append(browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, **more))
        visit = Visit(contexts[-1].new_page(), [], [])
        visit.page.set_default_timeout(STOP_SECONDS * 1e3)
        visit.page.on("console", lambda message: visit.complaints.append(message.text))
        visit.page.on("pageerror", lambda error: visit.complaints.append(str(error)))
        visit.page.on("request", lambda request: visit.asked.append(request.url))
        visit.page.goto(url)
        return visit

    yield visited
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of two bundles: `digits`, a CGAN of 28x28x1 and DIGITS, and `plain`, a GAN of 32x32x3."""
    from export.to_onnx import export

    home = tmp_path_factory.mktemp("trained")

    def make(name: str, kind: "Kind", dataset: "Dataset") -> None:
        _train(home, name, kind, dataset)
        export(home / name, home / "models", name)

    make("digits", "cgan", _squares("squares", 28, 1, DIGITS))
    make("plain", "gan", _squares("tinted", 32, 3, ()))
    return home / "models"


@pytest.fixture(scope="session")
def mixture(models: Path) -> Path:
    """A repository of one bundle, `mixed`: a CVAE of DIGITS, 28x28x1, with a prior of two components for each class."""
    import torch

    from export.to_onnx import export
    from training import checkpoint
    from training.run import RunFolder

    home = models.parent
    _train(home, "mixed", "cvae", _squares("squares", 28, 1, DIGITS))
    noise = np.random.Generator(np.random.Philox(key=6))
    prior = {
        "weights": np.array([[0.5, 0.5], [1, 0], [0.2, 0.8]]),
        "mean": 2 * noise.standard_normal((3, 2, 6)),
        "scale_tril": np.tril(noise.standard_normal((3, 2, 6, 6)), -1) / 2 + np.eye(6),
    }
    path = RunFolder(home / "mixed").exported_checkpoint()
    state = checkpoint.load(path)
    checkpoint.save(path, state | {"prior": {name: torch.from_numpy(array) for name, array in prior.items()}})
    export(home / "mixed", home / "mixture", "mixed")
    return home / "mixture"


def _train(home: Path, name: str, kind: "Kind", dataset: "Dataset") -> None:
    import torch

    from training import loop
    from training.config import TrainConfig
    from training.run import RunFolder

    torch.set_num_threads(1)  # nets this small gain nothing from more, and threads wait for one another
    config = TrainConfig(model=kind, out=home / name, epochs=4, batch=16, width=4, latent=6, device="cpu")
    RunFolder(config.out).create(config)
    loop.train(config, dataset, cache=home / "judges")


def _squares(name: str, size: int, channels: int, class_names: tuple[str, ...]) -> "Dataset":
    """60 pictures of a bright square whose place tells its class, 40 of them for training."""
    from training.data import Dataset, Images

    noise = np.random.Generator(np.random.Philox(key=5))
    images = noise.integers(0, 40, (60, size, size, channels), np.uint8)
    labels = np.arange(60, dtype=np.int64) % max(1, len(class_names))
    for image, label in zip(images, labels, strict=True):
        image[4 + 6 * label : 10 + 6 * label, 8:20] += np.uint8(200)
    whole = Images(images, labels if class_names else None)
    train, val, test = (whole.take(rows) for rows in np.split(np.arange(60), [40, 50]))
    return Dataset(name, train, val, test, class_names)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 60 little pictures in two classes: light from above, light from below."""
    folder = tmp_path_factory.mktemp("pictures")
    ramp = np.linspace(0, 255, 28, dtype=np.uint8)[:, None].repeat(28, axis=1)
    for name, image in (("above", ramp[::-1]), ("below", ramp)):
        (folder / name).mkdir()
        for index in range(30):
            Image.fromarray(np.roll(image, index, axis=0)).save(folder / name / f"{index}.png")
    return folder


@pytest.fixture(scope="session")
def script() -> Callable[[str], ModuleType]:
    """`script("docs/tables.py")`: a file of this repository that is in no package, as a module."""

    def loaded(path: str) -> ModuleType:
        file = Path(__file__).parents[1] / path
        spec = importlib.util.spec_from_file_location(file.stem, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return loaded


@pytest.fixture(scope="session")
def missing() -> Callable[[str], NoReturn]:
    """`missing("npm is not installed")`: skip the test, or fail it where everything must run."""

    def absent(what: str) -> NoReturn:
        if os.environ.get("LIMNER_TEST_ALL") == "1":
            pytest.fail(what)
        pytest.skip(what)

    return absent


@dataclass(frozen=True)
class Launched:
    """A `limner serve` process that said where it listens; `said` and `complained` are its stdout and stderr so far."""

    process: subprocess.Popen[bytes]
    url: str
    home: Path

    def said(self) -> str:
        return (self.home / "stdout").read_text()

    def complained(self) -> str:
        return (self.home / "stderr").read_text()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS)


Launch = Callable[..., AbstractContextManager[Launched]]


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of every process that tests start: folders of its own, and no LIMNER_ setting of whoever runs the tests."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("LIMNER_")}
    return mine | {"HOME": str(tmp_path_factory.mktemp("home")), "TMPDIR": str(tmp_path_factory.mktemp("temporary"))}


@pytest.fixture(scope="session")
def launch(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Launch:
    """`with launch(models, "--name", "x", LIMNER_QUEUE_IMAGES="1") as server`: ready inside, killed if still alive."""

    @contextmanager
    def launched(models: Path, *flags: str, **settings: str) -> Iterator[Launched]:
        home = tmp_path_factory.mktemp("serve")
        command = [sys.executable, "-m", "limner", "serve", "--models", str(models), "--port", "0", *flags]
        with (home / "stdout").open("wb") as out, (home / "stderr").open("wb") as err:
            process = subprocess.Popen(command, stdout=out, stderr=err, cwd=home, env=environment | settings)
        try:
            yield Launched(process, _ready(process, home), home)
        finally:
            process.kill()
            process.wait()

    return launched


def _ready(process: subprocess.Popen[bytes], home: Path) -> str:
    """The URL of the line that serve prints, once /readyz there is 200."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        url = next((word for word in (home / "stdout").read_text().split() if word.startswith("http://")), None)
        try:
            if url is not None and httpx.get(f"{url}/readyz").status_code == 200:
                return url
        except httpx.TransportError:
            pass
        time.sleep(0.02)
    pytest.fail(f"limner serve did not start:\n{(home / 'stdout').read_text()}{(home / 'stderr').read_text()}")


@pytest.fixture(scope="session")
def start_server(launch: Launch) -> Callable[..., AbstractContextManager[str]]:
    """`with start_server(models, *flags) as url`: a real process, stopped by SIGTERM at the end, which must exit 0."""

    @contextmanager
    def started(models: Path, *flags: str, **settings: str) -> Iterator[str]:
        with launch(models, *flags, **settings) as server:
            yield server.url
            assert server.stop() == 0, server.complained()

    return started


@pytest.fixture(scope="session")
def url(start_server: Callable[..., AbstractContextManager[str]], models: Path) -> Iterator[str]:
    """The address of one server of both models for the whole session."""
    with start_server(models) as address:
        yield address


@pytest.fixture
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=STOP_SECONDS) as client:
        yield client
