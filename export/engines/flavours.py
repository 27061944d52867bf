"""An engine's name in, its TensorRT out: the one table of what differs between TensorRT and TensorRT-RTX.

TensorRT builds on the GPU that the plan is for. TensorRT-RTX builds for named compute capabilities without any GPU and
finishes the kernels where the plan runs, so it has no use for a timing cache. Its facts are from its support matrix and
its page on engine compatibility. Only TensorRT-RTX could be loaded while this was written; of TensorRT the names are
checked, not the behaviour.
"""

import importlib
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from export.engines import EngineError

VERSION = "version"
CAPABILITY = "compute_capability"
COMPATIBLE = "compatible"
"""Keys of an artifact's `requirements`. COMPATIBLE holds those of the other two that the plan was widened in."""
AMPERE = (8, 0)
ACROSS = {((10,), (11,))}
"""Major versions, of a plan built for later versions and of a runtime, that TensorRT's support matrix pairs."""


@dataclass(frozen=True)
class Flavour:
    """What one TensorRT can do. Versions are `at_least` up to, not including, `below`."""

    engine: str
    module: str
    short: str
    """Its name in the names of plans."""
    title: str
    at_least: tuple[int, ...]
    below: tuple[int, ...]
    compatibility: bool
    """Whether a plan can be built to run on later versions, or on other GPUs since Ampere."""
    timing_cache: bool
    capabilities: tuple[str, ...] = ()
    """Compute capabilities that it builds for without a GPU; () where it builds for the GPU that is there."""
    portable: tuple[str, ...] = ()
    """Those that it builds for where there is neither a GPU nor a wish."""
    lacks: frozenset[tuple[str, str]] = frozenset()
    """Pairs of a compute capability and a precision that it does not build for it."""

    @property
    def install(self) -> str:
        return f"In limner's folder: pip install '.[{self.engine}]'."

    @property
    def rebuild(self) -> str:
        return f"Build one here: limner export BUNDLE --to {self.engine}."

    def lack(self, capability: str, precision: str) -> EngineError | None:
        """Why there is nothing for a compute capability, or not in that precision; None where there is."""
        if self.capabilities and capability not in self.capabilities:
            return EngineError(
                f"{self.title} does not run on compute capability {capability}",
                f"It does on {', '.join(self.capabilities)}. Take another engine.",
            )
        if (capability, precision) not in self.lacks:
            return None
        return EngineError(
            f"{self.title} has no {precision} for compute capability {capability}",
            "Take another precision, or other compute capabilities.",
        )


FLAVOURS = {
    flavour.engine: flavour
    for flavour in (
        Flavour(
            engine="tensorrt",
            module="tensorrt",
            short="trt",
            title="TensorRT",
            at_least=(10, 16),
            below=(12,),
            compatibility=True,
            timing_cache=True,
        ),
        Flavour(
            engine="tensorrt-rtx",
            module="tensorrt_rtx",
            short="rtx",
            title="TensorRT-RTX",
            at_least=(1, 7),
            below=(2,),
            compatibility=False,
            timing_cache=False,
            capabilities=("7.5", "8.0", "8.6", "8.9", "12.0", "12.1"),
            # RTX 30, 40 and 50. By its size a plan for several is the plan of the lowest, so the A100's 8.0 stays out
            portable=("8.6", "8.9", "12.0"),
            # its builder: "FP32 GEMM is not supported", and the Gemm of an int8 graph is fp32
            lacks=frozenset({("7.5", "fp32"), ("7.5", "bf16"), ("7.5", "int8")}),
        ),
    )
}


def load(flavour: Flavour) -> Any:
    """The module. Raises EngineError where it is missing, a stub without libraries, or of a version not known here."""
    try:
        trt = importlib.import_module(flavour.module)
    except ModuleNotFoundError as error:
        if error.name == flavour.module:
            raise EngineError(f"{flavour.module} is not installed", flavour.install) from error
        raise EngineError(f"{flavour.title} does not load ({error})", flavour.install) from error
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        raise EngineError(f"{flavour.title} does not load ({error})", flavour.install) from error
    version = getattr(trt, "__version__", "")
    if not flavour.at_least <= numbers(version) < flavour.below:
        wanted = f">={_dotted(flavour.at_least)},<{_dotted(flavour.below)}"
        raise EngineError(
            f"{flavour.title} {version or 'without a version'} is installed, not {wanted}", flavour.install
        )
    return trt


@cache
def logger(flavour: Flavour) -> Any:
    """The one `ILogger` of the process, as TensorRT wants it: it prints nothing and keeps the last errors.

    `logger(flavour).take()` gives the first error since the last call, and forgets them. Raises EngineError as `load`.
    """
    trt = load(flavour)

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._errors: deque[str] = deque(maxlen=32)

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self._errors.append(msg)

        def take(self) -> str:
            errors = [self._errors.popleft() for _ in range(len(self._errors))]
            return errors[0] if errors else "it does not say why"

    return Logger()


def misfit(flavour: Flavour, requirements: Mapping[str, str], version: str, capability: str) -> EngineError | None:
    """Why a plan with these requirements does not run on this version and compute capability ("8.9"), or None."""
    built, wide = requirements.get(VERSION, ""), requirements.get(COMPATIBLE, "").split(", ")
    majors = (numbers(built)[:1], numbers(version)[:1])
    later = numbers(built) <= numbers(version) and (majors[0] == majors[1] or majors in ACROSS)
    if built != version and not (VERSION in wide and later):
        return EngineError(f"the plan is of {flavour.title} {built}, here is {version}", flavour.rebuild)
    targets = requirements.get(CAPABILITY, "").split(", ")
    since_ampere = CAPABILITY in wide and numbers(capability) >= AMPERE
    if capability not in targets and not since_ampere:
        return EngineError(
            f"the plan is for compute capability {', '.join(targets)}, this GPU has {capability}", flavour.rebuild
        )
    return None


def numbers(version: str) -> tuple[int, ...]:
    """ "10.16.1.11" -> (10, 16, 1, 11); () where there is none."""
    return tuple(int(part) for part in re.findall(r"\d+", version))


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in version)
