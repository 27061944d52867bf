"""The demo's generator on LitServe: `python with_litserve.py PORT`.

Batches, workers of a device, several API servers and the fast queue as in its documentation on speed.
"""

import os
import sys
from typing import Any

import litserve
from common import LARGEST, WAIT, Generator
from fastapi import Response


class Generate(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.generator = Generator()

    def decode_request(self, request: dict[str, int], **_: Any) -> int:
        return request["label"]

    def predict(self, x: list[int], **_: Any) -> list[bytes]:
        return self.generator(x)

    def encode_response(self, output: bytes, **_: Any) -> Response:
        return Response(output, media_type="image/png")


if __name__ == "__main__":
    workers = int(os.environ["WORKERS"])
    api = Generate(max_batch_size=LARGEST, batch_timeout=WAIT)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=workers, fast_queue=True)
    server.run(port=int(sys.argv[1]), num_api_servers=workers, generate_client_file=False, log_level="warning")
