"""How often a tensor is copied between the submitting program and the array a model sees.

A client, a coordinator and a worker run as threads of one process, and their codec is wrapped: it
notes the address of the tensor's numbers before and after each message is encoded or decoded.
Another address is a copy. Copies inside sockets follow from their settings: ZeroMQ copies a frame
that is sent copied once, one that is received copied once more, and the bytes of another process
always go to new memory. A copy that a library makes and drops within a step is not seen.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import msgspec

from cluster import ClusterCoordinator, Handlers, Worker
from cluster.models.frames.tensor import pack_tensor, unpack_tensor
from cluster.protocol.codec import Codec, Frame, Message
from cluster.shells.client import Client
from cluster.spec import ClusterSpec, load_part
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from perfkit.bench.workloads.load import ExperimentError, WrongResult
from perfkit.evidence.samples import counted
from perfkit.evidence.showing import Figures, Sheet, Showable
from perfkit.evidence.tables import data_frame
from perfkit.evidence.text import size

if TYPE_CHECKING:
    import pandas as pd

TENSOR_BYTES = 16 << 20
#: The tensor's first numbers are random and identify it in any buffer.
MARK_BYTES = 64
KIND = "tensor"
PATIENCE_S = 30.0
#: The steps that a message is part of, as a column of payloads and as frames.
Steps: TypeAlias = Mapping[type[Message], tuple[str, str]]
ENCODED: Steps = {on.TasksSubmitted: ("submitted", "sent"), do.Assign: ("assigned", "leased")}
DECODED: Steps = {on.TasksSubmitted: ("queued", "received"), do.Assign: ("held", "taken")}
_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class CopyStep:
    """A step of a tensor's way: its role, and the copies it made."""

    role: str
    step: str
    copies: int


@dataclass(frozen=True)
class CopyTrail(Showable):
    """A tensor's way from the submitter's array to the handler's, for a spec."""

    spec: str
    tensor_bytes: int
    steps: tuple[CopyStep, ...]

    @property
    def copies(self) -> int:
        """All copies, including two for crossing into other processes."""
        return sum(step.copies for step in self.steps)

    def of(self, role: str) -> int:
        """The copies made in a role: client, socket, coordinator or worker."""
        return sum(step.copies for step in self.steps if step.role == role)

    def to_frame(self) -> pd.DataFrame:
        """A row for each step."""
        return data_frame(self.steps)

    def _sheets(self) -> Iterator[Sheet]:
        yield Sheet(
            f"{self.copies} copies of a tensor of {size(self.tensor_bytes)}, spec {self.spec}",
            ("where", "step", "copies"),
            [(it.role, it.step, str(it.copies)) for it in self.steps],
        )

    def _figures(self) -> Figures:
        return "copies", [
            (role, counted(self.of(role))) for role in sorted({s.role for s in self.steps})
        ]


def count_copies(
    spec: ClusterSpec, tensor_bytes: int = TENSOR_BYTES, *, as_view: bool = False
) -> CopyTrail:
    """Send one float32 tensor through a cluster of this spec.

    With `as_view`, `submit` gets a memoryview of the packed tensor instead of bytes. Raises
    ExperimentError if the tensor does not arrive, WrongResult if another one arrives.
    """
    import numpy as np

    array = np.random.default_rng(0).random(tensor_bytes // 4, np.float32)
    with _one_at_a_time:
        way = TracingCodec.way = _Way(spec, array[: MARK_BYTES // 4].tobytes())
        seen: list[Any] = []
        packed = pack_tensor(array)
        way.note("packed", [packed])
        _send(spec, memoryview(packed) if as_view else packed, seen)
    if not seen:
        raise ExperimentError(f"spec {spec.name!r}: the tensor did not arrive")
    way.note("handed", seen)
    found = unpack_tensor(seen[0])
    way.note("unpacked", [found.data])
    if not np.array_equal(found, array):
        raise WrongResult(f"spec {spec.name!r}: the handler's array is not the submitter's")
    return CopyTrail(spec.name, array.nbytes, tuple(way.steps(array)))


def _send(spec: ClusterSpec, payload: Any, seen: list[Any]) -> None:
    """Send one task through a cluster of threads; its handler appends its argument to ``seen``."""
    traced = msgspec.structs.replace(spec, codec=f"{__name__}:{TracingCodec.__name__}")
    handlers = Handlers()

    @handlers.register(KIND, views=True)
    def keep(given: Any) -> bytes:
        seen.append(given)
        return b""

    with ClusterCoordinator(traced) as coordinator:
        worker = Worker(coordinator.endpoint, handlers, spec=traced)
        thread = threading.Thread(target=worker.run, name="worker")
        thread.start()
        try:
            with Client(coordinator.endpoint, spec=traced) as client:
                client.submit(KIND, payload).result(PATIENCE_S)
        finally:
            worker.stop()
            thread.join()


@dataclass
class _Way:
    """The address of the numbers, step by step, and whether a received frame was copied."""

    spec: ClusterSpec
    mark: bytes
    places: dict[str, int] = field(default_factory=dict)
    copied_in: dict[str, bool] = field(default_factory=dict)

    def note(self, step: str, buffers: Iterable[Any]) -> None:
        """Note the numbers' address; if a message is repeated, the first counts."""
        import numpy as np

        for buffer in buffers:
            numbers = np.frombuffer(buffer, np.uint8)
            at = bytes(numbers[: 1 << 16]).find(self.mark)
            if at >= 0:
                self.places.setdefault(step, numbers.ctypes.data + at)
                self.copied_in.setdefault(step, isinstance(buffer, bytes))

    def steps(self, array: Any) -> Iterable[CopyStep]:
        """Whether each step moved the numbers."""
        at = self.places
        yield CopyStep("client", "pack_tensor", int(at["packed"] != array.ctypes.data))
        yield CopyStep("client", "submit", int(at["submitted"] != at["packed"]))
        yield CopyStep("client", "encode", int(at["sent"] != at["submitted"]))
        yield CopyStep("socket", "to the coordinator", self._crossing(array, "received"))
        yield CopyStep("coordinator", "decode", int(at["queued"] != at["received"]))
        yield CopyStep("coordinator", "schedule", int(at["assigned"] != at["queued"]))
        yield CopyStep("coordinator", "encode", int(at["leased"] != at["assigned"]))
        yield CopyStep("socket", "to the worker", self._crossing(array, "taken"))
        yield CopyStep("worker", "decode", int(at["held"] != at["taken"]))
        yield CopyStep("worker", "call the handler", int(at["handed"] != at["held"]))
        yield CopyStep("worker", "unpack_tensor", int(at["unpacked"] != at["handed"]))

    def _crossing(self, array: Any, step: str) -> int:
        uncopied_from = self.spec.sockets.zero_copy_bytes
        sent_copied = not 0 < uncopied_from <= array.nbytes
        return 1 + sent_copied + self.copied_in[step]


class TracingCodec:
    """The codec of the spec under study, which notes where the tensor is; see `count_copies`."""

    #: Shared by all instances, because the cluster makes them by name.
    way: ClassVar[_Way]

    def __init__(self, message_bytes: int) -> None:
        self._codec: Codec = load_part(self.way.spec.codec)(message_bytes)

    def encode(self, messages: Sequence[Message]) -> list[list[Frame]]:
        """Encode, and note columns before and frames after."""
        encoded = self._codec.encode(messages)
        self._note(messages, encoded, ENCODED)
        return encoded

    def events(self, frames: Sequence[Frame]) -> list[on.Event]:
        """Decode, and note frames before and columns after."""
        events = self._codec.events(frames)
        self._note(events, [frames], DECODED)
        return events

    def actions(self, frames: Sequence[Frame]) -> list[do.Action]:
        """Decode, and note frames before and columns after."""
        actions = self._codec.actions(frames)
        self._note(actions, [frames], DECODED)
        return actions

    def _note(
        self, messages: Sequence[Message], frames: Sequence[Sequence[Frame]], steps: Steps
    ) -> None:
        for message in messages:
            if isinstance(message, on.TasksSubmitted | do.Assign):
                column, framed = steps[type(message)]
                self.way.note(column, message.payloads)
                self.way.note(framed, chain.from_iterable(frames))
