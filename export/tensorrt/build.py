"""An ONNX file in, a TensorRT plan with what it needs of a machine out: TensorRT 10.16 to 11, and TensorRT-RTX.

One code path; what differs between them is in the table of export/engines/flavours.py.

TensorRT-RTX builds were run, without a GPU. The layers of a plan, the timing cache and the whole of TensorRT need a GPU
and have never run: of TensorRT the names are checked, not the behaviour.
"""

from dataclasses import dataclass
from pathlib import Path

from export.engines import EngineError, obstacle
from export.engines.cuda import devices, no_device
from export.engines.flavours import CAPABILITY, COMPATIBLE, FLAVOURS, VERSION, Flavour, load, numbers
from export.tensorrt import timing_cache
from export.tensorrt.network import AGAIN, Build, layers, serialized
from export.tensorrt.progress import Observe


@dataclass(frozen=True)
class Options:
    """What a plan is wanted for.

    `compute_capability`: "8.9", or several as "8.6, 8.9"; None is this machine's GPU or, without one, what TensorRT-RTX
    takes as portable. The others are TensorRT's alone: a plan that later versions run too, one that all GPUs since
    Ampere run, and the folder of timings (None: ~/.cache/limner/timing).
    """

    compute_capability: str | None = None
    version_compatible: bool = False
    hardware_compatible: bool = False
    timing_cache: Path | None = None


@dataclass(frozen=True)
class Plan:
    """`file`: its name in a bundle. `requirements`: what a machine must be to run it (`flavours.misfit`).

    `layers`: the engine inspector's JSON; None where no GPU of this machine can load the plan.
    """

    data: bytes
    file: str
    requirements: dict[str, str]
    layers: str | None


@dataclass(frozen=True)
class Planned:
    """A plan that could be built here: its name in a bundle, and what a machine must be to run it."""

    file: str
    requirements: dict[str, str]
    targets: tuple[str, ...]
    batches: tuple[int, int, int]
    here: bool  # whether this machine's GPU is among the targets


def planned(
    source_sha256: str, engine: str, precision: str, buckets: tuple[int, ...], options: Options = Options()
) -> Planned:
    """What `build` would make: plans are keyed by this.

    `source_sha256`: of the bundle's model.onnx. Raises EngineError: no library, no GPU where one is needed, a compute
    capability or a switch that there is not.
    """
    flavour = FLAVOURS[engine]
    _refuse_switches(flavour, options)
    here = _capability_here(flavour)
    version = str(load(flavour).__version__)
    targets = _targets(flavour, precision, options, here)
    batches = (buckets[0], _tuned_for(buckets), buckets[-1])
    switches = {VERSION: options.version_compatible, CAPABILITY: options.hardware_compatible}
    widened = [name for name, on in switches.items() if on]
    requirements = {
        VERSION: version,
        CAPABILITY: ", ".join(targets),
        "onnx_sha256": source_sha256,
        "profile": "-".join(str(size) for size in batches),
    } | ({COMPATIBLE: ", ".join(widened)} if widened else {})
    file = _file(flavour, version, targets, precision, widened)
    return Planned(file, requirements, targets, batches, here in targets)


def build(
    graph: Path,
    source_sha256: str,
    engine: str,
    precision: str,
    buckets: tuple[int, ...],
    options: Options = Options(),
    observe: Observe = lambda stage, fraction: None,
) -> Plan:
    """Build the ONNX file `graph`, which has the precision already, for batches of the first to the last of `buckets`.

    `observe` hears stages and the share done, from another thread. Ctrl-C ends the build. Raises EngineError as
    `planned`, and for a graph that is not taken, a build that fails.
    """
    flavour = FLAVOURS[engine]
    plan = planned(source_sha256, engine, precision, buckets, options)
    version = plan.requirements[VERSION]
    timings = timing_cache.place(options.timing_cache, version, plan.targets[0]) if flavour.timing_cache else None
    data = serialized(
        flavour,
        Build(
            graph=_read(graph),
            name=str(graph),
            batches=plan.batches,
            targets=plan.targets,
            version_compatible=options.version_compatible,
            hardware_compatible=options.hardware_compatible,
            timings=timings,
        ),
        observe,
    )
    runs_here = plan.here and obstacle(engine, precision, plan.requirements) is None
    return Plan(
        data=data,
        file=plan.file,
        requirements=plan.requirements,
        layers=layers(flavour, data, options.version_compatible) if runs_here else None,
    )


def _refuse_switches(flavour: Flavour, options: Options) -> None:
    if not flavour.compatibility and (options.version_compatible or options.hardware_compatible):
        raise EngineError(
            f"{flavour.title} has no version-compatible and no hardware-compatible plans",
            "Leave the switch out, or name several compute capabilities.",
        )
    if not flavour.timing_cache and options.timing_cache is not None:
        raise EngineError(f"{flavour.title} has no timing cache", "Leave it out.")


def _capability_here(flavour: Flavour) -> str | None:
    """The compute capability of this machine's GPU; None without one. Raises EngineError if the flavour needs one."""
    missing = no_device()
    if missing is None:
        return devices()[0].capability
    if not flavour.capabilities:
        raise EngineError(
            f"{flavour.title} builds on the GPU that the plan is for, and {missing.what}",
            "Export where the GPU is, or --to tensorrt-rtx, which builds without one.",
        )
    return None


def _targets(flavour: Flavour, precision: str, options: Options, here: str | None) -> tuple[str, ...]:
    """The compute capabilities to build for, ascending. Raises EngineError for one that cannot be had."""
    asked = [part.strip() for part in (options.compute_capability or "").split(",") if part.strip()]
    wanted = tuple(asked) or ((here,) if here else flavour.portable)
    known = flavour.capabilities or ((here,) if here else ())
    for capability in wanted:
        if capability not in known:
            raise EngineError(
                f"{flavour.title} does not build for compute capability {capability} here",
                f"Name others with --compute-capability ({', '.join(known)}), or take another engine.",
            )
        if (lack := flavour.lack(capability, precision)) is not None:
            raise lack
    return tuple(sorted(set(wanted), key=numbers))


def _tuned_for(buckets: tuple[int, ...]) -> int:
    """The largest bucket up to half of the last: the batches of a busy server lie between it and the last."""
    return max((size for size in buckets if 2 * size <= buckets[-1]), default=buckets[-1])


def _file(flavour: Flavour, version: str, targets: tuple[str, ...], precision: str, widened: list[str]) -> str:
    """Such as model.sm86-sm89.rtx1.7.1.fp16.plan; .any-version or .any-capability where the plan was widened."""
    machines = "-".join(f"sm{target.replace('.', '')}" for target in targets)
    release = ".".join(str(part) for part in numbers(version)[:3])
    wide = [f"any-{name.split('_')[-1]}" for name in widened]
    return ".".join(["model", machines, f"{flavour.short}{release}", precision, *wide, "plan"])


def _read(graph: Path) -> bytes:
    try:
        return graph.read_bytes()
    except OSError as error:
        raise EngineError(f"cannot read {graph} ({error.strerror})", AGAIN) from error
