"""The gates let through the model's own pictures, say how far others are from them, and name each gate that failed."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from export.bundle import Artifact, Gates
from export.engines import EngineError, NonFinite
from export.gates import GateError, findings, hold, same_sight
from export.invariance import BUCKETS
from export.original import EDGES, LATENTS, Original
from training.errors import EvaluationError
from training.evaluation.reference import Reference, Side
from training.evaluation.sight import Sight
from training.evaluation.subject import Model
from training.prior import Prior

LATENT, NAMES = 4, ("a", "b", "c")
FIXED = LATENTS + len(EDGES) * len(NAMES)
Spoil = Callable[[np.ndarray, np.ndarray, np.ndarray], Any]


def reference(z: np.ndarray, label: np.ndarray | None) -> np.ndarray:
    """2 x 2 pixels in the middle of the range, by latent and label."""
    assert label is not None
    return (100 + 10 * z + 5 * label[:, None]).round().astype(np.uint8).reshape(-1, 2, 2, 1)


ORIGINAL = Original("torch", Model(LATENT, NAMES, None, reference), None, None)


class Fake:
    """An engine: the reference, spoilt by `spoil(images, z, label)`."""

    artifact = "fake-fp32"
    on_cpu = True
    buckets = BUCKETS

    def __init__(self, spoil: Spoil = lambda images, z, label: None) -> None:
        self.spoil = spoil

    def run(self, z: np.ndarray, label: np.ndarray | None) -> np.ndarray:
        images = reference(z, label)
        self.spoil(images, z, label if label is not None else np.zeros(len(z)))
        return images

    def describe(self) -> dict[str, str]:
        return {}

    def close(self) -> None: ...


def one_pixel(change: int, row: int) -> Fake:
    """Off in one pixel of the picture of one of the fixed latents, wherever it stands."""
    z, label, _ = ORIGINAL.fixed
    assert label is not None

    def spoil(images: np.ndarray, found: np.ndarray, labels: np.ndarray) -> None:
        hit = (found == z[row]).all(1) & (labels == label[row])
        images[hit, -1, -1, -1] += np.uint8(change % 256)

    return Fake(spoil)


def held(engine: Fake, precision: str = "fp32", original: Original = ORIGINAL) -> Gates:
    return hold(engine, original, precision)[0]


# parity


def test_the_fixed_latents_are_of_all_classes_and_end_at_their_edges() -> None:
    z, label, images = ORIGINAL.fixed
    assert label is not None
    assert (z.dtype, label.dtype, len(z), len(images)) == (np.float32, np.int64, FIXED, FIXED)
    assert np.bincount(label[:LATENTS]).min() >= LATENTS // 3
    edges = {(row.tolist()[0], int(klass)) for row, klass in zip(z[LATENTS:], label[LATENTS:], strict=True)}
    assert edges == {(edge, klass) for edge in EDGES for klass in range(3)}
    assert (z[LATENTS:] == z[LATENTS:, :1]).all()


def test_edges_of_many_classes_are_those_of_the_first_and_of_none_are_three() -> None:
    blank = lambda z, label: np.zeros((len(z), 2, 2, 1), np.uint8)  # noqa: E731
    many = Original("torch", Model(LATENT, tuple(map(str, range(100))), None, blank), None, None)
    none = Original("torch", Model(LATENT, (), None, blank), None, None)
    assert (len(many.fixed.z), len(none.fixed.z)) == (LATENTS + 3 * 64, LATENTS + 3)
    assert none.fixed.label is None


def test_latents_of_a_model_with_a_prior_are_drawn_from_it() -> None:
    prior = Prior.from_state(
        {
            "weights": np.ones((3, 1)),
            "mean": np.arange(3.0)[:, None, None].repeat(LATENT, axis=2),
            "scale_tril": np.broadcast_to(np.eye(LATENT) / 2, (3, 1, LATENT, LATENT)).copy(),
        }
    )
    z, label, _ = replace(ORIGINAL, model=replace(ORIGINAL.model, prior=prior)).fixed
    assert label is not None
    assert np.array_equal(z, prior.spread(2 * (z - label[:, None]), label))
    assert set(z[LATENTS:, 0].tolist()) == {0, 1, 2, 3, 4, 5, -3, -2, -1}  # the mean, and 6 σ of one half around it


@pytest.mark.parametrize("row", [0, 63, 64, 69, 1_023, FIXED - 1])  # the first, a batch's last, alone, padded, an edge
@pytest.mark.parametrize(
    ("precision", "change", "passes"),
    [
        *(("fp32", change, abs(change) <= 1) for change in (-2, -1, 0, 1, 2)),
        *(("fp16", 8, True), ("bf16", -8, True), ("int8", 9, False), ("fp16", -50, False)),
    ],
)
def test_one_pixel_of_one_picture_may_be_off_by_a_limit_and_no_more(
    row: int, precision: str, change: int, passes: bool
) -> None:
    found = held(one_pixel(change, row), precision)
    assert (found.parity.reference, found.parity.pictures, found.parity.max_levels) == ("torch", FIXED, abs(change))
    assert found.failed == (() if passes else ("parity",))


def test_fewer_bits_may_not_blur_every_picture_although_each_pixel_is_near() -> None:
    def spoil(images: np.ndarray, z: np.ndarray, label: np.ndarray) -> None:
        images += 3

    found = held(Fake(spoil), "fp16")
    assert found.parity.max_levels == 3
    assert found.parity.psnr_db == pytest.approx(20 * np.log10(255 / 3), abs=0.01)  # 38.6
    assert found.failed == ("parity",)
    assert [row[0] for row in findings(found, BUCKETS)] == ["parity"]


def test_pictures_that_are_the_same_have_no_psnr() -> None:
    assert held(Fake()).parity.psnr_db is None


# finite


def test_pictures_that_are_not_finite_are_counted_and_compared_no_further() -> None:
    def spoil(images: np.ndarray, z: np.ndarray, label: np.ndarray) -> None:
        images[label == 1] = 0
        if (label == 1).any():
            raise NonFinite(np.flatnonzero(label == 1).tolist(), images)

    found = held(Fake(spoil))
    assert found.failed == ("finite",)
    assert (found.not_finite, found.parity.pictures) == (344, FIXED - 344)


def test_an_engine_that_gives_nothing_finite_leaves_nothing_to_hold() -> None:
    def spoil(images: np.ndarray, z: np.ndarray, label: np.ndarray) -> None:
        raise NonFinite(list(range(len(z))), images)

    with pytest.raises(GateError, match="fake-fp32 gives no pictures that are finite"):
        held(Fake(spoil))


def test_a_model_that_fails_itself_is_said_to_be_at_fault() -> None:
    def broken(z: np.ndarray, label: np.ndarray | None) -> np.ndarray:
        raise EvaluationError("the generator gives pictures that are not finite, 3 of 64", "Train again.")

    with pytest.raises(GateError, match=r"the model itself fails, as torch runs it: .* not finite.* Train"):
        held(Fake(), original=replace(ORIGINAL, model=replace(ORIGINAL.model, run=broken)))


def test_an_engine_that_cannot_run_a_batch_is_no_matter_of_gates() -> None:
    def spoil(images: np.ndarray, z: np.ndarray, label: np.ndarray) -> None:
        if len(z) == 5:
            raise EngineError("out of memory")

    with pytest.raises(EngineError, match="out of memory"):
        held(Fake(spoil))


# batch invariance


@pytest.mark.parametrize("own", ["neighbour", "chance"])
def test_an_engine_without_a_single_batch_to_serve_is_refused_and_can_still_be_written_down(own: str) -> None:
    chance = np.random.default_rng(0)

    def spoil(images: np.ndarray, z: np.ndarray, label: np.ndarray) -> None:
        if own == "neighbour":
            images[:-1] += (z[1:, 0] > z[:-1, 0]).astype(np.uint8)[:, None, None, None]
        else:
            images += chance.integers(0, 2, images.shape, np.uint8)

    found, buckets = hold(Fake(spoil), ORIGINAL, "fp32")
    assert (found.failed, buckets) == (("batch invariance",), (1,))
    assert findings(found, buckets) == [
        ("batch invariance", "a row's picture changes with its batch", "not a bit"),
    ]
    forced = Artifact(
        engine="onnxruntime", precision="fp32", file="model.onnx", sha256="", gates=found, buckets=buckets
    )
    assert forced.forced


def test_buckets_that_disagree_are_left_out_and_the_others_pass() -> None:
    def spoil(images: np.ndarray, z: np.ndarray, label: np.ndarray) -> None:
        if len(z) <= 4:
            images += 1  # another kernel for few rows, a rounding away

    found, buckets = hold(Fake(spoil), ORIGINAL, "fp32")
    assert (found.failed, buckets) == ((), (8, 16, 32, 64))


def test_what_is_compared_are_pictures_of_the_buckets_that_are_served() -> None:
    """Most buckets give the negative, bit for bit alike; the others, which are not served, the right pictures."""

    def spoil(images: np.ndarray, z: np.ndarray, label: np.ndarray) -> None:
        if len(z) in (2, 4, 16, 32):
            images[...] = 255 - images
        elif len(z) == 64:
            images[0] += 1

    found, buckets = hold(Fake(spoil), ORIGINAL, "fp32")
    assert buckets == (2, 4, 16, 32)
    assert found.failed == ("parity",)
    assert found.parity.max_levels > 100


# drift


class Sees:
    """A judge of 2 x 2 pixels: features are pixels, and the class is told by how bright they are."""

    def __init__(self, change: float = 0) -> None:
        self.change = change

    def look(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        seen = images.reshape(len(images), -1).astype(np.float32)
        return -np.abs(seen.mean(1)[:, None] - np.array([100, 105, 110])) + self.change, seen

    def sha256(self) -> str:
        return ""


@pytest.fixture(scope="module")
def judged() -> Original:
    noise = np.random.default_rng(7)
    label = np.arange(300) % 3
    images = reference(noise.standard_normal((300, LATENT)), label)
    side = Side(Sight.of(Sees(), images, label), None)
    return replace(ORIGINAL, judge=Sees(), reference=Reference("noise", "test", 2, 1, NAMES, "", side, None))


def test_without_a_judge_there_is_no_drift_and_with_one_the_same_pictures_drift_by_nothing(judged: Original) -> None:
    assert held(Fake()).drift is None
    found = held(Fake(), original=judged)
    assert found.drift is not None
    assert found.drift.samples == 1_000
    assert set(found.drift.figures) == set(found.drift.allowed)
    assert set(found.drift.figures) >= {"fid", "agreement", "recall", "coverage", "class_variance"}
    assert set(found.drift.figures.values()) == {0}
    assert found.failed == ()


def test_a_class_of_one_picture_fails_by_its_variance_which_a_mean_over_classes_would_soften(judged: Original) -> None:
    def spoil(images: np.ndarray, z: np.ndarray, label: np.ndarray) -> None:
        images[label == 2] = 110

    found = held(Fake(spoil), original=judged)
    assert found.failed == ("parity", "drift")
    assert found.drift is not None
    figures = found.drift.figures
    assert figures["class_variance"] == pytest.approx(-1, abs=0.15)
    assert figures["within_class_variance_ratio"] == pytest.approx(-1 / 3, abs=0.1)
    told = [row for row in findings(found, BUCKETS) if row[0] == "drift"]
    assert ("drift", f"class variance {figures['class_variance']:+.3g}", "±0.1") in told


def test_better_pictures_are_another_models_too(judged: Original) -> None:
    def spoil(images: np.ndarray, z: np.ndarray, label: np.ndarray) -> None:
        images += (images.mean((1, 2, 3), keepdims=True) < 100 + 5 * label[:, None, None, None]).astype(np.uint8) * 4

    found = held(Fake(spoil), "fp16", judged)
    assert found.drift is not None
    assert found.drift.figures["agreement"] > 0.01
    assert "drift" in found.failed


def test_rows_that_are_not_finite_are_judged_on_neither_side(judged: Original) -> None:
    def spoil(images: np.ndarray, z: np.ndarray, label: np.ndarray) -> None:
        images[label == 1] = 0
        if (label == 1).any():
            raise NonFinite(np.flatnonzero(label == 1).tolist(), images)

    found = held(Fake(spoil), original=judged)
    assert found.failed == ("finite",)
    assert found.drift is not None
    assert (found.drift.samples, found.not_finite) == (667, 344 + 333)
    assert set(found.drift.figures.values()) == {0}


def test_the_original_is_asked_once_for_any_number_of_engines(judged: Original) -> None:
    asked: list[int] = []

    def counted(z: np.ndarray, label: np.ndarray | None) -> np.ndarray:
        asked.append(len(z))
        return reference(z, label)

    original = replace(judged, model=replace(judged.model, run=counted))
    held(Fake(), original=original)
    once = sum(asked)
    held(Fake(), "fp16", original)
    assert sum(asked) == once == FIXED + 1_000


def test_progress_is_told_gate_by_gate(judged: Original) -> None:
    told: list[tuple[str, float]] = []
    hold(Fake(), judged, "fp32", lambda gate, fraction: told.append((gate, fraction)))
    assert list(dict.fromkeys(gate for gate, _ in told)) == ["batch invariance", "parity", "drift"]
    assert told[-1] == ("drift", 1.0)
    assert all(0 <= fraction <= 1 for _, fraction in told)


# the judge


@pytest.mark.parametrize(("change", "passes"), [(0, True), (0.001, True), (1.0, False), (float("nan"), False)])
def test_an_exported_judge_must_see_the_same(change: float, passes: bool) -> None:
    images = np.full((4, 2, 2, 1), 200, np.uint8)
    if passes:
        same_sight(Sees(change), Sees(), images)
        return
    with pytest.raises(GateError, match="the exported judge sees other things than the trained one"):
        same_sight(Sees(change), Sees(), images)
