"""An address and how to ask there in, what both clients open their connections with out."""

from collections.abc import Mapping
from typing import Any

import httpx

from limner_client.errors import InvalidAddress
from limner_client.retries import OFF, Retries

DEFAULT_URL = "http://127.0.0.1:8000"
LOOPBACK = ("localhost", "127.0.0.1", "::1")  # a proxy of the environment (HTTP_PROXY) cannot reach this machine's own


class Connection:
    """What Client and AsyncClient have in common: where, how patiently, how often."""

    def __init__(
        self, url: str, timeout: float | None, retries: Retries | None, headers: Mapping[str, str] | None
    ) -> None:
        self.url = url.rstrip("/")
        self.timeout = timeout
        self.retries = OFF if retries is None else retries
        self._headers = dict(headers or {})

    def options(self) -> dict[str, Any]:
        """For httpx's client, either of them. Raises InvalidAddress."""
        try:
            address = httpx.URL(self.url)
        except httpx.InvalidURL as error:
            raise InvalidAddress(f"{self.url} is no address ({error})") from error
        if address.scheme not in ("http", "https") or not address.host:
            raise InvalidAddress(f"'{self.url}' is no address of http://HOST:PORT")
        return {
            "base_url": address,
            "headers": self._headers,
            # many may ask through one client: who waits for a connection waits for his turn, not for the server
            "timeout": httpx.Timeout(self.timeout, pool=None),
            "trust_env": address.host not in LOOPBACK,
        }
