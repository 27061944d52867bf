"""As many bytes as a picture has, as raw ASGI: what HTTP alone costs. `uvicorn constant:app`."""

from typing import Any

SIZE = 1115  # bytes, as a 28x28 picture of limner has with what it says of itself


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    headers = [(b"content-type", b"image/png"), (b"content-length", str(SIZE).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": bytes(SIZE)})
