"""THE CONTRACT between training and serving: a folder with a manifest, read only if every hash is right.

    models/<name>/<version>/manifest.json  model.onnx  prior.npz (of a mixture prior)  samples.png
                            judge.onnx  judge.npz (features of real images)
                            model.fp16.onnx  model.sm89.rtx1.7.fp16.plan ... (what an extension added)

A version is built in a hidden folder and renamed: it is whole or absent. An extension adds files first and replaces the
manifest last: a reader sees the bundle before it or after it. No torch, no onnx here.
"""

import errno
import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from training.config import Kind
from training.errors import LimnerError
from training.prior import Prior

MANIFEST = "manifest.json"
GRAPH = "model.onnx"
PRIOR = "prior.npz"
JUDGE = "judge.onnx"
REFERENCE = "judge.npz"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
SCHEMA = 2
LARGEST = 4_096  # bucket: a manifest cannot ask for more memory than that takes
IDENTITY = b"limner image identity 1"  # version of docs/image-identity.md; part of every digest


class BundleError(LimnerError):
    """A bundle is missing, damaged, of another schema, or in the way."""

    code = "bundle"


class Overtaken(BundleError):
    """Another process made the version that was being built."""


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
    """Differences in grey levels of 255 between the engine's pictures and `reference`'s, of the same latents."""

    reference: str
    pictures: int = Field(ge=1)
    max_levels: int = Field(ge=0)
    allowed_levels: int  # for all values but a share
    share_over: float = Field(default=0, ge=0, le=1)  # of values that are further apart than that
    allowed_share: float = 0
    most_levels: int  # for any
    psnr_db: float | None = None  # over all pictures; None: not one level apart
    least_psnr_db: float | None = None  # allowed; None: the levels alone decide


class Drift(_Part):
    """The judge's figures of the engine's pictures minus those of the reference's, of the same seeds."""

    samples: int = Field(ge=1)
    figures: dict[str, float]
    allowed: dict[str, float]


class Gates(_Part):
    """What the gates found. `failed` names those that `--force` passed over: `auto` never takes such an artifact."""

    parity: Parity
    not_finite: int = Field(ge=0)  # of the pictures compared
    drift: Drift | None = None  # None: the bundle has no judge
    failed: tuple[str, ...] = ()


class NotRun(_Part):
    """Why the gates could not run where the artifact was made, and the command that runs them where they can."""

    why: str
    command: str


class Artifact(_Part):
    """One file for one engine and precision, with what its gates found, or why they were not run.

    `buckets`: batch sizes that give the same pictures, bit for bit; () where the gates were not run. `requirements`:
    what a machine must be to run the file; None: any that has the engine.
    """

    engine: str
    precision: str
    file: str
    sha256: str
    gates: Gates | None = None
    not_run: NotRun | None = None
    buckets: tuple[int, ...] = ()
    requirements: dict[str, str] | None = None

    @field_validator("buckets")
    @classmethod
    def _ascending(cls, buckets: tuple[int, ...]) -> tuple[int, ...]:
        if any(not 1 <= size <= LARGEST for size in buckets) or any(next_ <= one for one, next_ in pairwise(buckets)):
            raise ValueError(f"buckets must ascend and lie within 1 and {LARGEST}")
        return buckets

    @model_validator(mode="after")
    def _gates_or_why_not(self) -> "Artifact":
        if (self.gates is None) == (self.not_run is None) or (self.gates is None) != (not self.buckets):
            raise ValueError("an artifact has gates and buckets, or says why they were not run")
        return self

    @property
    def title(self) -> str:
        return f"{self.engine}:{self.precision}"

    @property
    def forced(self) -> bool:
        return self.gates is not None and bool(self.gates.failed)

    def replaces(self, other: "Artifact") -> bool:
        """Whether both are the same thing for the same machines, so that the newer one takes the place."""
        mine, theirs = (artifact.requirements or {} for artifact in (self, other))
        return (self.title, mine) == (other.title, theirs)

    def unknown_to(self, other: "Artifact") -> bool:
        """Whether the other is the same thing, and its gates were run and this one's not."""
        return self.replaces(other) and self.gates is None and other.gates is not None


class TensorSpec(_Part):
    name: str
    dtype: Literal["float32", "int64", "uint8"]
    shape: tuple[str | int, ...]


class Manifest(_Part):
    """What a bundle holds. Optional fields are absent until the stage that fills them exists."""

    schema_version: Literal[2] = Field(alias="schema")
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
        content = path.read_bytes()
        manifest = Manifest.model_validate_json(content)
    except FileNotFoundError as error:
        raise BundleError(f"no bundle at '{folder}': it has no {MANIFEST}", _EXPORT) from error
    except OSError as error:
        raise BundleError(f"cannot read {path} ({error.strerror})", "Check its permissions.") from error
    except ValidationError as error:
        first = error.errors()[0]
        if first["loc"] == ("schema",):
            raise BundleError(f"{path} is of schema {first['input']}, this limner reads {SCHEMA}", _AGAIN) from error
        where = ".".join(str(part) for part in first["loc"])
        raise BundleError(f"{path} is damaged ({where or 'JSON'}: {first['msg']})", _AGAIN) from error
    expected = _sha256s(manifest)
    needed = [GRAPH, manifest.prior, *([manifest.judge.graph, manifest.judge.reference] if manifest.judge else [])]
    if any(name is not None and name not in expected for name in needed):
        raise BundleError(f"{path} is damaged (a file it needs is not listed)", _AGAIN)
    for name, sha256 in expected.items():
        if Path(name).name != name or "\0" in name:
            raise BundleError(f"{path} is damaged ({name!r} is no file name)", _AGAIN)
        try:
            if hash_file(folder / name) != sha256:
                raise BundleError(f"{folder / name} is not the file that was exported (its hash differs)", _AGAIN)
        except BundleError:
            if path.read_bytes() == content:
                raise
            return read(folder)  # an extension came between
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
    """Give a hidden folder to build the next version in; rename it into place if the block ends well, else drop it.

    Raises BundleError where it cannot be written, Overtaken where the version is there by then.
    """
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
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise Overtaken(f"{home / str(version)} was made by another export meanwhile", "Export again.") from error
        raise BundleError(f"cannot write {home / str(version)} ({error.strerror})", "Export again.") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if not any(home.iterdir()):
            home.rmdir()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest into a folder that is being built."""
    text = manifest.model_dump_json(indent=2, by_alias=True, exclude_none=True)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


@contextmanager
def workshop(bundle: Bundle) -> Iterator[Path]:
    """Give a hidden folder beside the version to make new files in; it is gone afterwards."""
    home = bundle.folder.resolve().parent
    try:
        with tempfile.TemporaryDirectory(prefix=f".{bundle.manifest.version}-", dir=home) as part:
            yield Path(part)
    except OSError as error:
        raise BundleError(f"cannot write {home} ({error.strerror})", "Copy the bundle elsewhere.") from error


def extend(bundle: Bundle, part: Path, artifacts: Sequence[Artifact], others: Sequence[str] = ()) -> Bundle:
    """Publish artifacts whose files lie in `part` or in the bundle already, and `others` of `part` as further files.

    Files come first and the manifest last, under a lock, so that several machines may extend one bundle and readers see
    it before or after. An artifact takes the place of one that is the same thing for the same machines; one whose gates
    were not run gives way to one whose gates were.
    """
    folder = bundle.folder
    with _locked(folder.resolve().parent):
        manifest = read(folder).manifest  # somebody may have extended it meanwhile
        news = [new for new in artifacts if not any(new.unknown_to(old) for old in manifest.artifacts)]
        placed = {name: _place(part, name, folder, manifest) for name in {*others, *(each.file for each in news)}}
        news = [new.model_copy(update={"file": placed[new.file]}) for new in news]
        kept = [next((new for new in news if new.replaces(old)), old) for old in manifest.artifacts]
        kept += [new for new in news if new not in kept]
        files = manifest.files | {placed[name]: hash_file(folder / placed[name]) for name in others}
        write = manifest.model_copy(update={"artifacts": tuple(kept), "files": files})
        write_manifest(part, write)
        _flush(part / MANIFEST)
        (part / MANIFEST).replace(folder / MANIFEST)
        _flush(folder)
        listed = {artifact.file for artifact in write.artifacts} | write.files.keys()
        for dropped in {artifact.file for artifact in manifest.artifacts} - listed:
            (folder / dropped).unlink(missing_ok=True)
    return read(folder)


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    with (home / ".lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _place(part: Path, name: str, folder: Path, manifest: Manifest) -> str:
    """Move a new file in, under a name that nothing else in the bundle has; what it is called there."""
    if not (part / name).exists():
        return name
    sha256 = hash_file(part / name)
    stem, ending = name.rsplit(".", 1)
    place = name if _sha256s(manifest).get(name) in (None, sha256) else f"{stem}.{sha256[:8]}.{ending}"
    _flush(part / name)
    (part / name).replace(folder / place)
    return place


def _sha256s(manifest: Manifest) -> dict[str, str]:
    return {artifact.file: artifact.sha256 for artifact in manifest.artifacts} | manifest.files


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
