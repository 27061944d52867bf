"""/interpolate on real servers: ends that are /generate's, the latents between, headers, and refusals by name."""

import io
import json
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from export.bundle import load_prior, read
from export.engines import open_engine
from server.animation import OFFERED
from server.path import path
from server.process import in_background
from server.schemas import InterpolateRequest
from server.settings import Settings
from training.latents import DRAWN_SEEDS, SEEDS, Asked

PATIENCE = 20.0  # seconds until a test that would hang fails
DIGITS = {"model": "digits", "from_seed": 7, "to_seed": 8}
CLASSES = ("0", "2", "1")  # of digits and of the mixture


@pytest.fixture(scope="module")
def mixed(mixture: Path) -> Iterator[httpx.Client]:
    with in_background(Settings(models=mixture)) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client


def answer(http: httpx.Client, **asked: Any) -> httpx.Response:
    response = http.get("/interpolate", params=asked)
    assert response.status_code == 200, response.text
    return response


def files(response: httpx.Response) -> tuple[list[bytes], dict[str, Any]]:
    """The pictures of a zip, in their order, and its index."""
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        *names, index = archive.namelist()
        return [archive.read(name) for name in names], json.loads(archive.read(index))


def stack(http: httpx.Client, **asked: Any) -> np.ndarray:
    return np.load(io.BytesIO(answer(http, **asked, format="npy").content), allow_pickle=False)


def pixels(file: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(file)) as picture:
        array = np.asarray(picture)
    return array if array.ndim == 3 else array[:, :, None]


def refusal(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers["Cache-Control"] == "no-store"
    return response.json()


# what the frames are

ENDS = [
    {"from_seed": from_seed, "to_seed": to_seed} | labels | truncation
    for from_seed, to_seed in ((7, 11), (SEEDS - 1, 0))
    for labels in ({}, {"from_label": "2", "to_label": "2"}, {"from_label": "0", "to_label": "1"})
    for truncation in ({}, {"truncation": 0.5})
] + [{"from_seed": 5, "to_seed": 5, "from_label": "1", "to_label": "2"}]


def ends_are_generates(http: httpx.Client, asked: dict[str, Any], scale: int) -> None:
    response = answer(http, **asked, frames=4, scale=scale, format="zip")
    made, index = files(response)
    strip = pixels(answer(http, **asked, frames=4, scale=scale, format="png").content)
    width = strip.shape[1] // 4
    shared = {name: asked[name] for name in ("model", "truncation") if name in asked}
    for place, end in ((0, "from"), (3, "to")):
        label = {"label": asked[f"{end}_label"]} if f"{end}_label" in asked else {}
        alone = http.get("/generate", params=shared | label | {"seed": asked[f"{end}_seed"], "scale": scale})
        assert made[place] == alone.content
        assert np.array_equal(strip[:, place * width : (place + 1) * width], pixels(alone.content))
        assert index[end]["seed"] == alone.headers["X-Limner-Seed"]
        if "X-Limner-Label" in alone.headers:
            assert index[end]["label"] == int(alone.headers["X-Limner-Label"])
    assert response.headers["X-Limner-Seed"] == f"{asked['from_seed']}, {asked['to_seed']}"
    labels = [index[end]["label"] for end in ("from", "to")]
    assert response.headers.get("X-Limner-Label") == (None if None in labels else ", ".join(map(str, labels)))


@pytest.mark.parametrize("asked", ENDS)
def test_the_ends_are_the_bytes_and_pixels_of_generate(http: httpx.Client, asked: dict[str, Any]) -> None:
    ends_are_generates(http, asked | {"model": "digits"}, 1)


@pytest.mark.parametrize("asked", ENDS)
def test_the_ends_of_a_prior_are_the_bytes_and_pixels_of_generate(mixed: httpx.Client, asked: dict[str, Any]) -> None:
    ends_are_generates(mixed, asked, 2)


def test_the_ends_of_a_model_without_classes_are_the_bytes_and_pixels_of_generate(http: httpx.Client) -> None:
    ends_are_generates(http, {"model": "plain", "from_seed": 3, "to_seed": 9}, 2)


@pytest.mark.parametrize("labels", [{}, {"from_label": "2", "to_label": "2"}, {"from_label": "0", "to_label": "1"}])
@pytest.mark.parametrize("repository", ["models", "mixture"])
def test_the_frames_are_the_graphs_for_the_latents_of_the_path(
    http: httpx.Client, mixed: httpx.Client, request: pytest.FixtureRequest, repository: str, labels: dict[str, str]
) -> None:
    name, client = ("digits", http) if repository == "models" else ("mixed", mixed)
    bundle = read(request.getfixturevalue(repository) / name / "1")
    engine = open_engine("onnxruntime", "fp32", bundle.folder / "model.onnx")
    ends = [
        Asked(seed, 1, CLASSES.index(label) if label else None)
        for seed, label in zip((7, 12), labels.values() or (None, None), strict=True)
    ]
    way = path(ends[0], ends[1], 9, bundle.manifest.latent, 3, load_prior(bundle))
    rows = way.rows()
    assert way.fades == (len({*labels.values()}) == 2 if labels else way.labels[0] != way.labels[1])  # type: ignore[index]
    made = stack(client, model=name, from_seed=7, to_seed=12, frames=9, **labels)
    assert np.array_equal(made, way.frames(engine.run(rows.z, rows.labels)))
    assert len({frame.tobytes() for frame in made}) == 9


def test_the_same_request_is_the_same_bytes_whoever_asks_beside_it(http: httpx.Client) -> None:
    asked = DIGITS | {"from_label": "0", "to_label": "1", "frames": 23, "loop": "true"}
    alone = {format: answer(http, **asked, format=format).content for format in OFFERED.types}
    with ThreadPoolExecutor(6) as askers:
        crowd = [
            askers.submit(
                lambda place=place: (
                    http.get("/generate", params={"model": "digits", "n": 1 + place}),
                    answer(http, **asked, format=[*OFFERED.types][place % 6], priority="low"),
                )[1]
            )
            for place in range(24)
        ]
    for place, asker in enumerate(crowd):
        assert asker.result().content == alone[[*OFFERED.types][place % 6]]


def test_the_way_back_is_the_same_frames(http: httpx.Client) -> None:
    there = stack(http, model="digits", from_seed=1, to_seed=2, from_label="0", to_label="1", frames=7)
    back = stack(http, model="digits", from_seed=2, to_seed=1, from_label="1", to_label="0", frames=7)
    assert np.array_equal(there, back[::-1])


def test_a_loop_goes_there_and_back_without_the_ends_twice(http: httpx.Client) -> None:
    there = stack(http, **DIGITS, frames=5)
    loop = stack(http, **DIGITS, frames=5, loop="true")
    assert np.array_equal(loop, there[[0, 1, 2, 3, 4, 3, 2, 1]])
    assert np.array_equal(stack(http, **DIGITS, frames=2, loop="true"), stack(http, **DIGITS, frames=2))


def test_pieces_of_a_sequence_through_classes_fit_end_to_end(http: httpx.Client) -> None:
    corners = [(3, "0"), (4, "2"), (5, "1"), (3, "0")]
    pieces = [
        stack(http, model="digits", from_seed=one, to_seed=other, from_label=here, to_label=there, frames=4)
        for (one, here), (other, there) in pairwise(corners)
    ]
    for piece, following in zip(pieces, [*pieces[1:], pieces[0]], strict=True):
        assert np.array_equal(piece[-1], following[0])


# how it is asked, and what else is said


def test_the_body_says_the_same_as_the_query(http: httpx.Client) -> None:
    asked = {"from_label": "0", "to_label": "2", "from_seed": "7", "to_seed": 9, "frames": 5, "loop": True, "fps": 7.5}
    query = "&".join(f"{name}={str(value).lower()}" for name, value in asked.items())
    by_body = http.post("/interpolate", json={"model": "digits", "format": "gif"} | asked)
    assert by_body.status_code == 200
    assert by_body.content == http.get(f"/interpolate?model=digits&format=gif&{query}").content
    assert "ETag" not in by_body.headers


@pytest.mark.parametrize(("loop", "frames"), [("false", 16), ("true", 30)])
def test_nothing_but_the_model_has_to_be_named(http: httpx.Client, loop: str, frames: int) -> None:
    response = answer(http, model="digits", loop=loop)
    assert response.headers["Content-Type"] == "image/gif"
    assert response.headers["Cache-Control"] == "no-store"
    assert "ETag" not in response.headers
    seeds = [int(seed) for seed in response.headers["X-Limner-Seed"].split(", ")]
    assert len({*seeds}) == 2
    assert all(0 <= seed < DRAWN_SEEDS for seed in seeds)
    with Image.open(io.BytesIO(response.content)) as moving:
        assert getattr(moving, "n_frames", 1) == frames
    again = answer(http, model="digits", loop=loop, from_seed=seeds[0], to_seed=seeds[1])
    assert again.content == response.content


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("*/*", "image/gif"),
        ("image/*", "image/gif"),
        ("image/avif,image/webp,image/apng,image/*,*/*;q=0.8", "image/webp"),
        ("image/png", "image/png"),
        ("application/*", "application/json"),
        ("application/zip, image/gif;q=0.5", "application/zip"),
    ],
)
def test_accept_chooses_the_format(http: httpx.Client, accept: str, media_type: str) -> None:
    response = http.get("/interpolate", params=DIGITS, headers={"Accept": accept})
    assert (response.status_code, response.headers["Content-Type"]) == (200, media_type)
    assert response.headers["Vary"] == "Accept"


@pytest.mark.parametrize("accept", ["text/html", "image/jpeg"])
def test_an_accept_header_of_no_supported_type_is_406(http: httpx.Client, accept: str) -> None:
    said = refusal(http.get("/interpolate", params=DIGITS, headers={"Accept": accept}), 406)
    assert said["allowed"] == ", ".join(OFFERED.types.values())


def test_a_permanent_link_is_known_before_anything_is_made(http: httpx.Client) -> None:
    first = answer(http, **DIGITS, version=1)
    assert first.headers["Cache-Control"] == "max-age=31536000, immutable"
    assert answer(http, **DIGITS).headers["Cache-Control"] == "no-cache"
    tag = first.headers["ETag"]
    again = http.get("/interpolate", params=DIGITS, headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["ETag"] == tag


def test_each_parameter_that_changes_the_bytes_changes_the_tag(http: httpx.Client) -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"from_seed": 9},
        {"to_seed": 9},
        {"from_label": "2", "to_label": "1"},
        {"from_label": "1", "to_label": "2"},
        {"frames": 4},
        {"loop": "true"},
        {"fps": 3},
        {"truncation": 0.5},
        {"format": "png"},
        {"format": "webp"},
        {"format": "webp", "quality": 3},
        {"scale": 2},
    ]
    answers = [answer(http, **(DIGITS | {"frames": 3} | change)) for change in changes]
    assert len({one.headers["ETag"] for one in answers}) == len(changes)
    assert len({one.content for one in answers}) == len(changes)
    same = answer(http, **DIGITS, frames=3, priority="low", timeout_ms=20000)
    assert same.headers["ETag"] == answers[0].headers["ETag"]


def test_head_says_the_same_without_the_frames(http: httpx.Client) -> None:
    got, head = (http.request(method, "/interpolate", params=DIGITS) for method in ("GET", "HEAD"))
    assert (head.status_code, head.content) == (200, b"")
    for name in ("ETag", "Content-Type", "Content-Length", "X-Limner-Seed", "X-Limner-Label", "Cache-Control"):
        assert head.headers[name] == got.headers[name]


def test_server_timing_and_the_request_id_are_told(http: httpx.Client) -> None:
    response = http.get("/interpolate", params=DIGITS, headers={"X-Request-Id": "mine"})
    assert response.headers["X-Request-Id"] == "mine"
    assert [part.split(";")[0] for part in response.headers["Server-Timing"].split(", ")] == [
        "queue",
        "compute",
        "encode",
        "batch",
    ]
    assert response.headers["X-Limner-Model"] == "digits@1"


# what is refused


@pytest.mark.parametrize(
    ("query", "status", "field", "allowed"),
    [
        ("frames=0", 422, "frames", "an integer from 2"),
        ("frames=1", 422, "frames", "an integer from 2"),
        ("frames=10000", 422, "frames", "an integer from 2 to 256"),
        (f"frames={'9' * 40}", 422, "frames", "an integer from 2 to 256"),
        ("frames=2.5", 422, "frames", "an integer from 2"),
        ("from_seed=7", 422, "to_seed", "an integer from 0 to 2^63 - 1"),
        ("to_seed=7", 422, "from_seed", "an integer from 0 to 2^63 - 1"),
        ("from_label=0", 422, "to_label", "a class name or a class index"),
        ("to_label=0", 422, "from_label", "a class name or a class index"),
        ("from_seed=7&to_seed=7", 422, "to_seed", "another seed, or labels that differ"),
        ("from_seed=7&to_seed=7&from_label=2&to_label=2", 422, "to_seed", "another seed, or labels that differ"),
        ("from_seed=-1&to_seed=7", 422, "from_seed", "an integer from 0 to 2^63 - 1"),
        ("from_seed=7&to_seed=9223372036854775808", 422, "to_seed", "an integer from 0 to 2^63 - 1"),
        ("from_label=9&to_label=0", 422, "from_label", "a class name (0, 2, 1) or an index from 0 to 2"),
        ("from_label=0&to_label=cat", 422, "to_label", "a class name (0, 2, 1) or an index from 0 to 2"),
        ("loop=yes", 422, "loop", "true or false"),
        ("loop=", 422, "loop", "true or false"),
        ("fps=0", 422, "fps", "a number from 0.1 to 50"),
        ("fps=51", 422, "fps", "a number from 0.1 to 50"),
        ("fps=nan", 422, "fps", "a number from 0.1 to 50"),
        ("fps=12&format=png", 422, "fps", "none"),
        ("format=jpeg", 422, "format", "gif, webp, png, json, npy or zip"),
        ("quality=50", 422, "quality", "none"),
        ("quality=0&format=webp", 422, "quality", "an integer from 1 to 100"),
        ("scale=17", 422, "scale", "an integer from 1 to 16"),
        ("scale=2&format=npy", 422, "scale", "1"),
        ("scale=16&frames=256", 422, "scale", "an integer from 1 to 9 for 256 frames as gif"),
        ("scale=16&frames=256&loop=true&format=zip", 422, "scale", "an integer from 1 to 6 for 510 frames as zip"),
        ("truncation=0", 422, "truncation", "a number over 0, at most 8"),
        ("timeout_ms=30001", 422, "timeout_ms", "an integer from 1 to 30000"),
        ("priority=high", 422, "priority", "normal or low"),
        ("version=9", 404, "version", "1"),
        ("seed=7", 422, "seed", ", ".join(InterpolateRequest.model_fields)),
        ("label=3", 422, "label", ", ".join(InterpolateRequest.model_fields)),
        ("frames=3&frames=4", 422, "frames", "frames once"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_bad_parameter_is_refused_with_its_name_and_what_is_allowed(
    http: httpx.Client, method: str, query: str, status: int, field: str, allowed: str
) -> None:
    said = refusal(http.request(method, f"/interpolate?model=digits&{query}"), status)
    assert (said["field"], said["allowed"]) == (field, allowed)
    assert allowed in said["detail"]


@pytest.mark.parametrize(
    ("query", "field", "allowed"),
    [
        ("from_label=0&to_label=1", "from_label", "no from_label"),
        ("from_seed=7&to_seed=7", "to_seed", "another seed"),
    ],
)
def test_a_model_without_classes_has_no_labels(http: httpx.Client, query: str, field: str, allowed: str) -> None:
    said = refusal(http.get(f"/interpolate?model=plain&{query}"), 422)
    assert (said["field"], said["allowed"]) == (field, allowed)


def test_a_model_has_to_be_named_where_there_are_several(http: httpx.Client) -> None:
    assert refusal(http.get("/interpolate"), 422)["field"] == "model"


def test_a_name_in_both_query_and_body_is_refused(http: httpx.Client) -> None:
    response = http.post("/interpolate?frames=4", json={"model": "digits", "frames": 4})
    assert refusal(response, 422)["field"] == "frames"


@given(
    st.dictionaries(
        st.sampled_from([*InterpolateRequest.model_fields]),
        st.none() | st.booleans() | st.integers(-2, 40) | st.sampled_from(["", "0", "2", "gif", "png", "zip", "low"]),
        max_size=6,
    )
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_json_object_is_answered_or_refused_by_a_name(http: httpx.Client, asked: dict[str, Any]) -> None:
    response = http.post("/interpolate", json={"model": "digits", "timeout_ms": 30_000} | asked)
    if response.status_code != 200:
        assert response.status_code in (404, 422)
        assert response.json()["field"] in InterpolateRequest.model_fields


# under load, and where something fails


@pytest.mark.parametrize("application", [{"max_images": 9, "max_frames": 100}], indirect=True)
def test_frames_are_as_many_as_can_be_made_at_once_whatever_the_labels(application: Any) -> None:
    said = refusal(application.client.get("/interpolate?frames=6"), 422)
    assert said["allowed"] == "an integer from 2 to 5"
    assert application.client.get("/interpolate?frames=5").status_code == 200


@pytest.mark.parametrize("application", [{"max_frames": 3}], indirect=True)
def test_an_operator_may_allow_fewer_frames(application: Any) -> None:
    assert refusal(application.client.get("/interpolate?frames=4"), 422)["allowed"] == "an integer from 2 to 3"


@pytest.mark.parametrize("application", [{"queue_images": 8, "max_images": 8}], indirect=True)
@pytest.mark.usefixtures("waits")
def test_more_frames_than_the_queue_has_places_for_are_429_and_counted(application: Any) -> None:
    running, let_go = application.hold()
    with ThreadPoolExecutor() as askers:
        first = askers.submit(application.client.get, "/interpolate?frames=2")
        assert running.wait(PATIENCE)
        waiting = askers.submit(application.client.get, "/interpolate?frames=5")
        application.until(lambda: application.metric('limner_queued_images{model="plain@1"} 5.0'))
        refused = application.client.get("/interpolate?frames=4")
        let_go.set()
        assert [asker.result().status_code for asker in (first, waiting)] == [200, 200]
    assert refusal(refused, 429)["type"] == "urn:limner:problem:queue-full"
    assert int(refused.headers["Retry-After"]) >= 1
    assert application.metric('limner_rejected_total{model="plain@1",reason="queue-full"} 1.0')
    assert application.metric('limner_requests_total{code="429",route="/interpolate"} 1.0')
    assert application.metric('limner_requests_total{code="200",route="/interpolate"} 2.0')
    assert application.metric('limner_images_total{model="plain@1"} 7.0')


def test_an_engine_that_fails_is_a_500_without_a_word_of_why(application: Any) -> None:
    def fails(made: np.ndarray) -> np.ndarray:
        raise RuntimeError("sabotage")

    application.engine.sabotage = fails
    failed = application.client.get("/interpolate?from_seed=1&to_seed=2")
    assert "sabotage" not in failed.text
    assert refusal(failed, 500)["type"] == "urn:limner:problem:engine"
    application.engine.sabotage = None
    assert application.client.get("/interpolate?from_seed=1&to_seed=2").status_code == 200


@pytest.mark.usefixtures("waits")
def test_a_path_that_is_not_done_in_time_is_504(application: Any) -> None:
    running, let_go = application.hold()
    try:
        late = application.client.get("/interpolate?timeout_ms=50")
    finally:
        let_go.set()
    assert refusal(late, 504)["type"] == "urn:limner:problem:expired"
    assert running.is_set()
    assert application.metric('limner_deadline_missed_total{model="plain@1"} 1.0')


@pytest.mark.usefixtures("waits")
def test_a_client_that_leaves_gives_its_places_back(application: Any) -> None:
    running, let_go = application.hold()
    with ThreadPoolExecutor() as askers:
        first = askers.submit(application.client.get, "/generate")
        assert running.wait(PATIENCE)
        with pytest.raises(httpx.ReadTimeout):
            application.client.get("/interpolate?frames=100", timeout=0.2)
        application.until(lambda: application.metric('limner_cancelled_total{model="plain@1"} 1.0'))
        application.until(lambda: application.metric('limner_queued_images{model="plain@1"} 0.0'))
        let_go.set()
        assert first.result().status_code == 200
    assert application.metric('limner_requests_total{code="499",route="/interpolate"} 1.0')


def test_the_counts_of_the_route_begin_at_nothing(application: Any) -> None:
    for code in (200, 304, 422, 429, 500, 504):
        assert application.metric(f'limner_requests_total{{code="{code}",route="/interpolate"}} 0.0')
