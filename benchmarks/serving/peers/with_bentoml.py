"""The demo's generator on BentoML: `bentoml serve with_bentoml:Front --port N`.

A batchable API (adaptive batching) in a service of its own with a worker for each core, and a service before it that
asks it for one picture, as in "Adaptive batching" of its documentation. Under load the one in front finds connections
to the other closed and answers 500: https://github.com/bentoml/BentoML/issues/4971, open when this was written.
"""

import os
from typing import Annotated

import bentoml
from bentoml.validators import ContentType
from common import LARGEST, Generator

WORKERS = int(os.environ["WORKERS"])


@bentoml.service(workers=WORKERS, traffic={"timeout": 30})
class Batched:
    def __init__(self) -> None:
        self.generator = Generator()

    @bentoml.api(batchable=True, max_batch_size=LARGEST, max_latency_ms=10_000)
    def generate(self, labels: list[int]) -> list[bytes]:
        return self.generator(labels)


@bentoml.service(workers=WORKERS, traffic={"timeout": 30})
class Front:
    batched = bentoml.depends(Batched)

    @bentoml.api
    async def generate(self, label: int) -> Annotated[bytes, ContentType("image/png")]:
        return (await self.batched.to_async.generate([label]))[0]
