"""One lease while a worker runs it: its outcomes until they are reported.

Two threads meet here without a lock. The working thread appends outcomes; the thread that hears the
coordinator may collect them from the front while a handler still runs. Each is one atomic step of
the interpreter, and a failure is written before the outcome that it explains.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from cluster.protocol.held_lease import HeldLease
from cluster.protocol.stored_results import FinishedTasks
from cluster.vocabulary.limits import Limits
from cluster.vocabulary.task import Failure
from cluster.work.handlers import Handlers, sort_out, try_one, try_some

#: how much work is started between two looks at the clock
LOOK_AFTER_S = 0.00025
MAX_STEP = 256


class LeaseRunner:
    """Run ``lease``; ``step`` is how many tasks to run between two looks at the clock.

    Single tasks are claimed one by one, so that all behind a slow one can be given back; a batch
    handler gets a whole step at once. A result too large for a report is stored in the lease and
    ends the run; one over ``result_bytes`` is a failure.
    """

    def __init__(self, lease: HeldLease, handlers: Handlers, step: int, limits: Limits) -> None:
        self.lease = lease
        self.step = step
        self._inline_bytes = min(limits.most_inline_bytes, limits.result_bytes)
        self._result_bytes = limits.result_bytes
        self._single = handlers.single(lease.kind)
        self._batch = handlers[lease.kind]
        self._converted = handlers.converter(lease.kind)
        self._outcomes: list[bytes] = []
        self._failures: list[Failure] = []
        self._collected_at = self._looked_at = time.monotonic()

    def go_on(self) -> bool:
        """Run the next step; False when nothing of the lease is left to start."""
        ran = self._one_by_one() if self._single is not None else self._together()
        now = time.monotonic()
        took_s, self._looked_at = now - self._looked_at, now
        if took_s > 2 * LOOK_AFTER_S:
            self.step = max(1, self.step // 2)
        elif took_s < LOOK_AFTER_S and ran == self.step:
            self.step = min(self.step * 2, MAX_STEP)
        return bool(self.lease.pending) and self.lease.stored is None

    def waits_s(self) -> float:
        """How long outcomes have been collecting, at the last look at the clock."""
        return self._looked_at - self._collected_at

    def collect(self) -> FinishedTasks:
        """Take the outcomes so far, in order; safe while another thread works."""
        count, ended_at = len(self._outcomes), self._looked_at
        outcomes = self._outcomes[:count]
        del self._outcomes[:count]
        stop = self.lease.reported + count
        failures = [failure for failure in self._failures if failure.position < stop]
        del self._failures[: len(failures)]
        started_at, self._collected_at = self._collected_at, ended_at
        return FinishedTasks(outcomes, failures, started_at, max(started_at, ended_at))

    def _one_by_one(self) -> int:
        lease, handler, done = self.lease, self._single, self._outcomes.append
        claim = lease.pending.popleft
        assert handler is not None
        for ran in range(self.step):
            try:
                payload: Any = claim()
            except IndexError:
                return ran
            position = lease.next
            lease.next = position + 1
            run = handler if type(payload) is bytes else self._run_single
            outcome = try_one(run, payload, position, lease.cancelled)
            if type(outcome) is bytes and len(outcome) <= self._inline_bytes:
                done(outcome)
            else:
                self._sort_out([outcome], position)
                if lease.stored is not None:
                    return ran
        return self.step

    def _together(self) -> int:
        lease, first = self.lease, self.lease.next
        payloads = lease.claim(self.step)
        if payloads:
            found = try_some(self._run_batch, payloads, first, lease.cancelled)
            self._sort_out(found, first)
        return len(payloads)

    def _run_single(self, payload: Any) -> Any:
        assert self._single is not None
        return self._single(self._converted(payload))

    def _run_batch(self, payloads: list[Any]) -> Sequence[Any]:
        given: list[Any] = [p if type(p) is bytes else self._converted(p) for p in payloads]
        return self._batch(given)

    def _sort_out(self, found: Sequence[Any], first: int) -> None:
        most = self._result_bytes, self._inline_bytes
        sort_out(found, first, self._outcomes, self._failures, *most, self.lease.store)
