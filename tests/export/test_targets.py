"""What `--to` and `--precision` ask for becomes artifacts, each once; what a target has not got is said."""

import pytest

from export import targets
from export.targets import wanted
from training.errors import ConfigError


def titles(to: list[str], precisions: list[str]) -> list[str]:
    return [want.title for want in wanted(to, precisions)[0]]


def test_nothing_asked_is_the_fp32_graph() -> None:
    assert titles([], []) == ["onnxruntime:fp32"]
    assert titles(["openvino"], []) == ["openvino:fp32"]


def test_each_target_gives_each_precision_once() -> None:
    assert titles(["openvino", "tensorrt-rtx", "openvino"], ["fp16", "int8", "fp16"]) == [
        "openvino:fp16",
        "openvino:int8",
        "tensorrt-rtx:fp16",
        "tensorrt-rtx:int8",
    ]


def test_a_target_without_a_precision_gives_fp32_and_says_so() -> None:
    found, notes = wanted(["onnx", "tensorrt"], ["bf16", "fp32"])
    assert [want.title for want in found] == ["onnxruntime:fp32", "tensorrt:bf16", "tensorrt:fp32"]
    assert notes == ["onnx has no bf16: fp32 instead"]


@pytest.mark.parametrize(
    ("to", "precisions", "complaint"),
    [
        (["onnx", "paper"], [], "there is no target 'paper'. Take one of onnx, openvino, tensorrt, tensorrt-rtx"),
        (["onnxruntime"], [], "'onnxruntime' is an engine, not a target. It runs what --to onnx writes"),
        ([], ["fp8"], "there is no precision 'fp8'. Take one of fp32, fp16, bf16, int8"),
    ],
)
def test_a_name_that_there_is_not_is_refused(to: list[str], precisions: list[str], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint.replace(".", r"\.")):
        wanted(to, precisions)


def test_where_cuda_is_the_onnx_file_has_gates_there_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "obstacle", lambda engine, precision: None)
    assert titles(["onnx"], ["fp16"]) == ["onnxruntime:fp16", "onnxruntime-cuda:fp16"]
    assert titles(["openvino"], []) == ["openvino:fp32"]
