"""Arguments in, one call out: what is sent, and how its answer is read. Nothing here asks anybody.

A route of the server is a function here, and a method of three lines in each of the two clients.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, NotRequired, TypedDict, TypeVar, get_args
from urllib.parse import quote

import httpx

from limner_client import bodies
from limner_client.answers import Answer, Format, Made
from limner_client.errors import api_error

T = TypeVar("T")
Priority = Literal["normal", "low"]
STRANGER = "no limner server gave this answer"
SLACK = 5.0  # seconds that an answer may take to be written and sent, once its pixels are there
HEALTH_SECONDS = 5.0  # for a word that costs nothing: who takes longer is not well
FORMATS: tuple[Format, ...] = get_args(Format)
ENDINGS: dict[str, Format] = {**{f".{format}": format for format in FORMATS}, ".jpg": "jpeg"}


class Rendering(TypedDict, total=False):
    """What every request for pictures may say besides which ones it wants; the server's defaults where it is absent.

    truncation   latents within ±ψ σ, 0 < ψ ≤ 8: less variety, more typical pictures
    scale        1-16: each pixel is drawn scale x scale; not for npy
    quality      1-100, of jpeg (90) and of webp (lossless)
    model        its name; the only one, or the server's default
    version      of the model; the highest
    timeout_ms   milliseconds from arrival to pixels; the whole call, retries included, ends with it
    priority     "low" waits behind the others, which leave it an eighth of each batch
    """

    truncation: float | None
    scale: int | None
    quality: int | None
    model: str | None
    version: int | None
    timeout_ms: int | None
    priority: Priority | None


class Options(Rendering, total=False):
    """What `generate` may be asked for besides a label and n.

    seed     0 to 2^63 - 1, of the first image: image i is that of seed + i; drawn by the server where it is absent
    format   "png" (of n > 1: a sheet), "jpeg", "webp", "json", "npy" or "zip"
    """

    seed: int | None
    format: Format


class ServedVersion(TypedDict):
    """One version of a model, as GET /models describes it; the server may say more."""

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
    quality: NotRequired[dict[str, Any]]
    source: dict[str, Any]
    artifacts: list[dict[str, Any]]


class ServedModel(TypedDict):
    name: str
    versions: list[ServedVersion]


class Models(TypedDict):
    """`default` answers requests that name no model."""

    default: NotRequired[str]
    models: list[ServedModel]


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request, and `read`, which makes of its successful answer what the caller gets.

    `seconds` are its deadline; `patience` is waited for an answer instead of the client's timeout.
    """

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    asked: dict[str, Any] | None = None
    seconds: float = math.inf
    patience: float | None = None

    def request(self, http: "httpx.Client | httpx.AsyncClient", left: float) -> httpx.Request:
        """With `left` seconds until its deadline: so the server is told, and so long the client waits at least."""
        asked, timeout = self.asked, httpx.Timeout(http.timeout if self.patience is None else self.patience)
        if asked is not None and left < math.inf:
            if self.seconds > 0 and left < self.seconds:
                asked = asked | {"timeout_ms": max(1, round(left * 1e3))}
            timeout.read = None if timeout.read is None else max(timeout.read, left + SLACK)
        return http.build_request(self.method, self.path, json=asked, timeout=timeout)


@dataclass(frozen=True, kw_only=True)
class PictureCall(Call[Answer]):
    """A call for n pictures in a format, which may also be taken piece by piece (`downloads.py`)."""

    format: Format
    n: int


def generate(label: int | str | None, n: int, options: Options) -> PictureCall:
    asked = {"label": label, "n": n, "format": "png", **_known(options, Options)}
    return _pictures("/generate", asked["format"], n, asked)


def models() -> Call[Models]:
    return Call("GET", "/models", _json)


def model(name: str) -> Call[ServedModel]:
    return Call("GET", f"/models/{quote(name, safe='')}", _json)


def alive() -> Call[None]:
    return Call("GET", "/healthz", _says("alive"), patience=HEALTH_SECONDS)


def ready() -> Call[None]:
    return Call("GET", "/readyz", _says("ready"), patience=HEALTH_SECONDS)


def format_of(path: Path, options: Options) -> Options:
    """The options with the format that the file's ending names, unless they name one. Raises ValueError."""
    if "format" in options:
        return options
    format = ENDINGS.get(path.suffix.lower())
    if format is None:
        raise ValueError(f"'{path}' names no format: let it end in {', '.join(ENDINGS)}, or give one")
    return {**options, "format": format}


def _pictures(path: str, format: Format, n: int, asked: dict[str, Any]) -> PictureCall:
    """A request for n pictures in a format, with all that is asked of the route."""
    given = {name: value for name, value in asked.items() if value is not None}
    if "seed" in given:
        given["seed"] = str(given["seed"])  # more than a float holds: whoever reads JSON on the way may not know
    timeout = given.get("timeout_ms")

    def read(response: httpx.Response) -> Answer:
        made = described(format, n, response)
        bodies.check(made.format, made.n, response.content)
        return Answer(content=response.content, **vars(made))

    seconds = math.inf if timeout is None else timeout / 1e3
    return PictureCall("POST", path, read, given, seconds, format=format, n=n)


def _known(options: Options, kind: type) -> dict[str, Any]:
    """Raises TypeError for a name that `kind` does not have: nobody has checked types who runs into this."""
    for name in options:
        if name not in kind.__annotations__:
            known = ", ".join(kind.__annotations__)
            raise TypeError(f"there is no parameter '{name}'. There are label, n, {known}")
    return dict(options)


def described(format: Format, n: int, response: httpx.Response) -> Made:
    """What a successful answer of n images says of itself, whether or not its body is there. Raises ApiError."""
    headers = response.headers
    label = headers.get("X-Limner-Label")
    try:
        return Made(
            format=format,
            n=n,
            seed=int(headers["X-Limner-Seed"]),
            model=headers["X-Limner-Model"],
            label=None if label is None else int(label),
            timing=_timing(headers.get("Server-Timing", "")),
            request_id=headers.get("X-Request-Id"),
        )
    except (KeyError, ValueError) as error:
        raise api_error(response, STRANGER) from error


def _timing(header: str) -> dict[str, float]:
    """`queue;dur=0.1, compute;dur=2` -> milliseconds by name; what is written otherwise is left out."""
    parts = (part.strip().partition(";dur=") for part in header.split(","))
    found = {}
    for name, _, value in parts:
        try:
            found[name] = float(value)
        except ValueError:
            continue
    return found


def _says(word: str) -> Callable[[httpx.Response], None]:
    def read(response: httpx.Response) -> None:
        if response.text.strip() != word:
            raise api_error(response, STRANGER)

    return read


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError as error:
        raise api_error(response, STRANGER) from error
