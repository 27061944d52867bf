"""A failure in, its HTTP answer out: the request's faults and the server's states, and the one place that renders them.

RequestError
├── Malformed 400           this is no request of HTTP
├── Unparsable 400          the body is no JSON object
├── NotFound 404            no such model, version or route
├── MethodNotAllowed 405    with the methods of that path in Allow
├── NotAcceptable 406       no supported type in Accept
├── TooLarge 413            the body is over the limit
├── UnsupportedType 415     the body is of another type
├── InvalidParameter 422    a value is out of range, or a name is unknown or given twice
├── HeadTooLarge 431        URL and headers are over the limit
├── Overloaded 429          the queue is full; Retry-After says when to come back
│   └── Hopeless 429        what waits would take longer than the request has
├── NotReady 503            draining
└── Expired 504             accepted, but not done in time
"""

import json
import math
from collections.abc import Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from training.errors import LimnerError

PROBLEM = "application/problem+json"
SHOWN = 100  # characters of a refused value that an answer repeats


class RequestError(LimnerError):
    status = 400
    code = "request"
    title = "The request cannot be answered"

    def __init__(self, what: str, mend: str = "", retry_after: float | None = None, **members: Any) -> None:
        super().__init__(what, mend)
        self.members = members
        self.retry_after = retry_after
        self.headers = {} if retry_after is None else {"Retry-After": str(max(1, math.ceil(retry_after)))}


class Malformed(RequestError):
    status, code, title = 400, "malformed-request", "The request cannot be read"


class Unparsable(RequestError):
    status, code, title = 400, "unparsable-body", "The body cannot be parsed"


class NotFound(RequestError):
    status, code, title = 404, "not-found", "There is no such thing here"


class MethodNotAllowed(RequestError):
    status, code, title = 405, "method-not-allowed", "The method is not allowed"


class NotAcceptable(RequestError):
    status, code, title = 406, "not-acceptable", "No supported type is acceptable"


class TooLarge(RequestError):
    status, code, title = 413, "body-too-large", "The body is too large"


class UnsupportedType(RequestError):
    status, code, title = 415, "unsupported-type", "The body's type is not supported"


class InvalidParameter(RequestError):
    status, code, title = 422, "invalid-parameter", "A parameter is not valid"

    def __init__(self, field: str, value: Any, allowed: str, what: str = "") -> None:
        shown = shorten(value)
        detail = what or f"{field}={shown} is not allowed"
        super().__init__(detail, f"Allowed: {allowed}.", field=field, value=shown, allowed=allowed)


class HeadTooLarge(RequestError):
    status, code, title = 431, "head-too-large", "The URL and headers are too large"


class Overloaded(RequestError):
    status, code, title = 429, "queue-full", "The queue is full"


class Hopeless(Overloaded):
    code, title = "deadline-unreachable", "It could not be done in time"


class NotReady(RequestError):
    status, code, title = 503, "not-ready", "The server is not ready"


class Expired(RequestError):
    status, code, title = 504, "expired", "The time ran out"


def shorten(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."


def problem(error: LimnerError) -> Response:
    """RFC 9457: type, title, status, detail, and the members of a refused parameter."""
    known = isinstance(error, RequestError)
    content: dict[str, Any] = {
        "type": f"urn:limner:problem:{error.code}",
        "title": error.title if known else "The server failed",
        "status": error.status,
        "detail": str(error),
    }
    if known:
        content |= error.members
    headers = error.headers if known else {}
    body = json.dumps(content).encode()  # ASCII: a refused value may hold anything
    return Response(body, error.status, {**headers, "Cache-Control": "no-store"}, media_type=PROBLEM)


def inference_error(error: LimnerError) -> Response:
    """{"error": text}, as the Open Inference Protocol has it: there, 400 is every fault of the request's contents."""
    body = json.dumps({"error": str(error)}).encode()
    headers = error.headers if isinstance(error, RequestError) else {}
    status = 400 if error.status == InvalidParameter.status else error.status
    return Response(body, status, {**headers, "Cache-Control": "no-store"}, media_type="application/json")


def envelope(error: LimnerError) -> Response:
    """OpenAI's: message, type, param, code. A parameter that is not valid is 400 there, as a body that is no JSON."""
    status = 400 if error.status == InvalidParameter.status else error.status
    param, headers = None, {}
    if isinstance(error, RequestError):
        param, headers = error.members.get("field"), error.headers
        if error.retry_after is not None:  # what OpenAI's clients ask for first
            headers = {**headers, "retry-after-ms": str(math.ceil(1e3 * error.retry_after))}
    kind = "server_error" if status >= 500 else "rate_limit_error" if status == 429 else "invalid_request_error"
    code = "model_not_found" if (status, param) == (404, "model") else error.code.replace("-", "_")
    said = {"message": str(error), "type": kind, "param": param, "code": code}
    body = json.dumps({"error": said}).encode()
    return Response(body, status, {**headers, "Cache-Control": "no-store"}, media_type="application/json")


FORMS: dict[str, Callable[[LimnerError], Response]] = {  # of protocols that are not limner's own, by their first folder
    "v1": envelope,
    "v2": inference_error,
}


def answer(path: str, error: LimnerError) -> Response:
    """In the form of the protocol that the path belongs to."""
    return FORMS.get(path.removeprefix("/").partition("/")[0], problem)(error)


async def on_limner_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, LimnerError)
    request.state.failure = error
    return answer(request.scope["path"], error)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's own refusals (no such route, wrong method) in the same form."""
    assert isinstance(error, HTTPException)
    path, method = request.scope["path"], request.method
    shown = shorten(path)
    if error.status_code == 404:
        return answer(path, NotFound(f"there is no {shown}", "See /docs."))
    if error.status_code == 405:
        allowed = ", ".join(sorted(_methods(request)))
        said = f"{method} {shown} is not possible"
        refused = MethodNotAllowed(said, f"Allowed: {allowed}.", field="method", value=method, allowed=allowed)
        refused.headers = {"Allow": allowed}
        return answer(path, refused)
    return answer(path, RequestError(f"{method} {shown}: {error.detail}", "See /docs."))


def _methods(request: Request) -> set[str]:
    """Every method that some route has for this path: Starlette's own Allow names the first route's alone."""
    matching = (route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE)
    return {method for route in matching for method in getattr(route, "methods", None) or ()}


def unexpected(path: str) -> Response:
    """A fault of limner itself: logged with its traceback by the telemetry middleware, never shown to a user."""
    return answer(path, LimnerError("limner failed to answer this request", "The server's log says why."))
