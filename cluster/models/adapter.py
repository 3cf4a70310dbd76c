"""What stands between bytes on the wire and a network: one adapter for each kind of model.

An adapter reads a payload into rows of numbers (or answers at once, where the network is not
needed) and writes the network's output as a result. It knows nothing of sessions, so that it can be
tested without one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from cluster.models.manifest import Label

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Question(NamedTuple):
    """The rows a payload asks about, [N, …]; ``single`` wants a bare answer, not a list of one."""

    rows: NDArray[Any]
    single: bool = True


class Adapter(ABC):
    """How payloads of one kind are read and results written; ``labels`` are all possible ones."""

    labels: tuple[Label, ...]
    input_name: str

    @abstractmethod
    def read(self, payload: bytes | memoryview) -> Question | bytes:
        """The question in a payload, or its result if that takes no network.

        Raises:
            PayloadError: the payload is not what this kind takes.
        """

    @abstractmethod
    def write(self, question: Question, outputs: NDArray[Any]) -> bytes:
        """The result for a question from its rows of the network's output, [N, classes]."""

    def feeds(
        self, questions: Sequence[Question], rows_max: int
    ) -> Iterator[dict[str, NDArray[Any]]]:
        """Several questions as the network's inputs by name, at most ``rows_max`` rows a run, in
        their order. A lone question is not copied.
        """
        import numpy as np

        tables = [question.rows for question in questions]
        rows = tables[0] if len(tables) == 1 else np.concatenate(tables)
        for start in range(0, len(rows), rows_max):
            yield {self.input_name: rows[start : start + rows_max]}
