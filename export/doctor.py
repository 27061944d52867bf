"""A machine in, what each engine can do on it out: whether it is installed, loads and really runs a small graph.

Each engine is tried in a process of its own: a library that crashes takes only that process with it.
"""

import importlib.metadata
import json
import signal
import subprocess
import sys
import tempfile
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from export.bundle import hash_file
from export.engines import ENGINES, PRECISIONS, EngineError, obstacle, open_engine
from export.engines.cuda import devices
from export.engines.flavours import FLAVOURS
from training.errors import LimnerError

if TYPE_CHECKING:
    from export.tensorrt.build import Plan

PROBE = Path(__file__).with_name("probe.onnx")  # z [N, 4] -> image [N, 2, 2, 1]: round(128 + 20 z), within 0 and 255
BUCKETS = (1, 4)
SECONDS = 120.0  # a first TensorRT build loads some hundred megabytes
DISTRIBUTIONS = {
    "tensorrt": ("tensorrt", "tensorrt-cu12", "tensorrt-cu13"),
    "tensorrt-rtx": ("tensorrt-rtx",),
    "onnxruntime-cuda": ("onnxruntime-gpu",),
    "openvino": ("openvino",),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
}
UNSEEN = ("tensorrt", "tensorrt-rtx", "onnxruntime-cuda")
"""Engines that limner's own tests have never run on hardware."""


@dataclass(frozen=True)
class Finding:
    """`version`: of the package, "" where it is not installed. `precisions` that it has here, if it runs.

    `builds`: whether it makes plans here, for engines that have plans. `why` it does not run, with the mend.
    """

    engine: str
    runs: bool
    version: str = ""
    device: str = ""
    precisions: tuple[str, ...] = ()
    builds: bool | None = None
    why: str = ""
    mend: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "precisions", tuple(self.precisions))  # JSON has lists


def examine() -> list[Finding]:
    """Try every engine. Never raises for an engine's sake."""
    found = [_apart(engine) for engine in ENGINES]
    return [replace(each, version=each.version or installed(each.engine)) for each in found]


def installed(engine: str) -> str:
    """The version of the package that brings an engine, "" where there is none. Nothing is loaded."""
    for name in DISTRIBUTIONS[engine]:
        with suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return ""


def _apart(engine: str) -> Finding:
    command = [sys.executable, "-P", "-m", "export.doctor", engine]  # -P: no json.py of whoever's folder this is
    try:
        done = subprocess.run(  # noqa: S603
            command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        return Finding(engine, False, why=f"it did not answer within {SECONDS:g} s", mend="Try when less else runs.")
    if done.returncode == 0:
        for line in reversed(done.stdout.splitlines()):  # libraries print before and after the answer
            with suppress(ValueError, TypeError):
                return Finding(**json.loads(line))
    return Finding(engine, False, why=f"its process {_ended(done.returncode, done.stderr)}", mend="Install it anew.")


def _ended(code: int, stderr: bytes) -> str:
    """In words, with the last line of what it said, which of a traceback is the error."""
    how = "gave no answer" if code == 0 else f"ended with exit code {code}"
    if code < 0:
        how = f"was ended by signal {-code} ({signal.strsignal(-code)})"
    lines = ["".join(filter(str.isprintable, line)) for line in stderr.decode(errors="replace").splitlines()]
    return ": ".join([how, *[line.strip(" .")[:200] for line in lines if line.strip()][-1:]])


def tried(engine: str) -> Finding:
    """Try one engine in this process."""
    file, precision, requirements, builds = PROBE, "fp32", None, None
    with tempfile.TemporaryDirectory() as folder:
        try:
            if engine.startswith("tensorrt"):
                builds = False
                precision, plan = _plan(engine)
                file, requirements, builds = Path(folder) / plan.file, plan.requirements, True
                file.write_bytes(plan.data)
            return _run(engine, precision, file, requirements, builds)
        except LimnerError as error:
            version = (requirements or {}).get("version", "")
            return Finding(engine, False, version, builds=builds, why=error.what, mend=error.mend)


def _plan(engine: str) -> tuple[str, "Plan"]:
    """Its precision, and a plan for this machine's GPU, or, where the engine has nothing for that, a portable one."""
    from export.tensorrt.build import Options, build

    flavour, gpus = FLAVOURS[engine], devices()
    has = [precision for precision in PRECISIONS if gpus and flavour.lack(gpus[0].capability, precision) is None]
    options = Options() if has or not gpus else Options(compute_capability=", ".join(flavour.portable))
    precision = (*has, "fp32")[0]
    return precision, build(PROBE, hash_file(PROBE), engine, precision, BUCKETS, options)


def _run(engine: str, precision: str, file: Path, requirements: dict[str, str] | None, builds: bool | None) -> Finding:
    with closing(open_engine(engine, precision, file, BUCKETS, requirements=requirements)) as opened:
        z = np.random.Generator(np.random.Philox(key=0)).standard_normal((3, 4), np.float32)
        about = opened.describe()
        expected = np.clip(np.rint(128 + 20 * z), 0, 255).astype(np.uint8).reshape(3, 2, 2, 1)
        if not np.array_equal(opened.run(z, None), expected):
            raise EngineError("it runs, but gives wrong pictures", "Install it anew, and do not serve with it.")
    precisions = tuple(precision for precision in PRECISIONS if obstacle(engine, precision, requirements) is None)
    return Finding(engine, True, about["version"], about["device"], precisions, builds)


def rivals() -> str | None:
    """Distributions of ONNX Runtime that overwrite each other's files, if there are several; None if all is well."""
    owners = {
        distribution.metadata["Name"]
        for distribution in importlib.metadata.distributions()
        if "\nonnxruntime/__init__.py," in f"\n{distribution.read_text('RECORD')}"
    }
    return ", ".join(sorted(owners)) if len(owners) > 1 else None


if __name__ == "__main__":
    print(json.dumps(asdict(tried(sys.argv[1]))))  # noqa: T201
