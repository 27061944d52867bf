"""The page says all it was given, carries it in itself, and lets nobody's names do anything."""

import base64
import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from training.alarms import Alarm
from training.evaluation.figures import MEANINGS, Figure, number
from training.evaluation.report import render
from training.evaluation.report.contents import Contents
from training.evaluation.report.scales import headlines, scale
from training.evaluation.report.sprites import in_rows, packed

VOID = {"meta", "link", "img", "input", "br", "hr"}


class Page(HTMLParser):
    """Elements with their attributes and texts; an end tag that closes something else is an error."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(attrs) == len(dict(attrs)), f"<{tag}> has an attribute twice"
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "script":
            self.scripts.append(data)
        elif "style" not in self._open:
            self.texts.append(data)

    @property
    def said(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def values(self, name: str) -> list[str]:
        return [attributes[name] for _, attributes in self.elements if name in attributes]


@pytest.fixture(scope="module")
def text(contents: Contents) -> str:
    return render(contents)


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def bare(contents: Contents) -> Contents:
    """What a bundle without images has."""
    nothing = {"real": None, "reconstructions": None, "records": None, "neighbours": None, "blind": None}
    return replace(contents, **nothing, config=None, inception=None, interpolations=[], alarms=[])


def decoded(uri: str) -> np.ndarray:
    head, _, data = uri.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data, validate=True))))


def test_nothing_on_the_page_names_another_place(text: str, page: Page) -> None:
    places = [value for name in ("src", "href", "srcset", "action", "poster") for value in page.values(name)]
    places += [place.strip("\"'") for place in re.findall(r"url\(([^)]*)\)", text)]
    assert {place.partition(":")[0] for place in places if not place.startswith("#")} == {"data"}
    assert "http:" not in text
    assert "https:" not in text
    assert "@import" not in text


def test_the_policy_forbids_the_network_and_all_scripts_but_its_own(text: str, page: Page) -> None:
    policy = next(a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    assert re.fullmatch(r"'sha256-[A-Za-z0-9+/]{43}='", rules["script-src"])


def test_ids_are_unique_and_what_refers_to_one_finds_it(page: Page) -> None:
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    wanted = [value[1:] for value in page.values("href") if value.startswith("#")]
    assert set(wanted + page.values("aria-labelledby")) <= set(ids)


def test_every_picture_has_words(page: Page) -> None:
    assert all("alt" in attributes for tag, attributes in page.elements if tag == "img")
    assert all(attributes["aria-label"] for tag, attributes in page.elements if tag == "svg")


def test_the_same_contents_give_the_same_bytes(contents: Contents, text: str) -> None:
    assert render(contents) == text


def test_every_figure_stands_beside_its_floor_with_what_it_tells(contents: Contents, page: Page) -> None:
    for name, figure in contents.figures.items():
        meaning = MEANINGS[name]
        assert figure.spread is not None
        row = f"{number(figure.value, meaning.digits)} ± {number(figure.spread, meaning.digits)}"
        assert f"{row} {number(figure.floor, meaning.digits)}" in page.said
        assert f"It tells {meaning.tells}; it does not tell {meaning.hides}." in page.said
    assert page.said.count("A domain figure") == 2


def test_alarms_come_with_their_mend_and_calm_is_said(contents: Contents, page: Page) -> None:
    assert contents.alarms
    for alarm in contents.alarms:
        assert alarm.what in page.said
        assert alarm.mend in page.said
    assert "No alarm" not in page.said
    assert "No alarm" in Page(render(bare(contents))).said


def test_inception_stands_apart(page: Page) -> None:
    inside = page.said.index("Inception-FID 23.41")
    assert inside > page.said.index(MEANINGS["transfer_accuracy"].tells)
    assert "v3.onnx" in page.said[inside:]


def test_what_is_absent_is_left_out_and_said_once(contents: Contents) -> None:
    page = Page(render(bare(contents)))
    assert {"pictures", "figures", "protocol"} <= set(page.values("id"))
    assert not {"training", "copies", "blind", "answers"} & set(page.values("id"))
    for heading in ("Reconstructions", "In between", "Settings of the training", "Inception"):
        assert heading not in page.said
    assert page.said.count("The moon is not at hand.") == 1
    assert not page.scripts


def test_a_page_without_any_figure_or_name_stands(contents: Contents) -> None:
    plain = [("", images) for _, images in contents.generated]
    page = Page(render(replace(bare(contents), figures={}, generated=plain, protocol={}, subject={}, missing=())))
    assert "At a glance" not in page.said
    assert "names" not in " ".join(page.values("class")).split()


EVIL = "</script><script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{ 7 * 7 }}"


def test_names_of_users_do_nothing(contents: Contents) -> None:
    rows = [(EVIL, images) for _, images in contents.generated]
    evil = replace(
        contents, title=EVIL, subject={EVIL: EVIL}, alarms=[Alarm("x", EVIL, EVIL)], generated=rows, real=rows,
        interpolations=rows, config={EVIL: [EVIL]}, protocol=contents.protocol | {EVIL: EVIL, "judge_sha256": EVIL},
        missing=[EVIL], inception={"fid": 1.0, EVIL: EVIL},
        records=[{"step": 1, "images": 9, "losses": {EVIL: 1.0}}, {"step": 1, "alarm": EVIL, "what": EVIL}],
    )  # fmt: skip
    page = Page(render(evil))
    tags = [tag for tag, _ in page.elements]
    assert tags.count("script") == 2  # the answers and report.js
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert "x" not in page.values("src")
    assert page.said.count("{{ 7 * 7 }}") > 10
    assert "alert" not in "".join(page.scripts)


def test_the_answers_are_there_but_not_to_be_read(contents: Contents, page: Page) -> None:
    assert contents.blind is not None
    data = json.loads(page.scripts[0])
    shown = bytes(byte ^ 0x5A for byte in base64.b64decode(data["answers"]))
    answers = np.unpackbits(np.frombuffer(shown, np.uint8))[: data["count"]]
    assert np.array_equal(answers.astype(bool), contents.blind.real)
    assert set(data) == {"count", "columns", "answers"}
    assert base64.b64encode(np.packbits(contents.blind.real).tobytes()).decode() not in page.scripts[0]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_sheet_holds_the_very_pixels(channels: int) -> None:
    rows = [np.random.default_rng(n).integers(0, 256, (n, 32, 32, channels)).astype(np.uint8) for n in (2, 3, 0)]
    sprite = in_rows(rows)
    image = decoded(sprite.uri)
    assert image.shape[:2] == sprite.natural[::-1] == (3 * 32 + 2, 3 * 32 + 2)
    for top, row in enumerate(rows):
        for left, picture in enumerate(row):
            cell = image[33 * top : 33 * top + 32, 33 * left : 33 * left + 32]
            assert np.array_equal(cell[..., :-1], picture)
            assert (cell[..., -1] == 255).all()
    assert (image[33:65, 66:, -1] == 255).all()
    assert not image[:32, 66:, -1].any()  # no picture there
    assert not image[32, :, -1].any()  # gap


@pytest.mark.parametrize("count", [1, 3, 12])
def test_a_packed_sprite_holds_the_very_pixels(count: int) -> None:
    images = np.random.default_rng(count).integers(0, 256, (count, 28, 28, 3)).astype(np.uint8)
    sprite = packed(images)
    sheet = decoded(sprite.uri)
    for place, picture in enumerate(images):
        top, left = place // sprite.columns * 28, place % sprite.columns * 28
        assert np.array_equal(sheet[top : top + 28, left : left + 28, :3], picture)


def test_the_pictures_on_the_page_are_those_given(contents: Contents, page: Page) -> None:
    sources = [attributes["src"] for tag, attributes in page.elements if tag == "img"]
    assert in_rows([images for _, images in contents.generated]).uri in sources
    assert contents.real is not None
    assert in_rows([images for _, images in contents.real]).uri in sources


def test_the_page_stays_small(contents: Contents, text: str) -> None:
    pictures = sum(len(uri) for uri in re.findall(r"data:image/png;base64,[A-Za-z0-9+/=]+", text))
    assert len(text) - pictures < 250_000
    long = [{"step": n, "images": 32 * n, "losses": {"generator": 1.0, "discriminator": n % 7}} for n in range(20_000)]
    assert len(render(replace(bare(contents), records=long))) < 250_000


def test_a_glance_has_at_most_six_figures(contents: Contents) -> None:
    assert headlines(contents.figures) == ["fid", "precision", "recall", "agreement", "sharpness_ratio", "copying"]
    assert headlines({"coverage": Figure(0.5, None, None)}) == ["coverage"]
    assert headlines({}) == []


@pytest.mark.parametrize("name", MEANINGS)
@pytest.mark.parametrize("value", [-0.01, 0.0, 1e-9, 0.5, 1.0, 123.4, 1e6])
@pytest.mark.parametrize("floor", [None, -0.001, 0.0, 0.4, 400.0, float("nan")])
def test_every_figure_has_its_place_on_its_scale(name: str, value: float, floor: float | None) -> None:
    found = scale(name, Figure(value, 0.1, floor))
    assert found is not None
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert (found.floor is None) == (floor is None or floor != floor)
    assert found.floor is None or 0 <= found.floor <= 1


def test_better_is_nearer_to_the_floor_on_either_kind_of_scale() -> None:
    for name, worse, better, floor in (("fid", 90.0, 12.0, 4.0), ("recall", 0.2, 0.7, 0.9)):
        far, near = (scale(name, Figure(value, None, floor)) for value in (worse, better))
        assert far is not None
        assert near is not None
        assert near.floor is not None
        assert far.value < near.value < near.floor
    assert scale("fid", Figure(float("nan"), None, 1.0)) is None


def test_a_figure_that_is_no_number_is_a_dash(contents: Contents) -> None:
    figures = {"fid": Figure(float("inf"), float("nan"), None), "kid": Figure(-0.0001, None, None)}
    said = Page(render(replace(bare(contents), figures=figures))).said
    assert "–" in said
    assert not re.search(r"\b(nan|inf|-0\.000)\b", said)


def test_asking_for_the_contents_needs_neither_jinja2_nor_matplotlib() -> None:
    code = (
        "import sys, training.evaluation.report.contents\n"
        "assert not {'jinja2', 'matplotlib', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
