"""Triton's own Python clients, as they are, against a real server: everything that limner has of the protocol."""

import asyncio
import io
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

LATENT = 6
LABELS = np.array([2, 0, 1, 1, 2])
Z = np.random.Generator(np.random.Philox(key=3)).standard_normal((5, LATENT), np.float32)


class Client:
    """Both clients behind one face: `call("infer", ...)` is that method's result."""

    def __init__(self, url: str, aio: bool) -> None:
        self._address, self._aio = httpx.URL(url).netloc.decode(), aio

    def call(self, method: str, *arguments: Any, **options: Any) -> Any:
        if not self._aio:
            with triton.InferenceServerClient(self._address) as client:
                return getattr(client, method)(*arguments, **options)

        async def called() -> Any:
            async with triton_aio.InferenceServerClient(self._address) as client:
                return await getattr(client, method)(*arguments, **options)

        return asyncio.run(called())


@pytest.fixture(params=[False, True], ids=["sync", "aio"])
def client(request: pytest.FixtureRequest, url: str) -> Client:
    return Client(url, request.param)


@pytest.fixture(scope="module")
def expected(url: str) -> np.ndarray:
    """The pictures of Z and LABELS, each asked for alone, by JSON."""

    def alone(row: int) -> np.ndarray:
        inputs = [
            {"name": "z", "datatype": "FP32", "shape": [1, LATENT], "data": Z[row].tolist()},
            {"name": "label", "datatype": "INT64", "shape": [1], "data": [int(LABELS[row])]},
        ]
        said = httpx.post(f"{url}/v2/models/digits/infer", json={"inputs": inputs}).json()["outputs"][0]
        return np.array(said["data"], np.uint8).reshape(said["shape"])

    return np.concatenate([alone(row) for row in range(len(Z))])


def inputs(binary: bool, column: bool = False) -> list[triton.InferInput]:
    labels = LABELS.reshape(-1, 1) if column else LABELS
    z, label = (
        triton.InferInput("z", list(Z.shape), "FP32"),
        triton.InferInput("label", list(labels.shape), "INT64"),
    )
    z.set_data_from_numpy(Z, binary_data=binary)
    label.set_data_from_numpy(labels, binary_data=binary)
    return [z, label]


def test_health_metadata_configuration_and_index(client: Client) -> None:
    assert client.call("is_server_live")
    assert client.call("is_server_ready")
    assert client.call("is_model_ready", "digits")
    assert client.call("is_model_ready", "digits", "1")
    assert not client.call("is_model_ready", "digits", "2")
    assert not client.call("is_model_ready", "nope")
    assert client.call("get_server_metadata")["name"] == "limner"
    metadata = client.call("get_model_metadata", "digits", "1")
    assert [
        (each["name"], each["datatype"], each["shape"]) for each in (*metadata["inputs"], *metadata["outputs"])
    ] == [
        ("z", "FP32", [-1, LATENT]),
        ("label", "INT64", [-1, 1]),
        ("image", "UINT8", [-1, 28, 28, 1]),
    ]
    assert client.call("get_model_config", "digits", "1")["max_batch_size"] == 1024
    assert [each["name"] for each in client.call("get_model_repository_index")] == ["digits", "plain"]


@pytest.mark.parametrize("binary_output", [True, False, None])
@pytest.mark.parametrize("binary_input", [True, False])
def test_pictures_of_latents_in_every_form(
    client: Client, expected: np.ndarray, binary_input: bool, binary_output: bool | None
) -> None:
    outputs = None
    if binary_output is not None:
        outputs = [triton.InferRequestedOutput("image", binary_data=binary_output)]
    made = client.call("infer", "digits", inputs(binary_input), outputs=outputs, request_id="mine", model_version="1")
    assert made.get_response()["id"] == "mine"
    assert made.as_numpy("image").dtype == np.uint8
    assert np.array_equal(made.as_numpy("image"), expected)


@pytest.mark.parametrize("response", [None, "gzip", "deflate"])
@pytest.mark.parametrize("request_", [None, "gzip", "deflate"])
def test_pictures_over_compressed_bodies(
    client: Client, expected: np.ndarray, request_: str | None, response: str | None
) -> None:
    made = client.call(
        "infer",
        "digits",
        inputs(binary=True, column=True),
        request_compression_algorithm=request_,
        response_compression_algorithm=response,
    )
    assert np.array_equal(made.as_numpy("image"), expected)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_an_answer_is_compressed_where_the_client_asks_for_it(url: str, coding: str) -> None:
    body, _ = triton.InferenceServerClient.generate_request_body(inputs(binary=False))
    address = f"{url}/v2/models/digits/infer"
    plain = httpx.post(address, content=body, headers={"Accept-Encoding": "identity"})
    packed = httpx.post(address, content=body, headers={"Accept-Encoding": coding})
    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == coding
    assert int(packed.headers["Content-Length"]) < int(plain.headers["Content-Length"])
    assert packed.content == plain.content  # inflated by httpx
    length = "Inference-Header-Content-Length"
    assert packed.headers[length] == plain.headers[length]


def test_pictures_of_a_seed_with_what_else_may_be_asked(client: Client, url: str) -> None:
    given = {"seed": 41, "n": 3, "truncation": 1.5}
    made = client.call("infer", "digits", [], parameters=given, priority=2, timeout=10_000_000, sequence_id=3)
    query = given | {"model": "digits", "format": "npy"}
    same = np.load(io.BytesIO(httpx.get(f"{url}/generate", params=query).content))
    assert np.array_equal(made.as_numpy("image"), same)


def test_statistics_grow_by_what_was_asked(client: Client) -> None:
    def told() -> dict[str, Any]:
        (one,) = client.call("get_inference_statistics", "digits", "1")["model_stats"]
        return one

    before = told()
    client.call("infer", "digits", inputs(binary=True))
    after = told()
    assert after["inference_count"] - before["inference_count"] == len(Z)
    assert after["inference_stats"]["success"]["count"] - before["inference_stats"]["success"]["count"] == 1
    names = [each["name"] for each in client.call("get_inference_statistics")["model_stats"]]
    assert names == ["digits", "plain"]


def test_a_refusal_is_the_clients_own_exception_with_limners_words(client: Client) -> None:
    with pytest.raises(InferenceServerException) as refused:
        client.call("infer", "digits", inputs(binary=True)[:1])
    assert refused.value.status() == "400"
    assert refused.value.message().startswith("'label' is missing. Allowed: ")
    with pytest.raises(InferenceServerException) as refused:
        client.call("get_model_config", "nope")
    assert (refused.value.status(), "no model 'nope'" in refused.value.message()) == ("404", True)


def test_many_at_a_time_share_batches_and_get_their_own(url: str, expected: np.ndarray) -> None:
    address = httpx.URL(url).netloc.decode()
    with triton.InferenceServerClient(address, concurrency=8) as client:
        waiting = [client.async_infer("digits", inputs(binary=True)) for _ in range(16)]
        made: list[Any] = [each.get_result() for each in waiting]

    async def asked() -> list[Any]:
        async with triton_aio.InferenceServerClient(address) as client:
            return await asyncio.gather(*(client.infer("digits", inputs(binary=True)) for _ in range(16)))

    for each in (*made, *asyncio.run(asked())):
        assert np.array_equal(each.as_numpy("image"), expected)
