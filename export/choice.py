"""A bundle and what somebody calls an engine in, the artifact that is meant out."""

from export.bundle import Artifact, Bundle
from export.engines import ENGINES, PRECISIONS, EngineError, obstacle

AUTO = "auto"


def chosen(bundle: Bundle, engine: str | None) -> Artifact:
    """The artifact that NAME or NAME:PRECISION means; None: the first, which is the fp32 graph on ONNX Runtime.

    `auto`: the first in the order of ENGINES that is fp32, passed every gate and runs here. Where several have the name
    (plans for several GPUs, precisions), one that runs here: what failed a gate only if nothing else has the name, and
    of what passed the fullest precision. Raises EngineError with those there are, or why none runs here.
    """
    artifacts = bundle.manifest.artifacts
    if engine is None:
        return artifacts[0]
    if engine == AUTO:
        return _best(bundle)
    name, _, precision = engine.partition(":")
    named = [each for each in artifacts if each.engine == name and precision in ("", each.precision)]
    if not named:
        there = ", ".join(dict.fromkeys(each.title for each in artifacts))
        add = _making(bundle, name, precision)
        raise EngineError(f"{bundle.title} has no artifact for '{engine}'", f"There is {there}.{add}")
    against = [obstacle(each.engine, each.precision, each.requirements) for each in named]
    runs = [each for each, found in zip(named, against, strict=True) if found is None]
    if not runs:
        raise next(found for found in against if found is not None)
    gated = [each for each in runs if each.gates is not None]
    if gated:
        return min(gated, key=_doubtful)
    first = runs[0].not_run
    assert first is not None
    raise EngineError(f"{runs[0].title} of {bundle.title} has not passed its gates yet", f"Run {first.command} here.")


def _doubtful(artifact: Artifact) -> tuple[bool, int]:
    """What failed a gate comes last, and of what passed the fullest precision first."""
    return artifact.forced, (*PRECISIONS, artifact.precision).index(artifact.precision)


def _making(bundle: Bundle, name: str, precision: str) -> str:
    """How an engine that there is comes into a bundle."""
    if name not in ENGINES or precision not in ("", *PRECISIONS):
        return ""
    manifest, target = bundle.manifest, "onnx" if name.startswith("onnxruntime") else name
    wish = f" --precision {precision}" if precision not in ("", "fp32") else ""
    return f" Add it: limner export models/{manifest.name}/{manifest.version} --to {target}{wish}."


def _best(bundle: Bundle) -> Artifact:
    found = None
    for name in ENGINES:
        for artifact in bundle.manifest.artifacts:
            sound = artifact.gates is not None and not artifact.forced and artifact.precision == "fp32"
            if artifact.engine == name and sound:
                found = obstacle(name, "fp32", artifact.requirements)
                if found is None:
                    return artifact
    raise found or EngineError(
        f"{bundle.title} has no fp32 artifact that passed its gates and runs here",
        "See limner doctor, or name one: --engine NAME:PRECISION.",
    )
