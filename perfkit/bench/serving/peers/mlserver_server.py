"""MLServer: one model with a runtime of its own, no extra worker processes.

https://docs.seldon.ai/mlserver/user-guide/adaptive-batching: off by default; `max_batch_size` and
`max_batch_time` (seconds to wait for a full batch) switch it on, and both have to be set.
https://docs.seldon.ai/mlserver/user-guide/parallel-inference: `parallel_workers` 0 runs the model
in the server's own process, which suits models that are not bound by Python.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse
from network import Network, options

#: The least wait that forms batches; longer ones cost a lone request as much.
WAIT_S = 0.001


class Model(MLModel):
    """The model behind the Open Inference Protocol."""

    async def load(self) -> bool:
        """Open the model."""
        self.network = Network(options())
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """The vectors of some rows."""
        first = payload.inputs[0]
        texts = self.network.takes_texts
        rows = StringCodec.decode_input(first) if texts else NumpyCodec.decode_input(first)
        found = np.asarray(self.network.run(rows))
        output = NumpyCodec.encode_output(self.network.output, found)
        return InferenceResponse(model_name=self.name, outputs=[output])


def free_port() -> int:
    """A port for gRPC, which can't be switched off."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    given = options()
    with tempfile.TemporaryDirectory() as folder:
        server = {
            "host": "127.0.0.1", "http_port": given.port, "parallel_workers": 0, "debug": False,
            "grpc_port": free_port(), "metrics_endpoint": None,
        }  # fmt: skip
        model = {
            "name": given.name, "implementation": "mlserver_server.Model",
            "max_batch_size": given.batch_max, "max_batch_time": WAIT_S,
        }  # fmt: skip
        Path(folder, "settings.json").write_text(json.dumps(server))
        Path(folder, "model-settings.json").write_text(json.dumps(model))
        mlserver = Path(sys.executable).with_name("mlserver")
        raise SystemExit(subprocess.call([mlserver, "start", folder]))
