"""POST, GET and HEAD /interpolate: two seeds in, the frames from one picture to the other out."""

import math
import time
from dataclasses import dataclass
from functools import partial

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from server import animation, answering, schemas
from server.animation import LARGEST_SIDE, MOVING, OFFERED, QUALITY_FORMATS, there_and_back
from server.answering import PLAIN, SLOW, VERSION, drawn_seed, timing
from server.caching import control_headers
from server.errors import InvalidParameter
from server.identity import Between
from server.path import Path, path
from server.repository import LiveModel
from server.routes import add_routes
from server.schemas import InterpolateRequest
from server.settings import Settings
from server.state import State
from training.latents import Asked

router = APIRouter()


@dataclass(frozen=True, kw_only=True)
class _Order(answering.Order):
    """From which image to which, on which path."""

    ends: tuple[Asked, Asked]
    path: Path
    asked: InterpolateRequest

    def between(self) -> Between:
        first, last = (
            self.identity(end.seed, label, end.truncation)
            for end, label in zip(self.ends, self.path.labels or (None, None), strict=True)
        )
        return Between(first, last, self.asked.frames)

    def headers(self) -> dict[str, str]:
        headers = {"X-Limner-Seed": ", ".join(str(end.seed) for end in self.ends), "X-Limner-Model": self.model.title}
        if self.path.labels is not None:
            headers["X-Limner-Label"] = ", ".join(map(str, self.path.labels))
        asked, model = self.asked, self.model
        made_by = ("interpolate", model.title, model.bundle.digest, model.artifact, VERSION)
        ends = (*(end.seed for end in self.ends), *(self.path.labels or (None, None)))
        written = (self.format, asked.loop, asked.fps, asked.quality, asked.scale)
        facts = (*made_by, *ends, asked.truncation, asked.frames, *written)
        return headers | control_headers(self.request.method, asked.from_seed, asked.version, *facts)


async def interpolate(request: Request) -> Response:
    """Frames from one seed's picture to another's, as an animation, a strip, or files.

    The first and the last frame are what `/generate` gives for their seed and label: in a zip the very bytes of its
    png. Those between are of latents on the arc from one to the other (slerp), whose length changes evenly. Where the
    labels differ, each frame is made as both classes and faded from one to the other: so a sequence through classes,
    3 to 8, 8 to 5, 5 to 3, is one request for each pair, and its pieces fit end to end. Both seeds named, the same URL
    is the same bytes.
    """
    order = await _understood(request, request.app.state.limner)
    headers = order.headers()
    if unchanged := order.unchanged(headers):
        return unchanged
    asked = order.asked
    with order.waiting():
        made = await order.model.generate(order.path.rows(), order.seconds, asked.priority == "low", order.left)
    names, between = order.model.bundle.manifest.class_names, order.between()
    written = partial(animation.encode, loop=asked.loop, fps=asked.fps or animation.FPS, scale=asked.scale)

    def work() -> bytes:
        return written(order.format, order.path.frames(made.images), between, names, quality=asked.quality)

    body, seconds = await order.written(work, order.pixels, SLOW if order.format in MOVING else PLAIN)
    headers["Server-Timing"] = timing(made, seconds)
    order.begins()
    return Response(body, headers=headers, media_type=OFFERED.types[order.format])


async def _understood(request: Request, state: State) -> _Order:
    """Raises the RequestErrors of design section 5."""
    draining = state.drain.started  # before the body is read: what is in flight when a drain begins is answered
    asked = await schemas.read(request, state.settings.max_body_bytes, InterpolateRequest)
    model = state.repository.get(asked.model, asked.version)
    format = OFFERED.choose(asked.format, ",".join(request.headers.getlist("accept")))
    pixels = _pixels(asked, format, model, state.settings)  # before as many frames as are asked for are thought of
    ends = _ends(asked, model)
    return _Order(
        request=request,
        state=state,
        model=model,
        format=format,
        pixels=pixels,
        seconds=answering.patience(asked.timeout_ms, state.settings.timeout_seconds),
        arrived=time.monotonic(),
        draining=draining,
        ends=ends,
        path=_path(asked, ends, model),
        asked=asked,
    )


def _ends(asked: InterpolateRequest, model: LiveModel) -> tuple[Asked, Asked]:
    given = ("from_label", asked.from_label, asked.from_seed), ("to_label", asked.to_label, asked.to_seed)
    first, last = (
        Asked(drawn_seed() if seed is None else seed, 1, model.label_index(label, field), asked.truncation)
        for field, label, seed in given
    )
    return first, last


def _path(asked: InterpolateRequest, ends: tuple[Asked, Asked], model: LiveModel) -> Path:
    """Raises InvalidParameter where it would lead nowhere."""
    manifest = model.bundle.manifest
    found = path(*ends, asked.frames, manifest.latent, manifest.classes, model.prior)
    if ends[0].seed == ends[1].seed and not found.fades:
        other = "another seed" + (", or labels that differ" if manifest.classes else "")
        raise InvalidParameter("to_seed", ends[1].seed, other, "both ends are the same picture")
    return found


def _pixels(asked: InterpolateRequest, format: str, model: LiveModel, settings: Settings) -> int:
    """Pixels of the answer. Raises InvalidParameter for what goes neither with the format nor with the limits."""
    most = min(settings.max_frames, settings.max_images // 2 + 1)  # two pictures for each frame but the ends
    if asked.frames > most:
        raise InvalidParameter("frames", asked.frames, f"an integer from 2 to {most}")
    if asked.quality is not None and format not in QUALITY_FORMATS:
        raise InvalidParameter("quality", asked.quality, "none", f"{format} has no quality")
    if asked.fps is not None and format not in MOVING:
        raise InvalidParameter("fps", asked.fps, "none", f"{format} does not move: fps goes with gif and webp")
    if asked.scale > 1 and format == "npy":
        raise InvalidParameter("scale", asked.scale, "1", "npy holds the pixels as they are")
    manifest, count = model.bundle.manifest, len(there_and_back(asked.frames, asked.loop))
    unscaled = count * manifest.height * manifest.width
    largest = math.isqrt(max(settings.max_pixels, unscaled) // unscaled)
    if format in LARGEST_SIDE:
        across = count * manifest.width if format == "png" else manifest.width
        largest = min(largest, LARGEST_SIDE[format] // max(across, manifest.height))
    if asked.scale > largest:
        raise InvalidParameter("scale", asked.scale, f"an integer from 1 to {largest} for {count} frames as {format}")
    return unscaled * asked.scale**2


add_routes(
    router,
    interpolate,
    InterpolateRequest,
    OFFERED,
    "The frames. X-Limner-Seed and X-Limner-Label name both ends: `3, 8`.",
    "Frames",
)
