"""/v1 as OpenAI's own client sees it, on a real server process; refusals in OpenAI's form."""

import asyncio
import base64
import io
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest
from openai.types import ImagesResponse
from PIL import Image

DIGITS: dict[str, Any] = {"model": "digits", "prompt": "2"}


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="anything", max_retries=0) as client:
        yield client


def made(client: openai.OpenAI, **asked: Any) -> ImagesResponse:
    return client.images.generate(**(DIGITS | asked))


def files(response: ImagesResponse) -> list[bytes]:
    assert response.data
    return [base64.b64decode(image.b64_json or "", validate=True) for image in response.data]


def generated(http: httpx.Client, **asked: Any) -> bytes:
    response = http.get("/generate", params={"model": "digits", "label": "2"} | asked)
    assert response.status_code == 200, response.text
    return response.content


def refused(client: openai.OpenAI, status: type[openai.APIStatusError], **asked: Any) -> openai.APIStatusError:
    with pytest.raises(status) as caught:
        client.images.generate(**(DIGITS | asked))
    assert caught.value.response.headers["content-type"] == "application/json"
    assert caught.value.response.headers["cache-control"] == "no-store"
    assert set(caught.value.response.json()["error"]) == {"message", "type", "param", "code"}
    return caught.value


# what is made


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
def test_each_image_is_a_file_of_its_own_the_same_bytes_as_generate_s(
    client: openai.OpenAI, http: httpx.Client, format: Any
) -> None:
    response = made(client, n=3, output_format=format, extra_body={"seed": 2**63 - 2})
    seeds = [str(seed % 2**63) for seed in range(2**63 - 2, 2**63 + 1)]
    assert files(response) == [generated(http, seed=seed, format=format) for seed in seeds]
    said = [image.to_dict() for image in response.data or []]
    assert [(one["seed"], one["label"], one["class"]) for one in said] == [(seed, 1, "2") for seed in seeds]


def test_an_answer_says_what_it_is_and_of_tokens_and_quality_nothing(client: openai.OpenAI) -> None:
    response = made(client, quality="high")
    assert abs(response.created - time.time()) < 60
    assert (response.size, response.output_format, response.background) == ("28x28", "png", "opaque")
    assert (response.quality, response.usage) == (None, None)


def test_a_seed_that_the_server_draws_is_said_and_makes_the_image_again(client: openai.OpenAI) -> None:
    raw = client.images.with_raw_response.generate(**DIGITS)
    assert raw.headers["x-limner-model"] == "digits@1"
    assert raw.headers["cache-control"] == "no-store"
    first = raw.parse()
    seed = raw.headers["x-limner-seed"]
    assert (first.data or [])[0].to_dict()["seed"] == seed
    assert files(made(client, extra_body={"seed": seed})) == files(first)


@pytest.mark.parametrize("times", [1, 2, 16])
def test_a_size_is_a_multiple_of_the_model_s_own(client: openai.OpenAI, http: httpx.Client, times: int) -> None:
    size = f"{28 * times}x{28 * times}"
    response = made(client, size=size, extra_body={"seed": 5})
    assert response.size == size
    assert files(response) == [generated(http, seed=5, scale=times)]


def test_compression_is_quality_and_of_png_only_whole(client: openai.OpenAI, http: httpx.Client) -> None:
    for format, compression, quality in (("jpeg", 50, 50), ("webp", 0, 1), ("jpeg", 100, 100)):
        asked: dict[str, Any] = {"output_format": format, "output_compression": compression}
        response = made(client, **asked, extra_body={"seed": 5})
        assert files(response) == [generated(http, seed=5, format=format, quality=quality)]
    assert made(client, output_compression=100).data


def test_a_prompt_is_a_class_name_first_then_an_index_and_any_is_no_class(client: openai.OpenAI) -> None:
    def labels(prompt: str, n: int = 1, **extra: Any) -> list[Any]:
        response = made(client, prompt=prompt, n=n, extra_body={"seed": 100} | extra)
        return [image.to_dict()["label"] for image in response.data or []]

    assert [labels(prompt) for prompt in ("0", "2", "1", "02")] == [[0], [1], [2], [2]]
    drawn = labels("any", 32)
    assert set(drawn) == {0, 1, 2}
    assert labels("", 32) == drawn
    assert labels("any", label=2) == labels("", label="1") == labels("1", label="1") == [2]


def test_a_model_without_classes_takes_any_prompt_that_says_so(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "plain", "extra_body": {"seed": 1, "truncation": 0.5}}
    one, other = (made(client, prompt=prompt, **asked) for prompt in ("any", ""))
    assert files(one) == files(other)
    assert Image.open(io.BytesIO(files(one)[0])).mode == "RGB"
    assert (one.data or [])[0].to_dict() | {"b64_json": ""} == {
        "seed": "1",
        "label": None,
        "class": None,
        "b64_json": "",
    }
    error = refused(client, openai.BadRequestError, model="plain", prompt="a cat")
    assert (error.param, "Allowed: any, or nothing" in error.message) == ("prompt", True)


def test_what_has_no_meaning_here_is_accepted_and_ignored(client: openai.OpenAI) -> None:
    ignored: dict[str, Any] = {
        "quality": "hd",
        "style": "vivid",
        "background": "transparent",
        "moderation": "low",
        "user": "me",
        "complexity": "low",
        "safety_identifier": "me",
        "partial_images": 0,
        "response_format": "b64_json",
        "stream": False,
    }
    expected = files(made(client, extra_body={"seed": 5}))
    assert files(made(client, extra_body={"seed": 5}, **ignored)) == expected
    nothing = dict.fromkeys((*ignored, "size", "output_format", "output_compression", "n"))
    assert files(made(client, extra_body={"seed": 5}, **nothing)) == expected


def test_the_asynchronous_client_works_too(url: str) -> None:
    async def ask() -> list[ImagesResponse]:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="anything") as client:
            return await asyncio.gather(*(client.images.generate(**DIGITS, extra_body={"seed": 5}) for _ in range(8)))

    assert len({files(response)[0] for response in asyncio.run(ask())}) == 1


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer x"}, {"Authorization": "Basic eDp5"}])
def test_any_key_is_accepted_and_none(http: httpx.Client, headers: dict[str, str]) -> None:
    assert http.post("/v1/images/generations", json=DIGITS, headers=headers).status_code == 200
    assert http.get("/v1/models", headers=headers).status_code == 200


# models


def test_every_model_and_version_is_listed_and_each_can_be_asked_for(client: openai.OpenAI, http: httpx.Client) -> None:
    listed = client.models.list().data
    assert [model.id for model in listed] == ["digits", "digits@1", "plain", "plain@1"]
    for model in listed:
        assert client.models.retrieve(model.id) == model
        assert (model.object, model.owned_by) == ("model", "limner")
        assert 0 < model.created <= time.time()
        response = client.images.with_raw_response.generate(model=model.id, prompt="any")
        assert response.headers["x-limner-model"] == f"{model.id.partition('@')[0]}@1"


@pytest.mark.parametrize("model", ["gpt-image-1", "digits@2", "digits@", "digits@x", "digits@1@1", "\U0001f431", ""])
def test_an_unknown_model_is_not_found_and_those_there_are_are_named(client: openai.OpenAI, model: str) -> None:
    error = refused(client, openai.NotFoundError, model="x", extra_body={"model": model})
    assert (error.param, error.code, error.type) == ("model", "model_not_found", "invalid_request_error")
    assert "Allowed: " in error.message
    if model.isascii() and model:
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve(model)


def test_a_model_must_be_named_where_there_are_several(http: httpx.Client) -> None:
    response = http.post("/v1/images/generations", json={"prompt": "2"})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "model")


# what is refused


@pytest.mark.parametrize(
    ("asked", "param", "allowed"),
    [
        ({"prompt": "cat"}, "prompt", "a class name (0, 2, 1) or an index from 0 to 2, or any."),
        ({"prompt": None}, "prompt", "a class name, a class index or any."),
        ({"prompt": 2}, "prompt", "a class name, a class index or any."),
        ({"label": "1"}, "prompt", "any, or the class of label."),
        ({"label": "cat"}, "label", "a class name (0, 2, 1) or an index from 0 to 2."),
        ({"n": 0}, "n", "an integer from 1."),
        ({"n": 1025}, "n", "an integer from 1 to 1024."),
        ({"size": "1024x1024"}, "size", "auto, or a multiple of 28x28 up to 448x448 for n=1."),
        ({"size": "56x28"}, "size", "auto, or a multiple of 28x28 up to 448x448 for n=1."),
        ({"size": "14x14"}, "size", "auto, or a multiple of 28x28 up to 448x448 for n=1."),
        ({"size": "476x476"}, "size", "auto, or a multiple of 28x28 up to 448x448 for n=1."),
        ({"size": "448x448", "n": 1000}, "size", "auto, or a multiple of 28x28 up to 112x112 for n=1000."),
        ({"size": "56"}, "size", "auto, or width x height such as 56x56."),
        ({"size": "056x056"}, "size", "auto, or width x height such as 56x56."),
        ({"response_format": "url"}, "response_format", "b64_json."),
        ({"output_format": "gif"}, "output_format", "png, jpeg or webp."),
        ({"output_compression": 50}, "output_compression", "100."),
        ({"output_compression": 101, "output_format": "jpeg"}, "output_compression", "an integer from 0 to 100."),
        ({"stream": True}, "stream", "false."),
        ({"stream": 0}, "stream", "false."),
        ({"partial_images": 4}, "partial_images", "an integer from 0 to 3."),
        ({"quality": 5}, "quality", "text."),
        ({"seed": -1}, "seed", "an integer from 0 to 2^63 - 1."),
        ({"truncation": 0}, "truncation", "a number over 0, at most 8."),
        ({"frame_count": 2}, "frame_count", "prompt, model, n, size, response_format, output_format, "),
    ],
)
def test_a_value_that_is_not_possible_is_400_with_its_name_and_what_is_allowed(
    client: openai.OpenAI, asked: dict[str, Any], param: str, allowed: str
) -> None:
    error = refused(client, openai.BadRequestError, extra_body=asked)
    assert (error.param, error.type, error.code) == (param, "invalid_request_error", "invalid_parameter")
    assert f"Allowed: {allowed}" in error.message


@pytest.mark.parametrize(
    ("body", "content_type", "status", "code"),
    [
        (b"{", "application/json", 400, "unparsable_body"),
        (b"[]", "application/json", 400, "unparsable_body"),
        (b"", "application/json", 400, "invalid_parameter"),
        (b'{"prompt": "2", "prompt": "2"}', "application/json", 400, "invalid_parameter"),
        (b"prompt=2", "application/x-www-form-urlencoded", 415, "unsupported_type"),
        (b" " * (1 << 20) + b"{}", "application/json", 413, "body_too_large"),
    ],
)
def test_a_bad_body_is_refused_in_the_same_form(
    http: httpx.Client, body: bytes, content_type: str, status: int, code: str
) -> None:
    response = http.post("/v1/images/generations", content=body, headers={"Content-Type": content_type})
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_parameters_in_the_url_are_refused_because_nobody_would_read_them(http: httpx.Client) -> None:
    response = http.post("/v1/images/generations?seed=7", json=DIGITS)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "query")


def test_an_unknown_path_and_another_method_are_refused_in_the_same_form(http: httpx.Client) -> None:
    for method, path, status, code in (
        ("GET", "/v1/nope", 404, "not_found"),
        ("GET", "/v1/models/a/b", 404, "not_found"),
        ("GET", "/v1/images/generations", 405, "method_not_allowed"),
        ("POST", "/v1/models", 405, "method_not_allowed"),
    ):
        response = http.request(method, path)
        assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert http.get("/v1/images/generations").headers["Allow"] == "POST"


# when it is busy, and when it fails


@pytest.mark.parametrize("application", [{"queue_images": 2, "max_images": 2}], indirect=True)
@pytest.mark.usefixtures("waits")
def test_a_full_queue_is_429_with_both_headers_and_the_client_comes_back_by_itself(application: Any) -> None:
    running, let_go = application.hold()
    asked: dict[str, Any] = {"prompt": "any", "n": 2}
    with (
        openai.OpenAI(base_url=f"{application.client.base_url}/v1", api_key="x", max_retries=0) as client,
        ThreadPoolExecutor() as askers,
    ):
        first = askers.submit(client.images.generate, **asked)
        assert running.wait(20)
        second = askers.submit(client.images.generate, **asked)
        application.until(lambda: application.metric('limner_queued_images{model="plain@1"} 2.0'))
        error = refused(client, openai.RateLimitError, **(asked | {"model": "plain"}))
        assert (error.type, error.code, error.param) == ("rate_limit_error", "queue_full", None)
        seconds, milliseconds = (int(error.response.headers[name]) for name in ("retry-after", "retry-after-ms"))
        assert 0 < milliseconds <= 1000 * seconds < milliseconds + 1000
        again = askers.submit(client.with_options(max_retries=50).images.generate, **asked)
        rejected = 'limner_rejected_total{model="plain@1",reason="queue-full"} '
        application.until(lambda: not application.metric(f"{rejected}1.0"))  # it has been refused once, too
        let_go.set()
        assert [len(files(asker.result(20))) for asker in (first, second, again)] == [2, 2, 2]
    assert application.metric('limner_images_total{model="plain@1"} 6.0')
    assert application.metric('limner_requests_total{code="200",route="/v1/images/generations"} 3.0')


def test_an_engine_that_fails_is_a_500_in_the_same_form_and_says_nothing_of_its_inside(application: Any) -> None:
    def fails(made: Any) -> Any:
        raise RuntimeError("sabotage at /a/secret/path")

    application.engine.sabotage = fails
    with openai.OpenAI(base_url=f"{application.client.base_url}/v1", api_key="x", max_retries=0) as client:
        error = refused(client, openai.InternalServerError, model="plain", prompt="any")
    assert (error.type, error.code) == ("server_error", "engine")
    assert "sabotage" not in error.response.text
    assert error.request_id


@pytest.mark.usefixtures("waits")
def test_a_client_that_leaves_gives_its_place_in_the_queue_back(application: Any) -> None:
    running, let_go = application.hold()
    asked = {"url": "/v1/images/generations", "json": {"prompt": "any", "n": 2}}
    with ThreadPoolExecutor() as askers:
        first = askers.submit(application.client.post, **asked)
        assert running.wait(20)
        with httpx.Client(base_url=application.client.base_url) as other, pytest.raises(httpx.ReadTimeout):
            other.post(**asked, timeout=0.5)
        application.until(lambda: application.metric('limner_cancelled_total{model="plain@1"} 1.0'))
        assert application.metric('limner_queued_images{model="plain@1"} 0.0')
        let_go.set()
        assert first.result(20).status_code == 200
