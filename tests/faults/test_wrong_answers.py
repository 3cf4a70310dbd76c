"""A result is right, or its own task fails: no address and no other task's row travels as one."""

from pathlib import Path

import msgspec
import pytest

from cluster import LocalCluster
from cluster.models.frames.tensor import pack_tensor
from cluster.vocabulary.errors import TaskFailed
from tests.cluster.models.runtime.test_network import X, Y, node, save

np = pytest.importorskip("numpy")
TIMEOUT_S = 20

#: A model that drops rows of no positive number, and a handler that gives addresses.
SOURCE = """
    import numpy as np
    from cluster import Handlers
    from cluster.models.inference import model_handlers
    from cluster.work.workloads import HANDLERS as ORDINARY

    HANDLERS = Handlers()
    HANDLERS.update(ORDINARY)
    HANDLERS.update(model_handlers(["mine"], {root!r}))

    @HANDLERS.register("addresses")
    def addresses(payload):
        return memoryview(np.array([payload, None], dtype=object))
"""


def test_neither_addresses_nor_anothers_rows_travel(spec, module, tmp_path: Path) -> None:
    nodes = [
        node("ReduceMax", "x", out="most", axes=[1], keepdims=0),
        node("Cast", "most", out="kept", to=9),
        node("Compress", "x", "kept", axis=0),
    ]
    root = tmp_path / "models"
    root.mkdir()
    save(root, [X], [Y], nodes)
    handlers = f"{module(SOURCE.format(root=str(root)))}:HANDLERS"
    objects = np.array([[None]] * 20_000, dtype=object)
    with LocalCluster(1, spec, handlers=handlers) as local, local.client() as client:
        for hand_in in (
            lambda: client.submit("echo", objects),
            lambda: client.submit_batch("echo", [b"x", objects]),
            lambda: list(client.map("echo", [b"x", objects[:1]])),
        ):
            with pytest.raises(TypeError, match="are only addresses"):
                hand_in()
        with pytest.raises(TaskFailed, match=r"TypeError: .* are only addresses"):
            client.submit("addresses", b"x").result(TIMEOUT_S)
        rows = [[[2, 1]], [[0, 0]], [[1, 2]]]
        payloads = [pack_tensor(np.float32(it)) for it in rows]
        first, dropped, last = client.submit_batch("mine", payloads)
        for future, label in ((first, "left"), (last, "right")):
            assert msgspec.msgpack.decode(future.result(TIMEOUT_S))[0]["label"] == label
        with pytest.raises(TaskFailed, match=r"gave float32\[0, 2\] for a batch of 1 row;"):
            dropped.result(TIMEOUT_S)
        assert client.submit("echo", b"next").result(TIMEOUT_S) == b"next"
