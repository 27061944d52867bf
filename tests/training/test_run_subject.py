"""A run is judged by its best weights, its own judge and its own real images; what is missing is said in one line."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from training import checkpoint
from training.config import TrainConfig
from training.data import Dataset
from training.errors import EvaluationError, RunError
from training.evaluation.examine import examine
from training.evaluation.reference import FEWEST
from training.loop import train
from training.run import RunFolder
from training.run_subject import run_subject
from training.sampling import load_generator, sample

Synthetic = Callable[..., Dataset]
Small = Callable[..., TrainConfig]


@pytest.fixture
def trained(small: Small, synthetic: Synthetic, cache: Path) -> Callable[[str], RunFolder]:
    def make(kind: str) -> RunFolder:
        config = small(kind)
        train(config, synthetic(held=FEWEST), cache=cache)
        return RunFolder(config.out)

    return make


@pytest.mark.parametrize("kind", ["cgan", "gan"])
def test_the_subject_is_the_best_generator_with_its_judge(trained: Callable[[str], RunFolder], kind: str) -> None:
    folder = trained(kind)
    subject = run_subject(folder.path)
    generator, spec, _ = load_generator(folder.best)
    z, label = np.ones((3, 8), np.float32), np.arange(3) if spec.classes else None
    assert np.array_equal(subject.model.run(z, label), sample(generator, z, label))
    assert subject.model.class_names == spec.class_names
    assert subject.judge.sha256() == subject.reference.judge_sha256
    assert subject.about == {
        "kind": kind, "data": "bars", "images": "28x28x1", "images seen": "48", "weights": "best.pt",
    }  # fmt: skip
    assert subject.config is not None
    assert subject.config["model"] == kind
    assert subject.records is not None
    assert subject.records[-1]["finished"] is True
    assert subject.reconstruct is None


def test_an_examination_repeats_what_the_training_said(trained: Callable[[str], RunFolder]) -> None:
    folder = trained("cvae")
    said = load_generator(folder.best)[2]["quality"]
    found = examine(run_subject(folder.path), repeats=1).figures
    for name in ("fid", "precision", "recall", "agreement"):
        assert found[name].value == pytest.approx(said[name], abs=1e-4)
        assert found[name].floor == pytest.approx(said["floor"][name], abs=1e-4)


@pytest.mark.parametrize("kind", ["vae", "cvae"])
def test_a_variational_run_rebuilds_images(
    trained: Callable[[str], RunFolder], synthetic: Synthetic, kind: str
) -> None:
    subject = run_subject(trained(kind).path)
    assert subject.reconstruct is not None
    images = synthetic(held=FEWEST).test
    labels = images.labels if kind == "cvae" else None
    rebuilt = subject.reconstruct(images.images, labels)
    assert (rebuilt.shape, rebuilt.dtype) == (images.images.shape, np.uint8)
    torch.manual_seed(3)
    assert np.array_equal(subject.reconstruct(images.images, labels), rebuilt)  # nothing is drawn


def test_what_is_missing_is_said(trained: Callable[[str], RunFolder], tmp_path: Path) -> None:
    folder = trained("gan")
    folder.reference.unlink()
    with pytest.raises(EvaluationError, match=r"there is no .*judge\.npz"):
        run_subject(folder.path)
    folder.judge.unlink()
    with pytest.raises(RunError, match=r"no judge\.pt in"):
        run_subject(folder.path)
    with pytest.raises(RunError, match="no run at"):
        run_subject(tmp_path / "nowhere")


@pytest.mark.parametrize("change", ["weights", "sha256", "shape"])
def test_a_damaged_judge_is_said(trained: Callable[[str], RunFolder], change: str) -> None:
    folder = trained("gan")
    state = checkpoint.load(folder.judge)
    del state[change]
    checkpoint.save(folder.judge, state)
    with pytest.raises(RunError, match=r"judge\.pt is no judge of this limner"):
        run_subject(folder.path)


def test_a_damaged_prior_is_said(trained: Callable[[str], RunFolder]) -> None:
    folder = trained("vae")
    state = checkpoint.load(folder.best)
    state["prior"]["weights"] += 1
    checkpoint.save(folder.best, state)
    with pytest.raises(RunError, match=r"best\.pt holds a damaged prior"):
        run_subject(folder.path)


def test_a_generator_that_gives_no_finite_picture_is_an_error_and_no_figure(
    trained: Callable[[str], RunFolder],
) -> None:
    folder = trained("gan")
    state = checkpoint.load(folder.best)
    state["ema"]["project.bias"].fill_(float("nan"))
    checkpoint.save(folder.best, state)
    with pytest.raises(EvaluationError, match="the generator gives pictures that are not finite, 60 of 60"):
        examine(run_subject(folder.path), samples=60)
