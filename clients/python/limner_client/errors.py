"""An answer that is no success in, the exception that it means out; and whatever else a call can raise.

ClientError
├── ConnectionFailed        nobody answers at that address
│   ├── InvalidAddress          it is no address
│   ├── TimedOut                the client's own `timeout` was over
│   └── IncompleteAnswer        the answer broke off, or its body is not whole
├── MissingExtra            Pillow or NumPy is needed and not installed; an ImportError, too
└── ApiError                the server refused or failed: its problem details (RFC 9457)
    ├── Malformed 400           the request is no HTTP
    ├── Unparsable 400          the body is no JSON object
    ├── NotFound 404            no such model, version or route
    ├── MethodNotAllowed 405
    ├── NotAcceptable 406
    ├── TooLarge 413
    ├── UnsupportedType 415
    ├── InvalidParameter 422    `field`, `value`, `allowed`
    ├── HeadTooLarge 431        URL and headers are over the limit
    ├── Overloaded 429          the queue is full; `retry_after` says when to come back
    │   └── Hopeless 429        what waits would take longer than the request has
    ├── ServerFailed 500        the server's own fault; its log says why
    ├── NotReady 503            draining
    └── Expired 504             accepted, but not done in time

Below ApiError they have the names of the server's own errors, and are chosen by the problem's type. An answer without
one, such as that of a proxy on the way, is a plain ApiError with its status.
"""

import email.utils
import time
from collections.abc import Mapping
from typing import Any

import httpx

TYPES = "urn:limner:problem:"


class ClientError(Exception):
    """The root of everything that this package raises."""


class ConnectionFailed(ClientError):
    pass


class InvalidAddress(ConnectionFailed):
    pass


class TimedOut(ConnectionFailed):
    pass


class IncompleteAnswer(ConnectionFailed):
    pass


class MissingExtra(ClientError, ImportError):
    pass


class ApiError(ClientError):
    """`status` is the HTTP status, `code` the last part of the problem's type, empty where there is none.

    `field`, `value` and `allowed` are those of a refused parameter, `retry_after` is in seconds from now, `request_id`
    is the answer's X-Request-Id; each may be None.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        field: str | None = None,
        value: str | None = None,
        allowed: str | None = None,
        retry_after: float | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(status, code, detail, field, value, allowed, retry_after, request_id)  # so that it pickles
        self.status = status
        self.code = code
        self.detail = detail
        self.field = field
        self.value = value
        self.allowed = allowed
        self.retry_after = retry_after
        self.request_id = request_id

    def __str__(self) -> str:
        return self.detail


class Malformed(ApiError):
    pass


class Unparsable(ApiError):
    pass


class NotFound(ApiError):
    pass


class MethodNotAllowed(ApiError):
    pass


class NotAcceptable(ApiError):
    pass


class TooLarge(ApiError):
    pass


class UnsupportedType(ApiError):
    pass


class InvalidParameter(ApiError):
    pass


class HeadTooLarge(ApiError):
    pass


class Overloaded(ApiError):
    pass


class Hopeless(Overloaded):
    pass


class ServerFailed(ApiError):
    pass


class NotReady(ApiError):
    pass


class Expired(ApiError):
    pass


BY_CODE: Mapping[str, type[ApiError]] = {
    "malformed-request": Malformed,
    "unparsable-body": Unparsable,
    "not-found": NotFound,
    "method-not-allowed": MethodNotAllowed,
    "not-acceptable": NotAcceptable,
    "body-too-large": TooLarge,
    "unsupported-type": UnsupportedType,
    "invalid-parameter": InvalidParameter,
    "head-too-large": HeadTooLarge,
    "queue-full": Overloaded,
    "deadline-unreachable": Hopeless,
    "not-ready": NotReady,
    "expired": Expired,
}


def api_error(response: httpx.Response, otherwise: str = "the answer has no problem details") -> ApiError:
    """A response -> what it means; `otherwise` is said where it brings no problem details."""
    try:
        problem = response.json()
    except (ValueError, httpx.StreamError):  # no JSON, or its body broke off and was not read
        problem = None
    members: dict[str, Any] = problem if isinstance(problem, dict) else {}
    type_ = str(members.get("type", ""))
    code = type_.removeprefix(TYPES) if type_.startswith(TYPES) else ""
    failed = ServerFailed if code and response.status_code >= 500 else ApiError  # "engine", "non-finite", "internal"
    return BY_CODE.get(code, failed)(
        status=response.status_code,
        code=code,
        detail=str(members.get("detail", f"{response.status_code} {response.reason_phrase}: {otherwise}")),
        field=members.get("field"),
        value=members.get("value"),
        allowed=members.get("allowed"),
        retry_after=_seconds(response.headers.get("Retry-After", "")),
        request_id=response.headers.get("X-Request-Id"),
    )


def transport_error(error: httpx.HTTPError | httpx.InvalidURL, url: str, *, answering: bool) -> ConnectionFailed:
    """What httpx raised while it asked, or, `answering`, after the head of the answer was there."""
    said = f"({error})" if str(error) else f"({type(error).__name__})"
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol | httpx.LocalProtocolError):
        return InvalidAddress(f"{url} is no address of a limner server {said}")
    if answering:
        return IncompleteAnswer(f"the answer of {url} broke off {said}")
    if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
        return TimedOut(f"{url} did not answer within the client's timeout {said}")
    return ConnectionFailed(f"no limner server answers at {url} {said}")


def _seconds(retry_after: str) -> float | None:
    """Retry-After as RFC 9110 writes it: seconds, or a date; None for anything else."""
    if retry_after.isascii() and retry_after.isdecimal():
        return float(retry_after)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
