"""A bundle is whole or absent, and read only if every byte is the one that was written."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export import bundle
from export.bundle import (
    Artifact,
    Bundle,
    BundleError,
    Manifest,
    Overtaken,
    Quality,
    extend,
    find,
    load_prior,
    new_version,
    read,
    version_folders,
    workshop,
    write_manifest,
)
from training.prior import Prior

GRAPH, SAMPLES = b"a graph of 32 bytes, or about it", b"a sheet of samples"
CHECKPOINT = "c" * 64


def described(folder: Path, name: str, version: int, checkpoint: str = CHECKPOINT) -> dict[str, Any]:
    return {
        "schema": 2,
        "name": name,
        "version": version,
        "kind": "cgan",
        "latent": 8,
        "height": 28,
        "width": 28,
        "channels": 1,
        "class_names": ["a", "ß"],
        "inputs": [{"name": "z", "dtype": "float32", "shape": ["N", 8]}],
        "outputs": [{"name": "image", "dtype": "uint8", "shape": ["N", 28, 28, 1]}],
        "opset": 20,
        "source": {
            "run": "run", "checkpoint_sha256": checkpoint, "data": "mnist-5k", "images_seen": 640, "code_version": "1",
        },
        "artifacts": [
            {
                "engine": "onnxruntime",
                "precision": "fp32",
                "file": "model.onnx",
                "sha256": hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest(),
                "gates": {
                    "parity": {
                        "reference": "torch", "pictures": 9, "max_levels": 0, "allowed_levels": 1, "most_levels": 1,
                    },
                    "not_finite": 0,
                },
                "buckets": [1, 2, 4],
            }
        ],
        "files": {"samples.png": hashlib.sha256((folder / "samples.png").read_bytes()).hexdigest()},
    }  # fmt: skip


def write(models: Path, name: str = "digits", checkpoint: str = CHECKPOINT, graph: bytes = GRAPH) -> Path:
    with new_version(models, name) as (part, version):
        (part / "model.onnx").write_bytes(graph)
        (part / "samples.png").write_bytes(SAMPLES)
        write_manifest(part, Manifest.model_validate(described(part, name, version, checkpoint)))
    return models / name / str(version)


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


# writing


def test_a_written_version_is_read_as_it_was_described(tmp_path: Path) -> None:
    folder = write(tmp_path)
    assert folder == tmp_path / "digits" / "1"
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "model.onnx", "samples.png"]
    found = read(folder)
    assert found.manifest == Manifest.model_validate(described(folder, "digits", 1))
    assert (found.folder, found.title, found.manifest.classes) == (folder, "digits@1", 2)


def test_what_a_stage_has_not_filled_is_absent_from_the_file(tmp_path: Path) -> None:
    manifest = json.loads((write(tmp_path) / "manifest.json").read_text())
    assert manifest["schema"] == 2
    assert not {"quality", "prior"} & manifest.keys()
    assert "requirements" not in manifest["artifacts"][0]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, BundleError])
def test_a_version_is_absent_when_its_making_fails(tmp_path: Path, error: type[BaseException]) -> None:
    def fail() -> None:
        with new_version(tmp_path, "digits") as (part, _):
            (part / "model.onnx").write_bytes(GRAPH)
            raise error("half way")

    with pytest.raises(error, match="half way"):
        fail()
    assert list(tmp_path.iterdir()) == []
    first = write(tmp_path)
    with pytest.raises(error):
        fail()
    assert list((tmp_path / "digits").iterdir()) == [first]
    read(first)


def test_a_version_that_is_there_by_then_is_left_alone(tmp_path: Path) -> None:
    says = r"digits/1 was made by another export meanwhile. Export again."
    with pytest.raises(Overtaken, match=says), new_version(tmp_path, "digits"):
        write(tmp_path)
    (first,) = (tmp_path / "digits").iterdir()
    read(first)


def test_a_version_is_not_seen_before_it_is_whole(tmp_path: Path) -> None:
    with new_version(tmp_path, "digits") as (part, _):
        assert part.name.startswith(".")
        (part / "manifest.json").write_text("{}")
        assert version_folders(tmp_path) == version_folders(tmp_path / "digits") == []


@pytest.mark.parametrize(("present", "following"), [([], 1), ([1], 2), ([1, 2], 3), ([2, 10], 11)])
def test_the_next_version_follows_the_highest(tmp_path: Path, present: list[int], following: int) -> None:
    for folder in ("notes", *map(str, present)):
        (tmp_path / "digits" / folder).mkdir(parents=True)
    (tmp_path / "digits" / "99").write_text("a file")
    assert write(tmp_path).name == str(following)


def test_of_two_exports_at_once_the_first_to_end_stays(tmp_path: Path) -> None:
    def later() -> None:
        with new_version(tmp_path, "digits") as (part, version):
            (part / "model.onnx").write_bytes(b"later")
            assert (version, write(tmp_path).name) == (1, "1")

    with pytest.raises(BundleError, match="Export again"):
        later()
    assert [path.name for path in (tmp_path / "digits").iterdir()] == ["1"]
    assert (read(tmp_path / "digits" / "1").folder / "model.onnx").read_bytes() == GRAPH


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../digits", "a/b", ".hidden", "my digits", "ziffern\n", "7", "x" * 65]
)
def test_a_name_that_is_no_folder_name_of_a_model_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BundleError, match="no model name"), new_version(tmp_path / "models", name):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file")
    with pytest.raises(BundleError, match="cannot write"), new_version(tmp_path / "models", "digits"):
        pass


# reading


@pytest.mark.parametrize("file", ["model.onnx", "samples.png"])
def test_a_change_of_any_byte_is_refused_by_the_files_name(tmp_path: Path, file: str) -> None:
    path = write(tmp_path) / file
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(BundleError, match=f"{file} is not the file that was exported"):
            read(path.parent)
    path.write_bytes(whole)
    read(path.parent)


@pytest.mark.parametrize("file", ["model.onnx", "samples.png"])
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(path.read_bytes() + b"\0")])
def test_a_missing_or_longer_file_is_refused_by_its_name(
    tmp_path: Path, file: str, damage: Callable[[Path], Any]
) -> None:
    folder = write(tmp_path)
    damage(folder / file)
    with pytest.raises(BundleError, match=file):
        read(folder)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda manifest: manifest.pop("latent"), "latent"),
        (lambda manifest: manifest["artifacts"][0].pop("buckets"), r"artifacts\.0: .*has gates and buckets"),
        (lambda manifest: manifest["artifacts"][0].update(buckets=[]), r"artifacts\.0: .*has gates and buckets"),
        (lambda manifest: manifest["artifacts"][0].pop("gates"), r"artifacts\.0: .*says why they were not run"),
        (lambda manifest: manifest["artifacts"][0].update(not_run={"why": "a", "command": "b"}), r"artifacts\.0: "),
        *(
            (lambda manifest, buckets=buckets: manifest["artifacts"][0].update(buckets=buckets), "artifacts.0.buckets")
            for buckets in ([0, 1], [-1, 1], [1, 4, 2], [1, 1])
        ),
        (lambda manifest: manifest.update(surprise=1), "surprise"),
        (lambda manifest: manifest["source"].update(path="/home/me"), "source.path"),
        (lambda manifest: manifest.update(schema=1), r"is of schema 1, this limner reads 2\. .*export it again"),
        (lambda manifest: manifest.update(name="../digits"), "name"),
        (lambda manifest: manifest.update(artifacts=[]), "artifacts"),
        (lambda manifest: manifest["artifacts"][0].update(file="samples.png"), "not listed"),
        (lambda manifest: manifest.update(prior="prior.npz"), "not listed"),
        (lambda manifest: manifest["files"].update({"../2/model.onnx": "0"}), "no file name"),
        (lambda manifest: manifest["files"].update({"/etc/passwd": "0"}), "no file name"),
        (lambda manifest: manifest["files"].update({"a\0b": "0"}), "no file name"),
        (lambda manifest: manifest["files"].update({"..": "0"}), "cannot read"),
        (lambda manifest: manifest["files"].update({"": "0"}), "cannot read"),
    ],
)
def test_a_manifest_that_is_wrong_is_refused_with_the_place(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], complaint: str
) -> None:
    folder = write(tmp_path)
    edit(folder, change)
    with pytest.raises(BundleError, match=complaint):
        read(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"schema: 1"])
def test_a_manifest_that_is_no_manifest_is_refused(tmp_path: Path, content: bytes) -> None:
    folder = write(tmp_path)
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"manifest\.json is damaged"):
        read(folder)


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no bundle at .*limner export"):
        read(tmp_path)


def test_the_digest_is_of_the_graph_and_the_prior_alone(tmp_path: Path) -> None:
    digest = read(write(tmp_path)).digest
    assert digest == hashlib.sha256(GRAPH + b"limner image identity 1").hexdigest()  # docs/image-identity.md
    assert read(write(tmp_path, "other", "d" * 64)).digest == digest
    assert read(write(tmp_path, graph=b"another graph")).digest != digest
    folder = write(tmp_path)
    (folder / "prior.npz").write_bytes(b"prior")
    sha256 = hashlib.sha256(b"prior").hexdigest()
    edit(folder, lambda manifest: manifest.update(prior="prior.npz", files=manifest["files"] | {"prior.npz": sha256}))
    assert read(folder).digest == hashlib.sha256(GRAPH + b"prior" + b"limner image identity 1").hexdigest()


# extension


GATES = {
    "parity": {"reference": "torch", "pictures": 9, "max_levels": 0, "allowed_levels": 1, "most_levels": 1},
    "not_finite": 0,
}


def plan(file: str = "model.sm89.plan", capability: str = "8.9", **more: Any) -> Artifact:
    content = {
        "engine": "tensorrt-rtx",
        "precision": "fp16",
        "file": file,
        "sha256": hashlib.sha256(b"plan").hexdigest(),
    }
    content |= {"not_run": {"why": "no GPU", "command": "limner export"}}
    return Artifact.model_validate(content | {"requirements": {"compute_capability": capability}} | more)


def extended(folder: Path, artifact: Artifact, content: bytes = b"plan", others: tuple[str, ...] = ()) -> Bundle:
    found = read(folder)
    with workshop(found) as part:
        (part / artifact.file).write_bytes(content)
        for name in others:
            (part / name).write_bytes(b"layers")
        artifact = artifact.model_copy(update={"sha256": hashlib.sha256(content).hexdigest()})
        return extend(found, part, [artifact], others)


def test_an_extension_adds_artifacts_and_files_and_keeps_the_rest(tmp_path: Path) -> None:
    folder = write(tmp_path)
    before = read(folder)
    after = extended(folder, plan(), others=("layers.json",))
    assert after == read(folder)
    assert [artifact.title for artifact in after.manifest.artifacts] == ["onnxruntime:fp32", "tensorrt-rtx:fp16"]
    assert after.manifest.files.keys() == {"samples.png", "layers.json"}
    assert after.digest == before.digest
    assert {path.name for path in folder.iterdir()} == {
        "manifest.json", "model.onnx", "samples.png", "model.sm89.plan", "layers.json",
    }  # fmt: skip
    assert version_folders(tmp_path) == [folder]
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == ["1"]


def test_an_artifact_takes_the_place_of_the_same_one_for_the_same_machines(tmp_path: Path) -> None:
    folder = write(tmp_path)
    extended(folder, plan())
    extended(folder, plan("model.sm90.plan", "9.0"))
    after = extended(folder, plan(), b"a better plan")
    files = [artifact.file for artifact in after.manifest.artifacts[1:]]
    assert [artifact.requirements for artifact in after.manifest.artifacts[1:]] == [
        {"compute_capability": "8.9"},
        {"compute_capability": "9.0"},
    ]
    assert (folder / files[0]).read_bytes() == b"a better plan"
    assert {path.name for path in folder.iterdir() if path.suffix == ".plan"} == set(files)  # the old one is gone


def test_one_whose_gates_were_not_run_does_not_take_the_place_of_one_whose_gates_were(tmp_path: Path) -> None:
    folder = write(tmp_path)
    tried = plan(gates=GATES, not_run=None, buckets=(1, 2))
    gated = extended(folder, tried)
    assert extended(folder, plan(), b"built again, elsewhere") == gated
    assert extended(folder, tried, b"built again, and tried").manifest != gated.manifest


def test_a_file_that_readers_trust_is_never_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the files and the manifest a reader still sees the whole bundle of before."""
    folder = write(tmp_path)
    before = extended(folder, plan())
    seen = []

    def spy(part: Path, manifest: Manifest) -> None:
        seen.append(read(folder))
        write_manifest(part, manifest)

    monkeypatch.setattr(bundle, "write_manifest", spy)
    extended(folder, plan(), b"a better plan")
    assert seen == [before]


def test_a_reader_whom_an_extension_overtakes_reads_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path)
    extended(folder, plan())
    hash_file = bundle.hash_file

    def overtaken(path: Path) -> str:
        if path.suffix == ".plan":
            monkeypatch.setattr(bundle, "hash_file", hash_file)
            extended(folder, plan(), b"a better plan")  # removes the file that the reader asks for now
        return hash_file(path)

    monkeypatch.setattr(bundle, "hash_file", overtaken)
    found = read(folder)
    assert found.manifest.artifacts[1].sha256 == hashlib.sha256(b"a better plan").hexdigest()


def test_an_extension_that_fails_leaves_the_bundle_as_it_was(tmp_path: Path) -> None:
    folder = write(tmp_path)
    before = read(folder)

    def fail() -> None:
        with workshop(before) as part:
            (part / "model.plan").write_bytes(b"plan")
            raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        fail()
    assert read(folder) == before
    assert {path.name for path in folder.parent.iterdir()} == {"1"}
    assert {path.name for path in folder.iterdir()} == {"manifest.json", "model.onnx", "samples.png"}


def test_several_machines_extend_one_bundle_at_once(tmp_path: Path) -> None:
    folder = write(tmp_path)
    found = read(folder)
    names = [f"model.sm{number}.plan" for number in range(8)]

    def one(name: str) -> None:
        with workshop(found) as part:  # all of them read the bundle before any of them has published
            (part / name).write_bytes(b"plan")
            extend(found, part, [plan(name, name)])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, names))
    assert {artifact.file for artifact in read(folder).manifest.artifacts} == {"model.onnx", *names}


def test_a_bundle_that_cannot_be_written_is_not_extended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path)

    def refuse(*given: Any, **more: Any) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(bundle.tempfile, "mkdtemp", refuse)
    with pytest.raises(BundleError, match=r"cannot write .*digits \(Permission denied\)\. Copy the bundle elsewhere"):
        extended(folder, plan())


# the prior


def with_prior(models: Path, write_prior: Callable[[Path], Any]) -> Path:
    """A version whose manifest names prior.npz, with its right hash."""
    folder = write(models)
    write_prior(folder / "prior.npz")
    sha256 = hashlib.sha256((folder / "prior.npz").read_bytes()).hexdigest()
    edit(folder, lambda manifest: manifest.update(prior="prior.npz", files=manifest["files"] | {"prior.npz": sha256}))
    return folder


def normal(classes: int, latent: int) -> Prior:
    eye = np.broadcast_to(np.eye(latent), (classes, 1, latent, latent))
    return Prior(np.ones((classes, 1)), np.zeros((classes, 1, latent)), eye)


def test_a_prior_comes_with_its_bundle(tmp_path: Path) -> None:
    assert load_prior(read(write(tmp_path))) is None
    prior = load_prior(read(with_prior(tmp_path, normal(2, 8).save)))
    assert prior is not None
    assert (prior.classes, prior.latent) == (2, 8)
    folder = with_prior(tmp_path, normal(1, 8).save)
    edit(folder, lambda manifest: manifest.pop("class_names"))
    assert load_prior(read(folder)) is not None


@pytest.mark.parametrize("file", [b"", b"no archive", b"PK\x03\x04"])
def test_a_prior_that_is_none_is_refused_by_its_name(tmp_path: Path, file: bytes) -> None:
    found = read(with_prior(tmp_path, lambda path: path.write_bytes(file)))
    with pytest.raises(BundleError, match=r"prior\.npz is damaged"):
        load_prior(found)


@pytest.mark.parametrize(("classes", "latent"), [(1, 8), (3, 8), (2, 7)])
def test_the_prior_of_another_model_is_refused(tmp_path: Path, classes: int, latent: int) -> None:
    found = read(with_prior(tmp_path, normal(classes, latent).save))
    with pytest.raises(BundleError, match=rf"prior\.npz is of {classes} classes and a latent of {latent}"):
        load_prior(found)


def test_a_change_of_the_prior_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    folder = with_prior(tmp_path, normal(2, 8).save)
    (folder / "prior.npz").write_bytes((folder / "prior.npz").read_bytes() + b"\0")
    with pytest.raises(BundleError, match=r"prior\.npz is not the file that was exported"):
        read(folder)


# quality


def test_a_manifest_of_before_has_no_more_figures_and_one_of_now_has_them(tmp_path: Path) -> None:
    before = {"protocol": {"samples": 500, "split": "test", "judge_sha256": "a" * 64}, "agreement": 0.9}
    now = {
        "protocol": before["protocol"] | {"reference": 400},
        "agreement": 0.9,
        "within_class_variance_ratio": 0.8,
        "fid": 12.5,
        "precision": 0.7,
        "recall": 0.6,
        "class_histogram_distance": 0.05,
        "floor": {"fid": 1.5},
    }
    for quality in (before, now):
        folder = write(tmp_path)
        edit(folder, lambda manifest, quality=quality: manifest.update(quality=quality))
        found = read(folder).manifest.quality
        assert found is not None
        assert found == Quality.model_validate(quality)
        assert found.model_dump(exclude_none=True) == quality
    edit(folder, lambda manifest: manifest["quality"].update(f1=0.5))
    with pytest.raises(BundleError, match=r"quality\.f1"):
        read(folder)


# finding


def test_a_repository_a_model_and_a_version_list_their_versions(tmp_path: Path) -> None:
    for version in ("2", "10", ".3-building", "old"):
        (tmp_path / "digits" / version).mkdir(parents=True)
    (tmp_path / "digits" / "7").write_text("a file")
    other = write(tmp_path, "cats")
    digits = [tmp_path / "digits" / "2", tmp_path / "digits" / "10"]
    assert version_folders(tmp_path) == [other, *digits]
    assert version_folders(tmp_path / "digits") == digits
    assert version_folders(other) == [other]
    assert version_folders(tmp_path / "nowhere") == []


def test_a_checkpoints_newest_sound_version_is_found(tmp_path: Path) -> None:
    first, second, _ = write(tmp_path), write(tmp_path), write(tmp_path, checkpoint="d" * 64)

    def found() -> Path | None:
        version = find(tmp_path, "digits", CHECKPOINT)
        return version and version.folder

    assert found() == second
    (second / "model.onnx").write_bytes(b"damaged")
    assert found() == first
    (first / "manifest.json").unlink()
    assert found() is None
    assert find(tmp_path, "cats", CHECKPOINT) is None


@pytest.mark.parametrize("module", ["export.bundle", "export.gates", "export.engines", "export.choice"])
def test_what_serves_loads_no_torch_and_no_onnx(module: str) -> None:
    heavy = {"torch", "onnx", "onnxscript", "onnxruntime", "sklearn"}
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "[]"


def test_the_hash_of_a_file_is_its_sha256(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(GRAPH)
    assert bundle.hash_file(tmp_path / "file") == hashlib.sha256(GRAPH).hexdigest()
