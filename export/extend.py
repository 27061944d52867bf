"""A bundle in, the same bundle with artifacts for more engines and precisions out: through the gates, without torch.

Files are made in a hidden folder and published together, or not at all.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from export import bundle
from export.artifacts import Observe, gated, not_run, refuse
from export.bundle import GRAPH, Artifact, Bundle, BundleError, load_prior
from export.bundle_subject import bundle_judge, bundle_reference
from export.engines import obstacle, open_engine
from export.gates import Original
from export.invariance import BUCKETS
from export.targets import Wanted
from export.tensorrt.build import Options, Planned, build, planned
from training.evaluation.subject import Model
from training.latents import draw

CALIBRATION, CALIBRATION_BATCH = 512, 64  # pictures whose values set the scales of int8
CALIBRATION_SEED = 1 << 52  # far from the seeds that the gates draw


@dataclass(frozen=True)
class Extended:
    """What came of it. `there`: what was wanted and is in the bundle already, gates passed."""

    bundle: Bundle
    made: tuple[Artifact, ...]
    there: tuple[Artifact, ...] = field(default=())


@contextmanager
def bundle_original(made: Bundle) -> Iterator[Original]:
    """What further engines are held against where torch is not: the bundle's own fp32 graph on ONNX Runtime's CPU."""
    manifest = made.manifest
    first = next((each for each in manifest.artifacts if each.title == "onnxruntime:fp32"), None)
    if first is None:
        raise BundleError(f"{made.title} has no fp32 graph to compare with", "Export its run again: limner export RUN.")
    if first.gates is not None and first.gates.failed:
        failed = ", ".join(first.gates.failed)
        raise BundleError(
            f"the fp32 graph of {made.title} failed {failed}, so nothing can be held against it",
            "Extend it from its run: limner export RUN.",
        )
    judged = manifest.judge is not None
    with closing(open_engine("onnxruntime", "fp32", made.folder / GRAPH, first.buckets)) as engine:
        yield Original(
            name=engine.artifact,
            model=Model(manifest.latent, manifest.class_names, load_prior(made), engine.run, max(first.buckets)),
            judge=bundle_judge(made) if judged else None,
            reference=bundle_reference(made) if judged else None,
        )


def extend(
    made: Bundle,
    wants: Sequence[Wanted],
    original: Original,
    options: Options | None = None,
    force: bool = False,
    observe: Observe = lambda stage, fraction: None,
) -> Extended:
    """Make what is wanted and not there yet, hold all that runs here against `original`, publish.

    Raises EngineError where something cannot be built here, Refused where a gate failed (unless `force`), and leaves
    the bundle as it was.
    """
    options = options or Options()
    found = {want: _there(made, want, options) for want in wants}  # raises what speaks against a build at once
    there = [artifact for artifact in found.values() if artifact is not None]
    missing = [want for want, artifact in found.items() if artifact is None]
    if not missing:
        return Extended(made, (), tuple(there))
    with bundle.workshop(made) as part:
        work = _Work(made, part, original, options, observe)
        artifacts = [work.artifact(want) for want in missing]
        refuse(artifacts, force)
        return Extended(bundle.extend(made, part, artifacts, work.others), tuple(artifacts), tuple(there))


def _there(made: Bundle, want: Wanted, options: Options) -> Artifact | None:
    """An artifact that passed its gates and runs on this machine; of what does not run here, what could not be bettered
    here: a plan that would be built again, and any other.
    """
    plan = check(want, options, bundle.hash_file(made.folder / GRAPH))
    for artifact in made.manifest.artifacts:
        if artifact.title != want.title:
            continue
        if obstacle(artifact.engine, artifact.precision, artifact.requirements) is None:
            passed = artifact.gates is not None and not artifact.forced
            if passed and _meant(artifact, want, plan, options):
                return artifact
        elif plan is None or artifact.requirements == plan.requirements:
            return artifact
    return None


def _meant(artifact: Artifact, want: Wanted, plan: Planned | None, options: Options) -> bool:
    """Whether an artifact of the right title will do: any, or, where a switch was set, the plan that it asks for."""
    asked = replace(_switches(want, options), timing_cache=None) != Options()
    return plan is None or not asked or artifact.requirements == plan.requirements


def check(want: Wanted, options: Options, source_sha256: str = "") -> Planned | None:
    """The plan that would be built; None for targets without plans. Raises EngineError where it cannot be."""
    if not want.target.startswith("tensorrt"):
        return None
    return planned(source_sha256, want.engine, want.precision, BUCKETS, _switches(want, options))


def _switches(want: Wanted, options: Options) -> Options:
    """Those of the options that are this target's own."""
    if want.target == "tensorrt":
        return replace(options, compute_capability=None)
    return Options(compute_capability=options.compute_capability)


class _Work:
    """One extension under way. `others`: files in `part` that belong to the bundle beside the artifacts."""

    def __init__(self, made: Bundle, part: Path, original: Original, options: Options, observe: Observe) -> None:
        self.made, self.part, self.original, self.options, self.observe = made, part, original, options, observe
        self.others: list[str] = []

    def artifact(self, want: Wanted) -> Artifact:
        if want.target.startswith("tensorrt"):
            return self._plan(want)
        as_file = "fp32" if want.target == "openvino" and want.precision != "int8" else want.precision
        return self._tried(want, self._graph(as_file), None)

    def _plan(self, want: Wanted) -> Artifact:
        source = bundle.hash_file(self.made.folder / GRAPH)
        planned = check(want, self.options, source)
        for old in self.made.manifest.artifacts:  # built elsewhere for this machine, and never tried
            untried = old.title == want.title and old.gates is None and _meant(old, want, planned, self.options)
            if untried and obstacle(old.engine, old.precision, old.requirements) is None:
                return self._tried(want, self.made.folder / old.file, old.requirements)
        graph = self._graph(want.precision)
        if graph.parent == self.part and graph.name not in self.others:
            self.others.append(graph.name)  # the next machine builds its plan from it, without onnx
        stage = f"building {want.title}"
        self.observe(stage, 0.0)
        plan = build(
            graph,
            source,
            want.engine,
            want.precision,
            BUCKETS,
            _switches(want, self.options),
            lambda phase, fraction: self.observe(stage, fraction),
        )
        (self.part / plan.file).write_bytes(plan.data)
        if plan.layers is not None:
            layers = f"{plan.file}.json"
            (self.part / layers).write_text(plan.layers, encoding="utf-8")
            self.others.append(layers)
        return self._tried(want, self.part / plan.file, plan.requirements)

    def _tried(self, want: Wanted, file: Path, requirements: dict[str, str] | None) -> Artifact:
        """Held against the original if this machine can run it."""
        why = obstacle(want.engine, want.precision, requirements)
        if why is not None:
            return not_run(file, want.engine, want.precision, str(why), self._command(want), requirements)

        def observe(stage: str, fraction: float) -> None:
            self.observe(f"{want.title}: {stage}", fraction)

        opened = open_engine(want.engine, want.precision, file, BUCKETS, requirements=requirements)
        with closing(opened) as engine:
            return gated(engine, self.original, file, want.engine, want.precision, requirements, observe)

    def _command(self, want: Wanted) -> str:
        precision = "" if want.precision == "fp32" else f" --precision {want.precision}"
        manifest = self.made.manifest
        return f"limner export models/{manifest.name}/{manifest.version} --to {want.target}{precision}"

    def _graph(self, precision: str) -> Path:
        """The ONNX file at that precision: in the bundle already, made before, or made now."""
        if precision == "fp32":
            return self.made.folder / GRAPH
        name = f"model.{precision}.onnx"
        manifest = self.made.manifest
        sound = [each for each in manifest.artifacts if each.precision == precision and not each.forced]
        listed = [each.file for each in sound if each.file.endswith(".onnx") and each.file != GRAPH]
        for file in (*listed, *(file for file in manifest.files if file == name)):
            return self.made.folder / file
        made = self.part / name
        if not made.exists():
            from export.precision import at_precision

            self.observe(f"writing {name}", 0.0)
            made.write_bytes(at_precision(self.made.folder / GRAPH, precision, self._calibration))
        return made

    def _calibration(self) -> Iterator[dict[str, np.ndarray]]:
        """What a server is asked for: latents of the prior, with all classes."""
        model = self.original.model
        for first in range(0, CALIBRATION, CALIBRATION_BATCH):
            z, label = draw(CALIBRATION_SEED + first, CALIBRATION_BATCH, model.latent, model.classes, prior=model.prior)
            yield {"z": z} if label is None else {"z": z, "label": label}
