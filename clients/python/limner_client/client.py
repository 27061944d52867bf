"""Calls in, HTTP out: a synchronous client on httpx."""

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import httpx

from limner_client.errors import ApiError, ConnectionFailed

Format = Literal["png", "jpeg", "webp", "json", "npy", "zip"]
LOOPBACK = ("localhost", "127.0.0.1", "::1")  # a proxy of the environment (HTTP_PROXY) cannot reach this machine's own


@dataclass(frozen=True)
class Answer:
    """`content` is the body in the asked format; `seed` is the first image's; `model` is name@version.

    `label` is the class index where one image was asked for, else None.
    """

    content: bytes
    format: Format
    seed: int
    model: str
    label: int | None

    def save(self, path: str | Path) -> Path:
        path = Path(path)
        path.write_bytes(self.content)
        return path


class Client:
    """Asks one server. Safe to share between threads; close it, or use it as a context manager."""

    def __init__(self, url: str = "http://127.0.0.1:8000", timeout: float = 60.0) -> None:
        self.url = url.rstrip("/")
        try:
            proxied = httpx.URL(self.url).host not in LOOPBACK
            self._http = httpx.Client(base_url=self.url, timeout=timeout, trust_env=proxied)
        except httpx.InvalidURL as error:
            raise ConnectionFailed(f"{self.url} is no address ({error})") from error

    def generate(
        self,
        label: int | str | None = None,
        n: int = 1,
        seed: int | None = None,
        truncation: float | None = None,
        format: Format = "png",
        model: str | None = None,
        version: int | None = None,
    ) -> Answer:
        """Ask for n images: a class name or index, or None for a class from each image's seed.

        Raises ApiError where the server refuses (422: `field`, `value`, `allowed`), ConnectionFailed where none is.
        """
        asked = {
            "label": label,
            "n": n,
            "seed": None if seed is None else str(seed),
            "truncation": truncation,
            "format": format,
            "model": model,
            "version": version,
        }
        given = {name: value for name, value in asked.items() if value is not None}
        response = self._ask("POST", "/generate", json=given)
        drawn = response.headers.get("X-Limner-Label")
        try:
            return Answer(
                content=response.content,
                format=format,
                seed=int(response.headers["X-Limner-Seed"]),
                model=response.headers["X-Limner-Model"],
                label=None if drawn is None else int(drawn),
            )
        except (KeyError, ValueError) as error:
            raise _api_error(response, "no limner server gave this answer") from error

    def models(self) -> dict[str, Any]:
        """What `GET /models` answers: default, and models with their versions."""
        response = self._ask("GET", "/models")
        try:
            return response.json()
        except ValueError as error:
            raise _api_error(response, "no limner server gave this answer") from error

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **arguments)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ConnectionFailed(f"no limner server answers at {self.url} ({error})") from error
        if not response.is_success:
            raise _api_error(response, "the answer has no problem details")
        return response


def _api_error(response: httpx.Response, otherwise: str) -> ApiError:
    """Problem details where there are any; a proxy on the way may answer with anything."""
    try:
        problem = response.json()
        members = problem if isinstance(problem, dict) else {}
    except ValueError:
        members = {}
    retry_after = response.headers.get("Retry-After", "")
    return ApiError(
        status=response.status_code,
        code=str(members.get("type", "")).rpartition(":")[2],
        detail=str(members.get("detail", f"{response.status_code} {response.reason_phrase}: {otherwise}")),
        field=members.get("field"),
        value=members.get("value"),
        allowed=members.get("allowed"),
        retry_after=float(retry_after) if retry_after.isdecimal() else None,
    )
