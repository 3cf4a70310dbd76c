"""What every peer's script needs: its options, and the model in ONNX Runtime.

It is found as a neighbour of the script that runs, so it imports nothing of this project.
"""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

NUMPY_TYPES = {"tensor(int64)": "int64", "tensor(int32)": "int32", "tensor(float)": "float32"}


def options(arguments: Sequence[str] | None = None) -> Namespace:
    """The options of every script, from the command line or from PEER_OPTIONS.

    A server that starts its own processes hands them the environment, not the command line.
    """
    parser = ArgumentParser(description="serve one model")
    parser.add_argument("--name", required=True)
    parser.add_argument("--model", required=True, type=Path)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-max", type=int, default=64)
    given = os.environ.get("PEER_OPTIONS")
    return parser.parse_args(given.split("\n") if given is not None else arguments)


class Network:
    """A model file on the CPU, and the tokenizer of its texts if it has one."""

    def __init__(self, given: Namespace) -> None:
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads, settings.inter_op_num_threads = given.threads, 1
        self._session = onnxruntime.InferenceSession(
            str(given.model), settings, providers=["CPUExecutionProvider"]
        )
        self.inputs = [(port.name, NUMPY_TYPES[port.type]) for port in self._session.get_inputs()]
        self.row = self._session.get_inputs()[0].shape[1]
        port = self._session.get_outputs()[-1]
        self.output, self.width = port.name, port.shape[1]
        self._tokenizer: Any = None
        if given.tokenizer is not None:
            from tokenizers import Tokenizer

            self._tokenizer = Tokenizer.from_file(str(given.tokenizer))
            self._tokenizer.enable_padding()

    @property
    def takes_texts(self) -> bool:
        """Whether rows are texts."""
        return self._tokenizer is not None

    def run(self, rows: Any) -> np.ndarray[Any, Any]:
        """The vector of each row; of several rows side by side."""
        masks = {}
        if self._tokenizer is not None:
            encoded = self._tokenizer.encode_batch(list(rows))
            first = np.array([one.ids for one in encoded], np.int64)
            masks = {self.inputs[1][0]: np.array([one.attention_mask for one in encoded], np.int64)}
        else:
            first = np.asarray(rows, self.inputs[0][1])
            masks = {name: np.ones(first.shape, kind) for name, kind in self.inputs[1:]}
        found: np.ndarray[Any, Any] = self._session.run(
            [self.output], {self.inputs[0][0]: first, **masks}
        )[0]
        return found
