"""/v2 on a real server: what the protocol says, what it refuses and in which form, what it counts."""

import gzip
import io
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from google.protobuf import json_format, text_format
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2

from export import triton
from export.bundle import read
from export.engines import NonFinite

PATIENCE = 20.0  # seconds until a test that would hang fails
HEADER = "Inference-Header-Content-Length"
INFER = "/v2/models/{}/infer"
LATENT = 6


def refused(answer: httpx.Response, status: int, what: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["X-Request-Id"]
    assert list(answer.json()) == ["error"]
    assert what in answer.json()["error"]
    assert "\n" not in answer.json()["error"]


def z(rows: Any = None, **more: Any) -> dict[str, Any]:
    rows = [[0.5] * LATENT] if rows is None else rows
    return {"name": "z", "datatype": "FP32", "shape": [len(rows), LATENT], "data": rows} | more


def label(*indices: int, column: bool = False) -> dict[str, Any]:
    shape = [len(indices), 1] if column else [len(indices)]
    return {"name": "label", "datatype": "INT64", "shape": shape, "data": indices}


def images(answer: httpx.Response) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    (output,) = answer.json()["outputs"]
    return np.array(output["data"], np.uint8).reshape(output["shape"])


def generated(http: httpx.Client, **query: Any) -> np.ndarray:
    return np.load(io.BytesIO(http.get("/generate", params=query | {"format": "npy"}).content))


# what there is


def test_the_server_is_alive_and_ready_and_says_what_it_is(http: httpx.Client) -> None:
    assert http.get("/v2/health/live").json() == {"live": True}
    assert http.get("/v2/health/ready").json() == {"ready": True}
    said = http.get("/v2").json()
    assert (said["name"], said["version"]) == ("limner", http.get("/openapi.json").json()["info"]["version"])
    assert {"binary_tensor_data", "model_configuration", "statistics"} <= set(said["extensions"])


@pytest.mark.parametrize("path", ["", "/versions/1"])
@pytest.mark.parametrize("name", ["digits", "plain"])
def test_a_model_has_the_names_types_and_shapes_that_triton_gives_it(
    http: httpx.Client, models: Path, name: str, path: str
) -> None:
    at_triton = text_format.Parse(triton.config(read(models / name / "1").manifest), model_config_pb2.ModelConfig())  # type: ignore[attr-defined]
    served: Any = json_format.ParseDict(  # raises where a field or a value is not Triton's
        http.get(f"/v2/models/{name}{path}/config").json(),
        model_config_pb2.ModelConfig(),  # type: ignore[attr-defined]
    )
    said = http.get(f"/v2/models/{name}{path}").json()
    assert (said["name"], said["versions"], said["platform"]) == (name, ["1"], "onnxruntime_onnx")
    assert (served.name, served.platform, served.backend) == (name, said["platform"], at_triton.backend)
    assert list(served.input) == list(at_triton.input)
    assert list(served.output) == [tensor for tensor in at_triton.output if tensor.name != "check"]
    for tensors, described in ((served.input, said["inputs"]), (served.output, said["outputs"])):
        kinds = [model_config_pb2.DataType.Name(each.data_type).removeprefix("TYPE_") for each in tensors]  # type: ignore[attr-defined]
        assert described == [
            {"name": each.name, "datatype": kind, "shape": [-1, *each.dims]}
            for each, kind in zip(tensors, kinds, strict=True)
        ]
    assert list(served.version_policy.specific.versions) == [1]
    assert served.max_batch_size == 1024
    assert set(served.dynamic_batching.preferred_batch_size) <= set(at_triton.dynamic_batching.preferred_batch_size)
    assert json.loads(served.parameters["class_names"].string_value) == (["0", "2", "1"] if name == "digits" else [])
    assert http.get(f"/v2/models/{name}{path}/ready").json() == {"name": name, "ready": True}


@pytest.mark.parametrize("body", [None, b"", b"{}", b'{"ready": true}'])
def test_the_index_has_every_version_of_every_model(http: httpx.Client, body: bytes | None) -> None:
    assert http.post("/v2/repository/index", content=body).json() == [
        {"name": name, "version": "1", "state": "READY", "reason": ""} for name in ("digits", "plain")
    ]


@pytest.mark.parametrize("body", [b"x", b"[]", b'{"ready": 1}', b"[[[" * 9000])
def test_an_index_request_that_is_none_is_refused(http: httpx.Client, body: bytes) -> None:
    refused(http.post("/v2/repository/index", content=body), 400, "no index request")


@pytest.mark.parametrize("what", ["", "/ready", "/config", "/stats"])
def test_a_model_or_version_that_there_is_not_is_404_with_those_that_there_are(http: httpx.Client, what: str) -> None:
    refused(http.get(f"/v2/models/nope{what}"), 404, "no model 'nope'. Allowed: digits, plain.")
    refused(http.get(f"/v2/models/digits/versions/7{what}"), 404, "digits has no version 7. Allowed: 1.")
    refused(http.get(f"/v2/models/digits/versions/x{what}"), 404, "no version 'x'")
    refused(http.get(f"/v2/models/digits/versions/{'9' * 30}{what}"), 404, "no version")


def test_unknown_routes_and_methods_are_refused_in_the_protocols_form(http: httpx.Client) -> None:
    refused(http.get("/v2/nope"), 404, "there is no /v2/nope")
    answer = http.get(INFER.format("digits"))
    refused(answer, 405, "GET /v2/models/digits/infer is not possible")
    assert answer.headers["Allow"] == "POST"
    refused(http.post(INFER.format("nope"), json={}), 404, "no model 'nope'")


# what is made


def test_a_seed_means_the_pictures_that_it_means_to_generate(http: httpx.Client) -> None:
    ours = {"seed": 7, "n": 3, "truncation": 0.5}
    made = http.post(INFER.format("digits"), json={"parameters": ours})
    assert np.array_equal(images(made), generated(http, model="digits", **ours))
    assert made.headers["X-Limner-Seed"] == "7"
    assert made.headers["X-Limner-Model"] == "digits@1"
    assert set(made.headers["Server-Timing"].replace(";", " ").replace(",", " ").split()) >= {"queue", "compute"}


@pytest.mark.parametrize("column", [False, True])
def test_by_a_seed_label_says_the_class_of_each_picture_and_how_many(http: httpx.Client, column: bool) -> None:
    head = {"parameters": {"seed": "9223372036854775807"}, "inputs": [label(2, 0, 2, column=column)]}
    made = images(http.post(INFER.format("digits"), json=head))
    assert np.array_equal(made[0], generated(http, model="digits", seed=2**63 - 1, label="1")[0])  # index 2
    for row, name in ((1, "0"), (2, "1")):
        assert np.array_equal(made[row], generated(http, model="digits", seed=row - 1, label=name)[0])


def test_a_row_of_latents_is_the_same_picture_alone_in_a_batch_and_of_every_form(http: httpx.Client) -> None:
    rows = np.random.Generator(np.random.Philox(key=1)).standard_normal((5, LATENT), np.float32)
    whole = images(
        http.post("/v2/models/digits/versions/1/infer", json={"inputs": [z(rows.tolist()), label(0, 1, 2, 0, 1)]})
    )
    assert whole.shape == (5, 28, 28, 1)
    assert len({image.tobytes() for image in whole}) > 1
    for row, index in enumerate((0, 1, 2, 0, 1)):
        alone = http.post(INFER.format("digits"), json={"inputs": [label(index), z([rows[row].tolist()])]})
        assert np.array_equal(images(alone)[0], whole[row])
        assert alone.headers["X-Limner-Label"] == str(index)
        assert "X-Limner-Seed" not in alone.headers
    sent = z(parameters={"binary_data_size": rows.nbytes}, shape=[5, LATENT])
    del sent["data"]
    head = json.dumps({"inputs": [sent, label(0, 1, 2, 0, 1)], "parameters": {"binary_data_output": True}}).encode()
    answer = http.post(
        INFER.format("digits"), content=head + rows.astype("<f4").tobytes(), headers={HEADER: str(len(head))}
    )
    assert answer.headers["Content-Type"] == "application/octet-stream"
    said = json.loads(answer.content[: int(answer.headers[HEADER])])
    assert said["outputs"][0]["parameters"] == {"binary_data_size": whole.nbytes}
    assert answer.content[int(answer.headers[HEADER]) :] == whole.tobytes()


def test_a_body_of_latents_alone_is_answered_with_pictures_as_bytes(http: httpx.Client) -> None:
    rows = np.full((2, LATENT), 0.25, "<f4")
    answer = http.post(INFER.format("plain"), content=rows.tobytes(), headers={HEADER: "0"})
    assert (
        answer.content[int(answer.headers[HEADER]) :]
        == images(http.post(INFER.format("plain"), json={"inputs": [z(rows.tolist())]})).tobytes()
    )


def test_the_answer_names_the_request_and_the_model(http: httpx.Client) -> None:
    said = http.post(INFER.format("digits"), json={"id": "mine", "parameters": {"seed": 1}}).json()
    assert (said["id"], said["model_name"], said["model_version"]) == ("mine", "digits", "1")
    assert "id" not in http.post(INFER.format("digits"), json={"parameters": {"seed": 1}}).json()


def test_the_largest_request_is_answered_as_json_too(http: httpx.Client) -> None:
    rows = [[-1.2345678e-05] * LATENT] * 1024
    assert images(http.post(INFER.format("plain"), json={"inputs": [z(rows)]})).shape == (1024, 32, 32, 3)
    refused(http.post(INFER.format("plain"), json={"inputs": [z([*rows, rows[0]])]}), 400, "1025 images are too many")
    refused(http.post(INFER.format("plain"), json={"parameters": {"seed": 1, "n": 1025}}), 400, "1025 images are too")


def test_a_body_has_room_for_the_largest_request_and_no_more(http: httpx.Client) -> None:
    most = (1 << 20) + 1024 * LATENT * 26
    refused(http.post(INFER.format("plain"), content=b" " * (most + 1)), 413, f"over {most} bytes")
    refused(http.post(INFER.format("plain"), content=b" " * most), 400, "no JSON object")
    bomb = gzip.compress(b" " * (most + 1))
    answer = http.post(INFER.format("plain"), content=bomb, headers={"Content-Encoding": "gzip"})
    refused(answer, 413, f"over {most} bytes once it is inflated")


# what is refused


@pytest.mark.parametrize(
    ("head", "what"),
    [
        ({}, "'z' is missing. Allowed: 'z' as FP32 [N, 6], or the parameter seed."),
        ({"inputs": [label(1)]}, "'z' is missing"),
        ({"inputs": [z()]}, "'label' is missing. Allowed: a class index for each row of 'z', INT64 [1]."),
        ({"inputs": [z(), label(1, 2)]}, "'label' has 2 rows, and 'z' has 1"),
        ({"inputs": [z(), label(3)]}, "'label' holds 3, which is no class of digits@1. Allowed: a class index from"),
        ({"inputs": [label(-1)], "parameters": {"seed": 1}}, "'label' holds -1"),
        ({"inputs": [z(datatype="FP16"), label(1)]}, "'z' has datatype FP16"),
        ({"inputs": [z([[0.5] * 5 + [1e39]]), label(1)]}, "'z' holds a value that is not finite, at 5 of 6"),
        ({"inputs": [z(), label(1)], "parameters": {"seed": 1}}, "seed is of latents that are drawn here"),
        ({"inputs": [z(), label(1)], "parameters": {"n": 1}}, "n is of latents that are drawn here"),
        ({"inputs": [z(), label(1)], "parameters": {"truncation": 1}}, "truncation is of latents that are drawn here"),
        ({"inputs": [label(1, 2)], "parameters": {"seed": 1, "n": 3}}, "n is 3, and 'label' has 2 rows"),
        ({"parameters": {"seed": -1}}, "seed=-1 is not allowed. Allowed: an integer from 0 to 2^63 - 1"),
        ({"parameters": {"seed": 1, "n": 0}}, "n=0 is not allowed"),
        ({"parameters": {"seed": 1, "n": 10**400}}, "... images are too many for one request. Allowed: 1 to"),
        ({"parameters": {"seed": 10**400}}, "seed=1000"),
        ({"parameters": {"seed": 1, "truncation": 9}}, "truncation=9 is not allowed"),
        ({"parameters": {"seed": 1, "priority": 3}}, "priority=3 is not allowed. Allowed: 0 or 1 (normal), 2 (low)"),
        ({"parameters": {"seed": 1, "priority": True}}, "priority=true is not allowed"),
        ({"parameters": {"seed": 1, "timeout": -1}}, "timeout=-1 is not allowed"),
        ({"parameters": {"seed": 1, "timeout": 1.5}}, "timeout=1.5 is not allowed"),
        ({"parameters": {"seed": 1, "labels": [1]}}, "there is no parameter 'labels'. Allowed: seed, n, truncation"),
        ({"parameters": {"seed": 1}, "outputs": [{"name": "check"}]}, "'check' is no output that is served"),
        ({"parameters": {"seed": 1}, "id": 7}, "id: Input should be a valid string"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_request_is_said_with_the_name_of_it(
    http: httpx.Client, head: dict[str, Any], what: str
) -> None:
    answer = http.post(INFER.format("digits"), content=json.dumps(head), headers={"Content-Type": "application/json"})
    refused(answer, 400, what)
    assert answer.headers["Cache-Control"] == "no-store"


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda some: st.lists(some, max_size=3) | st.dictionaries(st.text(max_size=3), some, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from(("seed", "n", "truncation", "priority", "timeout", "binary_data_output")) | st.text(max_size=3)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(NAMES, ANYTHING | st.integers(0, 3), max_size=4), st.lists(ANYTHING, max_size=2), st.booleans())
def test_no_request_is_more_than_a_refusal(url: str, parameters: dict[str, Any], data: list[Any], drawn: bool) -> None:
    head = {"parameters": parameters, "inputs": [] if drawn else [label(1), z(shape=[1, LATENT], data=data)]}
    answer = httpx.post(url + INFER.format("digits"), content=json.dumps(head), timeout=PATIENCE)
    if answer.status_code == 504:
        assert parameters["timeout"] < 1_000_000  # microseconds
    elif answer.status_code != 200:
        refused(answer, 400, ".")


def test_a_model_without_classes_has_no_input_label(http: httpx.Client) -> None:
    refused(
        http.post(INFER.format("plain"), json={"inputs": [z(), label(0)]}), 400, "'label' is no input of this model"
    )
    assert images(http.post(INFER.format("plain"), json={"inputs": [z()]})).shape == (1, 32, 32, 3)


@pytest.mark.parametrize("length", ["-1", "x", "", "1e3", "9" * 40, "3"])
def test_a_header_length_that_is_none_is_refused(http: httpx.Client, length: str) -> None:
    refused(
        http.post(INFER.format("digits"), content=b"{}", headers={HEADER: length}), 400, f"{HEADER} is {length}".strip()
    )


def test_what_other_servers_know_and_a_model_without_a_state_does_not_need_is_ignored(http: httpx.Client) -> None:
    given = {"seed": 1, "sequence_id": 5, "sequence_start": True, "sequence_end": False}
    assert http.post(INFER.format("digits"), json={"parameters": given}).status_code == 200


@pytest.mark.parametrize("given", [{"timeout": 0}, {"timeout": 10**400}, {"priority": 0}, {"priority": 1}])
def test_a_timeout_beyond_the_servers_own_is_that_and_levels_are_tritons(
    http: httpx.Client, given: dict[str, Any]
) -> None:
    assert http.post(INFER.format("digits"), json={"parameters": {"seed": 1} | given}).status_code == 200


# inside


def test_statistics_are_what_happened(application: Any) -> None:
    ask = application.client.post
    assert ask(INFER.format("plain"), json={"parameters": {"seed": 1, "n": 4}}).status_code == 200
    assert application.client.get("/generate?n=2").status_code == 200  # every protocol counts
    refused(ask(INFER.format("plain"), json={}), 400, "'z' is missing")
    (told,) = application.client.get("/v2/models/plain/versions/1/stats").json()["model_stats"]
    assert (told["name"], told["version"], told["inference_count"], told["execution_count"]) == ("plain", "1", 6, 2)
    counts = {name: duration["count"] for name, duration in told["inference_stats"].items()}
    once = dict.fromkeys(("success", "queue", "compute_input", "compute_infer", "compute_output"), 2)
    assert counts == once | {"fail": 0, "cache_hit": 0, "cache_miss": 0}
    assert [(each["batch_size"], each["compute_infer"]["count"]) for each in told["batch_stats"]] == [(2, 1), (4, 1)]
    spent = {name: told["inference_stats"][name]["ns"] for name in ("queue", "compute_input", "compute_infer")}
    assert min(spent.values()) > 0
    assert sum(spent.values()) <= told["inference_stats"]["success"]["ns"]
    assert sum(each["compute_infer"]["ns"] for each in told["batch_stats"]) == pytest.approx(
        spent["compute_infer"], abs=10
    )

    application.engine.sabotage = lambda made: 1 / 0
    assert ask(INFER.format("plain"), json={"parameters": {"seed": 1}}).status_code == 500
    for path in ("/v2/models/stats", "/v2/models/plain/stats"):
        (after,) = application.client.get(path).json()["model_stats"]
        assert (after["inference_stats"]["fail"]["count"], after["inference_count"]) == (1, 6)
        assert after["execution_count"] == 2
        assert after["last_inference"] >= told["last_inference"] > 1_600_000_000_000


def test_latents_that_make_no_finite_picture_are_the_requests_fault_and_a_seed_is_not(application: Any) -> None:
    def blown(made: np.ndarray) -> np.ndarray:
        raise NonFinite([0], made)

    application.engine.sabotage = blown
    refused(application.client.post(INFER.format("plain"), json={"inputs": [z()]}), 400, "the pictures of this 'z'")
    refused(application.client.post(INFER.format("plain"), json={"parameters": {"seed": 1}}), 500, "not finite")


def test_an_engine_that_fails_is_a_500_without_its_secrets(application: Any) -> None:
    def fails(made: np.ndarray) -> np.ndarray:
        raise RuntimeError("sabotage at /a/secret/path")

    application.engine.sabotage = fails
    answer = application.client.post(INFER.format("plain"), json={"inputs": [z()]})
    refused(answer, 500, "the engine failed on a batch")
    assert "secret" not in answer.text


@pytest.mark.parametrize("application", [{"queue_images": 4, "max_images": 4}], indirect=True)
@pytest.mark.usefixtures("waits")
def test_a_full_queue_is_429_and_a_deadline_is_kept(application: Any) -> None:
    running, let_go = application.hold()
    ask = application.client.post
    with ThreadPoolExecutor() as askers:
        first = askers.submit(ask, INFER.format("plain"), json={"parameters": {"seed": 1}})
        assert running.wait(PATIENCE)
        waiting = askers.submit(ask, INFER.format("plain"), json={"parameters": {"seed": 1, "n": 3, "priority": 2}})
        application.until(lambda: application.metric('limner_queued_images{model="plain@1"} 3.0'))
        full = ask(INFER.format("plain"), json={"parameters": {"seed": 1, "n": 2}})
        let_go.set()
        assert [asker.result().status_code for asker in (first, waiting)] == [200, 200]
    refused(full, 429, "places in the queue are taken")
    assert int(full.headers["Retry-After"]) >= 1
    assert application.metric('limner_rejected_total{model="plain@1",reason="queue-full"} 1.0')
    assert application.metric('limner_requests_total{code="429",route="/v2/models/{model}/infer"} 1.0')


@pytest.mark.usefixtures("waits")
def test_a_timeout_in_microseconds_is_kept(application: Any) -> None:
    _, let_go = application.hold()
    answer = application.client.post(INFER.format("plain"), json={"parameters": {"seed": 1, "timeout": 50_000}})
    let_go.set()
    refused(answer, 504, "no picture after 0.0")
    assert application.metric('limner_deadline_missed_total{model="plain@1"} 1.0')
    (told,) = application.client.get("/v2/models/stats").json()["model_stats"]
    assert told["inference_stats"]["fail"]["count"] == 1
    assert told["inference_stats"]["fail"]["ns"] > 0


@pytest.mark.usefixtures("waits")
def test_a_client_that_leaves_the_queue_gives_its_places_back(application: Any) -> None:
    running, let_go = application.hold()
    address = (application.client.base_url.host, application.client.base_url.port or 80)
    body = json.dumps({"parameters": {"seed": 1, "n": 100}}).encode()
    with ThreadPoolExecutor() as asker:
        first = asker.submit(application.client.post, INFER.format("plain"), json={"parameters": {"seed": 1}})
        assert running.wait(PATIENCE)
        with socket.create_connection(address) as connection:
            head = f"POST /v2/models/plain/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body)
            application.until(lambda: application.metric('limner_queued_images{model="plain@1"} 100.0'))
        application.until(lambda: application.metric('limner_cancelled_total{model="plain@1"} 1.0'))
        assert application.metric('limner_queued_images{model="plain@1"} 0.0')
        let_go.set()
        assert first.result().status_code == 200


def test_who_is_draining_is_not_ready_and_takes_nothing_new(launch: Any, models: Path) -> None:
    with (
        launch(models, "--drain-seconds", "20") as server,
        socket.create_connection((httpx.URL(server.url).host, httpx.URL(server.url).port)) as slow,
    ):
        slow.sendall(b"POST /v2/models/plain/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")  # in flight
        with httpx.Client(base_url=server.url, timeout=PATIENCE) as client:
            assert client.get("/v2/health/ready").status_code == 200
            server.process.terminate()
            until_draining(client)
            assert client.get("/v2/health/live").json() == {"live": True}
            refused(client.get("/v2/health/ready"), 400, "draining")
            refused(client.get("/v2/models/plain/ready"), 400, "draining")
            refused(client.post(INFER.format("plain"), json={"parameters": {"seed": 1}}), 503, "draining")
            states = client.post("/v2/repository/index").json()
            assert {(each["state"], each["reason"]) for each in states} == {("UNLOADING", "the server is draining")}
            assert client.post("/v2/repository/index", json={"ready": True}).json() == []
        slow.sendall(b'{"id": 1}')
        assert slow.recv(4096).startswith(b"HTTP/1.1 400")  # what was in flight is answered
        assert server.process.wait(PATIENCE) == 0


def until_draining(client: httpx.Client) -> None:
    waited = threading.Event()
    for _ in range(400):
        if client.get("/readyz").status_code == 503:
            return
        waited.wait(0.05)
    pytest.fail("it does not drain")
