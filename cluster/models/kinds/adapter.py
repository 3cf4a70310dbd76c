"""Adapters between bytes on the wire and a network: one for each kind of model.

An adapter reads a payload into rows of numbers, or answers at once where no network is needed, and
writes the network's output as a result. It knows nothing of sessions, so tests need none.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from cluster.models.repository.manifest import Label

if TYPE_CHECKING:
    from numpy.typing import NDArray


NAN = "gave NaN instead of a number"


class Question(NamedTuple):
    """The rows of a payload, [N, …]; ``single`` asks for a bare answer, not a list of one."""

    rows: NDArray[Any]
    single: bool = True


class Adapter(ABC):
    """Reads payloads and writes results of one kind; ``labels`` are all the results may have."""

    labels: tuple[Label, ...]
    input_name: str

    @abstractmethod
    def read(self, payload: bytes | memoryview) -> Question | bytes:
        """The question in a payload, or its result if that needs no network.

        Raises:
            PayloadError: this kind does not take such a payload.
        """

    @abstractmethod
    def write(self, question: Question, outputs: NDArray[Any]) -> bytes:
        """The result for a question, from its rows of the network's output, [N, classes].

        Raises:
            ModelError: they hold no answer; its text follows the model's name.
        """

    def feeds(
        self, questions: Sequence[Question], rows_max: int
    ) -> Iterator[dict[str, NDArray[Any]]]:
        """The network's inputs by name for each run of at most ``rows_max`` rows, in order. A lone
        question is not copied.
        """
        import numpy as np

        tables = [question.rows for question in questions]
        rows = tables[0] if len(tables) == 1 else np.concatenate(tables)
        for start in range(0, len(rows), rows_max):
            yield {self.input_name: rows[start : start + rows_max]}
