"""/models on a real server process."""

import json
from pathlib import Path

import httpx

from export.bundle import read


def test_models_lists_every_model_with_what_its_manifest_says(http: httpx.Client, models: Path) -> None:
    answer = http.get("/models")
    assert answer.status_code == 200
    said = answer.json()
    assert "default" not in said  # two are served and none was chosen
    assert [model["name"] for model in said["models"]] == ["digits", "plain"]
    for model in said["models"]:
        bundle = read(models / model["name"] / "1")
        manifest = json.loads((bundle.folder / "manifest.json").read_text())
        (version,) = model["versions"]
        for name in ("version", "kind", "latent", "height", "width", "channels", "class_names", "source", "artifacts"):
            assert version[name] == manifest[name], name
        assert version.get("quality") == manifest.get("quality")
        assert version["digest"] == bundle.digest
        assert version["engine"]["engine"] == "onnxruntime"
        assert version["artifact"].startswith("onnxruntime-fp32-")
        assert set(version["buckets"]) <= set(manifest["artifacts"][0]["buckets"])
        assert 1 in version["buckets"]
    classes = [model["versions"][0]["class_names"] for model in said["models"]]
    assert classes == [["0", "2", "1"], []]
    assert [("agreement" in model["versions"][0]["quality"]) for model in said["models"]] == [True, False]


def test_every_answer_holds_what_the_schema_requires(http: httpx.Client) -> None:
    schemas = http.get("/openapi.json").json()["components"]["schemas"]
    said = http.get("/models").json()
    assert set(schemas["ServedModels"]["required"]) <= set(said)
    for model in said["models"]:
        assert set(schemas["ServedModel"]["required"]) <= set(model)
        for version in model["versions"]:
            assert set(schemas["ServedVersion"]["required"]) <= set(version)


def test_one_model_is_its_entry_in_the_list(http: httpx.Client) -> None:
    listed = http.get("/models").json()["models"]
    assert [http.get(f"/models/{model['name']}").json() for model in listed] == listed


def test_an_unknown_model_is_404_and_the_known_ones_are_named(http: httpx.Client) -> None:
    response = http.get("/models/nope")
    assert (response.status_code, response.headers["Content-Type"]) == (404, "application/problem+json")
    said = response.json()
    assert (said["field"], said["value"], said["allowed"]) == ("model", "nope", "digits, plain")
