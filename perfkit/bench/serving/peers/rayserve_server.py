"""Ray Serve: one replica, its requests batched by `serve.batch`.

https://docs.ray.io/en/latest/serve/advanced-guides/dyn-req-batch.html: `max_batch_size` is as large
as the model takes well; `batch_wait_timeout_s` is 10 ms by default and lower for fast models.
"""

from __future__ import annotations

from typing import Any

import ray
from network import Network, options
from ray import serve
from starlette.requests import Request

GIVEN = options()
#: Models here take from 10 µs to 10 ms: waiting for a batch to fill would cost more than it gains.
WAIT_S = 0.0


@serve.deployment(num_replicas=1, max_ongoing_requests=256)
class Model:
    """The model behind one route."""

    def __init__(self) -> None:
        self.network = Network(GIVEN)

    @serve.batch(max_batch_size=GIVEN.batch_max, batch_wait_timeout_s=WAIT_S)
    async def answer(self, rows: list[Any]) -> list[Any]:
        """The vectors of some rows."""
        return [{"output": vector.tolist()} for vector in self.network.run(rows)]

    async def __call__(self, request: Request) -> Any:
        """The vector of a request."""
        body = await request.json()
        return await self.answer(body["rows"][0])


if __name__ == "__main__":
    ray.init(include_dashboard=False, num_cpus=2, logging_level="warning")
    serve.start(http_options={"host": "127.0.0.1", "port": GIVEN.port})
    serve.run(Model.bind(), route_prefix="/rows", blocking=True)
