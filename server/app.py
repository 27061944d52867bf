"""Settings in, a warmed-up ASGI application out: the wiring and the lifespan, nothing else."""

import importlib.metadata
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from server import errors, routes, tensors
from server.answering import HEADERS
from server.express import Express
from server.group import Group
from server.observer import RequestObserver
from server.openapi import documented
from server.pages import pages
from server.repository import open_repository
from server.routes import generate, health, interpolate, models, oip_paths, openai
from server.settings import Settings
from server.shortcut import Shortcut
from server.state import State
from server.telemetry import Metrics, log
from training.errors import LimnerError

APIS = (generate, interpolate, models, health, oip_paths, openai)
VERSION = importlib.metadata.version("limner")


@dataclass(frozen=True)
class Application:
    """ASGI: `layers` around FastAPI's `api`, and what they share."""

    api: FastAPI
    state: State
    layers: ASGIApp
    express: Express

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.layers(scope, receive, send)


def create_app(settings: Settings, group: Group | None = None) -> Application:
    """Open and warm up every model, then wire the routes; of one worker of a `group`, if there is one.

    Raises LimnerError where a bundle cannot be served.
    """
    static = pages(settings.playground)
    metrics = Metrics(group)
    state = State(settings, open_repository(settings, metrics.observe_batch, group), metrics)
    for versions in state.repository.versions().values():
        for model in versions:
            metrics.add_model(
                model.title,
                queued=partial(getattr, model.batcher, "queued"),
                load_seconds=model.load_seconds,
                digest=model.bundle.digest,
                artifact=model.artifact,
            )
    metrics.measure(metrics.in_flight, lambda: state.drain.in_flight)
    metrics.measure(metrics.ready, lambda: not state.drain.started)
    metrics.measure(metrics.draining, lambda: state.drain.seconds)
    metrics.drain_limit.set(settings.drain_seconds)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        served = {
            model.title: model.artifact for versions in state.repository.versions().values() for model in versions
        }
        log.info("started", version=VERSION, models=served)
        yield
        express.cut()
        state.repository.close()
        log.info("stopped")

    app = FastAPIOffline(  # /docs with its scripts from the package, not from a CDN
        title="limner",
        version=VERSION,
        summary="Images from small generators, in batches.",
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.limner = state
    app.add_exception_handler(LimnerError, errors.on_limner_error)
    app.add_exception_handler(HTTPException, errors.on_http_exception)
    for router in (*(module.router for module in APIS), static):
        app.router.routes.extend(router.routes)  # flat, unlike include_router: Allow is read from each route
    _answer_head(app)
    app.openapi = lambda: openapi(app)  # type: ignore[method-assign]
    observer = RequestObserver(Shortcut(app, generate.generate, generate.routes()), metrics, state.drain)
    express = Express(state, observer)
    return Application(app, state, _around(observer, settings), express)


def _answer_head(app: FastAPI) -> None:
    """Where GET is answered (RFC 9110, section 9.3.2), which FastAPI leaves to its user; uvicorn sends no body."""
    routes = [route for route in app.routes if isinstance(route, APIRoute)]
    heads = {route.path for route in routes if "HEAD" in (route.methods or ())}
    for route in routes:
        if "GET" in (route.methods or ()) and route.path not in heads:
            app.add_api_route(
                route.path,
                route.endpoint,
                methods=["HEAD"],
                include_in_schema=False,
                response_model=route.response_model,
                response_model_exclude_none=route.response_model_exclude_none,
            )


def _around(observed: ASGIApp, settings: Settings) -> ASGIApp:
    if not settings.cors_origins:
        return observed
    return CORSMiddleware(  # outermost, so that a page can read every refusal
        observed,
        allow_origins=settings.cors_origins,
        allow_methods=["GET", "HEAD", "POST"],
        allow_headers=["*"],
        expose_headers=[*HEADERS, tensors.HEADER, "Retry-After", "retry-after-ms"],
    )


def openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's schema, the components that raw routes refer to, and what all routes share."""
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
        schema["components"]["schemas"] |= routes.COMPONENTS | oip_paths.COMPONENTS
        app.openapi_schema = documented(schema)
    return app.openapi_schema
