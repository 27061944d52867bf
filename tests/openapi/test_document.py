"""The OpenAPI document is whole: of every route that there is, whichever they are."""

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from referencing import Registry
from referencing.jsonschema import DRAFT202012

EXAMPLES = {"example", "examples"}
PICTURES = ("image/", "application/zip", "application/x-npy", "application/octet-stream")


@pytest.fixture(scope="module")
def document(url: str) -> dict[str, Any]:
    return httpx.get(f"{url}/openapi.json").json()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield f"{method} {path}", operation


def bodies(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Place, media type, and what is said of it: of every request and answer."""
    for place, operation in operations(document):
        for media_type, said in operation.get("requestBody", {}).get("content", {}).items():
            yield f"{place} request", media_type, said
        for code, response in operation["responses"].items():
            for media_type, said in response.get("content", {}).items():
                yield f"{place} {code}", media_type, said


def resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    return document["components"]["schemas"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def has_example(document: dict[str, Any], schema: dict[str, Any]) -> bool:
    """Whether a value can be made of what it says."""
    schema = resolved(document, schema)
    if (EXAMPLES | {"default", "const", "enum"}) & set(schema) or schema.get("type") in ("boolean", "null"):
        return True
    if choices := schema.get("anyOf", schema.get("oneOf")):
        return any(has_example(document, choice) for choice in choices if choice.get("type") != "null")
    if "items" in schema:
        return has_example(document, schema["items"])
    if "properties" in schema:
        return all(has_example(document, schema["properties"][name]) for name in schema.get("required", ()))
    return False


def test_it_is_openapi_3_1(document: dict[str, Any]) -> None:
    validate(document)
    assert document["openapi"].startswith("3.1")


def test_every_operation_says_what_it_does_and_has_a_name_of_its_own(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, operation in operations(document)]
    assert len(set(names)) == len(names)
    assert [place for place, operation in operations(document) if not operation.get("description")] == []


def test_every_route_that_answers_is_in_it(http: httpx.Client, document: dict[str, Any]) -> None:
    """But for pages, and for HEAD, which is GET without a body."""
    counted = re.findall(r'limner_requests_total\{code="[0-9]+",route="(/[^"]+)"\}', http.get("/metrics").text)
    assert counted
    assert set(counted) - {"/docs", "/openapi.json", "/js/limner-client.js"} - set(document["paths"]) == set()


def test_every_refusal_has_the_form_of_its_protocol_and_an_example_of_it(document: dict[str, Any]) -> None:
    for place, operation in operations(document):
        assert "500" in operation["responses"], place
        for code, response in operation["responses"].items():
            if int(code) >= 400:
                assert [said for said in response["content"].values() if said["schema"] and said["examples"]], place
                assert "Cache-Control" in response["headers"], place
            if code in ("429", "503"):
                assert "Retry-After" in response["headers"], place


def test_every_answer_has_an_id_and_headers_that_are_described(document: dict[str, Any]) -> None:
    for place, operation in operations(document):
        for code, response in operation["responses"].items():
            assert "X-Request-Id" in response["headers"], f"{place} {code}"
            assert response["description"]
    for name, header in document["components"]["headers"].items():
        assert header["description"], name
        Draft202012Validator(header["schema"]).validate(header["example"])


def test_every_parameter_and_body_of_a_request_can_be_made_of_examples(document: dict[str, Any]) -> None:
    lacking = [
        f"{place} {parameter['name']}"
        for place, operation in operations(document)
        for parameter in operation.get("parameters", [])
        if not has_example(document, parameter["schema"]) and "minimum" not in parameter["schema"]
    ]
    for place, media_type, said in bodies(document):
        if place.endswith("request") and not media_type.startswith(PICTURES) and not EXAMPLES & set(said):
            lacking += [] if has_example(document, said["schema"]) else [f"{place} {media_type}"]
    assert lacking == []


def test_every_answer_that_is_no_picture_shows_an_example(document: dict[str, Any]) -> None:
    def shows(node: Any) -> bool:
        if isinstance(node, list):
            return any(shows(one) for one in node)
        if not isinstance(node, dict):
            return False
        said = resolved(document, node)
        return bool(EXAMPLES & set(said)) or any(shows(one) for one in said.values())

    lacking = [
        f"{place} {media_type}"
        for place, media_type, said in bodies(document)
        if not media_type.startswith(PICTURES) and not shows(said) and not has_example(document, said["schema"])
    ]
    assert lacking == []


def test_every_example_is_what_its_schema_says(document: dict[str, Any]) -> None:
    base = "urn:limner:openapi"
    registry = Registry().with_resource(base, DRAFT202012.create_resource(document))
    checked = 0

    def check(schema: dict[str, Any], example: Any) -> None:
        nonlocal checked
        absolute = json.loads(json.dumps(schema).replace('"#/', f'"{base}#/'))
        Draft202012Validator(absolute, registry=registry).validate(example)
        checked += 1

    for _, _, said in bodies(document):
        for example in (
            [said["example"]] if "example" in said else [e["value"] for e in said.get("examples", {}).values()]
        ):
            check(said["schema"], example)

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            if isinstance(node.get("examples"), list):
                for example in node["examples"]:
                    check(node, example)
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(document)
    assert checked > 50
