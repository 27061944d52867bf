"""GET /healthz, /readyz and /metrics: alive; warmed and not draining; counted."""

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from server.errors import NotReady
from server.state import State

router = APIRouter(tags=["operation"])


@router.get("/healthz", operation_id="alive", response_class=PlainTextResponse)
async def alive() -> PlainTextResponse:
    """The process answers. Also while it drains."""
    return PlainTextResponse("alive\n")


@router.get("/readyz", operation_id="ready", response_class=PlainTextResponse, responses={503: {"description": "No"}})
async def ready(request: Request) -> PlainTextResponse:
    """Every model is warmed up, and the server is not draining."""
    state: State = request.app.state.limner
    if state.drain.started:
        raise NotReady("the server is draining", "Ask another replica.", retry_after=1)
    return PlainTextResponse("ready\n")


@router.get("/metrics", operation_id="metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Prometheus text format."""
    state: State = request.app.state.limner
    return Response(state.metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})
