"""The coordinator's core and codec in this process, driven with real events and without sockets.

What a profiler that has to sit in the same process sees, and a count that must not depend on when a
message arrives: one client hands in tasks, two workers answer whatever they are leased, and every
message is written and read as it would be on the wire. Results are checked before anybody may quote
what was seen.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from cluster import actions as do
from cluster import events as on
from cluster.policy import AssignmentPolicy
from cluster.scheduler import Scheduler
from cluster.spec import ClusterSpec, load_codec, load_part
from perfkit.bench.load import Work, echo_work
from perfkit.profile.line_times import LineTimes, line_times

CLIENT = "client"
#: Seconds between two messages, and a task's time at a worker, by this driver's own clock.
TICK_S, SERVICE_S = 1e-5, 1e-6


class CorePath:
    """A scheduler of the spec with registered workers, and its codec on both sides of each hop."""

    def __init__(self, spec: ClusterSpec, workers: int = 2) -> None:
        policies = load_part(spec.policies)
        policy: AssignmentPolicy = policies[spec.policy]()
        self.spec = spec
        self.scheduler = Scheduler(
            policy, spec.limits, lambda: 0.5, policies, load_part(spec.queue)
        )
        self.codec = load_codec(spec)
        self._now = 0.0
        self._submitted = 0
        self._epochs: dict[str, int] = {}
        for number in range(workers):
            joined = on.WorkerJoined(f"worker-{number}", 1, 1, spec.credit, ["echo"])
            for action in self._pass_on([joined]):
                if isinstance(action, do.Welcome):
                    self._epochs[action.worker] = action.epoch

    def run(self, work: Work) -> None:
        """Send all of the work through, in messages of the spec's burst; raises WrongResult."""
        results = [b""] * len(work)
        first = self._submitted
        starts: dict[int, int] = {}
        inbox: deque[on.Event] = deque()
        for start in range(0, len(work), self.spec.burst):
            column = work.payloads[start : start + self.spec.burst]
            starts[first + len(starts)] = start
            inbox.append(on.TasksSubmitted(CLIENT, first + len(starts) - 1, work.kind, column))
        self._submitted += len(starts)
        while inbox:
            # What is there at one time shares frames, as far as the codec lets it.
            events = [inbox.popleft() for _ in range(min(len(inbox), self.spec.drain))]
            for action in self._pass_on(events):
                if isinstance(action, do.Assign):
                    inbox.appendleft(self._answer(action))
                elif isinstance(action, do.Deliver):
                    at = starts[action.submission] + action.start
                    results[at : at + len(action.outcomes)] = action.outcomes
        self._pass_on([on.ClientHeartbeat(CLIENT, self._submitted)])
        work.check(results)

    def _answer(self, lease: do.Assign) -> on.TasksFinished:
        began_s, took_s = self._now, SERVICE_S * len(lease.payloads)
        return on.TasksFinished(
            lease.worker,
            lease.epoch,
            lease.lease,
            lease.start,
            [*lease.payloads],
            [],
            began_s,
            began_s + took_s,
        )

    def _pass_on(self, events: Iterable[on.Event]) -> list[do.Action]:
        """Each event over the wire into the scheduler, its actions over the wire to their peers."""
        out: list[do.Action] = []
        for event in events:
            for frames in self.codec.encode([event]):
                for read in self.codec.events(frames):
                    self._now += TICK_S
                    out += self.scheduler.handle(read, self._now)
        piles: dict[str, list[do.Action]] = {}
        for action in out:
            peer = action.client if isinstance(action, do.ToClient) else action.worker
            piles.setdefault(peer, []).append(action)
        return [
            action
            for pile in piles.values()
            for frames in self.codec.encode(pile)
            for action in self.codec.actions(frames)
        ]


def hot_lines(spec: ClusterSpec, *, tasks: int = 4_000, seed: int = 0) -> LineTimes:
    """The functions of the spec's core and codec that a task goes through, line by line.

    After a first round that does not count. Raises WrongResult, and LineProfilerMissing.
    """
    work, path = echo_work(tasks, seed), CorePath(spec)
    path.run(work)
    codec = type(path.codec)
    functions: list[Callable[..., Any]] = [Scheduler.handle, Scheduler._assign, Scheduler._finished]
    functions += [codec.encode, codec.events, codec.actions]
    # What does the work may be a method of the codec or a function beside it.
    helpers = ("_pack", "_unpack", "_is_inline")
    beside = vars(sys.modules[codec.__module__])
    functions += [found for name in helpers if (found := vars(codec).get(name, beside.get(name)))]
    return line_times(functions, lambda: path.run(work), spec.name, tasks)
