"""The wiring: pages that work offline, unknown routes, and the schema that clients are made from."""

import json
import re
from pathlib import Path

import httpx
import pytest

from server.settings import CHECKOUT_OR_SITE, Settings

SNAPSHOT = CHECKOUT_OR_SITE / "clients" / "openapi.json"
REWRITE = "curl -fsS http://127.0.0.1:8000/openapi.json | python -m json.tool --indent 1 > clients/openapi.json"
LOADED = re.compile(r"""<(?:script|img|link)\b[^>]*?\b(?:src|href)=["']([^"'#]+)["']""")


def test_a_long_path_is_not_said_again(http: httpx.Client) -> None:
    said = http.get("/" + "a" * 5000).json()
    assert said["detail"] == f"there is no /{'a' * 96}.... See /docs."


@pytest.mark.parametrize(
    "path", ["/nope", "/models/digits/nope", "/generate/7", "/playground/nope.js", "/%F0%9F%90%B1"]
)
def test_an_unknown_route_is_a_404_problem(http: httpx.Client, path: str) -> None:
    response = http.get(path)
    assert (response.status_code, response.headers["Content-Type"]) == (404, "application/problem+json")
    assert response.json()["type"] == "urn:limner:problem:not-found"
    assert response.headers["X-Request-Id"]


@pytest.mark.parametrize("path", ["/models", "/models/digits", "/healthz", "/readyz", "/metrics", "/"])
def test_every_route_refuses_other_methods_and_says_which_it_has(http: httpx.Client, path: str) -> None:
    response = http.delete(path)
    assert (response.status_code, response.headers["Content-Type"]) == (405, "application/problem+json")
    assert response.headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    "path", ["/models", "/models/digits", "/healthz", "/readyz", "/", "/js/limner-client.js", "/docs", "/openapi.json"]
)
def test_head_says_of_every_route_what_get_would(http: httpx.Client, path: str) -> None:
    head, get = http.head(path), http.get(path)
    assert (head.status_code, head.content, get.status_code) == (200, b"", 200)
    assert head.headers["Content-Length"] == str(len(get.content))
    assert head.headers["Content-Type"] == get.headers["Content-Type"]


@pytest.mark.parametrize("path", ["/docs", "/"])
def test_a_page_loads_nothing_from_another_host(http: httpx.Client, path: str) -> None:
    page = http.get(path)
    assert page.status_code == 200
    assert page.headers["Content-Type"].startswith("text/html")
    links = LOADED.findall(page.text)
    assert not [link for link in links if link.startswith(("http:", "https:", "//"))]
    assert not re.search(r"https?://(?!www\.w3\.org/)", page.text)  # in a script either; a namespace loads nothing
    own = [link for link in links if not link.startswith("data:")]
    assert [link for link in own if http.get(httpx.URL(path).join(link)).status_code != 200] == []
    if path == "/docs":
        assert own  # the scripts of the page, which would else come from a CDN


def test_the_playground_is_the_page_of_the_checkout(http: httpx.Client) -> None:
    assert http.get("/").text == (Settings().playground / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", ["/", "/playground/playground.js", "/playground/style.css", "/js/limner-client.js"])
def test_a_browser_asks_for_each_part_of_the_playground_again(http: httpx.Client, path: str) -> None:
    got = http.get(path)
    assert (got.status_code, got.headers["Cache-Control"]) == (200, "no-cache")


def test_the_schema_of_the_clients_is_the_servers(http: httpx.Client) -> None:
    served = json.dumps(http.get("/openapi.json").json(), indent=1) + "\n"
    if not SNAPSHOT.is_file() or SNAPSHOT.read_text() != served:
        pytest.fail(
            f"{SNAPSHOT} is not what the server says. With a server running, look at the change made by: {REWRITE}"
        )


def test_the_schema_documents_every_refusal_and_refers_to_nothing_missing(http: httpx.Client) -> None:
    schema = http.get("/openapi.json").json()
    post = schema["paths"]["/generate"]["post"]
    codes = (200, 400, 404, 406, 413, 415, 422, 429, 500, 503, 504)
    assert set(post["responses"]) == {str(code) for code in codes}
    assert {parameter["name"] for parameter in post["parameters"]} == set(
        post["requestBody"]["content"]["application/json"]["schema"]["properties"]
    )
    references = re.findall(r"#/components/schemas/(\w+)", json.dumps(schema))
    assert references
    assert set(references) <= set(schema["components"]["schemas"])


def test_the_app_can_be_made_twice_in_one_process(models: Path) -> None:
    from server.app import create_app

    for _ in range(2):
        app = create_app(Settings(models=models / "plain"))
        assert app.api.openapi()["info"]["title"] == "limner"
        app.state.repository.close()
