"""Which processes live and which have died, as seen from outside the scheduler.

A worker that spoke in time, or whose supervisor did for it, must not be given up. A death counts
only once it was told, and then it must count. A process is a worker's name and process id.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TypeAlias, get_args

from cluster.core.roster import FromHolder
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from cluster.vocabulary.limits import Limits
from cluster.vocabulary.task import ProcessState, TaskId

FromWorker: TypeAlias = (
    FromHolder | on.WorkerHeartbeat | on.WorkerDraining | on.WorkerLeft | on.WorkerOffers
)
FROM_WORKER = get_args(FromWorker)
ENDED = (ProcessState.GONE, ProcessState.KILLED)


class Held:
    """The tasks of a lease that a worker may hold: ``start <= position < stop``.

    A report that comes before an earlier one counts when that has come, or when it has certainly
    been given up: after ``patience_s``.
    """

    def __init__(self, start: int, stop: int, patience_s: float) -> None:
        self.start = start
        self.stop = stop
        self._patience_s = patience_s
        #: where the reports that came early begin and end, and since when they wait
        self._early: dict[int, int] = {}
        self._since = math.inf

    @property
    def positions(self) -> range:
        """Of the tasks."""
        return range(self.start, self.stop)

    def take(self, event: on.TasksFinished | on.TasksReleased, now: float) -> None:
        """Take in a report of this lease."""
        self.look(now)
        if isinstance(event, on.TasksReleased):
            self.stop = event.start if event.start in self.positions else self.stop
        elif event.outcomes and self.start <= event.start <= self.stop - len(event.outcomes):
            self._early[event.start] = event.start + len(event.outcomes)
            self._since = min(self._since, now)
            self._catch_up(now)

    def look(self, now: float) -> None:
        """Give up what has been missing for too long."""
        while self._early and now - self._since > self._patience_s:
            self.start = max(self.start, min(self._early))
            self._catch_up(now)

    def _catch_up(self, now: float) -> None:
        while self._early and (first := min(self._early)) <= self.start:
            self.start = max(self.start, self._early.pop(first))
            self._since = now if self._early else math.inf


class Process:
    """A worker's process under its last epoch, and the tasks that it may hold."""

    def __init__(self, pid: int, epoch: int, now: float) -> None:
        self.pid = pid
        self.epoch = epoch
        self.last_seen = now
        self.vouched_at = -math.inf
        self.unreachable_at: float | None = None
        #: whether it has been silent for so long, or has ended, that it may be given up
        self.may_be_over = False
        #: the run and the tasks of each lease
        self.held: dict[int, tuple[int, Held]] = {}
        #: tasks that certainly killed it
        self.killed_by: set[TaskId] = set()

    @property
    def alive_at(self) -> float:
        """When it was last known to live."""
        if self.unreachable_at is not None:
            return self.last_seen
        return max(self.last_seen, self.vouched_at)

    def tasks(self) -> set[TaskId]:
        """The tasks that it may hold."""
        return {TaskId(run, p) for run, held in self.held.values() for p in held.positions}


class Verdicts:
    """Raises AssertionError when the scheduler gives up a worker that lives."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        #: by name, the process welcomed last
        self._here: dict[str, Process] = {}
        #: welcomed processes whose end was not told
        self._open: dict[tuple[str, int], Process] = {}
        #: how many workers of each task have died: at most, and at least
        self.deaths: Counter[TaskId] = Counter()
        self.certain_deaths: Counter[TaskId] = Counter()

    def arrived(self, event: on.Event | None, now: float) -> None:
        """Note the signs of life in a message that has reached the scheduler's host."""
        if isinstance(event, FROM_WORKER):
            process = self._here.get(event.worker)
            if process is not None and process.epoch == event.epoch:
                self._look(process, now)
                process.last_seen = now
        elif isinstance(event, on.WorkerJoined):
            process = self._open.get((event.worker, event.pid))
            if process is not None:
                self._look(process, now)
                process.last_seen = now
        elif isinstance(event, on.HostReported):
            for name, pid, state in event.workers:
                process = self._here.get(name)
                if process is not None and process.pid == pid:
                    self._look(process, now)
                    process.vouched_at = now if state is ProcessState.RUNNING else -math.inf

    def stalled(self, pause_s: float, now: float) -> None:
        """The scheduler could not hear anybody for a while."""
        for process in self._here.values():
            process.last_seen = min(now, process.last_seen + pause_s)
            process.vouched_at = min(now, process.vouched_at + pause_s)

    def observe(self, event: on.Event | None, actions: Sequence[do.Action], now: float) -> None:
        """Take in an event and what the scheduler did about it."""
        self.arrived(event, now)
        if isinstance(event, on.HostReported):
            for name, pid, state in event.workers:
                if state in ENDED:
                    self._ended(name, pid, died=state is ProcessState.GONE)
        elif isinstance(event, FROM_WORKER):
            process = self._here.get(event.worker)
            if process is not None and process.epoch == event.epoch:
                self._said(process, event, now)
        elif isinstance(event, on.WorkerUnreachable) and event.worker in self._here:
            process = self._here[event.worker]
            if process.unreachable_at is None:
                process.unreachable_at = now
        for action in actions:
            if isinstance(action, do.Welcome):
                assert isinstance(event, on.WorkerJoined), f"{action.worker} is welcome unasked"
                self._welcomed(action, event.pid, now)
            elif isinstance(action, do.Disconnect):
                self._given_up(action, isinstance(event, on.WorkerHeartbeat), now)

    def assigned(self, action: do.Assign, run: int) -> None:
        """Note a lease; a task that has killed enough workers may have none."""
        stop = action.start + len(action.payloads)
        for task in (TaskId(run, position) for position in range(action.start, stop)):
            killed = self.certain_deaths[task]
            assert killed < self._limits.deaths, f"{task} was leased after {killed} workers died"
        held = Held(action.start, stop, self._limits.heartbeat_s + self._limits.liveness_s)
        self._here[action.worker].held[action.lease] = (run, held)

    def killed(self, name: str, pid: int, task: TaskId, lease: int) -> None:
        """A task has killed a process, which held it under ``lease`` if that was its last."""
        process = self._open.get((name, pid))
        if process is not None and lease in process.held and task in process.tasks():
            process.killed_by.add(task)

    def runs(self, name: str, pid: int) -> set[int]:
        """The runs that a process may hold tasks of."""
        process = self._here.get(name)
        assert process is not None, f"{name} is not here"
        assert process.pid == pid, f"{name} is not the process {pid} any more"
        return {run for run, _ in process.held.values()}

    def _look(self, process: Process, now: float) -> None:
        process.may_be_over |= now - process.alive_at >= self._limits.liveness_s - 1e-9

    def _said(self, process: Process, event: FromWorker, now: float) -> None:
        if isinstance(event, on.WorkerLeft):
            process.may_be_over = True
            process.held.clear()
            self._open.pop((event.worker, process.pid), None)
        elif isinstance(event, on.TasksFinished | on.TasksReleased) and event.lease in process.held:
            process.held[event.lease][1].take(event, now)

    def _ended(self, name: str, pid: int, *, died: bool) -> None:
        """The end of a process was told."""
        process = self._open.pop((name, pid), None)
        if process is None:
            return
        process.may_be_over = True
        if died:
            self.deaths.update(process.tasks())
            self.certain_deaths.update(process.killed_by)

    def _welcomed(self, action: do.Welcome, pid: int, now: float) -> None:
        before = self._here.get(action.worker)
        if before is not None and (before.pid, before.epoch) == (pid, action.epoch):
            return
        process = self._here[action.worker] = Process(pid, action.epoch, now)
        if before is not None and before.pid == pid:
            process.held = before.held
        elif before is not None:
            self._ended(action.worker, before.pid, died=True)
        self._open[action.worker, pid] = process

    def _given_up(self, action: do.Disconnect, is_heartbeat: bool, now: float) -> None:
        process = self._here.get(action.worker)
        if process is None or process.epoch != action.epoch:
            return
        cut_at = process.unreachable_at
        if not (is_heartbeat and cut_at is not None and now - cut_at > self._limits.heartbeat_s):
            assert process.may_be_over, f"{action.worker} was given up although it spoke in time"
        process.may_be_over = True
