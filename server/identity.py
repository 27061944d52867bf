"""What makes a picture, or a path of them, what it is (docs/image-identity.md) -> the JSON that is written into it."""

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from training.latents import SEEDS


class Identity(NamedTuple):
    """Equal identities are equal bytes. Of several images it is that of the first, `label` the one given for all."""

    model: str
    version: int
    digest: str
    artifact: str
    seed: int
    label: int | None
    truncation: float | None

    def common(self) -> dict[str, Any]:
        """What all images of one answer share, as JSON names it."""
        names = ("model", "version", "digest", "artifact", "truncation")
        return {name: getattr(self, name) for name in names}

    def of(self, index: int, label: int | None) -> "Identity":
        """That of image `index` of several: its seed is seed + index mod 2^63, its class `label`."""
        return self._replace(seed=(self.seed + index) % SEEDS, label=label)

    def text(self, count: int = 1) -> bytes:
        """ASCII JSON: the fields, and `n` for a sheet of `count` > 1 images.

        Seeds are decimal strings wherever JSON is read: 2^63 does not fit a JavaScript number.
        """
        label = "null" if self.label is None else self.label
        truncation = "null" if self.truncation is None else repr(self.truncation)
        several = "" if count == 1 else f',"n":{count}'
        head = _head(self.model, self.version, self.digest, self.artifact)
        return f'{head},"seed":"{self.seed}","label":{label},"truncation":{truncation}{several}}}'.encode("ascii")


@dataclass(frozen=True)
class Between:
    """What makes a path the path it is: the images at its ends, of one model and truncation, and how many `frames`."""

    first: Identity
    last: Identity
    frames: int

    def of(self, frame: int) -> bytes:
        """ASCII JSON of one frame, from 0 on. An end is the image itself, and says so."""
        ends = {0: self.first, self.frames - 1: self.last}
        return ends[frame].text() if frame in ends else self._text({"frame": frame})

    def text(self) -> bytes:
        """ASCII JSON of all of them."""
        return self._text({})

    def _text(self, which: dict[str, int]) -> bytes:
        first, last = self.first, self.last
        ends = {name: {"seed": str(end.seed), "label": end.label} for name, end in (("from", first), ("to", last))}
        said = {**ends, "truncation": first.truncation, **which, "frames": self.frames}
        head = _head(first.model, first.version, first.digest, first.artifact)
        return f"{head},{json.dumps(said, separators=(',', ':'))[1:]}".encode("ascii")


@lru_cache(256)
def _head(model: str, version: int, digest: str, artifact: str) -> str:
    """What all images of a model share, without the brace at its end."""
    facts = {"model": model, "version": version, "digest": digest, "artifact": artifact}
    return json.dumps(facts, separators=(",", ":"))[:-1]
