"""What makes a picture the picture it is (docs/image-identity.md) -> the JSON that is written into it."""

import json
from dataclasses import dataclass
from functools import lru_cache

from training.latents import SEEDS


@dataclass(frozen=True)
class Identity:
    """Equal identities are equal bytes. Of several images it is that of the first, `label` the one given for all."""

    model: str
    version: int
    digest: str
    artifact: str
    seed: int
    label: int | None
    truncation: float | None

    def of(self, index: int, label: int | None) -> "Identity":
        """That of image `index` of several: its seed is seed + index mod 2^63, its class `label`."""
        return Identity(**(vars(self) | {"seed": (self.seed + index) % SEEDS, "label": label}))

    def text(self, count: int = 1) -> bytes:
        """ASCII JSON: the fields, and `n` for a sheet of `count` > 1 images.

        Seeds are decimal strings wherever JSON is read: 2^63 does not fit a JavaScript number.
        """
        label = "null" if self.label is None else self.label
        truncation = "null" if self.truncation is None else repr(self.truncation)
        several = "" if count == 1 else f',"n":{count}'
        head = _head(self.model, self.version, self.digest, self.artifact)
        return f'{head},"seed":"{self.seed}","label":{label},"truncation":{truncation}{several}}}'.encode("ascii")


@lru_cache(256)
def _head(model: str, version: int, digest: str, artifact: str) -> str:
    """What all images of a model share, without the brace at its end."""
    facts = {"model": model, "version": version, "digest": digest, "artifact": artifact}
    return json.dumps(facts, separators=(",", ":"))[:-1]
