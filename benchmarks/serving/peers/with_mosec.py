"""The demo's generator on MOSEC: `python with_mosec.py --port N`.

Batches and workers as in "Dynamic batching" and "Multiple processes" of its documentation; one process of the model for
each worker, and its own HTTP server in Rust.
"""

import os
from typing import Any

from common import LARGEST, WAIT, Generator
from mosec import Server, Worker


class Inference(Worker):
    resp_mime_type = "image/png"

    def __init__(self) -> None:
        super().__init__()
        self.generator = Generator()

    def forward(self, data: list[dict[str, int]]) -> list[bytes]:
        return self.generator([one["label"] for one in data])

    def serialize(self, data: Any) -> bytes:
        return data


if __name__ == "__main__":
    server = Server()
    workers = int(os.environ["WORKERS"])
    server.append_worker(Inference, num=workers, max_batch_size=LARGEST, max_wait_time=int(WAIT * 1e3))
    server.run()
