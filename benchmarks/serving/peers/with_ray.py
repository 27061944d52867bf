"""The demo's generator on Ray Serve: `python with_ray.py PORT`.

`@serve.batch` and one replica for each core as in "Dynamic request batching" of its documentation.
"""

import asyncio
import os
import sys

from common import LARGEST, WAIT, Generator
from ray import serve
from starlette.requests import Request
from starlette.responses import Response


@serve.deployment(
    num_replicas=int(os.environ["WORKERS"]),
    max_ongoing_requests=4 * LARGEST,
    ray_actor_options={"num_cpus": 0.5, "runtime_env": {"env_vars": dict(os.environ)}},
)
class Generate:
    def __init__(self) -> None:
        self.generator = Generator()

    @serve.batch(max_batch_size=LARGEST, batch_wait_timeout_s=WAIT)
    async def generate(self, labels: list[int]) -> list[bytes]:
        return self.generator(labels)

    async def __call__(self, request: Request) -> Response:
        asked = await request.json()
        return Response(await self.generate(asked["label"]), media_type="image/png")


if __name__ == "__main__":
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Generate.bind(), route_prefix="/generate")
    asyncio.run(asyncio.sleep(1e9))
