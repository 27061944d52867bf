"""limner_client against a real server, against nobody, and against those who are no limner server."""

import base64
import io
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import numpy as np
import pytest
from limner_client import ApiError, Client, ClientError, ConnectionFailed
from PIL import Image


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url) as made:
        yield made


@contextmanager
def stranger(status: int, body: bytes, **headers: str) -> Iterator[str]:
    """An HTTP server that gives everybody the same answer."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer  # noqa: N815

        def log_message(self, format: str, *args: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_png_comes_with_what_it_is_and_can_be_saved(client: Client, tmp_path: Path) -> None:
    answer = client.generate(label="2", seed=7, model="digits")
    assert (answer.format, answer.seed, answer.model, answer.label) == ("png", 7, "digits@1", 1)
    saved = answer.save(tmp_path / "two.png")
    assert saved == tmp_path / "two.png"
    assert saved.read_bytes() == answer.content
    picture = Image.open(saved)
    assert (picture.size, json.loads(picture.info["limner"])["label"]) == ((28, 28), 1)


def test_the_three_formats_hold_the_same_pictures(client: Client) -> None:
    seed = 2**63 - 2  # more than a float holds
    npy = client.generate(n=3, seed=seed, model="plain", format="npy")
    listed = client.generate(n=3, seed=seed, model="plain", format="json")
    sheet = client.generate(n=3, seed=seed, model="plain")
    assert [answer.format for answer in (npy, listed, sheet)] == ["npy", "json", "png"]
    assert [answer.seed for answer in (npy, listed, sheet)] == [seed] * 3
    assert [answer.label for answer in (npy, listed, sheet)] == [None] * 3
    stack = np.load(io.BytesIO(npy.content))
    entries = json.loads(listed.content)["images"]
    assert [entry["seed"] for entry in entries] == [str(seed), str(seed + 1), "0"]
    for place, entry in enumerate(entries):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(entry["png"])))), stack[place])
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(sheet.content)))[32:, :32], stack[2])


def test_every_argument_reaches_the_server(client: Client) -> None:
    asked = {"label": 2, "seed": 5, "truncation": 0.3, "model": "digits", "version": 1}
    said = json.loads(Image.open(io.BytesIO(client.generate(**asked).content)).info["limner"])
    assert {name: said[name] for name in asked} == asked | {"seed": "5"}


def test_a_drawn_seed_makes_the_same_picture_again(client: Client) -> None:
    drawn = client.generate(model="digits")
    assert client.generate(model="digits", seed=drawn.seed) == drawn


def test_models_is_the_answer_of_the_route(client: Client, url: str) -> None:
    assert client.models() == httpx.get(f"{url}/models").json()


def test_a_slash_at_the_end_of_the_address_does_no_harm(url: str) -> None:
    with Client(f"{url}/") as client:
        assert client.generate(model="digits", seed=1).model == "digits@1"


def test_a_refusal_carries_the_problem_details(client: Client) -> None:
    with pytest.raises(ApiError) as refused:
        client.generate(label="cat", model="digits")
    error = refused.value
    assert (error.status, error.code) == (422, "invalid-parameter")
    assert (error.field, error.value) == ("label", "cat")
    assert error.allowed == "a class name (0, 2, 1) or an index from 0 to 2"
    assert error.retry_after is None
    assert str(error) == error.detail
    assert "label=cat is not allowed" in error.detail
    with pytest.raises(ApiError) as missing:
        client.generate(model="nope")
    assert (missing.value.status, missing.value.code, missing.value.allowed) == (404, "not-found", "digits, plain")


def test_retry_after_is_seconds() -> None:
    problem = b'{"type": "urn:limner:problem:queue-full", "detail": "full"}'
    with stranger(429, problem, Retry_After="3") as url, Client(url) as client, pytest.raises(ApiError) as refused:
        client.generate()
    assert (refused.value.status, refused.value.code, refused.value.retry_after) == (429, "queue-full", 3.0)


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "socks5://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with Client(url) as client:
        assert client.models()["models"]


def test_a_port_where_nobody_listens_is_a_connection_that_failed() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        with Client(url) as client, pytest.raises(ConnectionFailed, match=url):
            client.generate()


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://127.0.0.1", "http://127.0.0.1:port", "http://[", ""])
def test_what_is_no_address_is_a_connection_that_failed(url: str) -> None:
    with pytest.raises(ConnectionFailed), Client(url) as client:
        client.generate()


def test_an_answer_that_breaks_off_is_a_connection_that_failed() -> None:
    with (
        stranger(200, b"\x89PNG", Content_Length="1000") as url,
        Client(url) as client,
        pytest.raises(ConnectionFailed),
    ):
        client.generate()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (502, b"<html><h1>Bad Gateway</h1></html>"),
        (502, b""),
        (500, b"[1]"),
        (500, b'"text"'),
        (500, b"\xff\xfe"),
        (302, b"{}"),
    ],
)
def test_the_answer_of_somebody_else_is_an_api_error_with_its_status(status: int, body: bytes) -> None:
    with stranger(status, body, Retry_After="\xb2", Location="/login") as url, Client(url) as client:
        for ask in (client.generate, client.models):
            with pytest.raises(ApiError) as failed:
                ask()
            assert failed.value.status == status
            assert (failed.value.code, failed.value.field, failed.value.retry_after) == ("", None, None)
            assert str(status) in failed.value.detail


@pytest.mark.parametrize("headers", [{}, {"X_Limner_Seed": "x", "X_Limner_Model": "m@1"}])
def test_a_success_that_no_limner_server_gave_is_an_api_error_too(headers: dict[str, str]) -> None:
    with stranger(200, b"<html>log in</html>", **headers) as url, Client(url) as client:
        for ask in (client.generate, client.models):
            with pytest.raises(ApiError, match="no limner server gave this answer"):
                ask()


def test_every_error_has_one_root() -> None:
    assert issubclass(ApiError, ClientError)
    assert issubclass(ConnectionFailed, ClientError)
