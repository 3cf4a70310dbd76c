"""Who is there to work: workers as the scheduler knows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.vocabulary.events import WorkerJoined
from cluster.vocabulary.task import NO_LOAD, NO_REQUIREMENTS, Load, Requirements

if TYPE_CHECKING:
    from cluster.core.run import Lease


class WorkerState:
    """One worker under one epoch. ``held`` counts tasks in its hands, revoked ones too: they fill
    its credit.
    """

    __slots__ = (
        "capacity",
        "credit",
        "draining",
        "epoch",
        "finished",
        "gpus",
        "held",
        "host",
        "id",
        "incarnation",
        "keeping",
        "kinds",
        "last_seen",
        "leases",
        "load",
        "models",
        "pid",
        "suspects",
    )

    def __init__(self, event: WorkerJoined, epoch: int, now: float) -> None:
        self.id = event.worker
        self.incarnation = event.incarnation
        self.epoch = epoch
        self.capacity = event.capacity
        self.credit = max(event.credit, event.capacity)
        self.kinds = frozenset(event.kinds)
        self.models = frozenset(event.models)
        self.gpus = event.gpus
        self.host = event.host
        self.pid = event.pid
        self.last_seen = now
        self.held = 0
        self.finished = 0
        #: leases whose tasks are through and wait to be fetched: they take up neither credit nor a
        #: slot
        self.keeping = 0
        #: leases of tasks that were on a worker when it died; at most one at a time, so that a
        #: poisonous task is alone
        self.suspects = 0
        self.draining = False
        self.load: Load = NO_LOAD
        self.leases: dict[int, Lease] = {}

    @property
    def free(self) -> int:
        """How many more tasks it may be given: none while its cards are in trouble."""
        if self.draining or self.load.gpu_trouble is not None:
            return 0
        return self.credit - self.held

    @property
    def slots_taken(self) -> int:
        """How many of its tasks may be running: a lease is one slot's work."""
        return min(self.capacity, len(self.leases) - self.keeping)

    def offers(self, kind: str, requirements: Requirements) -> bool:
        """Whether it has the handler, the model and the card that a task asks for."""
        if kind not in self.kinds:
            return False
        if requirements is NO_REQUIREMENTS or requirements == NO_REQUIREMENTS:
            return True
        if requirements.model is not None and requirements.model not in self.models:
            return False
        if not requirements.min_vram_bytes and requirements.gpu_family is None:
            return True
        return any(
            gpu.vram_total_bytes >= requirements.min_vram_bytes
            and requirements.gpu_family in (None, gpu.family)
            for gpu in self.gpus
        )
