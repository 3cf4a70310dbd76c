"""What the API needs of whatever runs the tasks: this cluster, or another engine."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import Future
from typing import Protocol

from cluster.vocabulary.task import KindBatches, Priority


class Backend(Protocol):
    """Runs tasks by name. Every method may be called from the API's loop, so none of them waits.

    A future holds the result, or the cluster's error: see `cluster.shells.client.Client`.
    """

    @property
    def name(self) -> str:
        """What runs the tasks, in a word."""

    def submit_batch(
        self,
        kind: str,
        payloads: Sequence[bytes],
        *,
        priority: Priority = Priority.NORMAL,
        timeout_s: float | None = None,
    ) -> Sequence[Future[bytes] | bytes | Exception]:
        """Hand in like tasks at once. Of each, in order, a future, or its outcome if that is known
        already: the result, or the error that its future would hold.
        """

    def kinds(self) -> Collection[str]:
        """The kinds of task that its workers offer, as far as it knows now."""

    def models(self) -> Collection[str]:
        """The names among them that are models, and so answer a frame of tensors."""

    def lacks(self, model: str) -> bool:
        """Whether a worker is to serve this model and can't load it, as far as it knows."""

    def generation(self) -> int:
        """A number that grows when workers come or go, or offer something else."""

    def batches(self) -> Sequence[KindBatches] | None:
        """How the batches of its models formed so far; None if that is unknown."""

    def ready(self) -> bool:
        """Whether a task that is handed in now would reach a worker, as far as it knows."""

    def close(self) -> None:
        """End what it has started; futures that are open are cancelled."""
