"""/healthz, /readyz and /metrics on a real server process."""

import httpx
from prometheus_client.parser import text_string_to_metric_families

PAGES = {"/", "/docs", "/openapi.json", "/js/limner-client.js"}


def samples(http: httpx.Client) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    response = http.get("/metrics")
    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith("text/plain; version=")
    families = text_string_to_metric_families(response.text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def test_alive_and_ready(http: httpx.Client) -> None:
    assert (http.get("/healthz").status_code, http.get("/healthz").text) == (200, "alive\n")
    assert (http.get("/readyz").status_code, http.get("/readyz").text) == (200, "ready\n")


def test_metrics_count_requests_images_and_batches(http: httpx.Client) -> None:
    before = samples(http)
    assert http.get("/generate?model=digits&n=4").status_code == 200
    assert http.get("/generate?model=digits&label=nope").status_code == 422
    after = samples(http)

    def grown(name: str, **labels: str) -> float:
        key = (name, frozenset(labels.items()))
        return after[key] - before.get(key, 0)

    assert grown("limner_images_total", model="digits@1") == 4
    assert grown("limner_images_total", model="plain@1") == 0
    assert grown("limner_requests_total", route="/generate", code="200") == 1
    assert grown("limner_requests_total", route="/generate", code="422") == 1
    assert grown("limner_requests_total", route="/metrics", code="200") == 1
    assert grown("limner_batch_size_sum", model="digits@1") == 4
    assert grown("limner_request_seconds_count", route="/generate") == 1  # not of what was refused
    assert grown("limner_batches_total", model="digits@1", reason="drained") == 1
    assert after["limner_load_seconds", frozenset({("model", "digits@1")})] > 0
    assert after["limner_in_flight_requests", frozenset()] == 1  # the scrape itself
    for metric in ("batch_size", "padding_ratio", "queue_seconds", "compute_seconds", "encode_seconds"):
        assert grown(f"limner_{metric}_count", model="digits@1") == 1, metric
        assert grown(f"limner_{metric}_bucket", model="digits@1", le="+Inf") == 1, metric


def test_metrics_name_the_models_that_are_served(http: httpx.Client) -> None:
    infos = {dict(labels)["model"]: dict(labels) for name, labels in samples(http) if name == "limner_model_info"}
    assert set(infos) == {"digits@1", "plain@1"}
    served = http.get("/models/digits").json()["versions"][0]
    assert infos["digits@1"]["digest"] == served["digest"]
    assert infos["digits@1"]["artifact"] == served["artifact"]


def test_no_path_that_a_client_makes_up_becomes_a_label(http: httpx.Client) -> None:
    for path in ("/nope-123", "/models/nope-123", "/generate/nope-123", "/playground/nope-123", "/generate?nope-123=1"):
        assert http.get(path).status_code in (404, 422)
    assert http.delete("/nope-123").status_code == 404
    labels = [dict(labels) for _, labels in samples(http)]
    known = PAGES | set(http.get("/openapi.json").json()["paths"]) | {"unmatched"}
    assert not [label for label in labels if "nope-123" in str(label).lower()]
    assert {label["route"] for label in labels if "route" in label} <= known
    assert {"unmatched", "/models/{model}"} <= {label["route"] for label in labels if "route" in label}
