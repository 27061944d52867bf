"""A run of every kind becomes a graph that keeps the contract and draws torch's pictures."""

import hashlib
import importlib.metadata
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

from export import gates, to_onnx
from export.artifacts import Refused
from export.bundle import Bundle, BundleError, load_prior
from export.engines import Engine, open_engine
from export.gates import GateError
from export.to_onnx import export
from training import checkpoint
from training.config import Kind, ModelSpec
from training.errors import RunError
from training.networks import Generator
from training.run import RunFolder
from training.sampling import load_generator, sample

Trained = Callable[..., Path]
KINDS: tuple[Kind, ...] = ("gan", "cgan", "vae", "cvae")
DTYPES: dict[int, str] = {
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.INT64: "int64",
    onnx.TensorProto.UINT8: "uint8",
}


@pytest.fixture(scope="module", params=KINDS)
def exported(
    request: pytest.FixtureRequest, trained: Trained, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Bundle]:
    """A run and its bundle."""
    run = trained(request.param)
    return run, export(run, tmp_path_factory.mktemp("models"), f"my-{request.param}")


def graph_of(bundle: Bundle) -> onnx.ModelProto:
    return onnx.load(bundle.folder / "model.onnx")


def tensors(values: list[onnx.ValueInfoProto]) -> list[tuple[str, str, list[str | int]]]:
    """Name, dtype and shape of each; a dynamic side as its name."""
    return [
        (
            value.name,
            DTYPES[value.type.tensor_type.elem_type],
            [side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim],
        )
        for value in values
    ]


def test_the_graph_takes_latents_and_gives_pictures(exported: tuple[Path, Bundle]) -> None:
    run, bundle = exported
    _, spec, _ = load_generator(RunFolder(run).exported_checkpoint())
    graph = graph_of(bundle).graph
    inputs, outputs = tensors(list(graph.input)), tensors(list(graph.output))
    n = inputs[0][2][0]
    assert isinstance(n, str)  # the one dynamic side, the same in every tensor
    assert inputs == [("z", "float32", [n, 8])] + ([("label", "int64", [n])] if spec.classes else [])
    assert outputs == [("image", "uint8", [n, spec.size, spec.size, spec.channels]), ("check", "float32", [n])]
    for told, real in ((bundle.manifest.inputs, inputs), (bundle.manifest.outputs, outputs)):
        assert [(tensor.name, tensor.dtype, *tensor.shape) for tensor in told] == [
            (name, dtype, "N", *shape[1:]) for name, dtype, shape in real
        ]


def test_the_graph_is_plain_onnx_of_one_version(exported: tuple[Path, Bundle]) -> None:
    model = graph_of(exported[1])
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 20)]
    assert (model.ir_version, len(model.functions)) == (10, 0)
    operators = {node.op_type for node in model.graph.node}
    assert {"ConvTranspose", "DepthToSpace"} < operators
    assert not {name for name in operators if "Normalization" in name or "Random" in name or name == "Dropout"}
    assert not [weight.name for weight in model.graph.initializer if weight.data_location == onnx.TensorProto.EXTERNAL]
    onnx.checker.check_model(model, full_check=True)


def test_the_graph_holds_nothing_of_the_machine_that_made_it(exported: tuple[Path, Bundle]) -> None:
    run, bundle = exported
    whole = (bundle.folder / "model.onnx").read_bytes()
    for trace in (b"site-packages", str(Path.home()).encode() + b"/", str(Path.cwd()).encode(), str(run).encode()):
        assert trace not in whole
    model = graph_of(bundle)
    for weight in model.graph.initializer:
        weight.raw_data = b""  # any byte may be in there
    named = str(model)  # as text: a length in the bytes may be 47, which is a slash
    assert "/" not in named
    assert ".py" not in named
    assert str(run.parent) not in (bundle.folder / "manifest.json").read_text()


def test_of_two_exports_at_once_the_slower_takes_the_version_of_the_other(trained: Trained, tmp_path: Path) -> None:
    run, quicker = trained("vae"), []

    def observe(stage: str, fraction: float) -> None:
        if stage == "writing the graph":
            quicker.append(export(run, tmp_path, "digits"))

    assert [export(run, tmp_path, "digits", observe=observe)] == quicker
    assert [path.name for path in (tmp_path / "digits").iterdir()] == ["1"]


@pytest.mark.parametrize("count", [1, 3, 64, 100])
def test_the_file_draws_torchs_pictures_at_any_batch_size(exported: tuple[Path, Bundle], count: int) -> None:
    run, bundle = exported
    generator, spec, _ = load_generator(RunFolder(run).exported_checkpoint())
    z = np.random.default_rng(count).standard_normal((count, 8), np.float32)
    label = np.arange(count) % 3 if spec.classes else None
    drawn = open_engine("onnxruntime", "fp32", bundle.folder / "model.onnx").run(z, label)
    expected = sample(generator, z, label)
    assert drawn.std() > 1  # pictures, not a plain grey on which everything agrees
    assert np.abs(drawn.astype(int) - expected).max() <= 1
    assert (drawn == expected).mean() > 0.99  # one level apart is the rare tie, not the rule


def test_the_check_is_the_mean_before_rounding(exported: tuple[Path, Bundle]) -> None:
    run, bundle = exported
    generator, spec, _ = load_generator(RunFolder(run).exported_checkpoint())
    z, label = torch.randn(5, 8), torch.arange(5) % 3 if spec.classes else None
    feed = {"z": z.numpy()} if label is None else {"z": z.numpy(), "label": label.numpy()}
    (check,) = onnxruntime.InferenceSession(bundle.folder / "model.onnx").run(["check"], feed)
    with torch.no_grad():
        expected = generator(z, label).mean(dim=(1, 2, 3))
    np.testing.assert_allclose(np.asarray(check), expected.numpy(), atol=1e-5)


def test_the_manifest_tells_where_the_model_comes_from(exported: tuple[Path, Bundle]) -> None:
    run, bundle = exported
    manifest, kept = bundle.manifest, RunFolder(run).exported_checkpoint()
    _, spec, state = load_generator(kept)
    assert (manifest.name, manifest.version, manifest.kind) == (f"my-{spec.kind}", 1, spec.kind)
    assert (manifest.latent, manifest.height, manifest.width, manifest.channels) == (
        8,
        spec.size,
        spec.size,
        spec.channels,
    )
    assert manifest.class_names == spec.class_names
    assert manifest.source.model_dump() == {
        "run": run.name,
        "checkpoint_sha256": hashlib.sha256(kept.read_bytes()).hexdigest(),
        "data": "noise",
        "images_seen": 96,
        "code_version": importlib.metadata.version("limner"),
    }
    assert manifest.quality is not None
    assert manifest.quality.model_dump(exclude_none=True) == state["quality"]
    (artifact,) = manifest.artifacts
    assert artifact.title == "onnxruntime:fp32"
    assert artifact.gates is not None
    assert (artifact.gates.parity.reference, artifact.gates.failed) == ("torch", ())
    assert artifact.gates.drift is not None
    assert artifact.buckets[0] == 1
    with Image.open(bundle.folder / "samples.png") as samples:
        assert samples.height == 2 * spec.size * (spec.classes or 4)
        assert samples.width >= 2 * spec.size * 10


# priors


def apart(classes: int) -> dict[str, torch.Tensor]:
    """As a checkpoint holds it: two components for each class, far from each other and from N(0, I)."""
    mean = torch.linspace(-6, 6, max(1, classes) * 2 * 8, dtype=torch.float64).view(-1, 2, 8)
    scale_tril = (0.25 * torch.eye(8, dtype=torch.float64)).expand(*mean.shape, 8)
    return {"weights": torch.full(mean.shape[:2], 0.5).double(), "mean": mean, "scale_tril": scale_tril}


def run_with(prior: object, run: Path, home: Path) -> Path:
    """A copy of a run whose checkpoint holds a prior."""
    shutil.copytree(run, home / "run")
    kept = RunFolder(home / "run").exported_checkpoint()
    checkpoint.save(kept, checkpoint.load(kept) | {"prior": prior})
    return home / "run"


def sheet(folder: Path) -> np.ndarray:
    with Image.open(folder / "samples.png") as samples:
        return np.asarray(samples)


@pytest.mark.parametrize("kind", ["vae", "cvae"])
def test_a_prior_goes_into_the_bundle_and_its_digest(
    trained: Trained, tmp_path: Path, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = apart(3 if kind == "cvae" else 0)
    plain = export(run_with(None, trained(kind), tmp_path / "plain"), tmp_path / "plain")
    assert (plain.manifest.prior, load_prior(plain)) == (None, None)
    assert not (plain.folder / "prior.npz").exists()
    probes = list[np.ndarray]()
    hold = gates.hold

    def spy(engine: Engine, original: gates.Original, *more: Any) -> Any:
        probes.append(original.fixed.z)
        return hold(engine, original, *more)

    monkeypatch.setattr(gates, "hold", spy)
    made = export(run_with(held, trained(kind), tmp_path), tmp_path / "models")
    assert made.manifest.prior == "prior.npz"
    assert set(made.manifest.files) == {"samples.png", "prior.npz", "judge.onnx", "judge.npz"}
    prior = load_prior(made)
    assert prior is not None
    assert all(np.array_equal(array, held[name].numpy()) for name, array in prior.state().items())
    assert (made.folder / "model.onnx").read_bytes() == (plain.folder / "model.onnx").read_bytes()
    assert made.digest != plain.digest
    (probe,) = probes
    nearest = np.abs(probe[:1024, None] - held["mean"].numpy().reshape(-1, 8)).max(axis=2).argmin(axis=1)
    assert set(nearest) == set(range(len(held["mean"]) * 2))  # the gates saw every component
    assert not np.array_equal(sheet(made.folder), sheet(plain.folder))
    assert export(tmp_path / "run", tmp_path / "models") == made


def test_the_samples_are_drawn_from_the_prior(trained: Trained, tmp_path: Path) -> None:
    """With no extent a prior gives one picture for each component."""
    held = apart(3)
    held["scale_tril"] = 0 * held["scale_tril"]
    made = export(run_with(held, trained("cvae"), tmp_path), tmp_path / "models")
    engine = open_engine("onnxruntime", "fp32", made.folder / "model.onnx")
    picture = engine.run(held["mean"].float().numpy().reshape(6, 8), np.repeat([0, 1, 2], 2)).repeat(2, 1).repeat(2, 2)
    samples = sheet(made.folder)
    side = picture.shape[1]
    cells = samples[:, samples.shape[1] - 10 * side :].reshape(3, side, 10, side, 3).swapaxes(1, 2)
    for row, of_class in zip(cells, picture.reshape(3, 2, side, side, 3), strict=True):
        found = [[k for k in (0, 1) if np.array_equal(cell, of_class[k])] for cell in row]
        assert sorted(map(tuple, found)) == [(0,)] * 5 + [(1,)] * 5


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda prior: prior["mean"].fill_(float("nan")), "damaged prior"),
        (lambda prior: prior.pop("weights"), "damaged prior"),
        (lambda prior: prior.update(weights=prior["weights"][:1]), "damaged prior"),
        (lambda prior: prior.update({name: array[:2] for name, array in prior.items()}), "prior of another model"),
    ],
)
def test_a_prior_that_does_not_fit_the_model_is_refused_and_nothing_written(
    trained: Trained, tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], Any], complaint: str
) -> None:
    prior = apart(3)
    change(prior)
    run = run_with(prior, trained("cvae"), tmp_path)
    with pytest.raises(RunError, match=complaint):
        export(run, tmp_path / "models")
    assert not (tmp_path / "models").exists()


# versions


def test_a_checkpoint_is_exported_once(trained: Trained, tmp_path: Path) -> None:
    first = export(trained("gan"), tmp_path)
    assert first.folder == tmp_path / "gan-0" / "1"
    assert export(trained("gan"), tmp_path) == first
    assert [path.name for path in (tmp_path / "gan-0").iterdir()] == ["1"]
    (first.folder / "samples.png").write_bytes(b"damaged")
    assert export(trained("gan"), tmp_path).manifest.version == 2  # a damaged version does not count


def test_a_new_checkpoint_is_the_next_version_and_best_goes_before_last(trained: Trained, tmp_path: Path) -> None:
    run = tmp_path / "digits"
    shutil.copytree(trained("gan"), run)
    (run / "best.pt").unlink()
    last = export(run, tmp_path / "models")
    shutil.copy(RunFolder(trained("gan", seed=1)).best, run / "best.pt")
    best = export(run, tmp_path / "models")
    assert (last.title, best.title) == ("digits@1", "digits@2")
    assert best.manifest.source.checkpoint_sha256 == hashlib.sha256((run / "best.pt").read_bytes()).hexdigest()
    assert best.digest != last.digest
    (run / "best.pt").unlink()
    assert export(run, tmp_path / "models") == last


# refusals


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no checkpoint"):
        export(tmp_path, tmp_path / "models")
    with pytest.raises(RunError, match="no run at"):
        export(tmp_path / "nowhere", tmp_path / "models")


def test_a_damaged_checkpoint_is_refused_and_nothing_written(trained: Trained, tmp_path: Path) -> None:
    run = tmp_path / "digits"
    shutil.copytree(trained("gan"), run)
    kept = RunFolder(run).exported_checkpoint()
    whole = kept.read_bytes()
    kept.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RunError, match="is damaged"):
        export(run, tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_a_name_that_is_no_model_name_is_refused(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no model name"):
        export(trained("gan"), tmp_path, "my digits")


def test_a_graph_that_draws_other_pictures_is_refused_and_nothing_written(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoilt(generator: Generator, spec: ModelSpec) -> onnx.ModelProto:
        with torch.no_grad():
            generator.project.bias.add_(0.5)
            graph = to_graph(generator, spec)
            generator.project.bias.sub_(0.5)
        return graph

    to_graph = to_onnx.to_graph
    monkeypatch.setattr(to_onnx, "to_graph", spoilt)
    with pytest.raises(Refused, match=r"onnxruntime:fp32 failed parity"):
        export(trained("gan"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_gives_no_finite_pictures_is_refused(trained: Trained, tmp_path: Path) -> None:
    run = tmp_path / "digits"
    shutil.copytree(trained("gan"), run)
    kept = RunFolder(run).exported_checkpoint()
    state = checkpoint.load(kept)
    state["ema"]["project.bias"][0] = float("nan")
    checkpoint.save(kept, state)
    with pytest.raises(GateError, match="not finite"):
        export(run, tmp_path / "models")
