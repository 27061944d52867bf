"""An Accept header in, the format that its sender likes best out."""

import re
from dataclasses import dataclass
from functools import cached_property

from server.errors import NotAcceptable, shorten

_WEIGHT = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?")


@dataclass(frozen=True)
class Offer:
    """Formats and their media types, the default first, which answers who names none.

    `favourite`: of pictures the default is given where another is named but it is as welcome.
    """

    types: dict[str, str]
    favourite: bool = False

    @property
    def default(self) -> str:
        return next(iter(self.types))

    @cached_property
    def wildcards(self) -> dict[str, tuple[str, ...]]:
        """What each covers, in the order of `types`."""
        kinds = ("image", "application")
        covered = {f"{kind}/*": tuple(name for name in self.types if self._is(kind, name)) for kind in kinds}
        return {"*/*": tuple(self.types)} | covered

    def _is(self, kind: str, name: str) -> bool:
        return self.types[name].startswith(f"{kind}/")

    def choose(self, asked: str | None, accept: str | None) -> str:
        """`asked` if given, else the supported type of highest q in Accept (first on ties), else that of a wildcard.

        Raises NotAcceptable where Accept names neither a supported type nor a wildcard.
        """
        if asked is not None:
            return asked
        if not accept or not accept.strip():
            return self.default
        named = {media_type: (name,) for name, media_type in self.types.items()}
        ranges = sorted(weighted(accept), key=lambda pair: -pair[1])
        refused = self._refused(ranges)
        for choices in (named, self.wildcards):
            for media_type, q in ranges:
                left = [name for name in choices.get(media_type, ()) if name not in refused]
                if left and q > 0:
                    return self._of_pictures(left[0], q, ranges, refused)
        supported = ", ".join(named)
        said = f"Accept names none of {supported}"
        raise NotAcceptable(said, "Name one of them, or */*.", field="Accept", value=shorten(accept), allowed=supported)

    def _refused(self, ranges: list[tuple[str, float]]) -> set[str]:
        """Formats of q = 0. What names a format counts before a wildcard, and image/* before */*."""
        given = dict(ranges)
        refused = set()
        for name, media_type in self.types.items():
            about = (media_type, f"{media_type.partition('/')[0]}/*", "*/*")
            if next((given[key] for key in about if key in given), 1.0) == 0:
                refused.add(name)
        return refused

    def _of_pictures(self, found: str, q: float, ranges: list[tuple[str, float]], refused: set[str]) -> str:
        """The favourite, where another picture was found and it is as welcome: browsers name all that they know."""
        if not self.favourite or not self._is("image", found) or self.default in refused:
            return found
        as_welcome = (self.types[self.default], "image/*")
        return self.default if any(name in as_welcome and other >= q for name, other in ranges) else found


def weighted(accept: str) -> list[tuple[str, float]]:
    """`image/png;q=0.5, */*` -> [("image/png", 0.5), ("*/*", 1.0)], without those whose q is no number."""
    ranges = []
    for part in accept.split(","):
        media_type, *parameters = (piece.strip().lower() for piece in part.split(";"))
        weights = [piece[2:] for piece in parameters if piece.startswith("q=")] or ["1"]
        if _WEIGHT.fullmatch(weights[0]):
            ranges.append((media_type, float(weights[0])))
    return ranges
