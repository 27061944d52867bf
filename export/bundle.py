"""THE CONTRACT between training and serving: a folder with a manifest, read only if every hash is right.

    models/<name>/<version>/manifest.json  model.onnx  prior.npz (of a mixture prior)  samples.png
                            judge.onnx  judge.npz (features of real images)

A version is built in a hidden folder and renamed: it is whole or absent. No torch, no onnx here.
"""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from training.config import Kind
from training.errors import LimnerError
from training.prior import Prior

MANIFEST = "manifest.json"
GRAPH = "model.onnx"
PRIOR = "prior.npz"
JUDGE = "judge.onnx"
REFERENCE = "judge.npz"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
IDENTITY = b"limner image identity 1"  # version of docs/image-identity.md; part of every digest


class BundleError(LimnerError):
    """A bundle is missing, damaged, of another schema, or in the way."""

    code = "bundle"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Part):
    """Where the weights come from. `run` is the run folder's name, never a path of the machine that built it."""

    run: str
    checkpoint_sha256: str
    data: str
    images_seen: int
    code_version: str


class Protocol(_Part):
    """How many generated images, and real ones (`reference`) of which split, one judge saw."""

    samples: int
    split: str
    judge_sha256: str
    reference: int | None = None


class Quality(_Part):
    """Figures of the judge on generated images, with how they were taken. `floor`: the same of real images."""

    protocol: Protocol
    agreement: float | None = None
    within_class_variance_ratio: float | None = None
    fid: float | None = None
    precision: float | None = None
    recall: float | None = None
    density: float | None = None
    coverage: float | None = None
    class_histogram_distance: float | None = None
    floor: dict[str, float] | None = None


class JudgeFiles(_Part):
    """What evaluation looks through: files of the judge and of its features of real images; `sha256` of its weights."""

    graph: str
    reference: str
    sha256: str


class Parity(_Part):
    """The greatest difference in grey levels between the engine's pictures and `reference`'s, over `batches`."""

    reference: str
    batches: tuple[int, ...]
    max_levels: int
    allowed_levels: int


class Artifact(_Part):
    """One file for one engine and precision. `buckets`: batch sizes whose rows equal the row alone, bit for bit."""

    engine: str
    precision: str
    file: str
    sha256: str
    parity: Parity
    buckets: tuple[int, ...]
    requirements: dict[str, str] | None = None
    quality: Quality | None = None
    drift: dict[str, float] | None = None  # of the quality, from that of `reference`

    @field_validator("buckets")
    @classmethod
    def _row_alone_first(cls, buckets: tuple[int, ...]) -> tuple[int, ...]:
        if not buckets or buckets[0] != 1 or any(next_ <= one for one, next_ in pairwise(buckets)):
            raise ValueError("buckets must ascend from 1")
        return buckets


class TensorSpec(_Part):
    name: str
    dtype: str
    shape: tuple[str | int, ...]


class Manifest(_Part):
    """What a bundle holds. Optional fields are absent until the stage that fills them exists."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    name: str = Field(pattern=rf"^{NAME.pattern}$")
    version: int = Field(ge=1)
    kind: Kind
    latent: int = Field(ge=1)
    height: int = Field(ge=1)
    width: int = Field(ge=1)
    channels: Literal[1, 3]
    class_names: tuple[str, ...] = ()
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    opset: int
    source: Source
    quality: Quality | None = None
    artifacts: tuple[Artifact, ...] = Field(min_length=1)
    files: dict[str, str] = {}  # every other file -> sha256
    prior: str | None = None
    judge: JudgeFiles | None = None
    forced: tuple[str, ...] | None = None

    @property
    def classes(self) -> int:
        return len(self.class_names)


@dataclass(frozen=True)
class Bundle:
    """A verified version folder. `digest` names the images it makes (docs/image-identity.md)."""

    folder: Path
    manifest: Manifest
    digest: str

    @property
    def title(self) -> str:
        return f"{self.manifest.name}@{self.manifest.version}"


def read(folder: Path) -> Bundle:
    """Read a version folder (`models/digits/1`) and check every hash. Raises BundleError naming the file."""
    path = folder / MANIFEST
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise BundleError(f"no bundle at '{folder}': it has no {MANIFEST}", _EXPORT) from error
    except OSError as error:
        raise BundleError(f"cannot read {path} ({error.strerror})", "Check its permissions.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BundleError(f"{path} is damaged ({where or 'JSON'}: {first['msg']})", _AGAIN) from error
    expected = {artifact.file: artifact.sha256 for artifact in manifest.artifacts} | manifest.files
    needed = [GRAPH, manifest.prior, *([manifest.judge.graph, manifest.judge.reference] if manifest.judge else [])]
    if any(name is not None and name not in expected for name in needed):
        raise BundleError(f"{path} is damaged (a file it needs is not listed)", _AGAIN)
    for name, sha256 in expected.items():
        if Path(name).name != name or "\0" in name:
            raise BundleError(f"{path} is damaged ({name!r} is no file name)", _AGAIN)
        if hash_file(folder / name) != sha256:
            raise BundleError(f"{folder / name} is not the file that was exported (its hash differs)", _AGAIN)
    return Bundle(folder, manifest, _digest(folder, manifest))


def load_prior(bundle: Bundle) -> Prior | None:
    """What a bundle's latents are drawn from; None where that is N(0, I). Raises BundleError naming the file."""
    manifest = bundle.manifest
    if manifest.prior is None:
        return None
    path = bundle.folder / manifest.prior
    try:
        prior = Prior.load(path)
    except ValueError as error:
        raise BundleError(f"{path} is damaged ({error})", _AGAIN) from error
    if (prior.classes, prior.latent) != (max(1, manifest.classes), manifest.latent):
        raise BundleError(
            f"{path} is of {prior.classes} classes and a latent of {prior.latent}, which {bundle.title} has not", _AGAIN
        )
    return prior


_EXPORT = "Make one: limner export RUN --to onnx --models MODELS."
_AGAIN = "Remove that version folder and export it again: limner export RUN --to onnx."


def hash_file(path: Path) -> str:
    """sha256 of a file's bytes. Raises BundleError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BundleError(f"cannot read {path} ({error.strerror})", "Restore it, or export again.") from error


def _digest(folder: Path, manifest: Manifest) -> str:
    digest = hashlib.sha256((folder / GRAPH).read_bytes())
    if manifest.prior is not None:
        digest.update((folder / manifest.prior).read_bytes())
    digest.update(IDENTITY)
    return digest.hexdigest()


def version_folders(models: Path) -> list[Path]:
    """Every version folder of a repository, of one model's folder, or the folder itself if it is a version."""
    if (models / MANIFEST).is_file():
        return [models]
    depth = "*" if any(_is_version(path) for path in _folders(models)) else "*/*"
    found = [path for path in models.glob(depth) if _is_version(path) and path.is_dir()]
    return sorted(found, key=lambda path: (path.parent.name, int(path.name)))


def _folders(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []


def _is_version(path: Path) -> bool:
    return path.name.isascii() and path.name.isdigit()


def find(models: Path, name: str, checkpoint_sha256: str) -> Bundle | None:
    """The newest sound version of `name` made from that checkpoint, or None."""
    for folder in reversed(version_folders(models / name)):
        try:
            bundle = read(folder)
        except BundleError:
            continue  # a damaged version is nobody's result; the next export makes a new one
        if bundle.manifest.source.checkpoint_sha256 == checkpoint_sha256:
            return bundle
    return None


@contextmanager
def new_version(models: Path, name: str) -> Iterator[tuple[Path, int]]:
    """Give a hidden folder to build the next version in; rename it into place if the block ends well, else drop it."""
    if not NAME.fullmatch(name) or name.isdigit():  # digits alone would be taken for a version
        raise BundleError(f"'{name}' is no model name", "Use letters, digits, '.', '_' and '-': --name digits.")
    home = models / name
    try:
        home.mkdir(parents=True, exist_ok=True)
        version = max((int(path.name) for path in _folders(home) if _is_version(path)), default=0) + 1
        part = Path(tempfile.mkdtemp(prefix=f".{version}-", dir=home))
    except OSError as error:
        raise BundleError(f"cannot write {home} ({error.strerror})", "Choose another --models.") from error
    try:
        yield part, version
        for path in (*part.iterdir(), part):
            _flush(path)
        part.chmod(0o755)
        part.rename(home / str(version))
        _flush(home)
    except OSError as error:
        raise BundleError(f"cannot write {home / str(version)} ({error.strerror})", "Export again.") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if not any(home.iterdir()):
            home.rmdir()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest into a folder that is being built."""
    text = manifest.model_dump_json(indent=2, by_alias=True, exclude_none=True)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
