"""A manifest in, Triton's config.pbtxt out: NVIDIA Triton Inference Server serves the same folder of models.

The text is checked against Triton's schema and the rules of its documentation; no Triton server has read it yet. Triton
batches as it likes and does not pad: only in limner's own server are the pixels of a row the same in every batch.
"""

from pathlib import Path

from export.bundle import GRAPH, Artifact, Bundle, Manifest, TensorSpec, workshop
from export.engines import PRECISIONS, EngineError
from export.engines.flavours import CAPABILITY, COMPATIBLE
from export.invariance import BUCKETS

CONFIG = "config.pbtxt"
BACKENDS = ("onnxruntime", "tensorrt")
DELAY_MICROSECONDS = 1000  # a lone request waits for company: about what a picture takes on one core
TYPES = {"float32": "TYPE_FP32", "int64": "TYPE_INT64", "uint8": "TYPE_UINT8"}


def write(bundle: Bundle, backend: str | None = None) -> Path:
    """Write config.pbtxt beside a bundle's versions, whole or not at all, and give its path.

    Without a backend: for onnxruntime, unless there is one already, which stays. Raises EngineError as `config`, and
    BundleError where it cannot be written.
    """
    path = bundle.folder.resolve().parent / CONFIG
    if backend is not None or not path.exists():
        text = config(bundle.manifest, backend or BACKENDS[0])
        with workshop(bundle) as part:
            (part / CONFIG).write_text(text, encoding="ascii")
            (part / CONFIG).replace(path)
    return path


def config(manifest: Manifest, backend: str = "onnxruntime", precision: str | None = None) -> str:
    """The text of `models/<name>/config.pbtxt` for one of BACKENDS.

    `precision`: None is fp32 for onnxruntime, and for tensorrt the first of PRECISIONS that has a plan, what failed a
    gate last. What only this version is sure to have (a plan, another graph than model.onnx) pins the version; else
    Triton serves the latest.
    Raises EngineError where the bundle has no such artifact.
    """
    if backend not in BACKENDS:
        raise EngineError(f"limner describes no Triton backend '{backend}'", f"Take {' or '.join(BACKENDS)}.")
    artifacts = _artifacts(manifest, backend, precision)
    default = next((each for each in artifacts if CAPABILITY in _requirements(each).get(COMPATIBLE, "")), artifacts[0])
    tried = [{*artifact.buckets} for artifact in artifacts if artifact.buckets]
    buckets = sorted({*BUCKETS}.intersection(*tried) or {1})
    pinned = backend == "tensorrt" or default.file != GRAPH
    policy = f"specific {{ versions: [ {manifest.version} ] }}" if pinned else "latest { num_versions: 1 }"
    of = f"{manifest.name}@{manifest.version} {default.title} sha256 {default.sha256}"
    lines = [
        f"name: {_quoted(manifest.name)}",
        f"backend: {_quoted(backend)}",
        *([] if backend == "onnxruntime" else ['platform: "tensorrt_plan"']),
        f"default_model_filename: {_quoted(default.file)}",
        *_by_capability(artifacts),
        f"version_policy {{ {policy} }}",
        f"max_batch_size: {buckets[-1]}",
        *(_tensor("input", tensor) for tensor in manifest.inputs),
        *(_tensor("output", tensor) for tensor in manifest.outputs),
        *_batching(buckets),
        f"instance_group [ {{ kind: {'KIND_GPU' if backend == 'tensorrt' else 'KIND_AUTO'} count: 1 }} ]",
        *(_warm_up(size, manifest.inputs) for size in buckets),
        f'parameters {{ key: "limner" value {{ string_value: {_quoted(of)} }} }}',
    ]
    return "\n".join(lines) + "\n"


def _artifacts(manifest: Manifest, backend: str, precision: str | None) -> list[Artifact]:
    """Those of one precision that the backend can run: the one graph, or the plans for several GPUs."""
    wanted = precision or ("fp32" if backend == "onnxruntime" else None)
    there = [each for each in manifest.artifacts if each.engine == backend and wanted in (None, each.precision)]
    if not there:
        at = f" at {precision}" if precision else ""
        what = f"{manifest.name}@{manifest.version} has no {backend} artifact{at}"
        target = "onnx" if backend == "onnxruntime" else "tensorrt"
        wish = f" --precision {precision}" if precision and precision != "fp32" else ""
        raise EngineError(what, f"Make it first: limner export BUNDLE --to {target}{wish}.")
    first = min(there, key=lambda each: (each.forced, PRECISIONS.index(each.precision)))
    return [each for each in there if (each.precision, each.forced) == (first.precision, first.forced)]


def _requirements(artifact: Artifact) -> dict[str, str]:
    return artifact.requirements or {}


def _by_capability(artifacts: list[Artifact]) -> list[str]:
    """Which plan a GPU gets. Of two for the same compute capability, the later one."""
    files = {
        capability: artifact.file
        for artifact in artifacts
        for capability in _requirements(artifact).get(CAPABILITY, "").split(", ")
        if capability
    }
    pairs = (f"key: {_quoted(key)} value: {_quoted(file)}" for key, file in sorted(files.items()))
    return [f"cc_model_filenames {{ {pair} }}" for pair in pairs]


def _tensor(field: str, tensor: TensorSpec) -> str:
    """Without the batch, which is Triton's own; a scalar of each row must have dims and is reshaped to none."""
    dims = ", ".join(str(side) for side in tensor.shape[1:])
    shape = f"dims: [ {dims} ]" if dims else "dims: [ 1 ] reshape { shape: [ ] }"
    return f"{field} [ {{ name: {_quoted(tensor.name)} data_type: {TYPES[tensor.dtype]} {shape} }} ]"


def _batching(buckets: list[int]) -> list[str]:
    """A preferred size is sent without delay, so 1 is none of them."""
    sizes = ", ".join(str(size) for size in buckets if size > 1)
    if not sizes:
        return []
    wait = f"max_queue_delay_microseconds: {DELAY_MICROSECONDS}"
    return [f"dynamic_batching {{ preferred_batch_size: [ {sizes} ] {wait} }}"]


def _warm_up(size: int, inputs: tuple[TensorSpec, ...]) -> str:
    """Zeroes: Triton's random data are random bytes, so latents that are not finite and classes that there are not."""
    given = " ".join(
        f"inputs {{ key: {_quoted(tensor.name)} value {{ data_type: {TYPES[tensor.dtype]} "
        f"dims: [ {', '.join(str(side) for side in tensor.shape[1:]) or '1'} ] zero_data: true }} }}"
        for tensor in inputs
    )
    return f'model_warmup [ {{ name: "batch of {size}" batch_size: {size} {given} }} ]'


def _quoted(text: str) -> str:
    """A string of protobuf's text format: what is not plain ASCII as octal bytes of UTF-8."""
    plain = (chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:03o}" for byte in text.encode())
    return f'"{"".join(plain)}"'
