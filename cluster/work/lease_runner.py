"""One lease while a worker works through it: outcomes gathered, and not yet reported.

Two threads meet here without a lock. The one that works appends, the one that hears the coordinator
collects from the front when results are wanted while a handler still runs. Either is one atomic
step of the interpreter, and a failure is written before the outcome that it explains.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from cluster.protocol.stored_results import Gathered
from cluster.protocol.worker_session import HeldLease
from cluster.vocabulary.limits import Limits
from cluster.vocabulary.task import Failure
from cluster.work.handlers import Handlers, sort_out, try_one, try_some

#: how much work is begun before the clock is looked at
LOOK_AFTER_S = 0.00025
MAX_STEP = 256


class LeaseRunner:
    """Work through ``lease``; ``step`` is how many tasks to run before looking at the clock.

    Single tasks are claimed one by one, so that all behind a slow one can be given back; a batch
    handler is given as many at once as a step is long. A result too large for a report is kept in
    the lease, and ends the runner; one over ``result_bytes`` is a failure.
    """

    def __init__(self, lease: HeldLease, handlers: Handlers, step: int, limits: Limits) -> None:
        self.lease = lease
        self.step = step
        self._inline_bytes = limits.most_inline_bytes
        self._result_bytes = limits.result_bytes
        self._single = handlers.single(lease.kind)
        self._batch = handlers[lease.kind]
        self._given = handlers.given(lease.kind)
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
        return bool(self.lease.pending) and self.lease.kept is None

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
                payload: Any = claim()
            except IndexError:
                return ran
            if type(payload) is not bytes:
                payload = self._given(payload)
            position = lease.next
            lease.next = position + 1
            outcome = try_one(handler, payload, position, lease.cancelled)
            if type(outcome) is bytes and len(outcome) <= self._inline_bytes:
                done(outcome)
            else:
                self._sort_out([outcome], position)
                if lease.kept is not None:
                    return ran
        return self.step

    def _together(self) -> int:
        lease, first = self.lease, self.lease.next
        payloads = lease.claim(self.step)
        if payloads:
            given: list[Any] = [p if type(p) is bytes else self._given(p) for p in payloads]
            found = try_some(self._batch, given, first, lease.cancelled)
            self._sort_out(found, first)
        return len(payloads)

    def _sort_out(self, found: Sequence[Any], first: int) -> None:
        most = self._result_bytes, self._inline_bytes
        sort_out(found, first, self._outcomes, self._failures, *most, self.lease.keep)
