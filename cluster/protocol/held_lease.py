"""A lease in the hands of a worker.

Only it is shared between threads: they claim its pending tasks from the left end of a deque and
give them back from its right end, one atomic step a task.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import Any

from cluster.protocol.stored_results import StoredResults
from cluster.vocabulary import actions as do


class HeldLease:
    """A lease that a worker holds: positions before ``next`` are started, those from ``stop`` on
    given back.
    """

    __slots__ = (
        "cancelled",
        "due_at",
        "epoch",
        "id",
        "kind",
        "next",
        "pending",
        "prepared",
        "reported",
        "stop",
        "stored",
        "was_cut",
    )

    def __init__(self, action: do.Assign, now: float = 0.0) -> None:
        self.id = action.lease
        self.epoch = action.epoch
        self.kind = action.kind
        #: payloads not started, from position ``next`` on
        self.pending = deque(action.payloads)
        self.next = self.reported = action.start
        self.stop = action.start + len(action.payloads)
        self.was_cut = False
        #: the tasks' deadline on this worker's clock
        self.due_at = None if action.left_s is None else now + action.left_s
        #: by position, what a model has read of pending payloads ahead of its run
        self.prepared: dict[int, Any] = {}
        #: positions to skip unless they have been started
        self.cancelled: set[int] = set()
        #: results too large for a report, once there is one
        self.stored: StoredResults | None = None

    def store(self, position: int, result: bytes | bytearray | memoryview) -> None:
        """Store a large result until its client has fetched it; its outcome is ``b""``."""
        if self.stored is None:
            self.stored = StoredResults()
        self.stored.put(position, result)

    def claim(self, most: int) -> list[bytes]:
        """Start the next tasks, at most ``most``: their payloads; empty when nothing is left."""
        payloads: list[bytes] = []
        # Another thread may give them back meanwhile.
        with suppress(IndexError):
            payloads.extend(self.pending.popleft() for _ in range(most))
        self.next += len(payloads)
        return payloads

    def claim_one(self) -> bool:
        """Start the next task, whose payload is known; false if it was given back."""
        try:
            self.pending.popleft()
        except IndexError:
            return False
        self.next += 1
        return True

    def give_back(self) -> None:
        """Give back all that is not started."""
        with suppress(IndexError):
            while True:
                self.pending.pop()
                self.stop -= 1
                self.was_cut = True
        self.prepared.clear()
