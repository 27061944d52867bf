"""Which picture is asked for in, whether the asker has it already out: ETag, If-None-Match, Cache-Control."""

import hashlib
import json

FOR_EVER = "max-age=31536000, immutable"  # a year, which is as long as caches count
ASK_AGAIN = "no-cache"  # keep it, but ask each time whether it is still the one
NEVER = "no-store"


def etag(*facts: str | int | float | None) -> str:
    """A strong ETag of all that an answer's bytes depend on: known before any of them is made."""
    digest = hashlib.blake2b(json.dumps(facts).encode("ascii"), digest_size=16)
    return f'"{digest.hexdigest()}"'


def has_it(if_none_match: str, tag: str) -> bool:
    """Whether an If-None-Match names the tag, weakly or not, or is `*` (RFC 9110, section 13.1.2)."""
    named = [part.strip().removeprefix("W/") for part in if_none_match.split(",")]
    return tag in named or named == ["*"]


def control(seed: int | None, version: int | None) -> str:
    """Cache-Control of a GET that names this seed and version, or none.

    Without a seed the next answer is another picture; without a version a newer model may make it another.
    """
    if seed is None:
        return NEVER
    return ASK_AGAIN if version is None else FOR_EVER


def control_headers(
    method: str, seed: int | None, version: int | None, *facts: str | int | float | None
) -> dict[str, str]:
    """Headers for caches. Only what a URL says whole has an ETag, which is that of the facts."""
    headers = {"Vary": "Accept"}
    if method not in ("GET", "HEAD"):
        return headers | ({"Cache-Control": NEVER} if seed is None else {})
    headers["Cache-Control"] = control(seed, version)
    if seed is not None:
        headers["ETag"] = etag(*facts)
    return headers
