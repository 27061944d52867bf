"""The playground's folder and the module of its client in, the server's pages out: their parts are of one version."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

from server.caching import ASK_AGAIN
from server.settings import JS_CLIENT
from training.errors import ConfigError

HEADERS = {"Cache-Control": ASK_AGAIN}  # else a browser keeps a part for days, and the others come from a newer server


def pages(playground: Path) -> APIRouter:
    """`/`, what it loads, and the client that it imports. Raises ConfigError where there is no playground."""
    page = playground / "index.html"
    if not page.is_file():
        raise ConfigError(f"no playground in '{playground}'", "Unset LIMNER_PLAYGROUND.")
    router = APIRouter()
    for path, file in {"/": page, f"/js/{JS_CLIENT.name}": JS_CLIENT}.items():
        router.add_api_route(path, _sending(file), methods=["GET"], include_in_schema=False)
    router.mount("/playground", _Fresh(directory=playground))
    return router


def _sending(file: Path) -> Callable[[], Response]:
    return lambda: FileResponse(file, headers=HEADERS)


class _Fresh(StaticFiles):
    def file_response(self, *arguments: Any, **more: Any) -> Response:
        response = super().file_response(*arguments, **more)
        response.headers.update(HEADERS)
        return response
