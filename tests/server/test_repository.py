"""Which model answers, what a label means to it, and what may not be served."""

import hashlib
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from export.bundle import BundleError, read
from export.engines import EngineError
from export.extend import bundle_original, extend
from export.invariance import GateError, invariant_buckets, probe
from export.targets import Wanted
from server import repository
from server.batcher import Batch
from server.errors import InvalidParameter, NotFound
from server.repository import Repository, open_repository
from server.settings import Settings
from training.errors import ConfigError


def ignore(title: str, batch: Batch) -> None: ...


def opened(models: Path, **settings: str) -> Repository:
    return open_repository(Settings.model_validate({"models": models, **settings}), ignore)


@pytest.fixture
def two_versions(models: Path, tmp_path: Path) -> Path:
    """`digits` as versions 1 and 2."""
    first = shutil.copytree(models / "digits", tmp_path / "digits") / "1"
    second = shutil.copytree(first, tmp_path / "digits" / "2")
    manifest = second / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"version": 1,', '"version": 2,'))
    return tmp_path


def test_the_only_model_answers_who_names_none(models: Path) -> None:
    live = opened(models / "plain")
    assert live.get(None, None).title == live.get("plain", 1).title == "plain@1"
    live.close()


def test_of_several_models_the_default_answers_who_names_none(models: Path) -> None:
    live = opened(models, default_model="plain")
    assert live.get(None, None).title == "plain@1"
    assert live.get("digits", None).title == "digits@1"
    live.close()


def test_of_several_models_without_a_default_one_must_be_named(models: Path) -> None:
    live = opened(models)
    with pytest.raises(InvalidParameter) as refused:
        live.get(None, None)
    assert (refused.value.members["field"], refused.value.members["allowed"]) == ("model", "digits, plain")
    live.close()


def test_the_highest_version_answers_who_names_none(two_versions: Path) -> None:
    live = opened(two_versions)
    assert live.get(None, None).title == "digits@2"
    assert live.get("digits", 1).title == "digits@1"
    with pytest.raises(NotFound) as missing:
        live.get("digits", 3)
    assert (missing.value.members["field"], missing.value.members["allowed"]) == ("version", "1, 2")
    live.close()


@pytest.mark.parametrize("place", ["", "digits", "digits/1"])
def test_a_repository_a_model_or_one_version_can_be_served(two_versions: Path, place: str) -> None:
    live = opened(two_versions / place)
    assert [model.title for model in live.versions()["digits"]] == ["digits@1", "digits@2"][
        : 1 if place[-1:] == "1" else 2
    ]
    live.close()


def test_a_single_model_can_be_served_under_another_name(models: Path) -> None:
    live = opened(models / "digits", name="numbers", default_model="numbers")
    assert live.get(None, None).title == live.get("numbers", None).title == "numbers@1"
    with pytest.raises(NotFound):
        live.get("digits", None)
    live.close()


@pytest.mark.parametrize(
    ("place", "settings", "what"),
    [
        ("", {"name": "x"}, "--name renames one model"),
        ("", {"default_model": "nope"}, "no model 'nope' to be the default"),
        ("", {"default_model": "plai"}, "no model 'plai' to be the default"),
        ("digits", {"name": "numbers", "default_model": "number"}, "no model 'number' to be the default"),
        ("digits", {"name": "numbers", "default_model": "digits"}, "no model 'digits' to be the default"),
    ],
)
def test_a_name_or_default_that_fits_no_model_is_refused(
    models: Path, place: str, settings: dict[str, str], what: str
) -> None:
    with pytest.raises(ConfigError, match=what):
        opened(models / place, **settings)


def test_two_folders_of_one_model_and_version_are_refused(models: Path, tmp_path: Path) -> None:
    """A folder that was copied for a second model still has the first one's name in its manifest."""
    shutil.copytree(models / "plain", tmp_path / "plain")
    shutil.copytree(models / "plain", tmp_path / "other")
    with pytest.raises(BundleError, match=r"other/1' and '.*plain/1' are both plain@1"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("label", "index"),
    [(None, None), ("0", 0), ("2", 1), ("1", 2), (0, 0), (2, 2), (1, 1), ("00", 0), ("02", 2)],
)
def test_a_string_is_a_class_name_first_and_an_integer_always_an_index(
    models: Path, label: int | str | None, index: int | None
) -> None:
    live = opened(models / "digits")  # its classes are named 0, 2, 1
    assert live.get(None, None).label_index(label) == index
    live.close()


@pytest.mark.parametrize("label", ["3", 3, -1, "-1", "+1", " 1", "", "\u0661", "1.0", "9" * 50, 10**30, "cat"])
def test_any_other_label_is_refused(models: Path, label: int | str) -> None:
    live = opened(models / "digits")
    with pytest.raises(InvalidParameter) as refused:
        live.get(None, None).label_index(label)
    assert refused.value.members["allowed"] == "a class name (0, 2, 1) or an index from 0 to 2"
    live.close()


# priors


def test_a_bundles_prior_is_with_its_model(models: Path, mixture: Path) -> None:
    live = opened(mixture)
    prior = live.get(None, None).prior
    assert prior is not None
    assert (prior.classes, prior.latent) == (3, 6)
    live.close()
    plain = opened(models / "plain")
    assert plain.get(None, None).prior is None
    plain.close()


@pytest.mark.parametrize("rehash", [False, True])
@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", b"whole"])
def test_a_damaged_prior_is_not_served(mixture: Path, tmp_path: Path, damage: bytes, rehash: bool) -> None:
    """Found by its hash; and where the manifest was made to fit, by what is in it."""
    folder = shutil.copytree(mixture / "mixed", tmp_path / "mixed") / "1"
    path, manifest = folder / "prior.npz", folder / "manifest.json"
    whole = path.read_bytes()
    before = hashlib.sha256(whole).hexdigest()
    path.write_bytes(damage if damage != b"whole" else whole[:-1])
    if rehash:
        manifest.write_text(manifest.read_text().replace(before, hashlib.sha256(path.read_bytes()).hexdigest()))
    with pytest.raises(BundleError, match=r"prior\.npz is " + ("damaged" if rehash else "not the file")):
        opened(tmp_path)
    path.unlink()
    with pytest.raises(BundleError, match=r"cannot read .*prior\.npz"):
        opened(tmp_path)


def test_the_warm_up_checks_latents_of_the_prior(mixture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = list[np.ndarray]()
    monkeypatch.setattr(
        repository, "invariant_buckets", lambda *given: seen.append(given[1]) or invariant_buckets(*given)
    )
    live = opened(mixture)
    prior = live.get(None, None).prior
    assert prior is not None
    z, label = probe(64, 6, 3)
    assert np.array_equal(seen[0], prior.spread(z, label))
    live.close()


# the warm-up


class Moody:
    """Gives other pixels for a row in a batch of one of `sizes` than for the row alone."""

    artifact = "moody"
    on_cpu = True

    def __init__(self, buckets: tuple[int, ...], sizes: set[int]) -> None:
        self.buckets, self.sizes = buckets, sizes
        self.runs = 0

    def run(self, z: np.ndarray, label: np.ndarray | None) -> np.ndarray:
        self.runs += 1
        mood = self.runs % 256 if len(z) in self.sizes else 0
        return np.full((len(z), 32, 32, 3), mood, np.uint8)

    def describe(self) -> dict[str, str]:
        return {}

    def close(self) -> None: ...


def test_buckets_that_change_a_row_on_this_machine_are_not_served(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for sizes, left in (({8, 64}, (1, 2, 4, 16, 32)), ({1}, (2, 4, 8, 16, 32, 64))):
        moody = partial(lambda engine, precision, path, buckets, *more, sizes: Moody(buckets, sizes), sizes=sizes)
        monkeypatch.setattr(repository, "open_engine", moody)
        live = opened(models / "plain")
        assert live.get(None, None).buckets == left
        live.close()


def test_a_model_that_does_not_repeat_itself_is_refused(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        repository, "open_engine", lambda engine, precision, path, buckets, *more: Moody(buckets, {*buckets})
    )
    with pytest.raises(GateError, match="other pixels for the same latent"):
        opened(models / "plain")


# the engine


def test_the_engine_that_is_named_answers(models: Path, tmp_path: Path) -> None:
    """auto prefers what was exported for OpenVINO and passed its gates, unless fp32 there was never tried or forced."""
    shutil.copytree(models / "plain", tmp_path / "plain")
    first = read(tmp_path / "plain" / "1")
    with bundle_original(first) as original:
        extend(first, [Wanted("openvino", "openvino", name) for name in ("fp32", "fp16")], original, force=True)
    wanted = {"auto": "openvino-fp32", "onnxruntime": "onnxruntime-fp32", "openvino:fp32": "openvino-fp32"}
    for engine, artifact in wanted.items():
        live = opened(tmp_path / "plain", engine=engine)
        assert live.get(None, None).artifact.startswith(artifact)
        live.close()
    with pytest.raises(EngineError, match=r"no artifact for 'tensorrt'\. There is onnxruntime:fp32, openvino:fp32"):
        opened(tmp_path / "plain", engine="tensorrt")
