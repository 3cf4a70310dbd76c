"""What operators ask of a coordinator and order: its status, its tasks and their stories, another
policy, a cancelled task, other models, a worker that leaves.

Every question is answered at once by one Report, and costs a bounded amount of work. An order that
a worker has to carry out shows in the status when it has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, islice
from typing import TypeAlias

from cluster.core import inspection
from cluster.core.clients import Clients
from cluster.core.hosts import Hosts
from cluster.core.ledger import Ledger
from cluster.core.policy import AssignmentPolicy
from cluster.core.roster import Roster
from cluster.core.run import Past, Run, unpack
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from cluster.vocabulary.lifecycle import TERMINAL, Cause
from cluster.vocabulary.status import Answer, Status, Story, StoryEntry, Tasks, TaskStatus
from cluster.vocabulary.task import Failure, State, TaskId

Question: TypeAlias = (
    on.StatusRequested
    | on.PolicyChanged
    | on.ModelsRequested
    | on.LeaveRequested
    | on.TasksRequested
    | on.StoryRequested
    | on.CancelRequested
)
#: the tasks that one listing looks at
MAX_LOOKED_AT = 50_000
#: of each detail of a story, whose text may come from a worker
MAX_DETAIL_CHARS = 1_000


class Administration:
    """Answers operators. An order that can't be given is answered with an error."""

    def __init__(
        self,
        ledger: Ledger,
        roster: Roster,
        clients: Clients,
        hosts: Hosts,
        policies: Mapping[str, Callable[[], AssignmentPolicy]],
    ) -> None:
        self._ledger = ledger
        self._roster = roster
        self._clients = clients
        self._hosts = hosts
        self._policies = policies

    def status(self, now: float) -> Status:
        """How the cluster is, as plain data."""
        return inspection.status(self._ledger, self._roster, self._clients, self._hosts, now)

    def status_requested(self, event: on.StatusRequested, now: float) -> None:
        """Answer with the status."""
        self._answer(event, self.status(now))

    def policy_changed(self, event: on.PolicyChanged, now: float) -> None:
        """Let another policy choose workers."""
        error, make = "", self._policies.get(event.policy)
        if make is not None:
            self._roster.switch(make())
        else:
            error = f"no policy {event.policy!r}; there are {', '.join(sorted(self._policies))}"
        self._done(event, error, now)

    def models_requested(self, event: on.ModelsRequested, now: float) -> None:
        """Have the workers load and unload models."""
        load, unload = {*event.load}, {*event.unload}
        both = sorted(load & unload)
        error = f"{both[0]!r} can't be both loaded and unloaded" if both else ""
        self._done(event, error or self._roster.want(load, unload), now)

    def leave_requested(self, event: on.LeaveRequested, now: float) -> None:
        """Have a worker's process leave."""
        error = self._roster.dismiss(event.worker, event.pid, again=event.again)
        self._done(event, error, now)

    def tasks_requested(self, event: on.TasksRequested, now: float) -> None:
        """Answer with the newest tasks: the newest run first, each run's in their order. It looks
        at the newest MAX_LOOKED_AT tasks.
        """
        ended = map(unpack, reversed(self._ledger.history))
        runs: Iterable[Run | Past] = chain(reversed(self._ledger.runs.values()), ended)
        newest = ((run, *task) for run in runs for task in enumerate(self._states(run)))
        looked_at = islice(newest, MAX_LOOKED_AT)
        wanted = (one for one in looked_at if event.state in (None, one[2]))
        found = [_task_status(*one, now) for one in islice(wanted, event.limit)]
        self._answer(event, Tasks(found))

    def story_requested(self, event: on.StoryRequested, now: float) -> None:
        """Answer with the story of a task."""
        story = [
            StoryEntry(now - e.at_s, e.cause, State(e.state), e.detail[:MAX_DETAIL_CHARS])
            for e in self._ledger.story(TaskId(event.run, event.position))
        ]
        self._answer(event, Story(story) if story else None, self._unknown(event))

    def cancel_requested(self, event: on.CancelRequested, now: float) -> None:
        """End a task, and answer whether it is cancelled: not if it had ended otherwise."""
        run, position = self._ledger.run(event.run), event.position
        if run is None or position >= run.count:
            return self._answer(event, None, self._unknown(event))
        if isinstance(run, Run):
            message = f"cancelled by the operator {event.client}"
            why = Failure(0, "Cancelled", message, State.CANCELLED)
            self._ledger.end(run, (position, position + 1), Cause.CANCELLED, why, now)
        return self._answer(event, self._states(run)[position] is State.CANCELLED)

    def _states(self, run: Run | Past) -> list[State]:
        """The state of each task of a run. An end that its story has lost counts as done."""
        states = [State.DONE] * run.count

        def paint(start: int, stop: int, state: State) -> None:
            states[start:stop] = [state] * (stop - start)

        for _, _, state, start, stop, _ in _moves(run):
            if state in TERMINAL:
                paint(start, stop, State(state))
        if isinstance(run, Past):
            return states
        for piece in chain(*run.waiting, (run.delayed or {}).values()):
            paint(piece.start, piece.stop, State.QUEUED)
        for lease in [self._ledger.leases[id] for id in run.leases or ()]:
            for piece in lease.pieces(lease.next, lease.stop):
                paint(piece.start, piece.stop, State.ASSIGNED)
        for position, outcome in enumerate(run.outcomes or ()):
            if isinstance(outcome, Failure):
                states[position] = outcome.state
        return states

    def _unknown(self, event: on.StoryRequested | on.CancelRequested) -> str:
        kept = self._ledger.limits.history_runs
        return (
            f"no task {event.run}:{event.position} is known; of the runs that have ended, the "
            f"newest {kept} are remembered"
        )

    def _done(self, event: Question, error: str, now: float) -> None:
        """Answer an order: with the status, or why it can't be given."""
        self._answer(event, None if error else self.status(now), error)

    def _answer(self, event: Question, answer: Answer | None, error: str = "") -> None:
        error = error if answer is None else ""
        self._ledger.out.append(do.Report(event.client, event.request, answer, error))


def _moves(run: Run | Past) -> Sequence[tuple[float, str, str, int, int, str]]:
    """The entries of a run's story, as plain tuples: a listing reads very many."""
    return run.raw_story() if isinstance(run, Run) else run.story


def _task_status(run: Run | Past, position: int, state: State, now: float) -> TaskStatus:
    kind = run.needs[0] if isinstance(run, Run) else run.kind
    workers = [
        detail
        for _, cause, _, start, stop, detail in _moves(run)
        if start <= position < stop and cause == Cause.ASSIGNED
    ]
    facts = kind, state, run.priority, run.client, workers[-1] if workers else "", len(workers)
    return TaskStatus(run.id, position, *facts, now - run.accepted_at)
