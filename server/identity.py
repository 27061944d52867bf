"""What makes a picture the picture it is (docs/image-identity.md) -> the JSON that is written into it."""

import json
from dataclasses import dataclass

from training.latents import SEEDS

_json = json.JSONEncoder(separators=(",", ":")).encode


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
        several = {} if count == 1 else {"n": count}
        return _json(vars(self) | {"seed": str(self.seed)} | several).encode("ascii")
