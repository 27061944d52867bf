"""The bytes of a generator's ONNX file in, the bytes of a TensorRT plan out.

The network is strongly typed: its precision is that of the graph. TF32 is off, so that fp32 means fp32, and so are the
rewrites that would hide a NaN. One optimisation profile spans all batch sizes, so that they share their kernels.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.engines import EngineError
from export.engines.flavours import Flavour, load, logger
from export.tensorrt import timing_cache
from export.tensorrt.progress import Observe, interruptible, monitor_for

INPUTS, OUTPUTS = ({"z"}, {"z", "label"}), {"image", "check"}  # the graph contract (docs/design.md, section 3)
AGAIN = "Export the run again."
MISSED = "is not found in the accelerator list"
PLACES = re.compile(r" In \w+ at /\S+?(?=\)|$)|\[[\w./]+\.cpp[^]]*\] ?")


@dataclass(frozen=True)
class Build:
    """What to build. `targets`: compute capabilities. `batches`: the smallest, the one to tune for, the largest."""

    graph: bytes
    name: str
    batches: tuple[int, int, int]
    targets: tuple[str, ...]
    version_compatible: bool = False
    hardware_compatible: bool = False
    timings: Path | None = None


def serialized(flavour: Flavour, build: Build, observe: Observe) -> bytes:
    """Build it here and now. Raises EngineError for a graph that is not a generator's or does not build.

    TensorRT-RTX 1.7.1 was seen to miss a target that it has, in two of some thousands of builds: that is tried again.
    """
    try:
        return _once(flavour, build, observe)
    except EngineError as error:
        if MISSED not in error.what:
            raise
    return _once(flavour, build, observe)


def _once(flavour: Flavour, build: Build, observe: Observe) -> bytes:
    trt, log = load(flavour), logger(flavour)
    log.take()
    monitor = monitor_for(trt, observe)
    try:
        builder = trt.Builder(log)
    except (RuntimeError, TypeError) as error:  # as the bindings say that the library gave nothing
        raise EngineError(f"{flavour.title} does not start ({plain(log.take())})", "See limner doctor.") from error
    network, _parser = parsed(flavour, builder, build)
    config = configured(flavour, builder, build)
    config.progress_monitor = monitor
    config.add_optimization_profile(profile_over(builder, network, build.batches))
    cache = None if build.timings is None else _attach(config, build.timings)
    plan = interruptible(lambda: builder.build_serialized_network(network, config), monitor)
    if plan is None:
        raise EngineError(
            f"{flavour.title} could not build {build.name}: {plain(log.take())}", "Take another precision."
        )
    if cache is not None and build.timings is not None:
        timing_cache.write(build.timings, bytes(cache.serialize()))
    observe("Engine built", 1.0)
    return bytes(plan)


def parsed(flavour: Flavour, builder: Any, build: Build) -> tuple[Any, Any]:
    """The network, and the parser, which must live as long: the weights are its own. Raises EngineError."""
    trt = load(flavour)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    if network is None:
        raise EngineError(f"{flavour.title} does not start ({plain(logger(flavour).take())})", "See limner doctor.")
    parser = trt.OnnxParser(network, logger(flavour))
    if not parser.parse(build.graph):
        raise EngineError(f"{flavour.title} does not take {build.name}: {_parse_error(parser)}", AGAIN)
    inputs = {network.get_input(index).name for index in range(network.num_inputs)}
    outputs = {network.get_output(index).name for index in range(network.num_outputs)}
    if inputs not in INPUTS or outputs != OUTPUTS:  # also what the parser takes for an empty graph
        raise EngineError(f"{build.name} is not the graph of a generator", AGAIN)
    return network, parser


def profile_over(builder: Any, network: Any, batches: tuple[int, int, int]) -> Any:
    """A profile in which the first axis of each input takes all sizes from the first of `batches` to the last."""
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        rest = tuple(tensor.shape)[1:]
        profile.set_shape(tensor.name, *((size, *rest) for size in batches))
    return profile


def configured(flavour: Flavour, builder: Any, build: Build) -> Any:
    """What holds for every plan, and the switches."""
    trt = load(flavour)
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    config.set_flag(trt.BuilderFlag.STRICT_NANS)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if flavour.capabilities:
        config.num_compute_capabilities = len(build.targets)
        for index, target in enumerate(build.targets):
            config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{target.replace('.', '')}"), index)
    if build.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if flavour.compatibility:  # by default a plan is for one model of GPU, and limner tells GPUs by their capability
        config.hardware_compatibility_level = (
            trt.HardwareCompatibilityLevel.AMPERE_PLUS
            if build.hardware_compatible
            else trt.HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY
        )
    return config


def layers(flavour: Flavour, plan: bytes, version_compatible: bool) -> str | None:
    """What the engine inspector says of a plan, as JSON; None where this machine cannot load it.

    Only where `obstacle` finds none: without a GPU `Runtime` can crash the process. Has never run.
    """
    trt, log = load(flavour), logger(flavour)
    try:
        runtime = trt.Runtime(log)
    except (RuntimeError, TypeError):  # as the bindings say that the library gave nothing
        return None
    if version_compatible:
        runtime.engine_host_code_allowed = True  # such a plan brings its runtime; this one was built here, just now
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        return None
    inspector = engine.create_engine_inspector()
    return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def plain(message: str) -> str:
    """TensorRT's words without the places in its own sources."""
    return PLACES.sub("", message).strip(" .")


def _attach(config: Any, timings: Path) -> Any:
    """The timings that were kept, or none where TensorRT does not take them; None where it takes no cache at all."""
    for known in (timing_cache.read(timings), b""):
        cache = config.create_timing_cache(known)
        if cache is not None and config.set_timing_cache(cache, False):  # never those of another GPU
            return cache
    return None


def _parse_error(parser: Any) -> str:
    if not parser.num_errors:
        return "it does not say why"
    fault = parser.get_error(0)
    node = f"{fault.node_operator()} {fault.node_name()}: " if fault.node_operator() else ""
    return node + plain(fault.desc())
