"""Tasks that no worker will take: after ``limits.unserved_s`` they fail, and say what is missing.

While anything waits, a round looks at the needs that wait, every tenth of that time. It looks at
some runs at a time, so a million of them don't stop the loop.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cluster.core.ledger import Ledger
from cluster.core.queue import Fifo
from cluster.core.roster import Roster
from cluster.core.run import Needs, Run
from cluster.core.worker import WorkerState
from cluster.vocabulary.errors import did_you_mean
from cluster.vocabulary.lifecycle import Cause
from cluster.vocabulary.status import names_model
from cluster.vocabulary.task import Failure, Gpu, State

#: a look at a run costs one step, an end a few
STEPS, STEPS_OF_AN_END = 4_096, 32
NEXT_LOOK_S = 0.001
#: a round's timer
ROUND = ("unserved", None)
MAX_NAMED = 10


class Unserved:
    """Ends waiting tasks whose needs no worker offers. A busy worker offers; a draining one does
    not, nor does a card in trouble.
    """

    def __init__(self, ledger: Ledger, roster: Roster) -> None:
        self._ledger = ledger
        self._roster = roster
        self._limit_s = ledger.limits.unserved_s
        self.period_s = self._limit_s / 10
        #: since when nobody has offered these needs: as of the last round, and of this one
        self._since: dict[Needs, float] = {}
        self._found: dict[Needs, float] = {}
        #: what this round has still to look at, and its place in the last of them
        self._fifos: list[Fifo] = []
        self._at = 0

    def due(self, _: Any, now: float) -> None:
        """Begin a round, or go on with one."""
        if not self._fifos:
            self._since, self._found = self._found, {}
            self._fifos, self._at = self._ledger.queue.fifos(), 0
        steps = STEPS
        while self._fifos and steps > 0:
            fifo = self._fifos[-1]
            steps -= 1 + len(self._roster.workers) // 8
            since = self._unserved_since(fifo.key[0], now)
            if since is None or now - since < self._limit_s:
                self._next()
            else:
                steps -= self._look(fifo, steps, now)
        if self._fifos:
            self._ledger.timers.set(ROUND, now + NEXT_LOOK_S)

    def offered(self, worker: WorkerState) -> None:
        """A worker has joined or offers more: that is served, however soon it leaves."""
        for since in (self._since, self._found):
            for needs in [needs for needs in since if worker.offers(*needs)]:
                del since[needs]

    def grant(self, pause_s: float) -> None:
        """Move forward what was seen before a pause of this process: workers may have come."""
        for since in (self._since, self._found):
            since.update({needs: at_s + pause_s for needs, at_s in since.items()})

    def _next(self) -> None:
        self._fifos.pop()
        self._at = 0

    def _unserved_since(self, needs: Needs, now: float) -> float | None:
        if any(worker.offers(*needs) for worker in self._present()):
            return None
        return self._found.setdefault(needs, self._since.get(needs, now))

    def _look(self, fifo: Fifo, most: int, now: float) -> int:
        """End the runs of a FIFO that have waited for too long; returns the steps it took."""
        runs = [run for _, _, run in fifo.heap[self._at : self._at + max(most, 1)]]
        too_young, steps, failure = now - self._limit_s, 0, None
        for run in runs:
            steps += 1
            self._at += 1
            if not run.is_patient and run.accepted_at <= too_young and _waits(run):
                failure = failure or self._failure(run.needs)
                self._give_up(run, failure, now)
                steps += STEPS_OF_AN_END
                if steps >= most:
                    return steps
        if self._at >= len(fifo.heap):
            self._next()
        return steps

    def _give_up(self, run: Run, failure: Failure, now: float) -> None:
        """End the waiting tasks of a run: suspects with their story."""
        for piece in run.withdraw(0, run.count):
            if piece.deaths:
                self._ledger.bury(run, State.QUEUED, piece, failure.message, now)
            else:
                span = piece[:2]
                self._ledger.end_piece(run, State.QUEUED, Cause.UNSERVED, span, failure, now)

    def _present(self) -> Iterable[WorkerState]:
        return (w for w in self._roster.workers.values() if w.is_taking)

    def _failure(self, needs: Needs) -> Failure:
        missing = what_is_missing(needs, [*self._present()])
        return Failure(0, "NoWorker", f"not served within {self._limit_s:g} s: {missing}")


def what_is_missing(needs: Needs, workers: list[WorkerState]) -> str:
    """What none of these workers offers, and what they do offer, in words."""
    kind, requirements = needs
    wanted = requirements.model or kind.partition("/")[0]
    told = sorted({w.trouble for w in workers if names_model(w.trouble, wanted)})
    return "; ".join([_missing(needs, workers), *told[:MAX_NAMED]])


def _missing(needs: Needs, workers: list[WorkerState]) -> str:
    kind, requirements = needs
    able = [worker for worker in workers if kind in worker.kinds]
    if not workers:
        return f"no worker is there, so none offers kind {kind!r}"
    if not able:
        kinds = {k for worker in workers for k in worker.kinds}
        return f"no worker offers kind {kind!r}; {_offered(kind, kinds)}"
    model = requirements.model
    models = {m for worker in able for m in worker.models}
    if model is not None and model not in models:
        return f"no worker offers kind {kind!r} with model {model!r}; {_offered(model, models)}"
    card = f"a card of family {requirements.gpu_family or 'any'!r}"
    cards = {_card(c.gpu) for worker in able for c in worker.cards}
    wanted = f"{card} and {requirements.min_vram_bytes} bytes"
    with_model = "" if model is None else f" and model {model!r}"
    missing = f"no worker offers kind {kind!r}{with_model} with {wanted}; {_offered('', cards)}"
    troubles = sorted({t.trouble for worker in able for t in worker.load.gpus if t.trouble})
    return "; ".join([missing, *troubles[:MAX_NAMED]])


def _card(gpu: Gpu) -> str:
    memory = "unknown memory" if gpu.memory_bytes is None else f"{gpu.memory_bytes} bytes"
    return f"{gpu.family or 'unknown family'} with {memory}"


def _offered(wanted: str, names: Iterable[str]) -> str:
    known = sorted(names)
    rest = len(known) - MAX_NAMED
    listed = ", ".join(known[:MAX_NAMED]) + (f" and {rest} more" if rest > 0 else "")
    return f"offered: {listed or 'none'}{did_you_mean(wanted, known)}"


def _waits(run: Run) -> bool:
    return any(run.waiting)
