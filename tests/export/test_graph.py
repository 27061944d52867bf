"""The served graph is the generator's own function in fewer operations, and plain ONNX."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from export.graph import CoarseTail, Lean, to_graph
from training.config import ModelSpec
from training.networks import EMBEDDING, Generator

LATENT = 6


def spec_of(size: int, channels: int, classes: int) -> ModelSpec:
    kind = "cgan" if classes else "gan"
    names = tuple(f"class {index}" for index in range(classes))
    return ModelSpec.model_validate(
        {"kind": kind, "latent": LATENT, "size": size, "channels": channels, "class_names": names, "width": 4}
    )


def generator_of(spec: ModelSpec) -> Generator:
    """Float64, with BatchNorm statistics, scales and shifts of something, and an eps large enough to be missed."""
    torch.manual_seed(0)
    generator, label = Generator(spec).double(), labels(spec)
    for layer in generator.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 2)
            nn.init.normal_(layer.bias)
            layer.eps = 1e-2
    for _ in range(20):
        generator(3 * torch.randn(16, LATENT, dtype=torch.float64) + 1, label)
    return generator.eval()


def labels(spec: ModelSpec) -> torch.Tensor | None:
    return torch.arange(16) % spec.classes if spec.classes else None


@pytest.mark.parametrize("size", [28, 32, 64])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("classes", [0, 3, LATENT + EMBEDDING + 1])
def test_the_lean_form_is_the_same_function(size: int, channels: int, classes: int) -> None:
    """In float64, so that nothing but arithmetic's last bits may differ."""
    spec = spec_of(size, channels, classes)
    generator = generator_of(spec)
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    z = torch.randn(16, LATENT, dtype=torch.float64)
    with torch.no_grad():
        expected, found = generator(z, labels(spec)), Lean(generator)(z, labels(spec))
    assert expected.std() > 0.05
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())


def test_the_coarse_tail_is_the_same_function_at_every_edge() -> None:
    """One bright cell at a time: the border that the mask cuts off is where a mistake would hide."""
    torch.manual_seed(0)
    up = nn.ConvTranspose2d(2, 3, 4, stride=2, padding=1).double()
    last = nn.Conv2d(3, 1, 3, padding=1).double()
    cells = torch.eye(2 * 5 * 5, dtype=torch.float64).view(-1, 2, 5, 5)
    with torch.no_grad():
        expected = torch.tanh(last(torch.relu(up(cells))))
        torch.testing.assert_close(CoarseTail(up, last, 5)(cells), expected, atol=1e-14, rtol=0)


UNLABELLED = (
    "Gemm", "Reshape", "Relu", "ConvTranspose", "Relu", "Conv", "Relu", "Mul", "Conv", "DepthToSpace", "Tanh",
    "Add", "Mul", "Round", "Clip", "Transpose", "Cast", "ReduceMean",
)  # fmt: skip
TABLE, EMBEDDED = ("Gather",), ("Gather", "Concat")


@pytest.mark.parametrize(
    ("classes", "first"), [(0, ()), (3, TABLE), (LATENT + EMBEDDING, TABLE), (LATENT + EMBEDDING + 1, EMBEDDED)]
)
def test_the_graph_has_these_operators_and_no_other(classes: int, first: tuple[str, ...]) -> None:
    """A small label embedding is a table of what it adds; a large one would outgrow the weights that it saves."""
    spec = spec_of(28, 1, classes)
    model = to_graph(generator_of(spec).float(), spec)
    assert Counter(node.op_type for node in model.graph.node) == Counter((*first, *UNLABELLED))
    assert {node.domain for node in model.graph.node} == {""}
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 20)]
    onnx.checker.check_model(model, full_check=True)


def test_the_same_weights_give_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    code = (
        "import sys, torch\n"
        "from export.graph import to_graph\n"
        "from training.config import ModelSpec\n"
        "from training.networks import Generator\n"
        "torch.manual_seed(0)\n"
        "spec = ModelSpec(kind='cgan', latent=6, size=28, channels=1, class_names=('a', 'b'), width=4)\n"
        "open(sys.argv[1], 'wb').write(to_graph(Generator(spec).eval(), spec).SerializeToString())\n"
    )
    for name in ("first", "second"):
        subprocess.run([sys.executable, "-c", code, tmp_path / name], check=True, timeout=120, cwd=Path.cwd())
    first, second = ((tmp_path / name).read_bytes() for name in ("first", "second"))
    assert len(first) > 1000
    assert first == second


def test_the_graphs_weights_are_float32_and_their_values_the_lean_forms() -> None:
    spec = spec_of(28, 1, 3)
    model = to_graph(generator_of(spec).float(), spec)
    kinds = {onnx.numpy_helper.to_array(weight).dtype for weight in model.graph.initializer}
    assert kinds == {np.dtype(np.float32), np.dtype(np.int64)}
