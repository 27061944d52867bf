"""A network in, the served ONNX graph out: the generator rewritten to fewer and cheaper operations, proven equal.

With export/to_onnx.py the only home of torch in export/. docs/decisions.md has what each rewrite was measured to gain.
"""

import copy
import logging
import warnings
from typing import cast

import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim
from torch.nn.utils.fusion import fuse_conv_bn_eval

from export.judge import HASH
from training.config import ModelSpec
from training.judge import Judge
from training.networks import Generator
from training.pixels import to_levels, to_unit

OPSET, IR = 20, 10  # the graph contract (docs/design.md, section 3)
LARGEST_BATCH = 4096  # a bound that the exporter wants; nothing depends on it


def to_graph(generator: Generator, spec: ModelSpec) -> onnx.ModelProto:
    """A generator in eval mode -> the served graph: only N dynamic, no BatchNorm, default domain, no paths in it."""
    inputs: dict[str, Tensor] = {"z": torch.zeros(2, spec.latent)}
    if spec.classes:
        inputs["label"] = torch.zeros(2, dtype=torch.int64)
    return _exported(_Served(Lean(generator)).eval(), inputs, ["image", "check"], "generator")


def judge_to_graph(judge: Judge) -> onnx.ModelProto:
    """A judge -> its graph, with the hash of its weights in the metadata."""
    images = torch.zeros(2, judge.size, judge.size, judge.channels, dtype=torch.uint8)
    graph = _exported(_Judging(judge).eval(), {"image": images}, ["logits", "features"], "judge")
    onnx.helper.set_model_props(graph, {HASH: judge.sha256()})
    return graph


class Lean(nn.Module):
    """The same function as a generator in eval mode, for serving: z [N, latent], label [N] -> image [N, C, H, W].

    Each BatchNorm is folded into the layer before it, a small label embedding into the projection, and the last
    convolutions run on the grid before the last doubling.
    """

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        folded = copy.deepcopy(generator).cpu().eval()
        self.base = folded.base
        layers = _without_batch_norm(folded)
        *before, up, relu, last, tanh = layers
        assert isinstance(relu, nn.ReLU)
        assert isinstance(tanh, nn.Tanh)
        side = self.base << sum(isinstance(layer, nn.ConvTranspose2d) for layer in before)
        self.blocks = nn.Sequential(*before)
        self.tail = CoarseTail(cast(nn.ConvTranspose2d, up), cast(nn.Conv2d, last), side)
        self.project: nn.Module = _projection(folded)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        coarse = self.project(z, label).unflatten(1, (-1, self.base, self.base))
        return self.tail(self.blocks(coarse))


class CoarseTail(nn.Module):
    """Tanh(Conv3x3(ReLU(ConvTranspose(x)))) on the grid of x: the doubling comes last, on one to three channels.

    ConvTranspose(4, stride 2, padding 1) is a 2x2 convolution whose outputs are the four phases of each doubled pixel,
    less a border of one pixel; a 3x3 convolution of the doubled picture is a 2x2 convolution of its phases. The mask
    zeroes the border, which is the second one's padding. (Sub-pixel convolution: Shi et al. 2016.)
    """

    def __init__(self, up: nn.ConvTranspose2d, last: nn.Conv2d, side: int) -> None:
        super().__init__()
        inside = torch.ones(2, side + 1)
        inside[0, 0] = inside[1, -1] = 0  # phase 0 of the first cell and phase 1 of the last lie beyond the edge
        mask = torch.einsum("ay,bx->abyx", inside, inside).expand(up.out_channels, 2, 2, side + 1, side + 1)
        self.mask: Tensor
        self.register_buffer("mask", mask.reshape(1, -1, side + 1, side + 1).to(up.weight.dtype).contiguous())
        self.up, self.last = _phases(up), _of_phases(last)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(F.pixel_shuffle(self.last(torch.relu(self.up(x)) * self.mask), 2))


def _phases(up: nn.ConvTranspose2d) -> nn.Conv2d:
    """The 2x2 convolution, padding 1, whose channels [C, 2, 2] are the phases of what `up` gives, from pixel -1 on."""
    assert (up.kernel_size, up.stride, up.padding) == ((4, 4), (2, 2), (1, 1))
    taps = (
        up.weight.detach().view(up.in_channels, up.out_channels, 2, 2, 2, 2).flip(2, 4)
    )  # kernel = 2 (1 - tap) + phase
    conv = nn.Conv2d(up.in_channels, 4 * up.out_channels, 2, padding=1, dtype=up.weight.dtype)
    bias = torch.zeros(up.out_channels, dtype=up.weight.dtype) if up.bias is None else up.bias.detach()
    with torch.no_grad():
        conv.weight.copy_(taps.permute(1, 3, 5, 0, 2, 4).reshape_as(conv.weight))
        cast(Tensor, conv.bias).copy_(bias.repeat_interleave(4))
    return conv


def _of_phases(last: nn.Conv2d) -> nn.Conv2d:
    """The 2x2 convolution of phases [C, 2, 2] whose channels [C', 2, 2] are the phases of what `last` gives."""
    assert (last.kernel_size, last.padding) == ((3, 3), (1, 1))
    weight = last.weight.detach()
    to = torch.zeros(2, 3, 2, 2, dtype=weight.dtype)  # phase out, kernel -> tap, phase in
    for phase in range(2):
        for kernel in range(3):
            to[(phase, kernel, *divmod(phase + kernel, 2))] = 1
    taps = torch.einsum("oikl,akpc,blqd->oabicdpq", weight, to, to)
    conv = nn.Conv2d(4 * last.in_channels, 4 * last.out_channels, 2, dtype=weight.dtype)
    with torch.no_grad():
        conv.weight.copy_(taps.reshape_as(conv.weight))
        cast(Tensor, conv.bias).copy_(cast(Tensor, last.bias).repeat_interleave(4))
    return conv


def _without_batch_norm(folded: Generator) -> list[nn.Module]:
    """The blocks with each BatchNorm folded into the layer before it; the first one into `folded.project`, in place."""
    layers: list[nn.Module] = []
    for layer in folded.blocks:
        if not isinstance(layer, nn.BatchNorm2d):
            layers.append(nn.ReLU() if isinstance(layer, nn.ReLU) else layer)  # in place it would cost a copy
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
    return layers


def _projection(folded: Generator) -> nn.Module:
    """What gives the coarsest grid; a table of what each class adds, unless that outgrows the weights it saves."""
    if folded.embedding is None:
        return _Unlabelled(folded.project)
    if folded.embedding.num_embeddings > folded.project.in_features:
        return _Embedded(folded.project, folded.embedding)
    return _Tabled(folded.project, folded.embedding)


class _Unlabelled(nn.Module):
    def __init__(self, project: nn.Linear) -> None:
        super().__init__()
        self.project = project

    def forward(self, z: Tensor, label: Tensor | None) -> Tensor:
        return self.project(z)


class _Embedded(nn.Module):
    def __init__(self, project: nn.Linear, embedding: nn.Embedding) -> None:
        super().__init__()
        self.project, self.embedding = project, embedding

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        return self.project(torch.cat([z, self.embedding(label)], dim=1))


class _Tabled(nn.Module):
    """W [z, e(label)] + b = W_z z + table[label]: one product less, and no concatenation."""

    def __init__(self, project: nn.Linear, embedding: nn.Embedding) -> None:
        super().__init__()
        weight = project.weight.detach()
        latent = project.in_features - embedding.embedding_dim
        self.weight = nn.Parameter(weight[:, :latent].T.contiguous())
        table = embedding.weight.detach() @ weight[:, latent:].T + project.bias.detach()
        self.table = nn.Embedding.from_pretrained(table)

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        return torch.addmm(self.table(label), z, self.weight)


class _Served(nn.Module):
    """The graph contract: z, label -> image uint8 [N, H, W, C], check float32 [N] (the mean before rounding)."""

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, z: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        image = self.generator(z, label)
        return to_levels(image), image.mean(dim=(1, 2, 3))


class _Judging(nn.Module):
    """image uint8 [N, H, W, C] -> logits [N, classes], features [N, 128]."""

    def __init__(self, judge: Judge) -> None:
        super().__init__()
        self.judge = judge

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return self.judge(to_unit(image))


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
