"""Pictures of a checkpoint are those of its averaged generator, in batches of any size, from latents of a seed."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from training import checkpoint, sampling
from training.config import ModelSpec
from training.data import Dataset
from training.errors import RunError
from training.latents import draw
from training.networks import Generator
from training.run import RunFolder
from training.sampling import Grid, load_generator, model_of, sample

Synthetic = Callable[..., Dataset]


def specify(*class_names: str, size: Any = 28, channels: Any = 1) -> ModelSpec:
    kind = "cvae" if class_names else "vae"
    return ModelSpec(kind=kind, latent=5, size=size, channels=channels, class_names=class_names, width=4)


def untrained(spec: ModelSpec) -> Generator:
    torch.manual_seed(0)
    generator = Generator(spec)
    generator(torch.randn(64, 5), torch.arange(64) % spec.classes if spec.classes else None)  # fills the statistics
    return generator.eval()


# a checkpoint


@pytest.fixture
def state() -> dict[str, Any]:
    spec = specify("a", "b")
    return {
        "schema": checkpoint.SCHEMA,
        "spec": spec.model_dump(mode="json"),
        "ema": untrained(spec).state_dict(),
        "data": "bars",
        "images": 10,
        "quality": None,
        "prior": None,
    }


def test_a_checkpoint_gives_its_averaged_generator_in_eval_mode(tmp_path: Path, state: dict[str, Any]) -> None:
    checkpoint.save(tmp_path / "a.pt", state)
    generator, spec, whole = load_generator(tmp_path / "a.pt")
    assert (checkpoint.SCHEMA, spec, whole["data"]) == (2, specify("a", "b"), "bars")
    assert not generator.training
    torch.testing.assert_close(generator.state_dict(), state["ema"], rtol=0, atol=0)


@pytest.mark.parametrize("missing", ["schema", "spec", "ema", "data", "images", "quality", "prior"])
def test_a_checkpoint_without_one_of_its_parts_is_refused(tmp_path: Path, state: dict[str, Any], missing: str) -> None:
    del state[missing]
    checkpoint.save(tmp_path / "a.pt", state)
    with pytest.raises(RunError, match=r"a\.pt is no limner checkpoint"):
        load_generator(tmp_path / "a.pt")


@pytest.mark.parametrize(
    "other", [{"schema": 1}, {"spec": {"kind": "gan"}}, {"spec": specify().model_dump(mode="json")}, {"ema": [1, 2]}]
)
def test_a_checkpoint_of_another_schema_or_shape_is_refused(
    tmp_path: Path, state: dict[str, Any], other: dict[str, Any]
) -> None:
    checkpoint.save(tmp_path / "a.pt", state | other)
    with pytest.raises(RunError, match=r"a\.pt is no limner checkpoint"):
        load_generator(tmp_path / "a.pt")


# pictures


@pytest.mark.parametrize("class_names", [(), ("a", "b")])
@pytest.mark.parametrize(("size", "channels"), [(28, 1), (32, 3)])
def test_pictures_are_the_generators_images_in_levels(class_names: tuple[str, ...], size: int, channels: int) -> None:
    spec = specify(*class_names, size=size, channels=channels)
    generator = untrained(spec)
    z, label = draw(1, 7, spec.latent, spec.classes)
    pictures = sample(generator, z, label)
    assert (pictures.shape, pictures.dtype) == ((7, size, size, channels), np.uint8)
    with torch.no_grad():
        image = generator(torch.from_numpy(z), None if label is None else torch.from_numpy(label))
    levels = (image.permute(0, 2, 3, 1).numpy() + 1) * 127.5
    assert np.abs(pictures - levels).max() <= 0.501


def test_a_model_gives_the_images_of_seeds_in_batches_of_any_size() -> None:
    spec = specify("a", "b")
    generator, label = untrained(spec), np.arange(20) % 2
    whole = model_of(generator, spec, None).pictures(5, 20, label).astype(int)
    assert np.array_equal(whole, sample(generator, draw(5, 20, 5, 2, label)[0], label))
    in_threes = replace(model_of(generator, spec, None), batch=3).pictures(5, 20, label)
    assert np.abs(in_threes - whole).max() <= 1
    assert np.abs(model_of(generator, spec, None).pictures(24, 1, label[-1:]) - whole[-1:]).max() <= 1


# grids


def drawn(folder: RunFolder) -> dict[str, np.ndarray]:
    return {path.name: np.asarray(Image.open(path)) for path in sorted(folder.samples.iterdir())}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    (tmp_path / "run" / "samples").mkdir(parents=True)
    return RunFolder(tmp_path / "run")


@pytest.mark.parametrize("classes", [0, 3])
def test_a_grid_stands_beside_real_images_in_the_same_shape(
    synthetic: Synthetic, folder: RunFolder, classes: int
) -> None:
    dataset = synthetic(28, 1, classes)
    spec = specify(*dataset.class_names)
    grid = Grid(spec, dataset, folder, seed=0)
    grid.draw(untrained(spec), None, 5)
    grid.draw(untrained(spec), None, 12)
    pictures = drawn(folder)
    assert list(pictures) == ["0000005.png", "0000012.png", "real.png"]
    assert np.array_equal(pictures["0000005.png"], pictures["0000012.png"])  # of the same latents
    rows = classes or 10
    assert pictures["real.png"].shape[0] == pictures["0000005.png"].shape[0] == rows * 28 * 2
    if classes:
        assert pictures["real.png"].shape == pictures["0000005.png"].shape


def test_a_row_of_the_grid_is_a_class(synthetic: Synthetic, folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[np.ndarray, np.ndarray]] = []
    monkeypatch.setattr(sampling, "sample", lambda _, z, label: asked.append((z, label)) or np.zeros((30, 28, 28, 1)))
    monkeypatch.setattr(sampling, "labelled_rows", lambda rows, scale: Image.new("L", (len(rows), 1)))
    dataset = synthetic()
    spec = specify(*dataset.class_names)
    grid = Grid(spec, dataset, folder, seed=0)
    grid.draw(untrained(spec), None, 1)
    grid.draw(untrained(spec), None, 2)
    Grid(spec, dataset, folder, seed=1).draw(untrained(spec), None, 3)
    assert all(label.tolist() == [0] * 10 + [1] * 10 + [2] * 10 for _, label in asked)
    (first, _), (second, _), (other, _) = asked
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_real_rows_are_real_images_of_the_class(synthetic: Synthetic, folder: RunFolder) -> None:
    dataset = synthetic()
    Grid(specify(*dataset.class_names), dataset, folder, seed=0)
    real = drawn(folder)["real.png"]
    train = dataset.train
    for row in range(3):
        expected = np.concatenate([*train.images[train.labels == row][:10, :, :, 0]], axis=1)
        shown = real[56 * row : 56 * (row + 1) : 2, -560::2]
        assert np.array_equal(shown if shown.ndim == 2 else shown[:, :, 0], expected)


def test_of_many_classes_the_first_ten_are_shown(synthetic: Synthetic, folder: RunFolder) -> None:
    dataset = synthetic(64, 1, 10)
    names = tuple("abcdefghijkl")
    spec = specify(*names, size=64)
    Grid(spec, dataset, folder, seed=0).draw(untrained(spec), None, 1)
    assert drawn(folder)["0000001.png"].shape[0] == 10 * 64 * 2
