"""A bundle is judged as its run is: by the judge that travels with it, on the pictures of the same seeds, no torch."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from export.bundle import BundleError, read
from export.bundle_subject import bundle_judge, bundle_subject, chosen
from export.engines import EngineError
from export.judge import OnnxJudge
from export.to_onnx import export
from training.errors import EvaluationError
from training.evaluation.examine import examine
from training.judge import Judge
from training.run import RunFolder
from training.run_subject import run_subject

Trained = Callable[..., Path]


@pytest.fixture(scope="module", params=["cgan", "vae"])
def run(request: pytest.FixtureRequest, trained: Trained) -> Path:
    return trained(request.param)


@pytest.fixture(scope="module")
def models(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models")
    export(run, models, "noise")
    return models / "noise" / "1"


def test_the_exported_judge_sees_what_the_trained_one_sees(run: Path, models: Path) -> None:
    trained, exported = Judge.load(RunFolder(run).judge), OnnxJudge(models / "judge.onnx")
    assert exported.sha256() == trained.sha256() == read(models).manifest.judge.sha256  # type: ignore[union-attr]
    shape = (trained.size, trained.size, trained.channels)
    for count in (1, 3, 513):
        images = np.random.default_rng(count).integers(0, 256, (count, *shape), dtype=np.uint8)
        for found, expected in zip(exported.look(images), trained.look(images), strict=True):
            assert (found.shape, found.dtype) == (expected.shape, np.float32)
            assert found == pytest.approx(expected, rel=1e-3, abs=1e-4)
    with pytest.raises(EvaluationError, match="the judge looks at pictures of"):
        exported.look(np.zeros((1, 8, 8, 1), np.uint8))


def test_the_judges_graph_has_no_path_and_no_foreign_operator(models: Path) -> None:
    graph = onnx.load(models / "judge.onnx")
    assert [entry.key for entry in graph.metadata_props] == ["judge_sha256"]
    assert {node.domain for node in graph.graph.node} == {""}
    assert all(not node.metadata_props and not node.doc_string for node in graph.graph.node)


def test_a_bundle_has_the_figures_of_its_run(run: Path, models: Path) -> None:
    expected = examine(run_subject(run), samples=100, repeats=1, seed=3)
    with bundle_subject(read(models)) as subject:
        found = examine(subject, samples=100, repeats=1, seed=3)
    assert np.abs(found.pictures.astype(int) - expected.pictures).max() <= 1
    assert found.figures.keys() == expected.figures.keys()
    for name, figure in expected.figures.items():
        assert found.figures[name].value == pytest.approx(figure.value, rel=0.05, abs=0.05), name
        assert found.figures[name].floor == figure.floor
    assert found.protocol == expected.protocol


def test_the_subject_says_what_it_is(models: Path) -> None:
    with bundle_subject(read(models), "onnxruntime:fp32") as subject:
        assert subject.title == "noise@1"
        assert subject.about["engine"].startswith("onnxruntime-fp32-")
        assert subject.about["digest"] == read(models).digest
        assert (subject.records, subject.config, subject.reconstruct) == (None, None, None)


def test_an_engine_is_chosen_by_name_and_precision(models: Path) -> None:
    bundle = read(models)
    for name in (None, "onnxruntime", "onnxruntime:fp32"):
        assert chosen(bundle, name) == bundle.manifest.artifacts[0]
    for name in ("tensorrt", "onnxruntime:fp16", ""):
        with pytest.raises(EngineError, match=rf"no artifact for '{name}'\. There is onnxruntime:fp32"):
            chosen(bundle, name)


def test_no_torch_is_needed(models: Path) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from export.bundle import read\n"
        "from export.bundle_subject import bundle_subject\n"
        "from training.evaluation.examine import examine\n"
        "from training.evaluation.gather import gather\n"
        "from training.evaluation.report import render\n"
        f"with bundle_subject(read(Path({str(models)!r}))) as subject:\n"
        "    examined = examine(subject, samples=60, repeats=1)\n"
        "    print(len(render(gather(subject, examined, None))))\n"
        "print(*{'torch', 'onnx', 'datasets', 'mlxtend'} & sys.modules.keys())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    size, *loaded = done.stdout.split()
    assert int(size) > 10_000
    assert loaded == []


# what is wrong


def test_a_run_that_kept_no_judge_gives_a_bundle_that_cannot_be_judged(trained: Trained, tmp_path: Path) -> None:
    shutil.copytree(trained("gan"), tmp_path / "run")
    RunFolder(tmp_path / "run").reference.unlink()
    bundle = export(tmp_path / "run", tmp_path / "models")
    assert bundle.manifest.judge is None
    assert not (bundle.folder / "judge.onnx").exists()
    for ask in (bundle_judge, lambda bundle: bundle_subject(bundle).__enter__()):
        with pytest.raises(BundleError, match=r"run@1 has no judge\. Export its run again"):
            ask(bundle)


@pytest.mark.parametrize("name", ["judge.onnx", "judge.npz"])
def test_a_judge_that_was_changed_is_refused(trained: Trained, tmp_path: Path, name: str) -> None:
    folder = export(trained("gan"), tmp_path / "models", "noise").folder
    (folder / name).write_bytes(b"else")
    with pytest.raises(BundleError, match=rf"{name} is not the file that was exported"):
        read(folder)


def test_a_judge_that_is_no_graph_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "judge.onnx").write_bytes(b"else")
    with pytest.raises(EngineError, match="ONNX Runtime cannot load"):
        OnnxJudge(tmp_path / "judge.onnx")
