"""GET /healthz, /readyz and /metrics: alive; warmed and not draining; counted."""

from typing import Any

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from server.errors import NotReady
from server.state import State

router = APIRouter(tags=["operation"])


def _text(example: str) -> dict[str, Any]:
    """In OpenAPI, a body of text."""
    return {"content": {"text/plain": {"schema": {"type": "string"}, "example": example}}}


@router.get("/healthz", operation_id="alive", response_class=PlainTextResponse, responses={200: _text("alive\n")})
async def alive() -> PlainTextResponse:
    """The process answers. Also while it drains."""
    return PlainTextResponse("alive\n")


@router.get(
    "/readyz",
    operation_id="ready",
    response_class=PlainTextResponse,
    responses={200: _text("ready\n"), 503: {"description": "Draining."}},
)
async def ready(request: Request) -> PlainTextResponse:
    """Every model is warmed up, and the server is not draining."""
    state: State = request.app.state.limner
    if state.drain.started:
        raise NotReady("the server is draining", "Ask another replica.", retry_after=1)
    return PlainTextResponse("ready\n")


@router.get(
    "/metrics",
    operation_id="metrics",
    response_class=PlainTextResponse,
    responses={200: _text('limner_images_total{model="digits@1"} 16.0\n')},
)
async def metrics(request: Request) -> Response:
    """Prometheus text format."""
    state: State = request.app.state.limner
    return Response(state.metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})
