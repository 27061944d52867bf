"""An opened engine and its file in, an Artifact with what the gates found out; and the refusal where they failed."""

from collections.abc import Callable, Sequence
from pathlib import Path

from export import gates
from export.bundle import Artifact, NotRun, hash_file
from export.engines import Engine
from export.gates import GateError, Original

Observe = Callable[[str, float], None]


def gated(
    engine: Engine,
    original: Original,
    file: Path,
    name: str,
    precision: str,
    requirements: dict[str, str] | None = None,
    observe: Observe = lambda stage, fraction: None,
) -> Artifact:
    """Run every gate. `name`: the engine's, as in `export.engines.ENGINES`; it was opened with all buckets."""
    found, buckets = gates.hold(engine, original, precision, observe)
    return Artifact(
        engine=name,
        precision=precision,
        file=file.name,
        sha256=hash_file(file),
        gates=found,
        buckets=buckets,
        requirements=requirements,
    )


def not_run(
    file: Path, name: str, precision: str, why: str, command: str, requirements: dict[str, str] | None = None
) -> Artifact:
    """An artifact that this machine cannot run."""
    return Artifact(
        engine=name,
        precision=precision,
        file=file.name,
        sha256=hash_file(file),
        not_run=NotRun(why=why, command=command),
        requirements=requirements,
    )


class Refused(GateError):
    """Some artifacts failed gates. `artifacts`: all that were made, so that a table can say what failed."""

    def __init__(self, artifacts: Sequence[Artifact]) -> None:
        self.artifacts = [artifact for artifact in artifacts if artifact.forced]
        failed = "; ".join(
            f"{artifact.title} failed {', '.join(artifact.gates.failed)}"
            for artifact in self.artifacts
            if artifact.gates
        )
        passed = [each.title for each in artifacts if not each.forced and each.gates is not None]
        kept = f" (without it {', '.join(passed)} would be)" if passed else ""
        super().__init__(
            f"{failed}: nothing was added{kept}", "Leave it out, take another precision, or publish it with --force."
        )


def refuse(artifacts: Sequence[Artifact], force: bool) -> None:
    """Raises Refused if any artifact failed a gate, unless `force`."""
    if not force and any(artifact.forced for artifact in artifacts):
        raise Refused(artifacts)
