"""The playground in a real browser, on a real server whose engines can be held: every control and every refusal."""

import io
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from export.engines import Engine
from server import repository
from server.process import in_background
from server.settings import JS_CLIENT, Settings

PATIENCE = 20.0
FULL = 32  # images of the queue, and of the largest answer
WALL = "#pictures li button"
DIGITS = "#model=digits&n=6&seed=40"
SIDEWAYS = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
Visits = Callable[..., Any]
Picture = tuple[tuple[int, int], bytes]  # width, height; RGBA


class Patient:
    """The real engine, which waits for the gate before it draws."""

    on_cpu = False

    def __init__(self, engine: Engine, gate: threading.Event) -> None:
        self.engine, self.gate = engine, gate
        self.artifact, self.buckets = engine.artifact, engine.buckets
        self.describe, self.close = engine.describe, engine.close

    def run(self, z: np.ndarray, label: np.ndarray | None) -> np.ndarray:
        assert self.gate.wait(PATIENCE)
        return self.engine.run(z, label)


@dataclass(frozen=True)
class Gallery:
    """A server of this process with a small queue: `digits` (0, 2, 1) and `plain`; what it has, asked by HTTP alone."""

    url: str
    http: httpx.Client
    gate: threading.Event = field(default_factory=threading.Event)

    def draws(self, **asked: Any) -> Picture:
        return opened(self.http.get("/generate", params={"format": "png", **asked}).raise_for_status().content)


@pytest.fixture(scope="module")
def gallery(models: Path) -> Iterator[Gallery]:
    gate, real = threading.Event(), repository.open_engine
    gate.set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repository, "open_engine", lambda *arguments: Patient(real(*arguments), gate))
        settings = Settings(models=models, default_model="digits", queue_images=FULL, max_images=FULL)
        with in_background(settings) as url, httpx.Client(base_url=url, timeout=PATIENCE) as http:
            yield Gallery(url, http, gate)
            gate.set()


@pytest.fixture(scope="module")
def axe(program: Callable[..., Path]) -> str:
    """The source of axe-core, which looks for what keeps people out of a page."""
    modules = JS_CLIENT.parent / "node_modules"
    program("tsc", "npm's packages of clients/js are (npm install in clients/js): one of them", modules / ".bin")
    return (modules / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


def hung(page: Any) -> list[Picture]:
    """The pictures on the wall, once they hang."""
    page.wait_for_selector(f"{WALL} img")
    page.wait_for_selector("#pictures[aria-busy=false]")
    return [shown(image) for image in page.query_selector_all(f"{WALL} img")]


def shown(image: Any) -> Picture:
    """What an <img> shows. It is not broken."""
    read = """async (image) => {
        await image.decode();
        const [width, height] = [image.naturalWidth, image.naturalHeight];
        const canvas = new OffscreenCanvas(width, height).getContext("2d");
        canvas.drawImage(image, 0, 0);
        return [width, height, [...canvas.getImageData(0, 0, width, height).data]];
    }"""
    width, height, levels = image.evaluate(read)
    return (width, height), bytes(levels)


def opened(file: bytes) -> Picture:
    image = Image.open(io.BytesIO(file))
    return image.size, image.convert("RGBA").tobytes()


def until(page: Any, holds: Callable[[], bool]) -> None:
    """Wait for it. (Playwright's wait_for_function evaluates strings, which the page's policy forbids.)"""
    end = time.monotonic() + PATIENCE
    while not holds() and time.monotonic() < end:
        page.wait_for_timeout(20)
    assert holds()


def portraits(page: Any, count: int) -> list[Picture]:
    """The pictures on the wall, once so many hang there."""
    until(page, lambda: len(page.query_selector_all(WALL)) == count)
    return hung(page)


def seeds(page: Any) -> list[str]:
    return [element.text_content() for element in page.query_selector_all(f"{WALL} .seed")]


def faults(page: Any, axe: str) -> list[str]:
    """What axe-core finds, by all its rules."""
    page.evaluate(axe)
    page.evaluate("Promise.all(document.getAnimations().map((one) => one.finished.catch(() => {})))")
    found = page.evaluate("axe.run()")["violations"]
    return [f"{one['id']}: {node['html']} {node['failureSummary']}" for one in found for node in one["nodes"]]


def saved(page: Any, button: str) -> tuple[str, bytes]:
    """The file that a button saves: its name and its bytes."""
    with page.expect_download() as downloading:
        page.click(button)
    return downloading.value.suggested_filename, Path(downloading.value.path()).read_bytes()


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (1440, "dark"), (360, "light"), (360, "dark")])
def test_nobody_is_kept_out_nothing_is_pushed_sideways_nothing_complained_of(
    visit: Visits, gallery: Gallery, axe: str, width: int, scheme: str
) -> None:
    seen = visit(f"{gallery.url}/{DIGITS}", width, scheme)
    page = seen.page
    assert hung(page) == [gallery.draws(seed=40 + place) for place in range(6)]
    assert seeds(page) == [str(40 + place) for place in range(6)]
    assert (faults(page, axe), page.evaluate(SIDEWAYS)) == ([], 0)
    page.click("#pictures li:nth-child(2) button")
    page.wait_for_selector(".ways li:nth-child(3) img")
    page.wait_for_selector(".classes li:nth-child(3) img")
    assert (faults(page, axe), page.evaluate(SIDEWAYS)) == ([], 0)
    assert page.evaluate("document.querySelector('dialog').scrollWidth <= document.querySelector('dialog').clientWidth")
    page.click("dialog .pick")
    page.click("#pictures li:nth-child(5) button")
    page.wait_for_selector("#morph .strip img")
    page.click("#morph .play")
    assert (faults(page, axe), page.evaluate(SIDEWAYS)) == ([], 0)
    assert seen.complaints == []
    assert {url.split("/")[2] for url in seen.asked if url.startswith("http")} == {gallery.url.removeprefix("http://")}


def test_every_control_of_the_form_is_what_the_server_is_asked_for(visit: Visits, gallery: Gallery) -> None:
    page = visit(gallery.url).page
    assert len(hung(page)) == 16
    assert page.input_value("[name=model]") == "digits"
    assert not page.is_visible("[name=version]")  # there is one
    page.select_option("[name=label]", "2")
    page.fill("[name=n]", "3")
    page.fill("[name=seed]", "9223372036854775807")
    page.fill("[name=truncation]", "0.5")
    with page.expect_response("**/generate") as answer:
        page.click(".draw")
    asked = {
        "model": "digits",
        "version": "1",
        "label": "2",
        "n": "3",
        "seed": "9223372036854775807",
        "truncation": "0.5",
    }
    assert answer.value.request.post_data_json == {**asked, "format": "json"}
    portraits(page, 3)
    named = [("9223372036854775807"), "0", "1"]
    assert hung(page) == [gallery.draws(label="2", seed=seed, truncation=0.5) for seed in named]
    assert seeds(page) == named
    assert [title.text_content() for title in page.query_selector_all(f"{WALL} b")] == ["2", "2", "2"]
    with page.expect_response("**/generate") as answer:
        page.click("#newSeed")
    drawn = answer.value.request.post_data_json["seed"]
    assert page.input_value("[name=seed]") == drawn != named[0]
    page.select_option("[name=model]", "plain")
    assert not page.is_visible("[name=label]")  # it has none
    with page.expect_response("**/generate") as answer:
        page.press("[name=seed]", "Enter")
    assert "label" not in answer.value.request.post_data_json
    page.wait_for_selector(f"{WALL} b:empty", state="attached")
    assert hung(page)[0] == gallery.draws(model="plain", seed=drawn, truncation=0.5)


def test_the_address_of_the_page_gives_the_same_pictures_again_and_back_goes_back(
    visit: Visits, gallery: Gallery
) -> None:
    page = visit(gallery.url).page
    first = hung(page)
    address = page.url
    assert hung(visit(address).page) == first
    page.fill("[name=n]", "2")
    page.click(".draw")
    portraits(page, 2)
    second = hung(page)
    assert hung(visit(page.url).page) == second
    page.go_back()
    portraits(page, 16)
    assert (page.url, hung(page)) == (address, first)


def test_a_file_is_what_format_and_scale_say_and_the_permanent_link_gives_the_same(
    visit: Visits, gallery: Gallery
) -> None:
    page = visit(f"{gallery.url}/{DIGITS}").page
    hung(page)
    page.select_option("#take [name=scale]", "8")
    for format, start in {
        "png": b"\x89PNG",
        "webp": b"RIFF",
        "jpeg": b"\xff\xd8",
        "zip": b"PK",
        "npy": b"\x93NUMPY",
    }.items():
        page.select_option("#take [name=format]", format)
        name, file = saved(page, "#take .save")
        assert name == f"digits-40.{format}"
        assert file.startswith(start)
        link = page.get_attribute("#take .link", "href")
        assert gallery.http.get(link).content == file
        assert page.is_disabled("#take [name=scale]") == (format == "npy")
        if format in ("png", "webp", "jpeg"):
            assert Image.open(io.BytesIO(file)).size == (3 * 28 * 8, 2 * 28 * 8)


def test_a_click_shows_a_picture_with_its_link_its_file_and_its_kin(visit: Visits, gallery: Gallery) -> None:
    page = visit(f"{gallery.url}/{DIGITS}").page
    hung(page)
    page.click("#pictures li:nth-child(2) button")
    large = "#viewing .exhibit img"
    label = gallery.http.get("/generate?seed=41").headers["X-Limner-Label"]
    assert page.text_content("#viewed") == ["0", "2", "1"][int(label)]
    assert shown(page.query_selector(large)) == gallery.draws(seed=41)
    link = page.get_attribute("#viewing .link", "href")
    name, file = saved(page, "#viewing .save")
    assert (name, file) == (f"digits-{page.text_content('#viewed')}-41.png", gallery.http.get(link).content)
    assert Image.open(io.BytesIO(file)).size == (112, 112)
    page.wait_for_selector(".calmer li:nth-child(6) img")
    calmer = [shown(image) for image in page.query_selector_all(".calmer img")]
    whose = {"label": page.text_content("#viewed"), "seed": 41}
    assert calmer == [gallery.draws(**whose, truncation=psi) for psi in (0.25, 0.5, 0.75, 1, 1.5)] + [
        gallery.draws(seed=41)
    ]
    page.wait_for_selector(".classes li:nth-child(3) img")
    until(page, lambda: len(page.query_selector_all(".classes img")) == 3)
    others = [shown(image) for image in page.query_selector_all(".classes img")]
    assert others == [gallery.draws(seed=41, label=name) for name in ("0", "2", "1")]
    assert len(page.query_selector_all("#viewing [aria-current=true]")) == 2
    page.click(".calmer li:nth-child(2) button")
    assert shown(page.query_selector(large)) == calmer[1]
    assert "truncation=0.5" in page.get_attribute("#viewing .link", "href")
    assert page.is_disabled("#viewing .next")  # it does not hang on the wall
    page.keyboard.press("Escape")
    assert not page.is_visible("#viewing")


def test_keys_walk_along_the_wall_and_from_picture_to_picture(visit: Visits, gallery: Gallery) -> None:
    page = visit(f"{gallery.url}/#model=digits&n=9&seed=40").page
    hung(page)
    page.focus(f"{WALL} >> nth=0")
    focused = "document.activeElement.querySelector('.seed')?.textContent"
    for key, seed in (("ArrowRight", "41"), ("ArrowDown", "44"), ("ArrowLeft", "43"), ("ArrowUp", "40"), ("End", "48")):
        page.keyboard.press(key)
        assert page.evaluate(focused) == seed
    assert page.evaluate("document.querySelectorAll('#pictures [tabindex=\"0\"]').length") == 1
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "viewed"
    page.keyboard.press("ArrowLeft")
    assert page.text_content("#viewing dd") == "47"
    page.click("#viewing .next")
    assert page.text_content("#viewing dd") == "48"
    page.keyboard.press("Escape")
    assert page.evaluate(focused) == "48"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('#take, #card, #wall').id") == "take"


def test_between_two_pictures_there_is_a_strip_a_film_and_a_file(visit: Visits, gallery: Gallery) -> None:
    page = visit(f"{gallery.url}/{DIGITS}&label=1").page
    wall = hung(page)
    page.click("#pictures li:nth-child(1) button")
    page.click("#viewing .pick")
    assert "From 1 (seed 40)" in page.text_content("#picking")
    page.click("#picking button")
    assert not page.is_visible("#picking")
    page.click("#pictures li:nth-child(1) button")
    page.click("#viewing .pick")
    page.click("#pictures li:nth-child(4) button")
    strip = "#morph .strip img"
    page.wait_for_selector(strip)
    size, levels = shown(page.query_selector(strip))
    assert size == (16 * 28, 28)
    frames = np.frombuffer(levels, np.uint8).reshape(28, 16, 28, 4)
    assert [(28, 28), frames[:, 0].tobytes()] == [*wall[0]]
    assert [(28, 28), frames[:, 15].tobytes()] == [*wall[3]]
    assert not page.is_visible("#morph .fades")
    until(page, lambda: int(page.input_value("#morph [name=place]")) > 2)  # it plays by itself
    page.click("#morph .play")
    page.fill("#morph [name=place]", "0")
    assert page.get_attribute("#morph .film", "aria-label") == "Frame 1 of 16"
    page.fill("#morph [name=frames]", "5")
    with page.expect_response("**/interpolate"):
        page.press("#morph [name=frames]", "Tab")
    until(page, lambda: page.evaluate(f"document.querySelector('{strip}').naturalWidth") == 5 * 28)
    for format, start in {"gif": b"GIF89a", "webp": b"RIFF", "png": b"\x89PNG", "zip": b"PK"}.items():
        page.select_option("#morph [name=format]", format)
        name, file = saved(page, "#morph .save")
        assert name == f"digits-40-to-43.{format}"
        assert file.startswith(start)
        assert gallery.http.get(page.get_attribute("#morph .link", "href")).content == file
    assert "loop=true" in page.get_attribute("#morph .link", "href")
    page.uncheck("#morph [name=loop]")
    assert "loop=false" in page.get_attribute("#morph .link", "href")


def test_a_way_to_a_stranger_opens_from_the_closer_look(visit: Visits, gallery: Gallery) -> None:
    page = visit(f"{gallery.url}/#model=plain&n=2&seed=9223372036854775807", reduced_motion="reduce").page
    hung(page)
    page.click("#pictures li:nth-child(1) button")
    assert not page.is_visible(".classes")
    page.click(".ways li:nth-child(1) button:has(img)")
    page.wait_for_selector("#morph .strip img")
    assert page.text_content("#morph .ends") == "seed 9223372036854775807 → seed 0"
    assert page.text_content("#morph .play") == "Play"  # who wants less motion is asked first


def test_the_code_gives_the_same_file_in_every_language(
    visit: Visits, gallery: Gallery, program: Callable[..., Path], environment: dict[str, str], tmp_path: Path
) -> None:
    node, curl = program("node", "Debian's package nodejs"), program("curl", "Debian's package curl")
    page = visit(
        f"{gallery.url}/{DIGITS}&label=1&truncation=0.7", permissions=["clipboard-read", "clipboard-write"]
    ).page
    hung(page)
    page.select_option("#take [name=scale]", "1")
    expected = gallery.http.get(page.get_attribute("#take .link", "href")).content
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "limner-client").symlink_to(JS_CLIENT.parent)
    code = ""
    for language, run in {
        "curl": lambda code: ["bash", "-ec", code.replace("curl", f"{curl} -sS", 1)],
        "python": lambda code: [sys.executable, "-c", code],
        "js": lambda code: [node, "--input-type=module", "--eval", code],
    }.items():
        page.check(f"[value={language}]")
        page.click("#take .copy")
        until(page, lambda: page.text_content("#take .copy") == "Copied")
        code = page.evaluate("navigator.clipboard.readText()")
        assert code == page.text_content("#code")
        done = subprocess.run(run(code), cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        file = tmp_path / "digits-1-40.png"
        assert file.read_bytes() == expected
        file.unlink()
        page.wait_for_selector("#take .copy:enabled")
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")  # as over plain HTTP
    page.evaluate("addEventListener('copy', () => (window.copied = String(getSelection())))")
    page.click("#take .copy")
    until(page, lambda: page.evaluate("window.copied") == code)


def test_what_it_took_and_what_is_known_of_the_model_are_told(visit: Visits, gallery: Gallery) -> None:
    page = visit(f"{gallery.url}/#model=digits&n=4").page
    hung(page)
    took = page.inner_text("#took")
    assert re.search(r"Queue\s+[\d.]+ ms\s+Compute\s+[\d.]+ ms\s+Encode\s+[\d.]+ ms\s+On the way\s+[\d.]+ ms", took)
    assert re.search(r"Batch\s+4 pictures", took)
    served = gallery.http.get("/models/digits").json()["versions"][0]
    card = page.inner_text("#card")
    for value in (served["quality"]["fid"], served["quality"]["floor"]["fid"]):
        assert f"{value:.2f}" in card
    assert f"{served['quality']['agreement'] * 100:.1f} %" in card
    assert served["artifact"] in card
    assert served["digest"] in card
    assert "Passed: at most" in card
    page.select_option("[name=model]", "plain")
    assert "plain, version 1" in page.inner_text("#card")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("seed", "-1", "The seed cannot be “-1”. Allowed: a whole number from 0 to 9,223,372,036,854,775,807."),
        ("seed", "two", "The seed cannot be “two”. Allowed: a whole number from 0 to 9,223,372,036,854,775,807."),
        ("n", "100", "Pictures cannot be “100”. Allowed: an integer from 1 to 32 as json."),
    ],
)
def test_a_wrong_value_is_told_in_words_and_the_pictures_stay(
    visit: Visits, gallery: Gallery, axe: str, name: str, value: str, words: str
) -> None:
    page = visit(f"{gallery.url}/{DIGITS}").page
    before = hung(page)
    page.fill(f"[name={name}]", value)
    page.click(".draw")
    page.wait_for_selector("#said:not(:empty)")
    assert page.text_content("#said") == words
    assert page.get_attribute(f"[name={name}]", "aria-invalid") == "true"
    assert hung(page) == before
    assert faults(page, axe) == []
    page.fill(f"[name={name}]", "1")
    page.click(".draw")
    page.wait_for_selector("#said:empty", state="attached")
    assert page.get_attribute(f"[name={name}]", "aria-invalid") == "false"


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("#model=nobody&seed=1", "This page's address asks for model “nobody”, which there is not."),
        ("#version=7", "This page's address asks for version “7”, which there is not."),
        ("#label=nine", "This page's address asks for class “nine”, which there is not."),
        ("#seed=1e9", "The seed cannot be “1e9”. Allowed: a whole number from 0 to 9,223,372,036,854,775,807."),
        ("#truncation=9", "Truncation cannot be “9”. Allowed: a number over 0, at most 8."),
    ],
)
def test_an_address_that_asks_for_what_there_is_not_is_told_in_words(
    visit: Visits, gallery: Gallery, address: str, words: str
) -> None:
    page = visit(f"{gallery.url}/{address}").page
    page.wait_for_selector("#said:not(:empty)")
    assert page.text_content("#said") == words
    assert not page.query_selector("#pictures *")  # neither broken pictures nor frames that wait
    page.fill("[name=seed]", "5")
    page.fill("[name=truncation]", "")
    page.click(".draw")
    assert hung(page)


def test_a_full_server_is_waited_for_kindly(visit: Visits, gallery: Gallery) -> None:
    seen = visit(f"{gallery.url}/{DIGITS}")
    page = seen.page
    hung(page)
    others = [threading.Thread(target=gallery.http.get, args=(f"/generate?n={n}&format=npy",)) for n in (1, FULL)]
    gallery.gate.clear()
    try:
        for other, queued in zip(others, (0, FULL), strict=True):
            other.start()
            line = f'limner_queued_images{{model="digits@1"}} {queued}.0'
            wanted = "limner_in_flight_requests 2.0" if queued == 0 else line
            while wanted not in gallery.http.get("/metrics").text:
                pass
        page.fill("[name=seed]", "7")
        with page.expect_response("**/generate") as refused:
            page.click(".draw")
        assert refused.value.status == 429
        page.wait_for_selector("#said:not(:empty)")
        assert "Your turn comes: trying again in a second" in page.text_content("#said")
        assert "refused" not in page.get_attribute("#said", "class")
    finally:
        gallery.gate.set()
        for other in others:
            other.join()
    until(page, lambda: seeds(page)[0] == "7")
    assert hung(page)[0] == gallery.draws(seed=7)
    assert page.text_content("#said") == ""
    assert all("429" in complaint for complaint in seen.complaints)  # the browser's own line


def test_a_server_that_stays_full_fails_or_is_gone_is_told_in_words(visit: Visits, gallery: Gallery) -> None:
    page = visit(f"{gallery.url}/{DIGITS}").page
    before = hung(page)
    page.evaluate(
        "Math.random = () => 0; const wait = setTimeout; window.setTimeout = (work, ms) => wait(work, ms / 100)"
    )
    problem = json.dumps({"type": "urn:limner:problem:x", "title": "x", "detail": "raw words", "status": 0})

    def answer(status: int | None, route: Any) -> None:
        if status is None:
            route.abort()
        else:
            route.fulfill(status=status, body=problem, headers={"X-Request-Id": "abc"})

    for status, words in {
        429: "Too many are asking just now.",
        500: "Something broke in the server. Its log says what, under request abc.",
        503: "The server is closing, or not ready yet.",
        504: "It took too long, and the server gave up.",
        404: "The server does not have that.",
        None: "The server does not answer. Is it running, and is the network there?",
    }.items():
        page.unroute_all()
        page.route("**/generate", partial(answer, status))
        page.click(".draw")
        page.wait_for_selector("#said.refused:not(:empty)")
        until(page, lambda words=words: page.text_content("#said").startswith(words))
        assert "raw" not in page.text_content("#said")
        assert hung(page) == before
    page.unroute_all()
    page.click(".draw")
    page.wait_for_selector("#said:empty", state="attached")


def test_an_empty_server_says_how_to_make_a_model(visit: Visits, gallery: Gallery, axe: str) -> None:
    page = visit("about:blank").page
    page.route("**/models", lambda route: route.fulfill(json={"models": []}))
    page.goto(gallery.url)
    page.wait_for_selector("#empty")
    assert "limner train --model cgan" in page.text_content("#empty")
    assert not page.is_visible(".draw")
    assert not page.query_selector("#pictures *")
    assert faults(page, axe) == []


def test_the_skip_link_leads_to_the_pictures_and_leaves_the_address_alone(visit: Visits, gallery: Gallery) -> None:
    page = visit(f"{gallery.url}/{DIGITS}").page
    hung(page)
    address = page.url
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "wall"
    assert page.url == address
