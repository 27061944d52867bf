"""A bundle gains engines and precisions through the gates, without torch; what a gate refuses changes nothing."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export import extend as extend_module
from export import precision
from export.artifacts import Refused
from export.bundle import Bundle, BundleError, load_prior, read
from export.engines import EngineError, obstacle, open_engine
from export.extend import bundle_original, extend
from export.invariance import BUCKETS
from export.targets import wanted
from export.tensorrt.build import Options
from export.to_onnx import export, run_original
from training.errors import RunError
from training.latents import draw
from training.run import RunFolder

Trained = Callable[..., Path]


@pytest.fixture(scope="module")
def made(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Conditional, with a prior."""
    return export(trained("cvae"), tmp_path_factory.mktemp("models"), "noise")


@pytest.fixture
def bundle(made: Bundle, tmp_path: Path) -> Bundle:
    """A copy, to be extended."""
    shutil.copytree(made.folder.parent, tmp_path / "noise")
    return read(tmp_path / "noise" / "1")


def extended(bundle: Bundle, to: list[str], precisions: list[str], **more: Any) -> extend_module.Extended:
    with bundle_original(bundle) as original:
        return extend(bundle, wanted(to, precisions)[0], original, **more)


def files(bundle: Bundle) -> dict[str, bytes]:
    """All of a model's folder, but for the lock."""
    home = bundle.folder.parent
    return {str(path.relative_to(home)): path.read_bytes() for path in home.rglob("*") if path.is_file()}


def test_each_target_and_precision_becomes_an_artifact_with_gates(bundle: Bundle) -> None:
    after = extended(bundle, ["onnx", "openvino"], ["fp32", "fp16"]).bundle
    artifacts = {artifact.title: artifact for artifact in after.manifest.artifacts}
    assert list(artifacts) == ["onnxruntime:fp32", "onnxruntime:fp16", "openvino:fp32", "openvino:fp16"]
    assert artifacts["openvino:fp16"].file == artifacts["openvino:fp32"].file == "model.onnx"  # the precision is a hint
    assert artifacts["onnxruntime:fp16"].file == "model.fp16.onnx"
    if obstacle("openvino", "fp16") is not None:  # a CPU without the instructions: its gates are for another
        half = artifacts.pop("openvino:fp16")
        assert (half.gates, half.not_run is None) == (None, False)
    for title, artifact in artifacts.items():
        gates = artifact.gates
        assert gates is not None
        assert gates.failed == ()
        assert gates.drift is not None
        assert gates.parity.reference == ("torch" if title == "onnxruntime:fp32" else bundle_name(bundle))
        assert set(artifact.buckets) <= set(BUCKETS)
        assert artifact.buckets[-1] == 64  # a row alone may have a kernel of its own
    assert after.digest == bundle.digest
    assert sorted(path.name for path in after.folder.iterdir()) == sorted({*names(bundle), "model.fp16.onnx"})


def bundle_name(bundle: Bundle) -> str:
    with closing(open_engine("onnxruntime", "fp32", bundle.folder / "model.onnx")) as engine:
        return engine.artifact


def names(bundle: Bundle) -> set[str]:
    return {"manifest.json", *bundle.manifest.files, *(artifact.file for artifact in bundle.manifest.artifacts)}


def test_with_its_run_at_hand_it_is_held_against_torch(trained: Trained, tmp_path: Path) -> None:
    run = trained("cgan")
    bundle = export(run, tmp_path)
    after = extend(bundle, wanted(["openvino"], ["fp32"])[0], run_original(run, bundle)).bundle
    gates = after.manifest.artifacts[1].gates
    assert gates is not None
    assert (gates.parity.reference, gates.failed) == ("torch", ())


def test_a_plan_that_cannot_run_here_says_where_its_gates_run(bundle: Bundle) -> None:
    made = extended(bundle, ["tensorrt-rtx"], ["fp16"]).made
    (plan,) = made
    assert (plan.title, plan.gates, plan.buckets) == ("tensorrt-rtx:fp16", None, ())
    assert plan.not_run is not None
    assert plan.not_run.command == "limner export models/noise/1 --to tensorrt-rtx --precision fp16"
    assert plan.requirements is not None
    assert plan.requirements["onnx_sha256"] == bundle.manifest.artifacts[0].sha256
    after = read(bundle.folder)
    assert "model.fp16.onnx" in after.manifest.files  # the next machine builds its own plan from it, without onnx
    assert (after.folder / plan.file).stat().st_size > 1000


def test_several_gpus_share_a_bundle(bundle: Bundle) -> None:
    extended(bundle, ["tensorrt-rtx"], ["fp32"], options=Options(compute_capability="8.9"))
    after = extended(read(bundle.folder), ["tensorrt-rtx"], ["fp32"], options=Options(compute_capability="12.0")).bundle
    plans = [artifact for artifact in after.manifest.artifacts if artifact.engine == "tensorrt-rtx"]
    assert [(plan.requirements or {})["compute_capability"] for plan in plans] == ["8.9", "12.0"]
    assert len({plan.file for plan in plans}) == 2


def test_what_passed_is_not_made_again(bundle: Bundle) -> None:
    first = extended(bundle, ["openvino"], ["fp16"])
    before = files(bundle)
    again = extended(first.bundle, ["openvino"], ["fp16"])
    assert (again.made, [artifact.title for artifact in again.there]) == ((), ["openvino:fp16"])
    assert files(bundle) == before


def test_gates_that_passed_elsewhere_are_not_lost_where_the_engine_is_not(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed = extended(bundle, ["openvino"], ["fp16"]).bundle
    before = files(bundle)
    missing = EngineError("openvino is not installed", "Install it.")
    monkeypatch.setattr(extend_module, "obstacle", lambda engine, *given: missing if engine == "openvino" else None)
    again = extended(passed, ["openvino"], ["fp16"])
    assert (again.made, [each.title for each in again.there]) == ((), ["openvino:fp16"])
    assert files(bundle) == before


def test_a_switch_asks_for_the_very_plan_and_not_for_any_that_runs_here(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of plans that all run here, as far as anybody says."""
    first = extended(bundle, ["tensorrt-rtx"], [], options=Options(compute_capability="8.9")).bundle
    (plan,) = [each for each in first.manifest.artifacts if each.engine == "tensorrt-rtx"]
    gates = first.manifest.artifacts[0].gates
    tried = plan.model_copy(update={"gates": gates, "not_run": None, "buckets": (1,)})
    both = first.manifest.model_copy(update={"artifacts": (first.manifest.artifacts[0], tried)})
    gated = Bundle(first.folder, both, first.digest)
    monkeypatch.setattr(extend_module, "obstacle", lambda *given: None)
    want = wanted(["tensorrt-rtx"], [])[0][0]
    assert extend_module._there(gated, want, Options()) == tried
    assert extend_module._there(gated, want, Options(compute_capability="8.9")) == tried
    assert extend_module._there(gated, want, Options(compute_capability="12.0")) is None


def test_an_engine_that_is_not_here_is_written_down_and_tried_where_it_is(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = EngineError("openvino is not installed", "Install it.")
    with monkeypatch.context() as patch:
        patch.setattr(extend_module, "obstacle", lambda engine, *given: missing if engine == "openvino" else None)
        (artifact,) = extended(bundle, ["openvino"], []).made
        assert artifact.not_run is not None
        assert artifact.not_run.model_dump() == {
            "why": "openvino is not installed. Install it.",
            "command": "limner export models/noise/1 --to openvino",
        }
    after = extended(read(bundle.folder), ["openvino"], []).bundle
    assert [artifact.title for artifact in after.manifest.artifacts] == ["onnxruntime:fp32", "openvino:fp32"]
    assert after.manifest.artifacts[1].gates is not None


# refusals


def spoilt(graph: Path, name: str, feeds: Callable[[], Any]) -> bytes:
    """At that precision, with the sign of the last layer's weights turned."""
    import onnx

    model = onnx.load_from_string(at_precision(graph, name, feeds))
    last = [node for node in model.graph.node if node.op_type == "Conv"][-1].input[1]
    (weight,) = [weight for weight in model.graph.initializer if weight.name == last]
    weight.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(weight), last))
    return model.SerializeToString()


at_precision = precision.at_precision


def test_a_failed_gate_leaves_the_bundle_as_it_was(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "at_precision", spoilt)
    before = files(bundle)
    with pytest.raises(Refused, match=r"onnxruntime:fp16 failed parity.*nothing was added.*--force") as refusal:
        extended(bundle, ["openvino", "onnx"], ["fp16"])  # also the one that passed
    assert [artifact.title for artifact in refusal.value.artifacts] == ["onnxruntime:fp16"]
    assert files(bundle) == before


def test_force_publishes_and_is_recorded_and_a_later_sound_one_takes_its_place(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(precision, "at_precision", spoilt)
        after = extended(bundle, ["onnx"], ["fp16"], force=True).bundle
    forced = after.manifest.artifacts[1]
    assert forced.forced
    assert forced.gates is not None
    assert "parity" in forced.gates.failed
    sound = extended(read(bundle.folder), ["onnx"], ["fp16"]).bundle
    assert [artifact.title for artifact in sound.manifest.artifacts] == ["onnxruntime:fp32", "onnxruntime:fp16"]
    assert not sound.manifest.artifacts[1].forced
    assert sound.manifest.artifacts[1].file != forced.file  # a reader may have that open
    assert not (sound.folder / forced.file).exists()
    assert extended(sound, ["onnx"], ["fp16"]).made == ()


def test_a_build_that_cannot_be_leaves_the_bundle_as_it_was(bundle: Bundle) -> None:
    before = files(bundle)
    with pytest.raises(EngineError, match=r"tensorrt|TensorRT"):
        extended(bundle, ["openvino", "tensorrt"], ["fp32"])
    assert files(bundle) == before


def test_a_bundle_without_its_fp32_graph_cannot_be_extended(bundle: Bundle) -> None:
    manifest = bundle.manifest.model_copy(
        update={
            "artifacts": tuple(each.model_copy(update={"engine": "openvino"}) for each in bundle.manifest.artifacts)
        }
    )
    with (
        pytest.raises(BundleError, match="no fp32 graph to compare with"),
        bundle_original(Bundle(bundle.folder, manifest, bundle.digest)),
    ):
        pass


def test_a_graph_that_was_forced_is_nothing_to_hold_others_against(bundle: Bundle) -> None:
    first = bundle.manifest.artifacts[0]
    assert first.gates is not None
    forced = first.model_copy(update={"gates": first.gates.model_copy(update={"failed": ("parity",)})})
    manifest = bundle.manifest.model_copy(update={"artifacts": (forced,)})
    with (
        pytest.raises(BundleError, match=r"failed parity, so nothing can be held against it.*from its run"),
        bundle_original(Bundle(bundle.folder, manifest, bundle.digest)),
    ):
        pass


def test_a_run_that_went_on_is_not_what_the_bundle_is_held_against(trained: Trained, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained("vae"), run)
    made = export(run, tmp_path / "models")
    assert run_original(run, made).name == "torch"
    checkpoints = (RunFolder(each).exported_checkpoint() for each in (trained("vae", seed=1), run))
    shutil.copyfile(*checkpoints)
    with pytest.raises(RunError, match=r"is not what run@1 was made from"):
        run_original(run, made)


def test_int8_is_calibrated_on_what_a_server_is_asked_for(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    fed: list[dict[str, np.ndarray]] = []

    def spy(graph: Path, name: str, feeds: Callable[[], Any]) -> bytes:
        fed.extend(feeds())
        return at_precision(graph, name, feeds)

    monkeypatch.setattr(precision, "at_precision", spy)
    extended(bundle, ["onnx"], ["int8"], force=True)
    z = np.concatenate([feed["z"] for feed in fed])
    assert z.shape == (512, bundle.manifest.latent)
    assert len(np.unique(z, axis=0)) == 512
    assert {int(label) for feed in fed for label in feed["label"]} == set(range(bundle.manifest.classes))
    expected, _ = draw(
        extend_module.CALIBRATION_SEED, 64, z.shape[1], bundle.manifest.classes, prior=load_prior(bundle)
    )
    assert np.array_equal(z[:64], expected)


def test_no_torch_is_needed(bundle: Bundle) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from export.bundle import read\n"
        "from export.extend import bundle_original, extend\n"
        "from export.targets import wanted\n"
        f"bundle = read(Path({str(bundle.folder)!r}))\n"
        "with bundle_original(bundle) as original:\n"
        "    extend(bundle, wanted(['openvino', 'tensorrt-rtx'], ['fp16'])[0], original)\n"
        "print(*{'torch', 'onnxscript', 'datasets', 'mlxtend'} & sys.modules.keys())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
    assert [artifact.title for artifact in read(bundle.folder).manifest.artifacts] == [
        "onnxruntime:fp32",
        "openvino:fp16",
        "tensorrt-rtx:fp16",
    ]
