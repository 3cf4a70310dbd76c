"""Adapters between bytes on the wire and a network: one for each kind of model.

An adapter reads a payload into rows of numbers, or answers at once where no network is needed, and
writes the network's output as a result. It knows nothing of sessions, so tests need none.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from cluster.models.frames.metadata import TensorMetadata, fits
from cluster.models.repository.manifest import Label, ModelError
from cluster.models.runtime.network import Network, Outputs

if TYPE_CHECKING:
    from numpy.typing import NDArray


NAN = "gave NaN instead of a number"


class Alike(NamedTuple):
    """What is done for many small questions at once, in a fraction of the time: ``join`` makes the
    inputs of all their payloads, ``write`` all their results, or None if each has to be written by
    itself. Questions with the same `Alike` have as many items each.
    """

    join: Callable[[Sequence[bytes | memoryview]], dict[str, NDArray[Any]]]
    write: Callable[[Outputs, int], list[bytes] | None]


class Question(NamedTuple):
    """What a payload asks a ``network``, which stays open until it is answered, whatever takes its
    place meanwhile; `question` makes one.

    ``inputs`` are by name, in the graph's order. With ``by_rows`` the first axis of each input and
    output is that of its rows, so questions of one ``bucket`` may run together; otherwise it runs
    alone. ``outputs`` are the names of those that ``write`` needs, which makes the result of them
    and raises ModelError if they hold no answer; its text follows the model's name. ``items`` are
    the rows; a question that runs alone is one item. One with ``alike`` has its inputs in its
    ``payload`` still.
    """

    network: Network
    inputs: dict[str, NDArray[Any]]
    outputs: tuple[str, ...]
    write: Callable[[Outputs], bytes]
    items: int
    bucket: Hashable
    by_rows: bool = True
    alike: Alike | None = None
    payload: bytes | memoryview = b""


def question(
    network: Network,
    inputs: dict[str, NDArray[Any]],
    outputs: tuple[str, ...],
    write: Callable[[Outputs], bytes],
) -> Question:
    """A question by rows. Its bucket is made of the inputs' types and row shapes."""
    bucket = bucket_of((name, it.dtype, it.shape[1:]) for name, it in inputs.items())
    return Question(network, inputs, outputs, write, len(next(iter(inputs.values()))), bucket)


def bucket_of(inputs: Iterable[tuple[str, Any, tuple[int, ...]]]) -> Hashable:
    """The bucket of inputs of these names, numpy's types, and shapes of a row."""
    return tuple([(name, dtype.char, shape) for name, dtype, shape in inputs])


class Adapter(ABC):
    """Reads payloads and writes results of one kind; ``labels`` are all the results may have."""

    labels: tuple[Label, ...] = ()
    #: Any bytes are a payload, so some that begin like a frame of tensors need not be one.
    takes_any_bytes = False

    @abstractmethod
    def read(self, payload: bytes | memoryview) -> Question | bytes:
        """The question in a payload, or its result if that needs no network.

        Raises:
            PayloadError: this kind does not take such a payload.
        """


def check_answer(port: TensorMetadata, value: NDArray[Any]) -> None:
    """Raise ModelError unless an output has the row shape that the graph tells, and no NaN."""
    if not fits(value.shape[1:], port.row_shape):
        raise ModelError(f"gave {value.dtype}{list(value.shape)}, not the {port} of its graph")
    if (value != value).any():
        raise ModelError(NAN)
