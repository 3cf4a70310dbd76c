"""Which worker gets the next lease, and how large it is: the plain answers.

Every policy here scans all workers for each choice, at about 25 ns for the credit test of a worker
and a few hundred for its score, and leases one task at a time. The faster twins live in perfkit;
the scheduler does not know which kind it has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from cluster.core.run import Needs
from cluster.core.worker import UNKNOWN_USE, WorkerState, needs_card

SMOOTHING = 0.2


class AssignmentPolicy(Protocol):
    """What the scheduler tells a policy and asks of it. A policy never changes a worker."""

    name: str

    def join(self, worker: WorkerState) -> None:
        """A worker is there, with no tasks yet."""

    def leave(self, worker: WorkerState) -> None:
        """A worker is gone or draining."""

    def touch(self, worker: WorkerState) -> None:
        """A worker's tasks or its load have changed."""

    def offers_changed(self, worker: WorkerState) -> None:
        """A worker offers other kinds, models or fit cards now; it is touched afterwards."""

    def hold(self, worker: WorkerState, needs: Needs, change: int) -> None:
        """A worker holds ``change`` more tasks with these needs; it is touched afterwards."""

    def choose(self, needs: Needs, suspect: bool) -> WorkerState | None:
        """A worker with free credit that meets the needs, or None.

        For a suspect task it must hold no other suspect.
        """

    def lease_tasks(self, worker: WorkerState, needs: Needs, queued: int) -> int:
        """How many of ``queued`` like tasks to lease to the worker at once, at least 1."""

    def observe(self, worker: WorkerState, needs: Needs, tasks: int, busy_s: float) -> None:
        """A worker ran ``tasks`` tasks in ``busy_s`` seconds."""


class PlainPolicy:
    """What all policies here share: they keep no index, and lease one task at a time."""

    def touch(self, worker: WorkerState) -> None:
        """Do nothing: a worker is looked at when it is scored."""

    def offers_changed(self, worker: WorkerState) -> None:
        """Do nothing: what a worker offers is looked at when it is scored."""

    def hold(self, worker: WorkerState, needs: Needs, change: int) -> None:
        """Do nothing: a worker is looked at when it is scored."""

    def lease_tasks(self, worker: WorkerState, needs: Needs, queued: int) -> int:
        """One task at a time."""
        return 1

    def observe(self, worker: WorkerState, needs: Needs, tasks: int, busy_s: float) -> None:
        """Learn nothing."""


class ScanPolicy(PlainPolicy):
    """Scan all workers for the lowest score; among equals the first to join wins."""

    name = "scan"

    def __init__(self) -> None:
        self.workers: list[WorkerState] = []

    def join(self, worker: WorkerState) -> None:
        self.workers.append(worker)

    def leave(self, worker: WorkerState) -> None:
        if worker in self.workers:
            self.workers.remove(worker)

    def eligible(self, needs: Needs) -> Sequence[WorkerState]:
        """The workers that meet the needs; O(workers)."""
        return [worker for worker in self.workers if worker.offers(*needs)]

    def has_room(self, worker: WorkerState) -> bool:
        """Whether a worker may be given more."""
        return worker.free > 0

    def choose(self, needs: Needs, suspect: bool) -> WorkerState | None:
        """The eligible worker with the lowest score; O(workers)."""
        best: WorkerState | None = None
        best_score = 0.0
        for worker in self.eligible(needs):
            if not self.has_room(worker) or (suspect and worker.suspects):
                continue
            score = self.score(worker, needs)
            if best is None or score < best_score:
                best, best_score = worker, score
        return best

    def score(self, worker: WorkerState, needs: Needs) -> float:
        """How unwelcome one more task is; lower is better."""
        raise NotImplementedError


class RoundRobin(ScanPolicy):
    """Each worker in turn, regardless of its load."""

    name = "round-robin"

    def __init__(self) -> None:
        super().__init__()
        self._turn = 0
        self._last: dict[str, int] = {}

    def leave(self, worker: WorkerState) -> None:
        super().leave(worker)
        self._last.pop(worker.id, None)

    def choose(self, needs: Needs, suspect: bool) -> WorkerState | None:
        worker = super().choose(needs, suspect)
        if worker is not None:
            self._turn += 1
            self._last[worker.id] = self._turn
        return worker

    def score(self, worker: WorkerState, needs: Needs) -> float:
        """The number of its last turn."""
        return self._last.get(worker.id, 0)


class LeastLoaded(ScanPolicy):
    """The worker with the lowest load.

    The load is ``0.7 * held / capacity + 0.3 * in_use``, the latter of the least used card that
    the task could use: 0.2 for its engines and 0.1 for its memory. Tasks held weigh most because
    only that figure is never out of date; the card breaks ties. A worker without a card counts as
    one with a silent card.
    """

    name = "least-loaded"
    HELD, CARD = 0.7, 0.3
    NO_CARD = CARD * UNKNOWN_USE

    def score(self, worker: WorkerState, needs: Needs) -> float:
        """The weighted load."""
        card_share = self.CARD * worker.in_use(needs[1]) if worker.cards else self.NO_CARD
        return self.HELD * self.held_share(worker) + card_share

    def held_share(self, worker: WorkerState) -> float:
        """Tasks held for each that it can run at once."""
        return worker.held / worker.capacity


class GpuMatch(LeastLoaded):
    """The smallest card that fits, so that large ones stay free; among those the least loaded.

    A task that needs no card goes to a worker without one while such a worker has credit.
    """

    name = "gpu-match"

    def score(self, worker: WorkerState, needs: Needs) -> float:
        """Whole GiB of card that the task would leave unused, then the load."""
        requirements = needs[1]
        sizes = [card.gpu.memory_bytes or 0 for card in worker.cards_for(requirements)]
        spare = min(sizes) - requirements.min_vram_bytes if sizes else 0
        return 100.0 * (spare >> 30) + super().score(worker, needs)


class LatencyAware(ScanPolicy):
    """The worker that will finish the task first, by its measured service time for the kind."""

    name = "latency-aware"

    def __init__(self) -> None:
        super().__init__()
        #: seconds a task of a kind takes on a worker, as an exponentially weighted mean
        self._service_s: dict[tuple[str, str], float] = {}

    def leave(self, worker: WorkerState) -> None:
        super().leave(worker)
        for key in [key for key in self._service_s if key[0] == worker.id]:
            del self._service_s[key]

    def offers_changed(self, worker: WorkerState) -> None:
        """Forget the times of kinds that it offers no more."""
        for key in [k for k in self._service_s if k[0] == worker.id and k[1] not in worker.kinds]:
            del self._service_s[key]

    def observe(self, worker: WorkerState, needs: Needs, tasks: int, busy_s: float) -> None:
        """Move the mean towards the new measurement; kinds are bounded by what workers offer."""
        key = (worker.id, needs[0])
        per_task = busy_s / max(tasks, 1)
        before = self._service_s.get(key, per_task)
        self._service_s[key] = before + SMOOTHING * (per_task - before)

    def spread_s(self, kind: str) -> tuple[float, float]:
        """The shortest and the longest mean service time of a kind; equal while unknown."""
        times = [service_s for (_, k), service_s in self._service_s.items() if k == kind]
        return (min(times), max(times)) if times else (0.0, 0.0)

    def score(self, worker: WorkerState, needs: Needs) -> float:
        """Expected seconds until one more task is done; an unmeasured worker is tried first."""
        service_s = self._service_s.get((worker.id, needs[0]))
        if service_s is None:
            return -1.0 + worker.held / (worker.credit + 1)
        return service_s * (worker.held // worker.capacity + 1)


class MemoryAware(ScanPolicy):
    """The worker with the most free memory per task held.

    For a task that needs a card it is the memory of one card: the one with most, of those that the
    task could use.
    """

    name = "memory-aware"

    def score(self, worker: WorkerState, needs: Needs) -> float:
        """Minus the free bytes per task held; a worker with unknown memory comes last."""
        free = worker.load.memory_free_bytes
        if needs_card(needs[1]):
            told = (card.free_bytes for card in worker.cards_for(needs[1]))
            free = max((free for free in told if free is not None), default=None)
        return float(worker.held) if free is None else -free / (worker.held + 1)


class Adaptive(PlainPolicy):
    """One of three policies, by the task and the cluster.

    A task that needs a card is matched to one. Otherwise the expected time decides where the
    slowest worker measured takes more than 1.5 times as long as the fastest for this kind; a
    smaller difference counts as noise, and the load decides.
    """

    name = "adaptive"
    ALIKE = 1.5

    def __init__(self) -> None:
        self._match = GpuMatch()
        self._load = LeastLoaded()
        self._latency = LatencyAware()
        self._parts: tuple[ScanPolicy, ...] = (self._match, self._load, self._latency)

    def join(self, worker: WorkerState) -> None:
        for part in self._parts:
            part.join(worker)

    def leave(self, worker: WorkerState) -> None:
        for part in self._parts:
            part.leave(worker)

    def offers_changed(self, worker: WorkerState) -> None:
        for part in self._parts:
            part.offers_changed(worker)

    def part(self, needs: Needs) -> ScanPolicy:
        """The policy that fits the needs."""
        if needs_card(needs[1]):
            return self._match
        fastest, slowest = self.spread_s(needs[0])
        return self._latency if slowest > self.ALIKE * fastest else self._load

    def spread_s(self, kind: str) -> tuple[float, float]:
        """The shortest and the longest mean service time of a kind; O(workers)."""
        return self._latency.spread_s(kind)

    def choose(self, needs: Needs, suspect: bool) -> WorkerState | None:
        return self.part(needs).choose(needs, suspect)

    def observe(self, worker: WorkerState, needs: Needs, tasks: int, busy_s: float) -> None:
        self._latency.observe(worker, needs, tasks, busy_s)


POLICIES: Mapping[str, Callable[[], AssignmentPolicy]] = {
    policy.name: policy
    for policy in (RoundRobin, LeastLoaded, GpuMatch, LatencyAware, MemoryAware, Adaptive)
}
