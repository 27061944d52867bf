"""Run in, bundle out: the one place where training and the bundle meet; with export/graph.py the only home of torch."""

import importlib.metadata
import shutil
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from export import bundle
from export.artifacts import gated, refuse
from export.bundle import (
    GRAPH,
    JUDGE,
    PRIOR,
    REFERENCE,
    SCHEMA,
    Bundle,
    JudgeFiles,
    Manifest,
    Overtaken,
    Quality,
    Source,
    TensorSpec,
)
from export.engines import Engine, obstacle, open_engine
from export.gates import Original, same_sight
from export.graph import OPSET, judge_to_graph, to_graph
from export.invariance import BUCKETS, PROBE_KEY, probe
from export.judge import OnnxJudge
from training.config import ModelSpec
from training.errors import RunError
from training.evaluation.reference import Reference
from training.evaluation.subject import Model
from training.judge import Judge
from training.networks import Generator
from training.pictures import labelled_rows
from training.prior import Prior
from training.run import RunFolder
from training.sampling import load_generator, sample

SAMPLE_COLUMNS = 10
JUDGE_PROBE = 64  # pictures on which an exported judge must see what the trained one sees

Observe = Callable[[str, float], None]


def export(
    run: Path,
    models: Path,
    name: str | None = None,
    force: bool = False,
    observe: Observe = lambda stage, fraction: None,
) -> Bundle:
    """Export a run's best.pt (else the EMA weights of its checkpoint.pt) as the next version of `models/name`.

    A prior in the checkpoint goes into the bundle, and the latents of the gates and of samples.png are drawn from it.

    A version that was made from the same checkpoint, before or meanwhile, is returned as it is. Raises RunError for a
    folder that is no run, GateError where ONNX Runtime's pictures are not torch's (unless `force`), BundleError where
    the bundle cannot be written.
    """
    folder = RunFolder(run)
    name = name or folder.name
    sha256 = bundle.hash_file(folder.exported_checkpoint())
    made = bundle.find(models, name, sha256)
    if made is not None:
        return made
    if (missing := obstacle("onnxruntime", "fp32")) is not None:  # before minutes are spent
        raise missing
    try:
        return _new(folder, sha256, models, name, force, observe)
    except Overtaken:
        made = bundle.find(models, name, sha256)
        if made is None:
            raise
        return made


def _new(folder: RunFolder, sha256: str, models: Path, name: str, force: bool, observe: Observe) -> Bundle:
    checkpoint = folder.exported_checkpoint()
    generator, spec, state = load_generator(checkpoint)
    prior = _prior(state, spec, checkpoint)
    with bundle.new_version(models, name) as (part, version):
        observe("writing the graph", 0.0)
        graph = to_graph(generator, spec)
        onnx.save(graph, part / GRAPH)
        judge = _judge(folder, part)
        original = _original(generator, spec, prior, None if judge is None else part)
        with closing(open_engine("onnxruntime", "fp32", part / GRAPH, BUCKETS)) as engine:
            artifact = gated(
                engine,
                original,
                part / GRAPH,
                "onnxruntime",
                "fp32",
                observe=lambda stage, share: observe(f"onnxruntime:fp32: {stage}", share),
            )
            refuse([artifact], force)
            _samples(engine, part / "samples.png", spec, prior)
        if prior is not None:
            prior.save(part / PRIOR)
        others = ["samples.png", *([] if prior is None else [PRIOR])]
        others += [] if judge is None else [judge.graph, judge.reference]
        if bundle.hash_file(checkpoint) != sha256:
            raise RunError(f"{checkpoint} was replaced while it was read", "Export again.")
        manifest = Manifest(
            schema=SCHEMA,
            name=name,
            version=version,
            kind=spec.kind,
            latent=spec.latent,
            height=spec.size,
            width=spec.size,
            channels=spec.channels,
            class_names=spec.class_names,
            inputs=tuple(_tensor(value) for value in graph.graph.input),
            outputs=tuple(_tensor(value) for value in graph.graph.output),
            opset=OPSET,
            source=Source(
                run=folder.name,
                checkpoint_sha256=sha256,
                data=state["data"],
                images_seen=state["images"],
                code_version=importlib.metadata.version("limner"),
            ),
            quality=Quality.model_validate(state["quality"]) if state["quality"] else None,
            artifacts=(artifact,),
            files={file: bundle.hash_file(part / file) for file in others},
            prior=None if prior is None else PRIOR,
            judge=judge,
        )
        bundle.write_manifest(part, manifest)
    return bundle.read(models / name / str(version))


def run_original(run: Path, made: Bundle) -> Original:
    """What the bundle's further engines are held against while the run is there: torch itself.

    Raises RunError, also where the run's checkpoint is not the bundle's any more.
    """
    checkpoint = RunFolder(run).exported_checkpoint()
    generator, spec, state = load_generator(checkpoint)
    if bundle.hash_file(checkpoint) != made.manifest.source.checkpoint_sha256:
        raise RunError(f"{checkpoint} is not what {made.title} was made from: the training went on", "Export again.")
    judged = made.folder if made.manifest.judge is not None else None
    return _original(generator, spec, _prior(state, spec, checkpoint), judged)


def _original(generator: Generator, spec: ModelSpec, prior: Prior | None, judged: Path | None) -> Original:
    """torch's pictures; `judged`: the folder that has judge.onnx and judge.npz."""
    return Original(
        name="torch",
        model=Model(spec.latent, spec.class_names, prior, partial(sample, generator, finite=True), max(BUCKETS)),
        judge=None if judged is None else OnnxJudge(judged / JUDGE),
        reference=None if judged is None else Reference.load(judged / REFERENCE),
    )


def _prior(state: dict[str, Any], spec: ModelSpec, checkpoint: Path) -> Prior | None:
    """What the checkpoint says its latents are drawn from; None where that is N(0, I)."""
    if state.get("prior") is None:
        return None
    try:
        prior = Prior.from_state(state["prior"])
    except ValueError as error:
        raise RunError(f"{checkpoint} holds a damaged prior ({error})", "Train again, or restore the file.") from error
    if (prior.classes, prior.latent) != (max(1, spec.classes), spec.latent):
        raise RunError(f"{checkpoint} holds the prior of another model", "Train again, or restore the file.")
    return prior


def _judge(run: RunFolder, part: Path) -> JudgeFiles | None:
    """The judge and its features of real images into the bundle; None for a run that has kept none.

    Raises GateError where the graph does not see what torch's judge sees.
    """
    if not run.judge.is_file() or not run.reference.is_file():
        return None
    judge, reference = Judge.load(run.judge), Reference.load(run.reference)
    if reference.judge_sha256 != judge.sha256():
        raise RunError(f"{run.reference} is of another judge than {run.judge}", "Train again, or restore the file.")
    onnx.save(judge_to_graph(judge), part / JUDGE)
    shutil.copyfile(run.reference, part / REFERENCE)
    noise = np.random.Generator(np.random.Philox(key=PROBE_KEY))
    pictures = noise.integers(0, 256, (JUDGE_PROBE, judge.size, judge.size, judge.channels), np.uint8)
    same_sight(OnnxJudge(part / JUDGE), judge, pictures)
    return JudgeFiles(graph=JUDGE, reference=REFERENCE, sha256=judge.sha256())


def _samples(engine: Engine, path: Path, spec: ModelSpec, prior: Prior | None) -> None:
    """What the exported file draws, a row for each class (ten at most)."""
    names = list(spec.class_names[:10]) or [""] * 4
    z, _ = probe(len(names) * SAMPLE_COLUMNS, spec.latent, 0)
    label = np.repeat(np.arange(len(names)), SAMPLE_COLUMNS) if spec.classes else None
    if prior is not None:
        z = prior.spread(z, label)
    rows = np.split(engine.run(z, label), len(names))
    labelled_rows(list(zip(names, rows, strict=True)), scale=2).save(path)


def _tensor(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    shape = tuple("N" if axis.dim_param else axis.dim_value for axis in tensor.shape.dim)
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name
    return TensorSpec.model_validate({"name": value.name, "dtype": dtype, "shape": shape})
