"""GET /models and /models/{m}: what is served, with its classes, quality and artifacts."""

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.requests import Request

from export.bundle import Artifact, Quality, Source
from server.repository import LiveModel
from server.state import State

router = APIRouter(tags=["models"])


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
    name: str
    versions: list[ServedVersion]


class ServedModels(BaseModel):
    default: str | None = None
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


@router.get("/models/{model}", operation_id="get_model", response_model_exclude_none=True)
async def get_model(request: Request, model: str) -> ServedModel:
    """One model with all its versions."""
    state: State = request.app.state.limner
    name = state.repository.get(model, None).name
    return _described(name, state.repository.versions()[name])
