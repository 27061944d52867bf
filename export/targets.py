"""What `--to` and `--precision` name in, the engines and precisions that are meant out."""

from collections.abc import Sequence
from dataclasses import dataclass

from export.engines import PRECISIONS, obstacle
from training.errors import ConfigError

TARGETS = {
    "onnx": ("fp32", "fp16", "int8"),  # ONNX Runtime has no bf16 convolution on a CPU
    "openvino": PRECISIONS,
    "tensorrt": PRECISIONS,
    "tensorrt-rtx": PRECISIONS,
}


@dataclass(frozen=True)
class Wanted:
    """An artifact to make: for which engine, at which precision, of which target."""

    target: str
    engine: str
    precision: str

    @property
    def title(self) -> str:
        return f"{self.engine}:{self.precision}"


def wanted(targets: Sequence[str], precisions: Sequence[str]) -> tuple[list[Wanted], list[str]]:
    """What to make, without repetition, and a line for each target that has not got a precision and gives fp32 instead.

    Nothing given: onnx, fp32. Raises ConfigError for a name that there is not.
    """
    targets, precisions = list(targets) or ["onnx"], list(precisions) or ["fp32"]
    for kind, given, known in (("target", targets, tuple(TARGETS)), ("precision", precisions, PRECISIONS)):
        for name in given:
            if name in ("onnxruntime", "onnxruntime-cuda"):
                raise ConfigError(f"'{name}' is an engine, not a target", "It runs what --to onnx writes.")
            if name not in known:
                raise ConfigError(f"there is no {kind} '{name}'", f"Take one of {', '.join(known)}.")
    made: dict[Wanted, None] = {}
    notes = []
    for target in targets:
        for precision in precisions:
            if precision not in TARGETS[target]:
                notes.append(f"{target} has no {precision}: fp32 instead")
            given = precision if precision in TARGETS[target] else "fp32"
            made |= dict.fromkeys(Wanted(target, engine, given) for engine in _engines(target, given))
    return list(made), list(dict.fromkeys(notes))


def _engines(target: str, precision: str) -> list[str]:
    """The ONNX file is also run on CUDA where that is there: it is the same file, but has other gates."""
    if target != "onnx":
        return [target]
    cuda = "onnxruntime-cuda"
    return ["onnxruntime", *([] if obstacle(cuda, precision) else [cuda])]
