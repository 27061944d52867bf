"""GET /models and /models/{m}: what is served, with its classes, quality and artifacts."""

from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request

from export.bundle import Artifact, Quality, Source
from server.repository import LiveModel
from server.state import State

router = APIRouter(tags=["models"])


EXAMPLE: dict[str, Any] = {
    "version": 1,
    "kind": "cgan",
    "class_names": ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"],
    "latent": 64,
    "height": 28,
    "width": 28,
    "channels": 1,
    "digest": "9a51b1a006f3a34580cd24a473dc07b8540b12626f96ad70eff5c13f949d2624",
    "artifact": "onnxruntime-fp32-1.32.0-cpu-x86_64-avx512f",
    "engine": {
        "engine": "onnxruntime",
        "precision": "fp32",
        "version": "1.32.0",
        "device": "cpu-x86_64-avx512f",
    },
    "buckets": [1, 2, 4, 8, 16, 32, 64],
    "source": {
        "run": "digits",
        "checkpoint_sha256": "d6a71d5628d5e10e06aa46f30779d661acc145bfd4a4c74a57cc9ad3a5366d6f",
        "data": "mnist-5k",
        "images_seen": 61600,
        "code_version": "0.1.0",
    },
    "artifacts": [
        {
            "engine": "onnxruntime",
            "precision": "fp32",
            "file": "model.onnx",
            "sha256": "0d41f9f22c6841523d5270484482fd8ea704aa84bf81d1ad277a30b7f6667057",
            "gates": {
                "parity": {
                    "reference": "torch",
                    "pictures": 1054,
                    "max_levels": 1,
                    "allowed_levels": 1,
                    "most_levels": 1,
                },
                "not_finite": 0,
                "failed": [],
            },
            "buckets": [1, 2, 4, 8, 16, 32, 64],
        }
    ],
}


class ServedVersion(BaseModel):
    """One version of a model. `artifact` is the file that answers, `engine` what runs it here."""

    version: int
    kind: str
    class_names: list[str]
    latent: int
    height: int
    width: int
    channels: int
    digest: str
    artifact: str
    engine: dict[str, str]
    buckets: list[int]
    quality: Quality | None = None
    source: Source
    artifacts: list[Artifact]


class ServedModel(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "digits", "versions": [EXAMPLE]}]})

    name: str
    versions: list[ServedVersion]


class ServedModels(BaseModel):
    default: str | None = Field(default=None, examples=["digits"])
    models: list[ServedModel]


def _described(name: str, versions: list[LiveModel]) -> ServedModel:
    return ServedModel(name=name, versions=[_version(model) for model in versions])


def _version(model: LiveModel) -> ServedVersion:
    manifest = model.bundle.manifest
    shared: dict[str, Any] = {
        name: getattr(manifest, name)
        for name in ("version", "kind", "latent", "height", "width", "channels", "quality", "source")
    }
    return ServedVersion(
        **shared,
        class_names=list(manifest.class_names),
        digest=model.bundle.digest,
        artifact=model.artifact,
        engine=model.engine,
        buckets=list(model.buckets),
        artifacts=list(manifest.artifacts),
    )


@router.get("/models", operation_id="list_models", response_model_exclude_none=True)
async def list_models(request: Request) -> ServedModels:
    """Every model, and the one that answers where a request names none."""
    state: State = request.app.state.limner
    described = [_described(name, versions) for name, versions in state.repository.versions().items()]
    return ServedModels(default=state.repository.default, models=described)


@router.get(
    "/models/{model}",
    operation_id="get_model",
    response_model_exclude_none=True,
    responses={404: {"description": "No such model."}},
)
async def get_model(
    request: Request, model: Annotated[str, Path(description="A name of /models.", examples=["digits"])]
) -> ServedModel:
    """One model with all its versions."""
    state: State = request.app.state.limner
    name = state.repository.get(model, None).name
    return _described(name, state.repository.versions()[name])
