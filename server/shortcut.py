"""Requests in, those of one route straight to its handler: the layers of FastAPI would take longer than the answer.

They are in no other way special: the route is in OpenAPI, and their refusals are those of every route.
"""

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from server.errors import on_limner_error
from training.errors import LimnerError


class Shortcut:
    """ASGI: `handler` answers the paths and methods of `routes`, which are of `app`; `app` answers everything else."""

    def __init__(self, app: ASGIApp, handler: Callable[[Request], Awaitable[Response]], routes: list[Route]) -> None:
        self._app, self._handler = app, handler
        self._routes = {(route.path, method): route for route in routes for method in route.methods or ()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._routes.get((scope["path"], scope["method"])) if scope["type"] == "http" else None
        if route is None:
            await self._app(scope, receive, send)
            return
        scope["app"], scope["route"] = self._app, route
        request = Request(scope, receive)
        try:
            response = await self._handler(request)
        except LimnerError as error:
            response = await on_limner_error(request, error)
        await response(scope, receive, send)
