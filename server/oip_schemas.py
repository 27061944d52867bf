"""The JSON of the Open Inference Protocol and of Triton's extensions: what is asked and answered, as OpenAPI has it."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, WithJsonSchema

from server import schemas

OURS = {  # parameters, as /generate knows them
    "seed": "Of the first image, where there is no `z`.",
    "n": "How many, where neither `z` nor `label` says so; at most 1,024, if not set otherwise.",
    "truncation": "Latents within ±ψ σ, where there is no `z`.",
}
_KNOWN = schemas.GenerateRequest.model_json_schema()["properties"]
PARAMETERS: dict[str, dict[str, Any]] = {
    **{
        name: {key: value for key, value in _KNOWN[name].items() if value is not None} | {"description": description}
        for name, description in OURS.items()
    },
    "priority": {"type": "integer", "minimum": 0, "maximum": 2, "description": "2 waits behind the others."},
    "timeout": {
        "type": "integer",
        "minimum": 0,
        "description": "Microseconds from arrival to pixels; 0, and more than the server allows, is what it allows.",
    },
    "binary_data_output": {"type": "boolean", "description": "Outputs as bytes, where they do not say themselves."},
}
IGNORED = ("sequence_id", "sequence_start", "sequence_end")  # of models that have a state


class InferenceError(BaseModel):
    """Every refusal of the protocol."""

    error: str = Field(examples=["'z' has shape [1, 3]. Allowed: [N, 64] of N from 1."])


class RequestInput(BaseModel):
    """A tensor with its data, nested or flat; or with `binary_data_size` among its parameters, and its data behind."""

    name: StrictStr = Field(examples=["z"])
    shape: list[Annotated[StrictInt, Field(ge=0, lt=2**63)]] = Field(examples=[[1, 2]])
    datatype: StrictStr = Field(examples=["FP32"])
    parameters: dict[str, Any] | None = None
    data: list[Any] | None = Field(default=None, examples=[[0.5, -1.25]])


class RequestOutput(BaseModel):
    """An output that is wanted; as bytes, if `binary_data` among its parameters is true."""

    name: StrictStr = Field(examples=["image"])
    parameters: dict[str, Any] | None = None


class InferenceRequest(BaseModel):
    """The JSON object at the beginning of a request for inference: either an input `z`, or the parameter `seed`."""

    model_config = ConfigDict(hide_input_in_errors=True)

    id: StrictStr | None = None
    parameters: Annotated[
        dict[str, Any] | None, WithJsonSchema({"type": ["object", "null"], "properties": PARAMETERS})
    ] = None
    inputs: list[RequestInput] = []
    outputs: list[RequestOutput] = []


class ResponseOutput(BaseModel):
    """`data` is flat. Instead of it, `binary_data_size` among the parameters: so many bytes follow the JSON."""

    name: str = Field(examples=["image"])
    datatype: str = Field(examples=["UINT8"])
    shape: list[int] = Field(examples=[[1, 28, 28, 1]])
    parameters: dict[str, int] | None = Field(default=None, examples=[{"binary_data_size": 784}])
    data: list[float] | None = None


class InferenceResponse(BaseModel):
    """The JSON object at the beginning of an answer. `id` is that of the request, if it had one."""

    model_name: str
    model_version: str = Field(examples=["1"])
    id: str | None = None
    outputs: list[ResponseOutput]


class Live(BaseModel):
    live: bool


class Ready(BaseModel):
    ready: bool


class ModelReady(BaseModel):
    name: str = Field(examples=["digits"])
    ready: bool


class ServerMetadata(BaseModel):
    name: str = Field(examples=["limner"])
    version: str
    extensions: list[str] = Field(examples=[["binary_tensor_data", "statistics"]])


class IndexRequest(BaseModel):
    ready: bool = Field(default=False, strict=True, description="Only what is ready.")


class IndexEntry(BaseModel):
    name: str
    version: str = Field(examples=["1"])
    state: str = Field(examples=["READY"])
    reason: str


class TensorMetadata(BaseModel):
    """-1 is the number of images."""

    name: str = Field(examples=["z"])
    datatype: str = Field(examples=["FP32"])
    shape: list[int] = Field(examples=[[-1, 64]])


class ModelMetadata(BaseModel):
    name: str
    versions: list[str] = Field(examples=[["1"]])
    platform: str = Field(examples=["onnxruntime_onnx"])
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class Duration(BaseModel):
    """How often, and for how many nanoseconds together."""

    model_config = ConfigDict(from_attributes=True)

    count: int = Field(examples=[16])
    ns: int = Field(examples=[1_203_000])


class InferenceStatistics(BaseModel):
    """Of requests that were accepted; `fail`: the engine failed, or the time ran out. What is refused or left is in
    /metrics. `queue` is until the first batch. The engine's time holds that of its outputs: `compute_output` is 0 ns.
    """

    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration
    cache_hit: Duration
    cache_miss: Duration


class BatchStatistics(BaseModel):
    batch_size: int
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration


class ModelStatistics(BaseModel):
    """Of every protocol, and of all workers since the server began. A request that is sent while it is made counts once
    for each of its blocks. `last_inference`: milliseconds since 1970, 0 where there was none.
    """

    name: str
    version: str
    last_inference: int
    inference_count: int
    execution_count: int
    inference_stats: InferenceStatistics
    batch_stats: list[BatchStatistics]


class AllStatistics(BaseModel):
    model_stats: list[ModelStatistics]
