"""A live model in, what Triton's clients are told of it out: metadata, configuration, statistics.

Names, types and shapes are those that Triton reports for the same folder with its config.pbtxt (export/triton.py), but
for `check`: limner looks at it itself, and answers with an error where a picture is not finite.
"""

import json
from typing import Any

from export.bundle import TensorSpec
from export.triton import TYPES
from server.oip_schemas import (
    BatchStatistics,
    Duration,
    IndexEntry,
    InferenceStatistics,
    ModelMetadata,
    ModelStatistics,
    TensorMetadata,
)
from server.repository import LiveModel
from server.settings import Settings
from server.statistics import Lasted
from server.tensors import DATATYPES

SERVED = ("image",)
EXTENSIONS = ["binary_tensor_data", "model_configuration", "model_repository(index)", "parameters", "statistics"]
PLATFORMS = {  # engine -> Triton's backend and platform; it has no names for those of OpenVINO and TensorRT-RTX
    "onnxruntime": ("onnxruntime", "onnxruntime_onnx"),
    "onnxruntime-cuda": ("onnxruntime", "onnxruntime_onnx"),
    "openvino": ("openvino", "openvino_onnx"),
    "tensorrt": ("tensorrt", "tensorrt_plan"),
    "tensorrt-rtx": ("tensorrt-rtx", "tensorrt-rtx_plan"),
}


def index(models: list[LiveModel], draining: bool, only_ready: bool) -> list[IndexEntry]:
    state, reason = ("UNLOADING", "the server is draining") if draining else ("READY", "")
    named = [] if draining and only_ready else models
    return [IndexEntry(name=each.name, version=str(each.version), state=state, reason=reason) for each in named]


def tensors(model: LiveModel) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Its inputs and the outputs that are served."""
    manifest = model.bundle.manifest
    return manifest.inputs, tuple(each for each in manifest.outputs if each.name in SERVED)


def metadata(model: LiveModel, versions: list[LiveModel]) -> ModelMetadata:
    inputs, outputs = tensors(model)
    return ModelMetadata(
        name=model.name,
        versions=[str(each.version) for each in versions],
        platform=PLATFORMS[model.engine["engine"]][1],
        inputs=[_metadata(each) for each in inputs],
        outputs=[_metadata(each) for each in outputs],
    )


def _metadata(spec: TensorSpec) -> TensorMetadata:
    return TensorMetadata(name=spec.name, datatype=DATATYPES[spec.dtype], shape=[-1, *_dims(spec)])


def _dims(spec: TensorSpec) -> list[int]:
    """Of a row; that of a scalar is [1], as Triton has no empty shapes."""
    return [side for side in spec.shape[1:] if isinstance(side, int)] or [1]


def configuration(model: LiveModel, versions: list[LiveModel], settings: Settings) -> dict[str, Any]:
    """Triton's ModelConfig as JSON, of how limner serves the model: it never waits for a batch to fill."""
    engine = model.engine["engine"]
    backend, platform = PLATFORMS[engine]
    inputs, outputs = tensors(model)
    known_as = f"{model.title} {engine}:{model.engine['precision']}"
    return {
        "name": model.name,
        "platform": platform,
        "backend": backend,
        "version_policy": {"specific": {"versions": [each.version for each in versions]}},
        "max_batch_size": settings.max_images,
        "input": [_config(each) for each in inputs],
        "output": [_config(each) for each in outputs],
        "dynamic_batching": {
            "preferred_batch_size": [size for size in model.buckets if 1 < size <= settings.max_images],
            "max_queue_delay_microseconds": 0,
            "preserve_ordering": False,
            "priority_levels": 2,
            "default_priority_level": 1,
            "default_queue_policy": {
                "timeout_action": "REJECT",
                "default_timeout_microseconds": round(settings.timeout_seconds * 1e6),
                "allow_timeout_override": True,
                "max_queue_size": settings.queue_images,
            },
        },
        "instance_group": [
            {
                "name": model.name,
                "kind": "KIND_CPU" if engine in ("onnxruntime", "openvino") else "KIND_GPU",
                "count": 1,
            }
        ],
        "parameters": {
            "limner": {"string_value": f"{known_as} digest {model.bundle.digest}"},
            "class_names": {"string_value": json.dumps(model.bundle.manifest.class_names)},
        },
    }


def _config(spec: TensorSpec) -> dict[str, Any]:
    described = {"name": spec.name, "data_type": TYPES[spec.dtype], "dims": _dims(spec)}
    return described if len(spec.shape) > 1 else described | {"reshape": {"shape": []}}


def statistics(model: LiveModel) -> ModelStatistics:
    told = model.statistics.told()
    nothing = Duration(count=0, ns=0)
    sizes = sorted(told.batches.items())
    return ModelStatistics(
        name=model.name,
        version=str(model.version),
        last_inference=told.last_inference,
        inference_count=told.images,
        execution_count=sum(infer.count for _, (_, infer) in sizes),
        inference_stats=InferenceStatistics(
            success=_duration(told.success),
            fail=_duration(told.fail),
            queue=_duration(told.queue),
            compute_input=_duration(told.compute_input),
            compute_infer=_duration(told.compute_infer),
            compute_output=Duration(count=told.success.count, ns=0),
            cache_hit=nothing,
            cache_miss=nothing,
        ),
        batch_stats=[
            BatchStatistics(
                batch_size=size,
                compute_input=_duration(inputs),
                compute_infer=_duration(infer),
                compute_output=Duration(count=infer.count, ns=0),
            )
            for size, (inputs, infer) in sizes
        ],
    )


def _duration(lasted: Lasted) -> Duration:
    return Duration.model_validate(lasted)
