"""/generate on a real server process: refusals by name, headers, and the same bytes for the same image."""

import base64
import hashlib
import io
import json
import random
import re
import socket
import threading
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from export.bundle import load_prior, read
from export.engines import open_engine
from server.images import MEDIA_TYPES
from server.routes import generate
from server.schemas import AN_OBJECT, GenerateRequest
from training.latents import DRAWN_SEEDS, SEEDS, draw

DIGITS = {"model": "digits"}
JSON, FORM = "application/json", "application/x-www-form-urlencoded"
CLASSES = "a class name (0, 2, 1) or an index from 0 to 2"


def problem(response: httpx.Response, status: int) -> dict[str, Any]:
    """RFC 9457 members of a refusal."""
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers["Cache-Control"] == "no-store"
    said = response.json()
    assert said["status"] == status
    assert said["type"].startswith("urn:limner:problem:")
    assert said["title"]
    assert said["detail"]
    return said


def entries(http: httpx.Client, **asked: Any) -> list[dict[str, Any]]:
    response = http.get("/generate", params=DIGITS | asked | {"format": "json"})
    assert response.status_code == 200, response.text
    return response.json()["images"]


def png(http: httpx.Client, **asked: Any) -> bytes:
    response = http.get("/generate", params=DIGITS | asked)
    assert response.status_code == 200, response.text
    return response.content


def given_values(asked: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in asked.items() if value is not None}


def npy(response: httpx.Response) -> np.ndarray:
    assert response.status_code == 200, response.text
    return np.load(io.BytesIO(response.content), allow_pickle=False)


@pytest.mark.parametrize(
    ("query", "status", "field", "allowed"),
    [
        ("model=digits&label=99", 422, "label", CLASSES),
        ("model=digits&label=cat", 422, "label", CLASSES),
        ("model=digits&label=-1", 422, "label", CLASSES),
        ("model=digits&label=3", 422, "label", CLASSES),
        ("model=digits&label=", 422, "label", CLASSES),
        ("model=digits&label=%F0%9F%90%B1", 422, "label", CLASSES),
        ("model=digits&n=0", 422, "n", "an integer from 1"),
        ("model=digits&n=1.5", 422, "n", "an integer from 1"),
        ("model=digits&n=257", 422, "n", "an integer from 1 to 256 as png"),
        ("model=digits&n=100001&format=npy", 422, "n", "an integer from 1 to 100000 as npy"),
        ("model=digits&n=1025&format=json", 422, "n", "an integer from 1 to 1024 as json"),
        ("model=digits&seed=x", 422, "seed", "an integer from 0 to 2^63 - 1"),
        ("model=digits&seed=-1", 422, "seed", "an integer from 0 to 2^63 - 1"),
        (f"model=digits&seed={'9' * 40}", 422, "seed", "an integer from 0 to 2^63 - 1"),
        ("model=digits&format=bmp", 422, "format", "png, jpeg, webp, json, npy or zip"),
        ("model=digits&scale=0", 422, "scale", "an integer from 1 to 16"),
        ("model=digits&scale=17", 422, "scale", "an integer from 1 to 16"),
        ("model=digits&scale=2&format=npy", 422, "scale", "1"),
        ("model=digits&scale=16&n=256", 422, "scale", "an integer from 1 to 9 for n=256 as png"),
        ("model=digits&scale=16&n=1024&format=json", 422, "scale", "an integer from 1 to 4 for n=1024 as json"),
        ("model=digits&quality=101&format=jpeg", 422, "quality", "an integer from 1 to 100"),
        ("model=digits&quality=50", 422, "quality", "none"),
        ("model=digits&timeout_ms=0", 422, "timeout_ms", "an integer from 1"),
        ("model=digits&timeout_ms=30001", 422, "timeout_ms", "an integer from 1 to 30000"),
        ("model=digits&priority=high", 422, "priority", "normal or low"),
        ("model=nope", 404, "model", "digits, plain"),
        ("model=digits&version=9", 404, "version", "1"),
        ("model=digits&version=0", 422, "version", "an integer from 1"),
        ("model=digits&lable=3", 422, "lable", ", ".join(GenerateRequest.model_fields)),
        ("model=digits&label=3&label=4", 422, "label", "label once"),
        ("model=plain&label=0", 422, "label", "no label"),
        ("label=1", 422, "model", "digits, plain"),
        ("", 422, "model", "digits, plain"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_bad_parameter_is_refused_with_its_name_and_what_is_allowed(
    http: httpx.Client, method: str, query: str, status: int, field: str, allowed: str
) -> None:
    said = problem(http.request(method, f"/generate?{query}"), status)
    given = [value for name, value in parse_qsl(query, keep_blank_values=True) if name == field]
    value = given[0] if len(given) == 1 else json.dumps(given or None)
    assert (said["field"], said["value"], said["allowed"]) == (field, value, allowed)
    assert allowed in said["detail"]


@pytest.mark.parametrize(
    ("body", "content_type", "status", "field", "value", "allowed"),
    [
        (b"{", JSON, 400, "body", "{", AN_OBJECT),
        (b"[1]", JSON, 400, "body", "[1]", AN_OBJECT),
        (b"\xff", JSON, 400, "body", "\ufffd", AN_OBJECT),
        (b"[" * 200, JSON, 400, "body", "[" * 97 + "...", AN_OBJECT),
        (b'{"n": 2}', "text/plain", 415, "Content-Type", "text/plain", JSON),
        (b"label=1", FORM, 415, "Content-Type", FORM, JSON),
        (b"{}".rjust(1 << 21), JSON, 413, "Content-Length", "2097152", "at most 1048576"),
        (b'{"model": "digits", "n": true}', JSON, 422, "n", "true", "an integer from 1"),
        (b'{"model": "digits", "label": "\\ud800"}', JSON, 422, "label", "\ud800", CLASSES),
        (b'{"model": "\\ud800"}', JSON, 404, "model", "\ud800", "digits, plain"),
        (b'{"model": "a", "model": "b"}', JSON, 422, "model", '["a", "b"]', "model once"),
    ],
)
def test_a_bad_body_is_refused(
    http: httpx.Client, body: bytes, content_type: str, status: int, field: str, value: str, allowed: str
) -> None:
    said = problem(http.post("/generate", content=body, headers={"Content-Type": content_type}), status)
    assert (said["field"], said["value"], said["allowed"]) == (field, value, allowed)
    assert allowed in said["detail"] or status == 413
    assert http.get("/readyz").status_code == 200


def test_a_body_without_a_length_is_refused_as_soon_as_it_is_too_large(http: httpx.Client) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(1000):
            yield b" " * 4096

    said = problem(http.post("/generate", content=endless(), headers={"Content-Type": JSON}), 413)
    assert (said["field"], said["value"], said["allowed"]) == ("Content-Length", "over 1048576", "at most 1048576")


words = st.sampled_from(
    [*GenerateRequest.model_fields, "digits", "png", "1", "0", "-1", "1e9", "null", "%00", "%ff", "=", "&"]
)
texts = st.lists(words | st.text(max_size=3), max_size=8).map("".join)
line = (texts.map(str.encode) | st.binary(max_size=30)).map(lambda said: re.sub(rb"[\r\n]", b"", said))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from([b"GET", b"POST", b"HEAD", b"PUT", b"OPTIONS"]),
    query=line.map(lambda said: said.replace(b" ", b"")),
    header=st.tuples(st.sampled_from([b"Accept", b"Content-Type", b"If-None-Match", b"X-Request-Id", b"Host"]), line),
    body=texts.map(lambda said: f'{{"{said}": 1}}'.encode()) | st.binary(max_size=40),
    is_json=st.booleans(),
)
def test_whatever_is_sent_is_answered_and_nothing_is_a_500(
    http: httpx.Client, method: bytes, query: bytes, header: tuple[bytes, bytes], body: bytes, is_json: bool
) -> None:
    head = [b"%b /generate?model=digits&%b HTTP/1.1" % (method, query), b"%b: %b" % header, b"Connection: close"]
    head += [b"Content-Length: %d" % len(body), *([b"Content-Type: application/json"] if is_json else [])]
    with socket.create_connection((http.base_url.host, http.base_url.port or 80), timeout=60) as connection:
        connection.sendall(b"\r\n".join([*head, b"", body]))
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    version, status, _ = answer.split(b" ", 2)
    assert version == b"HTTP/1.1"
    assert 200 <= int(status) < 500


def test_a_name_in_both_query_and_body_is_refused(http: httpx.Client) -> None:
    said = problem(http.post("/generate?label=1", json=DIGITS | {"label": 1}), 422)
    assert said["field"] == "label"


def test_an_accept_header_of_no_supported_type_is_406(http: httpx.Client) -> None:
    said = problem(http.get("/generate", params=DIGITS, headers={"Accept": "text/html"}), 406)
    assert (said["field"], said["value"], said["allowed"]) == ("Accept", "text/html", ", ".join(MEDIA_TYPES.values()))


@pytest.mark.parametrize(("seed", "accept"), [(1, "application/x-npy"), (1, "application/json"), (1, "image/png")])
def test_the_accept_header_chooses_what_format_would_name(http: httpx.Client, seed: int, accept: str) -> None:
    response = http.get("/generate", params=DIGITS | {"seed": seed}, headers={"Accept": accept})
    assert response.headers["Content-Type"] == accept
    assert response.headers["Vary"] == "Accept"
    format = {"application/x-npy": "npy", "application/json": "json", "image/png": "png"}[accept]
    named = http.get("/generate", params=DIGITS | {"seed": seed, "format": format}, headers={"Accept": "text/html"})
    assert named.content == response.content


def test_other_methods_are_405_and_allow_names_every_method_there_is(http: httpx.Client) -> None:
    for method in ("DELETE", "PUT", "PATCH"):
        response = http.request(method, "/generate")
        said = problem(response, 405)
        assert response.headers["Allow"] == "GET, HEAD, POST"
        assert (said["field"], said["value"], said["allowed"]) == ("method", method, "GET, HEAD, POST")


def test_an_answer_says_which_image_it_is(http: httpx.Client) -> None:
    response = http.get("/generate", params=DIGITS | {"seed": 2**63 - 1, "label": 0})
    assert response.headers["Content-Type"] == "image/png"
    assert response.headers["X-Limner-Seed"] == "9223372036854775807"
    assert response.headers["X-Limner-Label"] == "0"
    assert response.headers["X-Limner-Model"] == "digits@1"
    timing = response.headers["Server-Timing"]
    assert re.fullmatch(r"queue;dur=\d+\.\d+, compute;dur=\d+\.\d+, encode;dur=\d+\.\d+, batch;desc=1", timing)
    assert response.headers["Cache-Control"] == "no-cache"  # a newer version would make another
    picture = Image.open(io.BytesIO(response.content))
    assert (picture.size, picture.mode) == ((28, 28), "L")
    said = json.loads(picture.info["limner"])
    served = http.get("/models/digits").json()["versions"][0]
    assert said == {
        "model": "digits",
        "version": 1,
        "digest": served["digest"],
        "artifact": served["artifact"],
        "seed": "9223372036854775807",
        "label": 0,
        "truncation": None,
    }


def test_a_seed_that_the_server_draws_is_returned_and_makes_the_same_image_again(http: httpx.Client) -> None:
    drawn = http.get("/generate", params=DIGITS)
    seed = int(drawn.headers["X-Limner-Seed"])
    assert 0 <= seed < DRAWN_SEEDS
    assert drawn.headers["Cache-Control"] == "no-store"
    again = http.get("/generate", params=DIGITS | {"seed": seed})
    assert again.content == drawn.content
    assert again.headers["X-Limner-Label"] == drawn.headers["X-Limner-Label"]
    assert http.get("/generate", params=DIGITS).headers["X-Limner-Seed"] != str(seed)


def test_who_has_an_image_already_is_told_so_and_nothing_is_made(http: httpx.Client) -> None:
    asked = DIGITS | {"seed": 5, "label": 1, "version": 1}
    first = http.get("/generate", params=asked)
    assert first.headers["Cache-Control"] == "max-age=31536000, immutable"
    tag = first.headers["ETag"]
    images = 'limner_images_total{model="digits@1"}'
    before = [line for line in http.get("/metrics").text.splitlines() if line.startswith(images)]
    for method in ("GET", "HEAD"):
        again = http.request(method, "/generate", params=asked, headers={"If-None-Match": f'"other", W/{tag}'})
        assert (again.status_code, again.content) == (304, b"")
        kept = ("ETag", "Cache-Control", "Vary")
        assert [again.headers[name] for name in kept] == [first.headers[name] for name in kept]
    assert before == [line for line in http.get("/metrics").text.splitlines() if line.startswith(images)]
    other = http.get("/generate", params=asked | {"seed": 6}, headers={"If-None-Match": tag})
    assert (other.status_code, other.headers["ETag"] == tag) == (200, False)


def test_an_etag_is_of_the_format_that_is_answered_and_only_of_what_a_url_says_whole(http: httpx.Client) -> None:
    asked = DIGITS | {"seed": 5}
    tags = {
        http.get("/generate", params=asked | more, headers={"Accept": accept}).headers["ETag"]
        for more in ({}, {"scale": 2}, {"n": 2}, {"truncation": 0.5}, {"label": 1})
        for accept in ("image/png", "image/webp", "application/json")
    }
    assert len(tags) == 15
    for response in (http.post("/generate", params=asked), http.get("/generate", params=DIGITS)):
        assert "ETag" not in response.headers
    assert "Cache-Control" not in http.post("/generate", params=asked).headers
    assert http.post("/generate", params=DIGITS).headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("other", ["title", "digest", "artifact", "VERSION"])
def test_an_etag_is_of_the_model_its_artifact_and_limner_s_version(other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"title": "digits@1", "digest": "abc", "artifact": "onnxruntime-fp32"}

    def tag() -> str:
        bundle = SimpleNamespace(digest=facts["digest"])
        model: Any = SimpleNamespace(title=facts["title"], bundle=bundle, artifact=facts["artifact"])
        return generate.caching("GET", GenerateRequest(seed=7), model, None, "png")["ETag"]

    before = tag()
    assert tag() == before
    facts |= {other: "another"}
    if other == "VERSION":
        monkeypatch.setattr(generate, "VERSION", "another")
    assert tag() != before


def test_the_label_header_is_there_for_one_image_of_a_model_with_classes(http: httpx.Client) -> None:
    assert "X-Limner-Label" not in http.get("/generate", params=DIGITS | {"n": 2, "label": 1}).headers
    plain = http.get("/generate", params={"model": "plain", "seed": 1})
    assert "X-Limner-Label" not in plain.headers
    assert plain.headers["X-Limner-Model"] == "plain@1"
    assert Image.open(io.BytesIO(plain.content)).mode == "RGB"


def test_head_answers_the_headers_of_get_and_no_body(http: httpx.Client) -> None:
    asked = DIGITS | {"seed": 3, "n": 2}
    head, get = (http.request(method, "/generate", params=asked) for method in ("HEAD", "GET"))
    assert (head.status_code, head.content) == (200, b"")
    own = {"date", "x-request-id", "server-timing"}
    assert {k: v for k, v in head.headers.items() if k not in own} == {
        k: v for k, v in get.headers.items() if k not in own
    }
    assert int(head.headers["Content-Length"]) == len(get.content)


@pytest.mark.parametrize("format", ["png", "json", "npy"])
def test_get_and_post_by_query_or_body_give_the_same_bytes(http: httpx.Client, format: str) -> None:
    asked = {"model": "digits", "seed": 5, "n": 3, "truncation": 0.75, "format": format, "version": 1, "label": "2"}
    rest = {name: value for name, value in asked.items() if name not in ("model", "n")}
    answers = [
        http.get("/generate", params=asked),
        http.post("/generate", params=asked),
        http.post("/generate", json=asked),
        http.post("/generate", params={"model": "digits", "n": 3}, json=rest),
        http.post("/generate", params=asked, content=b"", headers={"Content-Type": "text/plain"}),
    ]
    assert [answer.status_code for answer in answers] == [200] * 5
    assert len({answer.content for answer in answers}) == 1


def test_a_request_id_is_echoed_and_a_bad_one_replaced(http: httpx.Client) -> None:
    def given(value: str, path: str = "/healthz") -> str:
        return http.get(path, headers={"X-Request-Id": value}).headers["X-Request-Id"]

    assert given("abc-123") == "abc-123"
    assert given("x" * 128) == "x" * 128
    assert given("abc-123", "/generate?model=nope") == "abc-123"
    for bad in ("x" * 129, "two words", ""):
        assert re.fullmatch("[0-9a-f]{32}", given(bad))
    first, second = (http.get("/healthz").headers["X-Request-Id"] for _ in range(2))
    assert first != second


# which picture it is


def test_the_served_pixels_are_the_graphs_for_the_seeds_latents(http: httpx.Client, models: Path) -> None:
    bundle = read(models / "digits" / "1")
    engine = open_engine("onnxruntime", "fp32", models / "digits" / "1" / "model.onnx")
    for label, truncation in ((None, None), (1, 0.5)):
        z, labels = draw(SEEDS - 2, 5, bundle.manifest.latent, 3, label, truncation)
        asked = {"seed": str(SEEDS - 2), "n": 5, "label": label, "truncation": truncation, "format": "npy"}
        served = npy(http.post("/generate", json=DIGITS | asked))
        assert np.array_equal(served, engine.run(z, labels))


def test_a_label_is_a_name_first_and_then_an_index(http: httpx.Client) -> None:
    """The classes are named 0, 2, 1, so that "2" means index 1; a JSON integer is always an index."""

    def index(**how: Any) -> str:
        return http.post("/generate", **how).headers["X-Limner-Label"]

    assert [index(params=DIGITS | {"label": name}) for name in "021"] == ["0", "1", "2"]
    assert [index(json=DIGITS | {"label": name}) for name in "021"] == ["0", "1", "2"]
    assert [index(json=DIGITS | {"label": number}) for number in (0, 2, 1)] == ["0", "2", "1"]
    assert index(params=DIGITS | {"label": "02"}) == "2"  # no class is called 02
    by_name = http.post("/generate", json=DIGITS | {"label": "2", "seed": 4})
    by_index = http.post("/generate", json=DIGITS | {"label": 1, "seed": 4})
    other = http.post("/generate", json=DIGITS | {"label": 2, "seed": 4})
    assert by_name.content == by_index.content != other.content


def test_without_a_label_each_image_takes_a_class_from_its_seed(http: httpx.Client) -> None:
    made = entries(http, seed=100, n=64)
    _, labels = draw(100, 64, 6, 3)
    assert labels is not None
    assert [entry["label"] for entry in made] == labels.tolist()
    assert {entry["class"] for entry in made} == {"0", "2", "1"}
    assert all(entry["class"] == "021"[entry["label"]] for entry in made)


def test_truncation_changes_the_picture(http: httpx.Client) -> None:
    assert png(http, seed=3, label=0, truncation=0.1) != png(http, seed=3, label=0)


@pytest.mark.parametrize("label", [None, "1"])
def test_an_image_is_the_same_bytes_alone_and_at_any_place_of_an_answer(http: httpx.Client, label: str | None) -> None:
    asked = {} if label is None else {"label": label}
    made = entries(http, seed=SEEDS - 8, n=16, **asked)  # the seeds wrap in the middle
    seeds = [str((SEEDS - 8 + place) % SEEDS) for place in range(16)]
    assert [entry["seed"] for entry in made] == seeds
    alone = [png(http, seed=seed, **asked) for seed in seeds]
    assert [base64.b64decode(entry["png"]) for entry in made] == alone
    assert len(set(alone)) == 16
    shifted = entries(http, seed=SEEDS - 3, n=5, **asked)
    assert [entry["png"] for entry in shifted] == [entry["png"] for entry in made[5:10]]


@pytest.fixture(scope="module")
def replica(start_server: Callable[..., AbstractContextManager[str]], models: Path) -> Iterator[httpx.Client]:
    """Another process that serves the same bundles."""
    with start_server(models, "--engine-threads", "1") as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client


@pytest.fixture
def load(url: str, replica: httpx.Client) -> Iterator[None]:
    """Two clients of each server that ask for other pictures all the time: batches are of all sizes and mates."""
    stop, answered = threading.Event(), Counter[int]()

    def ask(base: str, number: int) -> None:
        chance = random.Random(number)
        with httpx.Client(base_url=base, timeout=60) as client:
            while not stop.is_set():
                low, n = chance.choice(("normal", "low")), chance.randrange(1, 100)
                asked = {
                    "model": chance.choice(("digits", "digits", "plain")),
                    "n": n,
                    "priority": low,
                    "format": "npy",
                }
                answered[client.get("/generate", params=asked).status_code] += 1

    threads = [threading.Thread(target=ask, args=(str(base), n)) for n in range(2) for base in (url, replica.base_url)]
    for thread in threads:
        thread.start()
    yield
    stop.set()
    for thread in threads:
        thread.join(60)
    assert [*answered] == [200]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    first=st.integers(0, SEEDS - 1) | st.integers(SEEDS - 70, SEEDS - 1),
    n=st.integers(1, 130),
    place=st.integers(0, 129),
    label=st.sampled_from([None, "0", "1"]),
    truncation=st.sampled_from([None, 0.5]),
    priority=st.sampled_from(["normal", "low"]),
    elsewhere=st.booleans(),
)
@pytest.mark.usefixtures("load")
def test_an_image_depends_on_its_seed_label_and_truncation_alone(
    http: httpx.Client, replica: httpx.Client, **asked: Any
) -> None:
    """Of any number, at any place, in any format, behind or before others, under load, from this process or another."""
    other = replica if asked.pop("elsewhere") else http
    first, place = asked.pop("first"), asked["n"] - 1 - asked.pop("place") % asked["n"]
    how = given_values(asked)
    stack = npy(http.get("/generate", params=DIGITS | how | {"seed": first, "format": "npy"}))
    assert len(stack) == asked["n"]
    how |= {"n": 1, "seed": (first + place) % SEEDS}
    alone = Image.open(io.BytesIO(png(other, **how)))
    assert np.array_equal(np.asarray(alone)[..., None], stack[place])


def test_an_image_is_the_same_bytes_after_a_restart(
    models: Path, start_server: Callable[..., AbstractContextManager[str]]
) -> None:
    answers = []
    for _ in range(2):
        with start_server(models / "digits") as url, httpx.Client(base_url=url, timeout=60) as http:
            answers.append([http.get(f"/generate?seed=5&n=9&format={format}").content for format in MEDIA_TYPES])
    assert answers[0] == answers[1]


# with a prior


@pytest.fixture(scope="module")
def mixed(start_server: Callable[..., AbstractContextManager[str]], mixture: Path) -> Iterator[httpx.Client]:
    with start_server(mixture) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client


PRIOR = {"model": "mixed"}
ASKED = [
    {"label": label, "truncation": truncation} for label in (None, "0", "2", "1") for truncation in (None, 0.5, 8.0)
]


@pytest.mark.parametrize("asked", ASKED)
def test_an_image_of_a_prior_is_the_same_bytes_alone_and_at_any_place(
    mixed: httpx.Client, asked: dict[str, Any]
) -> None:
    how = PRIOR | given_values(asked)
    made = entries(mixed, seed=SEEDS - 8, n=16, **how)  # the seeds wrap in the middle
    alone = [png(mixed, seed=(SEEDS - 8 + place) % SEEDS, **how) for place in range(16)]
    assert [base64.b64decode(entry["png"]) for entry in made] == alone
    assert len(set(alone)) == 16
    for start, n in ((3, 1), (5, 5), (0, 15), (9, 7)):
        shifted = entries(mixed, seed=(SEEDS - 8 + start) % SEEDS, n=n, **how)
        assert shifted == made[start : start + n]


@pytest.mark.parametrize("asked", ASKED)
def test_the_served_pixels_are_the_graphs_for_the_priors_latents(
    mixed: httpx.Client, mixture: Path, asked: dict[str, Any]
) -> None:
    bundle = read(mixture / "mixed" / "1")
    prior = load_prior(bundle)
    assert prior is not None
    engine = open_engine("onnxruntime", "fp32", bundle.folder / "model.onnx")
    label = None if asked["label"] is None else "021".index(asked["label"])
    how = (6, 3, label, asked["truncation"])
    served = npy(mixed.post("/generate", json=PRIOR | given_values(asked) | {"seed": 70, "n": 64, "format": "npy"}))
    z, labels = draw(70, 64, *how, prior)
    assert np.array_equal(served, engine.run(z, labels))
    plain, _ = draw(70, 64, *how)
    assert not np.array_equal(served, engine.run(plain, labels))


def test_a_prior_leaves_labels_and_what_is_said_of_an_image_as_they_are(mixed: httpx.Client, mixture: Path) -> None:
    made = entries(mixed, seed=100, n=64, **PRIOR)
    _, labels = draw(100, 64, 6, 3)
    assert labels is not None
    assert [entry["label"] for entry in made] == labels.tolist()
    with Image.open(io.BytesIO(png(mixed, seed=100, **PRIOR))) as picture:
        told = json.loads(picture.text["limner"])  # type: ignore[attr-defined]
    digest = hashlib.sha256()
    for file in ("model.onnx", "prior.npz"):
        digest.update((mixture / "mixed" / "1" / file).read_bytes())
    digest.update(b"limner image identity 1")
    assert (told["digest"], told["label"]) == (digest.hexdigest(), labels[0])


# formats and load


def test_the_formats_show_the_same_pixels(http: httpx.Client) -> None:
    stack = npy(http.get("/generate", params={"model": "plain", "seed": 11, "n": 7, "format": "npy"}))
    assert stack.shape == (7, 32, 32, 3)
    listed = http.get("/generate", params={"model": "plain", "seed": 11, "n": 7, "format": "json"}).json()["images"]
    pictures = [np.asarray(Image.open(io.BytesIO(base64.b64decode(entry["png"])))) for entry in listed]
    assert np.array_equal(np.stack(pictures), stack)
    sheet = np.asarray(Image.open(io.BytesIO(png(http, model="plain", seed=11, n=7))))
    assert sheet.shape == (96, 96, 3)
    assert np.array_equal(sheet[32:64, 64:96], stack[5])


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
def test_a_picture_is_drawn_larger_and_says_the_same_of_itself(http: httpx.Client, format: str) -> None:
    asked = {"seed": 3, "n": 2, "format": format}
    small, large = (Image.open(io.BytesIO(png(http, **asked, scale=scale))) for scale in (1, 5))
    assert (small.size, large.size) == ((56, 28), (280, 140))
    if format != "jpeg":  # which does not keep pixels
        assert np.array_equal(np.asarray(small).repeat(5, axis=0).repeat(5, axis=1), np.asarray(large))
    assert large.format == format.upper()
    if format == "png":
        assert small.info["limner"] == large.info["limner"]
    else:
        assert small.getexif().get_ifd(0x8769)[0x9286] == large.getexif().get_ifd(0x8769)[0x9286]


def test_quality_makes_a_jpeg_smaller(http: httpx.Client) -> None:
    asked = {"model": "plain", "seed": 3, "n": 9, "format": "jpeg"}
    assert len(png(http, **asked, quality=10)) < len(png(http, **asked)) < len(png(http, **asked, quality=100))


def test_a_zip_holds_the_pictures_and_what_they_are(http: httpx.Client) -> None:
    response = http.get("/generate", params=DIGITS | {"seed": 7, "n": 5, "format": "zip"})
    assert response.headers["Content-Type"] == "application/zip"
    made = entries(http, seed=7, n=5)
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        *files, index = archive.namelist()
        assert files == [f"{place:06d}-{entry['label']}.png" for place, entry in enumerate(made)]
        assert [archive.read(file) for file in files] == [base64.b64decode(entry["png"]) for entry in made]
        said = json.loads(archive.read(index))
    assert [image["seed"] for image in said["images"]] == [entry["seed"] for entry in made]


@pytest.mark.parametrize("priority", ["normal", "low"])
def test_priority_and_patience_change_nothing_in_the_picture(http: httpx.Client, priority: str) -> None:
    assert png(http, seed=3, priority=priority, timeout_ms=29_000) == png(http, seed=3)


def test_an_image_is_the_same_bytes_under_concurrent_load_and_from_another_process(
    url: str, replica: httpx.Client
) -> None:
    """Batch mates, sizes, threads of the engine, replicas: none of them shows in the pixels."""
    first, count = 1000, 24

    def reference(http: httpx.Client) -> list[bytes]:
        return [png(http, seed=first + place) for place in range(count)]

    def ask(number: int, http: httpx.Client) -> bool:
        start, n = number * 7 % count, 1 + number * 5 % 9
        if number % 3 == 0:
            return png(http, seed=first + start) == expected[start]
        made = [base64.b64decode(entry["png"]) for entry in entries(http, seed=first + start, n=n)]
        return made[: count - start] == expected[start : start + n]

    with httpx.Client(base_url=url, timeout=60) as one:
        expected = reference(one)
        assert len(set(expected)) == count
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(lambda number: ask(number, one), range(120)))
    assert reference(replica) == expected


def test_the_largest_answers_arrive_whole(http: httpx.Client) -> None:
    assert npy(http.get("/generate?model=plain&n=1024&format=npy")).shape == (1024, 32, 32, 3)
    assert len(entries(http, n=1024)) == 1024
    sheet = Image.open(io.BytesIO(png(http, n=256)))
    assert sheet.size == (16 * 28, 16 * 28)
