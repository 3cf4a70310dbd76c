"""PyTriton: the real Triton server, its requests batched by Triton and run in this process.

https://triton-inference-server.github.io/pytriton/latest/inference_callables/decorators/: `@batch`
hands the callable the rows of several requests as one array.
https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/batcher.html: decide on
a maximum batch size; by default a batch takes what is there and does not wait for more.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from network import Network, options
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

if __name__ == "__main__":
    given = options()
    network = Network(given)
    if network.takes_texts:
        inputs = [Tensor(name="text", dtype=bytes, shape=(1,))]
    else:
        inputs = [
            Tensor(name=name, dtype=np.dtype(kind).type, shape=(-1,))
            for name, kind in network.inputs
        ]

    @batch
    def answer(**columns: Any) -> dict[str, Any]:
        """The vectors of some rows."""
        rows = next(iter(columns.values()))
        if network.takes_texts:
            rows = [text.decode() for text in rows[:, 0]]
        return {network.output: network.run(rows)}

    config = TritonConfig(
        http_address="127.0.0.1", http_port=given.port, allow_grpc=False, allow_metrics=False
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name=given.name,
            infer_func=answer,
            inputs=inputs,
            outputs=[Tensor(name=network.output, dtype=np.float32, shape=(-1,))],
            config=ModelConfig(max_batch_size=given.batch_max, batcher=DynamicBatcher()),
            strict=False,
        )
        triton.serve()
