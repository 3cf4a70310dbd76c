"""One lease while a worker works through it: outcomes gathered, and not yet reported.

Two threads meet here without a lock. The one that works appends, the one that hears the coordinator
collects from the front when results are wanted while a handler still runs. Either is one atomic
step of the interpreter, and a failure is written before the outcome that it explains.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from cluster.handlers import Handlers, sort_out, try_one, try_some
from cluster.task import Failure
from cluster.worker_session import HeldLease

#: how much work is begun before the clock is looked at
LOOK_AFTER_S = 0.00025
MAX_STEP = 256


class Gathered(NamedTuple):
    """Outcomes of the next tasks of a lease, and the seconds they took from when to when."""

    outcomes: list[bytes]
    failures: list[Failure]
    started_at: float
    ended_at: float


class Shift:
    """Work through ``lease``; ``step`` is how many tasks to run before looking at the clock.

    Single tasks are claimed one by one, so that all behind a slow one can be given back; a batch
    handler is given as many at once as a step is long. Results over ``most_bytes`` are failures.
    """

    def __init__(self, lease: HeldLease, handlers: Handlers, step: int, most_bytes: int) -> None:
        self.lease = lease
        self.step = step
        self._most_bytes = most_bytes
        self._single = handlers.single(lease.kind)
        self._batch = handlers[lease.kind]
        self._outcomes: list[bytes] = []
        self._failures: list[Failure] = []
        self.began_at = self._looked_at = time.monotonic()

    def go_on(self) -> bool:
        """Run the next step; False when nothing of the lease is left to start."""
        ran = self._one_by_one() if self._single is not None else self._together()
        now = time.monotonic()
        took_s, self._looked_at = now - self._looked_at, now
        if took_s > 2 * LOOK_AFTER_S:
            self.step = max(1, self.step // 2)
        elif took_s < LOOK_AFTER_S and ran == self.step:
            self.step = min(self.step * 2, MAX_STEP)
        return bool(self.lease.pending)

    def waits_s(self) -> float:
        """How long the oldest outcome has waited to be reported, at the last look at the clock."""
        return self._looked_at - self.began_at

    def collect(self) -> Gathered:
        """Take what has been gathered, in order; safe while another thread works."""
        count, ended_at = len(self._outcomes), self._looked_at
        outcomes = self._outcomes[:count]
        del self._outcomes[:count]
        stop = self.lease.reported + count
        failures = [failure for failure in self._failures if failure.position < stop]
        del self._failures[: len(failures)]
        began_at, self.began_at = self.began_at, ended_at
        return Gathered(outcomes, failures, began_at, max(began_at, ended_at))

    def _one_by_one(self) -> int:
        lease, handler, done = self.lease, self._single, self._outcomes.append
        claim = lease.pending.popleft
        assert handler is not None
        for ran in range(self.step):
            try:
                payload = claim()
            except IndexError:
                return ran
            position = lease.next
            lease.next = position + 1
            outcome = try_one(handler, payload, position, lease.cancelled)
            if type(outcome) is bytes and len(outcome) <= self._most_bytes:
                done(outcome)
            else:
                sort_out([outcome], position, self._outcomes, self._failures, self._most_bytes)
        return self.step

    def _together(self) -> int:
        lease, first = self.lease, self.lease.next
        payloads = lease.claim(self.step)
        if payloads:
            found = try_some(self._batch, payloads, first, lease.cancelled)
            sort_out(found, first, self._outcomes, self._failures, self._most_bytes)
        return len(payloads)
