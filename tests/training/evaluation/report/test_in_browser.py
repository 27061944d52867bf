"""The page in a real browser: nothing to complain of, nothing to push sideways, and a blind test that counts right."""

import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.evaluation.report import render
from training.evaluation.report.contents import Contents

COMPLAINTS = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
LONG = "Llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogoch"


class Browser:
    """Chromium by its DevTools protocol, over two pipes: JSON with a zero byte behind each message."""

    def __init__(self, program: str, profile: Path) -> None:
        theirs, self._to = os.pipe()
        self._from, back = os.pipe()
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in (theirs, back)]  # clear of 3 and 4, which it listens to
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        options += ["--disable-background-networking", "--remote-debugging-pipe", f"--user-data-dir={profile}"]
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{ends[0]} 4>&{ends[1]}', "bash", program, *options, "about:blank"],
            pass_fds=ends,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in (theirs, back, *ends):
            os.close(end)
        self._count, self._session, self._rest = 0, "", b""
        self._events: list[dict[str, Any]] = []
        pages = [target for target in self._do("Target.getTargets")["targetInfos"] if target["type"] == "page"]
        found = self._do("Target.attachToTarget", targetId=pages[0]["targetId"], flatten=True)
        self._session = found["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._do(f"{domain}.enable")

    def open(self, path: Path, width: int, scheme: str = "light") -> None:
        self._do("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
        self._do("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self._events.clear()
        self._do("Page.navigate", url=path.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._events.append(self._read())

    def ask(self, expression: str) -> Any:
        answer = self._do("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self._do("Input.dispatchKeyEvent", type=kind, key=key)

    def complaints(self) -> list[dict[str, Any]]:
        return [event["params"] for event in self._events if event["method"] in COMPLAINTS]

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=20)
        os.close(self._to)
        os.close(self._from)

    def _do(self, method: str, **params: Any) -> dict[str, Any]:
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            found = self._read()
            if found.get("id") == self._count:
                assert "error" not in found, found
                return found["result"]
            self._events.append(found)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            more = os.read(self._from, 1 << 16)
            assert more, "the browser has gone"
            self._rest += more
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = shutil.which("chromium")
    if program is None:
        missing = "Debian's package chromium is not installed"
        if os.environ.get("LIMNER_TEST_ALL") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    browser = Browser(program, tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def path(contents: Contents, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render(contents), encoding="utf-8")
    return path


WIDER = """
[...document.querySelectorAll("body *")].filter((part) => !part.closest("svg, .reel, thead, .unseen, .skip")
  && part.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5).map((part) => part.outerHTML)
"""


@pytest.mark.parametrize("width", [360, 700, 1000, 1440, 2560])
def test_nothing_is_pushed_sideways_and_nothing_complained_of(browser: Browser, path: Path, width: int) -> None:
    browser.open(path, width, "dark" if width == 1000 else "light")
    assert browser.ask("document.documentElement.scrollWidth") <= width
    assert browser.ask(WIDER) == []
    assert browser.complaints() == []


def test_long_names_large_pictures_and_full_enlargement_fit_a_phone(
    browser: Browser, contents: Contents, tmp_path: Path
) -> None:
    rows = [(f"{LONG} {row}", np.full((10, 64, 64, 3), row, np.uint8)) for row in range(10)]
    long = replace(contents, title=LONG * 2, subject={LONG: LONG * 3}, generated=rows, real=rows, interpolations=rows)
    path = tmp_path / "report.html"
    path.write_text(render(replace(long, config={LONG: LONG * 3}, missing=[LONG * 3])), encoding="utf-8")
    browser.open(path, 360)
    for factor in ("fit", "1", "4"):
        browser.ask(f"document.querySelector('[name=zoom][value=\"{factor}\"]').click()")
        browser.ask("for (const each of document.querySelectorAll('details')) each.open = true")
        assert browser.ask("document.documentElement.scrollWidth") <= 360
        assert browser.ask(WIDER) == []
    assert browser.ask("document.querySelector('#pictures img').getBoundingClientRect().width") == 4 * (640 + 9 * 2)


def test_the_names_stand_beside_their_rows(browser: Browser, path: Path) -> None:
    browser.open(path, 1440)
    heights = browser.ask(
        "['.names', '.mount img'].map((part) => document.querySelector(part).getBoundingClientRect().height)"
    )
    assert abs(heights[0] - heights[1]) < 2


def test_the_blind_test_shows_one_picture_at_a_time_and_counts(
    browser: Browser, contents: Contents, path: Path
) -> None:
    assert contents.blind is not None
    browser.open(path, 1440)
    assert browser.ask("document.getElementById('asking').hidden")
    browser.ask("document.querySelector('#begin button').click()")
    right = 0
    for turn, real in enumerate(contents.blind.real):
        assert browser.ask("document.getElementById('count').textContent") == f"Picture {turn + 1} of 12"
        said = turn < 10  # "real" ten times by the key, then "fake" by the button
        right += said == real
        if said:
            browser.press("r")
        else:
            browser.ask("document.getElementById('is-fake').click()")
    assert browser.ask("document.getElementById('score').textContent") == f"{right} of 12 right"
    assert browser.ask("document.activeElement.id") == "score"
    assert browser.ask("document.getElementById('verdict').textContent") == "You could not tell them apart."
    assert "between 3 and 9 right" in browser.ask("document.getElementById('guessing').textContent")
    assert browser.ask("document.querySelectorAll('#fooled .tile').length") == 12 - right
    browser.ask("document.getElementById('again').click()")
    assert browser.ask("document.getElementById('count').textContent") == "Picture 1 of 12"
    assert browser.complaints() == []


@pytest.mark.parametrize(
    ("answers", "verdict"),
    [
        (lambda real: real, "You could tell them apart."),
        (lambda real: ~real, "You saw a difference, and took it the wrong way round."),
        (lambda real: real[:5], "Too few pictures to tell: even all of them right may be luck."),
    ],
)
def test_the_verdict_is_that_of_the_binomial(
    browser: Browser, contents: Contents, path: Path, answers: Any, verdict: str
) -> None:
    assert contents.blind is not None
    browser.open(path, 360)
    browser.press("r")  # nobody asked yet
    browser.ask("document.querySelector('#begin button').click()")
    for real in answers(contents.blind.real):
        browser.press("r" if real else "f")
    browser.ask("document.getElementById('asking').hidden || document.getElementById('stop').click()")
    assert browser.ask("document.getElementById('verdict').textContent") == verdict


def test_without_scripts_the_blind_test_says_so(browser: Browser, path: Path, tmp_path: Path) -> None:
    quiet = tmp_path / "report.html"
    quiet.write_text(path.read_text(encoding="utf-8").replace("script-src 'sha256-", "script-src 'sha256-A"))
    browser.open(quiet, 360)
    assert browser.complaints()  # the policy holds: a script that is not the one it names does not run
    assert browser.ask("document.getElementById('begin').hidden")
    assert "needs JavaScript" in browser.ask("document.querySelector('noscript').textContent")
