"""A bundle in, a Subject for evaluation out: its engine, judge and features of real images. No torch, no images."""

from collections.abc import Iterator
from contextlib import closing, contextmanager

from export.bundle import Bundle, BundleError, JudgeFiles, load_prior
from export.choice import chosen
from export.engines import open_engine
from export.judge import OnnxJudge
from training.evaluation.reference import Reference
from training.evaluation.sight import Sees
from training.evaluation.subject import BATCH, Model, Subject


@contextmanager
def bundle_subject(bundle: Bundle, engine: str | None = None) -> Iterator[Subject]:
    """The pictures of the artifact that `engine` names as NAME or NAME:PRECISION; default: the first.

    Raises BundleError where the bundle has no judge, EngineError where the engine is not there or cannot run.
    """
    manifest = bundle.manifest
    artifact = chosen(bundle, engine)
    judge, reference = bundle_judge(bundle), bundle_reference(bundle)
    file = bundle.folder / artifact.file
    opened = open_engine(
        artifact.engine, artifact.precision, file, artifact.buckets, requirements=artifact.requirements
    )
    with closing(opened) as running:
        yield Subject(
            title=bundle.title,
            about={
                "kind": manifest.kind,
                "data": manifest.source.data,
                "images": f"{manifest.height}x{manifest.width}x{manifest.channels}",
                "images seen": f"{manifest.source.images_seen:,}",
                "engine": running.artifact,
                "digest": bundle.digest,
            },
            model=Model(
                manifest.latent,
                manifest.class_names,
                load_prior(bundle),
                running.run,
                max(running.buckets, default=BATCH),
            ),
            judge=judge,
            reference=reference,
        )


def bundle_judge(bundle: Bundle) -> Sees:
    """Raises BundleError for a bundle without one."""
    part = _files(bundle)
    judge = OnnxJudge(bundle.folder / part.graph)
    if judge.sha256() != part.sha256:
        raise BundleError(f"{part.graph} of {bundle.title} is another judge than its manifest says", _AGAIN)
    return judge


def bundle_reference(bundle: Bundle) -> Reference:
    """Raises BundleError for a bundle without one, EvaluationError for one that is damaged."""
    return Reference.load(bundle.folder / _files(bundle).reference)


_AGAIN = "Export its run again: limner export RUN."


def _files(bundle: Bundle) -> JudgeFiles:
    if bundle.manifest.judge is None:
        raise BundleError(f"{bundle.title} has no judge", _AGAIN)
    return bundle.manifest.judge
