"""Run in, bundle out: the one place where training and the bundle meet, and the only one in export/ with torch."""

import copy
import importlib.metadata
import logging
import shutil
import warnings
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn.utils.fusion import fuse_conv_bn_eval

from export import bundle, gates
from export.bundle import (
    GRAPH,
    JUDGE,
    PRIOR,
    REFERENCE,
    Artifact,
    Bundle,
    JudgeFiles,
    Manifest,
    Quality,
    Source,
    TensorSpec,
)
from export.engines import Engine, open_engine
from export.judge import HASH, OnnxJudge
from training.config import ModelSpec
from training.errors import RunError
from training.evaluation.reference import Reference
from training.judge import Judge
from training.networks import Generator
from training.pictures import labelled_rows
from training.pixels import to_levels, to_unit
from training.prior import Prior
from training.run import RunFolder
from training.sampling import load_generator, sample

OPSET, IR = 20, 10  # the graph contract (docs/design.md, section 3)
LARGEST_BATCH = 4096  # a bound that the exporter wants; nothing depends on it
SAMPLE_COLUMNS = 10
PROBE_ROWS = max(gates.BUCKETS)


def export(run: Path, models: Path, name: str | None = None) -> Bundle:
    """Export a run's best.pt (else the EMA weights of its checkpoint.pt) as the next version of `models/name`.

    A prior in the checkpoint goes into the bundle, and the latents of the gates and of samples.png are drawn from it.

    A version that was made from the same checkpoint is returned as it is. Raises RunError for a folder that is no run,
    GateError where ONNX Runtime's pictures are not torch's, BundleError where the bundle cannot be written.
    """
    folder = RunFolder(run)
    checkpoint = folder.exported_checkpoint()
    name = name or folder.name
    sha256 = bundle.hash_file(checkpoint)
    made = bundle.find(models, name, sha256)
    if made is not None:
        return made
    generator, spec, state = load_generator(checkpoint)
    prior = _prior(state, spec, checkpoint)
    with bundle.new_version(models, name) as (part, version):
        graph = to_graph(generator, spec)
        onnx.save(graph, part / GRAPH)
        with closing(open_engine("onnxruntime", "fp32", part / GRAPH)) as engine:
            artifact = _gated(engine, part / GRAPH, generator, spec, prior)
            _samples(engine, part / "samples.png", spec, prior)
        if prior is not None:
            prior.save(part / PRIOR)
        judge = _judge(folder, part)
        others = ["samples.png", *([] if prior is None else [PRIOR])]
        others += [] if judge is None else [judge.graph, judge.reference]
        manifest = Manifest(
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


class _Served(nn.Module):
    """The graph contract: z, label -> image uint8 [N, H, W, C], check float32 [N] (the mean before rounding)."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, z: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        image = self.generator(z, label)
        return to_levels(image), image.mean(dim=(1, 2, 3))


def to_graph(generator: Generator, spec: ModelSpec) -> onnx.ModelProto:
    """A generator in eval mode -> the served graph: only N dynamic, no BatchNorm, default domain, no paths in it."""
    served = _Served(_without_batch_norm(generator)).eval()
    inputs: dict[str, Tensor] = {"z": torch.zeros(2, spec.latent)}
    if spec.classes:
        inputs["label"] = torch.zeros(2, dtype=torch.int64)
    return _exported(served, inputs, ["image", "check"], "generator")


class _Judging(nn.Module):
    """image uint8 [N, H, W, C] -> logits [N, classes], features [N, 128]."""

    def __init__(self, judge: Judge) -> None:
        super().__init__()
        self.judge = judge

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return self.judge(to_unit(image))


def judge_to_graph(judge: Judge) -> onnx.ModelProto:
    """A judge -> its graph, with the hash of its weights in the metadata."""
    images = torch.zeros(2, judge.size, judge.size, judge.channels, dtype=torch.uint8)
    graph = _exported(_Judging(judge).eval(), {"image": images}, ["logits", "features"], "judge")
    onnx.helper.set_model_props(graph, {HASH: judge.sha256()})
    return graph


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
    noise = np.random.Generator(np.random.Philox(key=gates.PROBE_KEY))
    probe = noise.integers(0, 256, (PROBE_ROWS, judge.size, judge.size, judge.channels), np.uint8)
    gates.same_sight(OnnxJudge(part / JUDGE), judge, probe)
    return JudgeFiles(graph=JUDGE, reference=REFERENCE, sha256=judge.sha256())


def _exported(module: nn.Module, inputs: dict[str, Tensor], outputs: list[str], name: str) -> onnx.ModelProto:
    batch = Dim("batch", min=1, max=LARGEST_BATCH)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own internals
        program = torch.onnx.export(
            module,
            kwargs=inputs,
            dynamo=True,
            external_data=False,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=outputs,
            dynamic_shapes={name: {0: batch} for name in inputs},
            verbose=False,
        )
    assert program is not None
    return _stripped(program.model_proto, name)


def _without_batch_norm(generator: Generator) -> Generator:
    """A copy with each BatchNorm folded into the layer before it: the same function, fewer operations."""
    folded = copy.deepcopy(generator).cpu().eval()
    layers: list[nn.Module] = []
    for layer in folded.blocks:
        if not isinstance(layer, nn.BatchNorm2d):
            layers.append(layer)
        elif layers:
            layers[-1] = fuse_conv_bn_eval(layers[-1], layer, transpose=True)  # type: ignore[type-var]
        else:  # after the projection, whose outputs are [C, base, base]: one scale for each channel's cells
            assert layer.running_var is not None
            assert layer.running_mean is not None
            scale = layer.weight * (layer.running_var + layer.eps).rsqrt()
            shift = layer.bias - layer.running_mean * scale
            cells = folded.base**2
            with torch.no_grad():
                folded.project.weight.mul_(scale.repeat_interleave(cells)[:, None])
                folded.project.bias.mul_(scale.repeat_interleave(cells)).add_(shift.repeat_interleave(cells))
    folded.blocks = nn.Sequential(*layers)
    return folded


def _stripped(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """Drop names of files, stack traces and producers; fix the IR version; keep the default domain alone."""
    model.ir_version = IR
    model.producer_name, model.producer_version, model.doc_string = "limner", "", ""
    del model.metadata_props[:]
    graph = model.graph
    graph.name, graph.doc_string = name, ""
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.doc_string = ""
        del part.metadata_props[:]
    used = {node.domain for node in graph.node}
    assert used <= {""}, f"operators outside the default domain: {used}"
    kept = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    onnx.checker.check_model(model, full_check=True)
    return model


def _gated(engine: Engine, path: Path, generator: Generator, spec: ModelSpec, prior: Prior | None) -> Artifact:
    """Hold the engine against torch and list the buckets that may be served."""
    z, label = gates.probe(PROBE_ROWS, spec.latent, spec.classes)
    if prior is not None:
        z = prior.spread(z, label)
    return Artifact(
        engine="onnxruntime",
        precision="fp32",
        file=path.name,
        sha256=bundle.hash_file(path),
        parity=gates.parity(engine, partial(sample, generator), "torch", z, label),
        buckets=gates.invariant_buckets(engine, z, label),
    )


def _samples(engine: Engine, path: Path, spec: ModelSpec, prior: Prior | None) -> None:
    """What the exported file draws, a row for each class (ten at most)."""
    names = list(spec.class_names[:10]) or [""] * 4
    z, _ = gates.probe(len(names) * SAMPLE_COLUMNS, spec.latent, 0)
    label = np.repeat(np.arange(len(names)), SAMPLE_COLUMNS) if spec.classes else None
    if prior is not None:
        z = prior.spread(z, label)
    rows = np.split(engine.run(z, label), len(names))
    labelled_rows(list(zip(names, rows, strict=True)), scale=2).save(path)


def _tensor(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    shape = tuple("N" if axis.dim_param else axis.dim_value for axis in tensor.shape.dim)
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name
    return TensorSpec(name=value.name, dtype=dtype, shape=shape)
