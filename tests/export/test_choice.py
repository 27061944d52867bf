"""An engine's name means the artifact that runs here and passed its gates, or says why there is none."""

from pathlib import Path
from typing import Any

import pytest

from export import choice
from export.bundle import Artifact, Bundle, Manifest
from export.choice import chosen
from export.engines import EngineError

GATES = {
    "parity": {"reference": "torch", "pictures": 9, "max_levels": 0, "allowed_levels": 1, "most_levels": 1},
    "not_finite": 0,
}
NOT_RUN = {"why": "no GPU", "command": "limner export models/digits/1 --to tensorrt-rtx"}


def artifact(title: str, file: str = "model.onnx", **more: Any) -> Artifact:
    engine, precision = title.split(":")
    content = {"engine": engine, "precision": precision, "file": file, "sha256": "0"}
    gated: dict[str, Any] = {} if "not_run" in more else {"gates": GATES, "buckets": (1, 2)}
    return Artifact.model_validate(content | gated | more)


def bundle(*artifacts: Artifact) -> Bundle:
    """Of these artifacts; nothing else of it is asked for."""
    manifest = Manifest.model_construct(name="digits", version=1, artifacts=artifacts)
    return Bundle(Path("models/digits/1"), manifest, "digest")


def needs(capability: str) -> dict[str, Any]:
    return {"requirements": {"compute_capability": capability}}


@pytest.fixture(autouse=True)
def this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has every engine, and a GPU of 8.9."""

    def obstacle(engine: str, precision: str, requirements: dict[str, str] | None = None) -> EngineError | None:
        wanted = (requirements or {}).get("compute_capability", "8.9")
        return None if wanted == "8.9" else EngineError(f"the plan is for {wanted}, here is 8.9", "Build one here.")

    monkeypatch.setattr(choice, "obstacle", obstacle)


FP32, OPENVINO, HALF = artifact("onnxruntime:fp32"), artifact("openvino:fp32"), artifact("openvino:fp16")
FORCED = artifact("tensorrt:fp32", gates=GATES | {"failed": ("parity",)})
PLAN, OTHER = (artifact("tensorrt-rtx:fp32", f"model.{name}.plan", **needs(name)) for name in ("8.9", "9.0"))
UNTRIED = artifact("tensorrt-rtx:fp32", "model.plan", not_run=NOT_RUN, **needs("8.9"))


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        (None, FP32),
        ("onnxruntime", FP32),
        ("openvino", OPENVINO),
        ("openvino:fp16", HALF),
        ("tensorrt:fp32", FORCED),
        ("tensorrt-rtx", PLAN),
    ],
)
def test_a_name_means_the_first_of_it_that_runs_here(engine: str | None, expected: Artifact) -> None:
    assert chosen(bundle(FP32, OTHER, UNTRIED, PLAN, FORCED, OPENVINO, HALF), engine) is expected


def test_of_several_precisions_a_name_means_the_fullest_that_passed() -> None:
    doubtful = artifact("openvino:fp32", gates=GATES | {"failed": ("parity",)})
    assert chosen(bundle(FP32, HALF, OPENVINO), "openvino") is OPENVINO
    assert chosen(bundle(FP32, doubtful, HALF), "openvino") is HALF
    assert chosen(bundle(FP32, doubtful), "openvino") is doubtful  # its name asks for it


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ([FP32, OPENVINO, HALF, PLAN], PLAN),
        ([FP32, OPENVINO, HALF, OTHER, UNTRIED], OPENVINO),
        ([FP32, FORCED], FP32),
        ([FP32, HALF], FP32),
    ],
)
def test_auto_takes_the_best_fp32_that_passed_and_runs_here(there: list[Artifact], expected: Artifact) -> None:
    assert chosen(bundle(*there), "auto") is expected


@pytest.mark.parametrize(
    ("there", "engine", "complaint"),
    [
        (
            [FP32, OPENVINO],
            "tensorrt",
            r"digits@1 has no artifact for 'tensorrt'\. There is onnxruntime:fp32, open",
        ),
        ([FP32], "onnxruntime:fp16", r"Add it: limner export models/digits/1 --to onnx --precision fp16\."),
        ([FP32], "openvino:fp32", r"Add it: limner export models/digits/1 --to openvino\."),
        ([FP32], "openvino:fp8", r"no artifact for 'openvino:fp8'\. There is onnxruntime:fp32\.$"),
        ([FP32], "", r"no artifact for ''"),
        ([FP32, OTHER], "tensorrt-rtx", r"the plan is for 9\.0, here is 8\.9\. Build one here"),
        (
            [FP32, UNTRIED],
            "tensorrt-rtx",
            r"has not passed its gates yet\. Run limner export models/digits/1 --to t",
        ),
        ([HALF, OTHER], "auto", r"the plan is for 9\.0, here is 8\.9\. Build one here"),
        ([FORCED, HALF], "auto", r"no fp32 artifact that passed its gates and runs here\. See limner doctor"),
    ],
)
def test_what_cannot_be_chosen_is_refused_with_the_mend(there: list[Artifact], engine: str, complaint: str) -> None:
    with pytest.raises(EngineError, match=complaint):
        chosen(bundle(*there), engine)
