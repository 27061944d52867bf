"""A manifest in, Triton's config.pbtxt out: NVIDIA Triton Inference Server serves the same folder of models.

The text is checked against Triton's schema and the rules of its documentation; no Triton server has read it yet. Triton
batches as it likes and does not pad: only in limner's own server are the pixels of a row the same in every batch.
"""

import hashlib
from pathlib import Path

from export.bundle import GRAPH, Artifact, Bundle, Manifest, TensorSpec, workshop
from export.engines import PRECISIONS, EngineError
from export.engines.flavours import CAPABILITY, COMPATIBLE
from export.invariance import BUCKETS

CONFIG = "config.pbtxt"
BACKENDS = ("onnxruntime", "tensorrt")
SEAL = 'parameters { key: "limner_sha256_above" value { string_value: '
DELAY_MICROSECONDS = 1000  # a lone request waits for company: about what a picture takes on one core
TYPES = {"float32": "TYPE_FP32", "int64": "TYPE_INT64", "uint8": "TYPE_UINT8"}


def write(bundle: Bundle, backend: str | None = None) -> Path | None:
    """Write config.pbtxt beside a bundle's versions, whole or not at all, and give its path.

    Without a backend: for onnxruntime, where nothing lies there or what this function wrote for onnxruntime, and the
    bundle is the newest version; else None. What names plans or was changed by hand stays. Raises EngineError as
    `config`, or where the bundle does not lie as Triton wants it, and BundleError where it cannot be written.
    """
    folder = bundle.folder.resolve()
    path, placed = folder.parent / CONFIG, folder.name == str(bundle.manifest.version)
    newest = placed and not any(
        each.is_dir() and each.name.isdecimal() and int(each.name) > bundle.manifest.version
        for each in folder.parent.iterdir()
    )
    if backend is None and not (newest and _ours(path)):
        return None
    if not placed:
        raise EngineError(
            f"Triton reads MODELS/NAME/VERSION, and the folder of {bundle.title} is called {folder.name}",
            f"Call it {bundle.manifest.version}.",
        )
    text = config(bundle.manifest, backend or BACKENDS[0], latest=newest)
    with workshop(bundle) as part:
        (part / CONFIG).write_text(text, encoding="ascii")
        (part / CONFIG).replace(path)
    return path


def edited(bundle: Bundle) -> bool:
    """Whether a config.pbtxt lies beside the bundle's versions that is not as `write` wrote it."""
    path = bundle.folder.resolve().parent / CONFIG
    return path.exists() and _backend(path) is None


def _ours(path: Path) -> bool:
    """Whether nothing lies there but what `write` wrote, for onnxruntime."""
    return not path.exists() or _backend(path) == BACKENDS[0]


def _backend(path: Path) -> str | None:
    """What a file is for that is as `write` wrote it; None where it was changed or comes from elsewhere."""
    try:
        content = path.read_text(encoding="ascii")
    except (OSError, ValueError):
        return None
    text, _, _ = content.rpartition(SEAL)
    if content != _sealed(text):
        return None
    return next((backend for backend in BACKENDS if f'\nbackend: "{backend}"\n' in text), None)


def _sealed(text: str) -> str:
    """With a last line that tells whether somebody changed the others."""
    return f'{text}{SEAL}"{hashlib.sha256(text.encode("ascii")).hexdigest()}" }} }}\n'


def config(manifest: Manifest, backend: str = "onnxruntime", precision: str | None = None, latest: bool = True) -> str:
    """The text of `models/<name>/config.pbtxt` for one of BACKENDS.

    `precision`: None is fp32 for onnxruntime, and for tensorrt the first of PRECISIONS that has a plan, what failed a
    gate last. What only this version is sure to have (a plan, another graph than model.onnx) pins the version, and so
    does one that is not the `latest`; else Triton serves the latest.
    Raises EngineError where the bundle has no such artifact.
    """
    if backend not in BACKENDS:
        raise EngineError(f"limner describes no Triton backend '{backend}'", f"Take {' or '.join(BACKENDS)}.")
    artifacts = _artifacts(manifest, backend, precision)
    default = next((each for each in artifacts if CAPABILITY in _requirements(each).get(COMPATIBLE, "")), artifacts[0])
    tried = [{*artifact.buckets} for artifact in artifacts if artifact.buckets]
    buckets = sorted({*BUCKETS}.intersection(*tried) or {1})
    pinned = backend == "tensorrt" or default.file != GRAPH or not latest
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
    return _sealed("\n".join(lines) + "\n")


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
