"""BentoML: one service, one worker, a batchable API.

https://docs.bentoml.com/en/latest/get-started/adaptive-batching.html: `batchable=True` switches
batching on; `max_batch_size` bounds a batch, `max_latency_ms` the time that a request may take.
The same page: the window adapts to the traffic; a request over the time is refused with 503.
"""

from __future__ import annotations

import bentoml
import numpy as np
from network import Network, options

GIVEN = options()
#: Long enough that nothing is refused at 32 requests in flight.
LATENCY_MS = 10_000


@bentoml.service(workers=1, traffic={"timeout": 60})
class Model:
    """The model behind one batchable API."""

    def __init__(self) -> None:
        self.network = Network(GIVEN)

    if GIVEN.tokenizer is None:

        @bentoml.api(
            batchable=True, max_batch_size=GIVEN.batch_max, max_latency_ms=LATENCY_MS, route="/rows"
        )
        def answer(self, rows: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
            """The vectors of some rows."""
            return self.network.run(rows)

    else:

        @bentoml.api(
            batchable=True, max_batch_size=GIVEN.batch_max, max_latency_ms=LATENCY_MS, route="/rows"
        )
        def answer_texts(self, rows: list[str]) -> np.ndarray:  # type: ignore[type-arg]
            """The vectors of some texts."""
            return self.network.run(rows)
