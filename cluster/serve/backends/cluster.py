"""This cluster behind the API: its client, and what its workers offer, asked for each second.

The question waits for the coordinator, so a thread asks it and the API's loop reads the answer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

from cluster.shells.client import Client
from cluster.vocabulary.errors import ClusterError
from cluster.vocabulary.status import Status, names_model
from cluster.vocabulary.task import KindBatches

REFRESH_S = 1.0
ANSWER_S = 2.0
#: What a worker offered counts for so long after it is gone: its supervisor starts it again, and
#: the coordinator keeps tasks for it meanwhile.
REMEMBERED_S = 30.0


class Offers(NamedTuple):
    """What a worker offers: its start, how often it told since, and its kinds and models."""

    epoch: int
    told: int
    kinds: tuple[str, ...]
    models: tuple[str, ...]


class ClusterBackend:
    """A `Backend` over a client, which it closes at its end."""

    name = "zmq"

    def __init__(self, client: Client) -> None:
        self.client = client
        self.submit_batch = client.submit_batch
        #: of each worker, and when it was last there
        self._offers: dict[str, tuple[Offers, float]] = {}
        self._kinds: frozenset[str] = frozenset()
        self._models: frozenset[str] = frozenset()
        self._generation = 0
        self._status: Status | None = None
        #: when the last status came, on the monotonic clock, and why none came later
        self.answered_at_s: float | None = None
        self.trouble = ""
        self._refreshing = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep_asking, name="offers", daemon=True)
        self.refresh()
        self._thread.start()

    def kinds(self) -> frozenset[str]:
        """The kinds that any worker offers, or did a moment ago."""
        return self._kinds

    def models(self) -> frozenset[str]:
        """The models that any worker serves, or did a moment ago."""
        return self._models

    def lacks(self, model: str) -> bool:
        """Whether a worker is to serve this model and can't load it."""
        workers = self._status.workers if self._status is not None else ()
        return any(names_model(worker.trouble, model) for worker in workers)

    def generation(self) -> int:
        """Grows when a worker comes, is forgotten, or offers something else."""
        return self._generation

    def batches(self) -> Sequence[KindBatches] | None:
        """How batches formed on its workers, as its last status tells."""
        return self._status.batches if self._status is not None else None

    def ready(self) -> bool:
        """Whether the coordinator answered the last question and has a worker."""
        return self._status is not None and bool(self._status.workers)

    @property
    def status(self) -> Status | None:
        """The cluster's last status; None while the coordinator does not answer."""
        return self._status

    def refresh(self) -> None:
        """Ask the coordinator now, and wait for its answer. Not for the API's loop."""
        with self._refreshing:
            self._refresh()

    def _refresh(self) -> None:
        try:
            status = self.client.status(ANSWER_S)
        except ClusterError as error:
            self._status, self.trouble = None, str(error)
            return
        now_s = time.monotonic()
        self._status, self.answered_at_s = status, now_s
        before = {name: offers for name, (offers, _) in self._offers.items()}
        for worker in status.workers:
            if not worker.draining:
                offers = Offers(
                    worker.epoch, worker.offers, tuple(worker.kinds), tuple(worker.models)
                )
                self._offers[worker.worker] = offers, now_s
        self._offers = {
            name: (offers, seen_s)
            for name, (offers, seen_s) in self._offers.items()
            if now_s - seen_s < REMEMBERED_S
        }
        after = {name: offers for name, (offers, _) in self._offers.items()}
        if after != before:
            self._kinds = frozenset(kind for one in after.values() for kind in one.kinds)
            self._models = frozenset(model for one in after.values() for model in one.models)
            self._generation += 1

    def close(self) -> None:
        """Close the client; the thread ends."""
        self._over.set()
        self.client.close()
        self._thread.join(ANSWER_S)

    def _keep_asking(self) -> None:
        while not self._over.wait(REFRESH_S):
            self.refresh()
