"""LitServe: one API, one worker, batches formed by its own loop.

https://lightning.ai/docs/litserve/features/batching: `max_batch_size` switches batching on.
The same page: `batch_timeout` waits for a batch to fill; its default of 0 takes what is there.
"""

from __future__ import annotations

from typing import Any

import litserve as ls
from network import Network, options


class Model(ls.LitAPI):
    """Rows of one request each, run together."""

    def setup(self, device: str) -> None:
        """Open the model."""
        self.network = Network(options())

    def decode_request(self, request):  # type: ignore[no-untyped-def]  # its type would be checked
        """The row of a request."""
        return request["rows"][0]

    def batch(self, inputs: list[Any]) -> list[Any]:
        """The rows as they are: the network makes the array."""
        return inputs

    def predict(self, rows: list[Any]) -> Any:
        """The vectors of some rows."""
        return self.network.run(rows)

    def unbatch(self, output: Any) -> list[Any]:
        """A vector for each."""
        return list(output)

    def encode_response(self, output: Any) -> dict[str, Any]:
        """The vector of a request."""
        return {"output": output.tolist()}


if __name__ == "__main__":
    given = options()
    server = ls.LitServer(
        Model(max_batch_size=given.batch_max), accelerator="cpu", workers_per_device=1
    )
    server.run(port=given.port, host="127.0.0.1", log_level="warning", generate_client_file=False)
