"""What a block's looks and own tasks add up to: its figures, and what limited it.

A limit is judged by its whole interval: a share that may lie on either side of what counts as full
is inconclusive, and so is a block that was too short for enough looks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from cluster.vocabulary.printable import count_of
from cluster.vocabulary.task import State
from perfkit.evidence.disturbance import Disturbance
from perfkit.evidence.samples import (
    Interval,
    bootstrap_interval,
    percentile_interval,
    ratio_interval,
)
from perfkit.evidence.showing import Sheet
from perfkit.evidence.text import duration, estimate, percent, quantity
from perfkit.evidence.verdicts import Verdict, judge
from perfkit.profile.latency import Waterfall, waterfall
from perfkit.profile.processes import COORDINATOR
from perfkit.report.session.own_tasks import OwnTasks
from perfkit.report.session.target import CLIENT, WORKERS
from perfkit.report.session.timeline import Look, SeenWorker, Step

#: The terminal states, as the coordinator counts them.
OUTCOMES = tuple(map(str, (State.DONE, State.FAILED, State.CANCELLED, State.DEAD_LETTERED)))
ROLES = (COORDINATOR, WORKERS, CLIENT)
#: A share of a core, or of the workers, from which on it counts as full.
FULL_FROM = 0.85
#: Tasks waited if they did so in this share of the looks.
WAITED_FROM = 0.5
#: So few looks are named as the reason why a limit is not known.
FEW_LOOKS = 10
#: With this many ticks, one more or less changes a processor time by a tenth.
TICKS_MIN = 10
PERCENTILES = (50, 95, 99)
LIMIT_WORDS = {Verdict.MET: "at its limit", Verdict.MISSED: "not at its limit"}


@dataclass(frozen=True, slots=True)
class Limit:
    """One thing that may have limited the work: how much of it was used, in 0..1."""

    name: str
    used: Interval
    measured: str

    @property
    def verdict(self) -> Verdict:
        """`met` if it was at its limit, `missed` if it was not."""
        return judge(self.used, FULL_FROM, "higher")


@dataclass(frozen=True)
class Findings:
    """A block of `wall_s` seconds: its looks, what own clients saw, and its workers.

    `cores` are those that this process may use, None if that is unknown.
    """

    wall_s: float
    steps: tuple[Step, ...]
    own: OwnTasks
    workers: tuple[SeenWorker, ...]
    cores: float | None

    @cached_property
    def counts(self) -> Mapping[str, int | None]:
        """By how much each counter of the coordinator rose; None where it began anew."""
        if not self.steps:
            return {}
        whole = self.whole
        names = {*(whole.before.counters or ()), *(whole.after.counters or ()), *OUTCOMES}
        return {name: whole.rise(name) for name in sorted(names | {"accepted"})}

    @property
    def whole(self) -> Step:
        """From the first look to the last."""
        return Step(self.steps[0].before, self.steps[-1].after)

    @property
    def done(self) -> int | None:
        """Tasks done, of all clients; of this process's own where the coordinator is not known."""
        counted = self.counts.get("done")
        return self.own.done.total() or None if counted is None else counted

    @property
    def ran(self) -> bool:
        """Whether any task was handed in or ended."""
        seen = (self.counts.get(name) for name in ("accepted", *OUTCOMES))
        return any(seen) or bool(self.own.sent or self.own.earlier)

    @cached_property
    def active(self) -> tuple[Step, ...]:
        """The steps with work."""
        return tuple(step for step in self.steps if step.has_work)

    @property
    def inner(self) -> tuple[Step, ...]:
        """The steps that had work from one end to the other."""
        return tuple(s for s in self.steps if s.before.has_work and s.after.has_work)

    @property
    def busy_s(self) -> float:
        """How long there was work."""
        return sum(map(self.worked_s, self.active))

    def worked_s(self, step: Step) -> float:
        """How much of a step had work: own tasks say exactly, if there were no others."""
        own = self.own
        alone = own.sent.total() == self.counts.get("accepted") and not own.earlier
        if not alone or own.first_s is None or own.last_s is None:
            return step.seconds
        worked_s = min(step.after.at_s, own.last_s) - max(step.before.at_s, own.first_s)
        return worked_s if 0 < worked_s < step.seconds else step.seconds

    @cached_property
    def throughput(self) -> Interval:
        """Tasks done per second of those that had work."""
        known = [(done, self.worked_s(s)) for s in self.active
                 if (done := s.rise("done")) is not None]  # fmt: skip
        return ratio_interval([done for done, _ in known], [took_s for _, took_s in known])

    def cores_of(self, role: str) -> Interval:
        """How many cores a role kept busy while there was work."""
        return _ratio(self.active, lambda s: _times(s.cores(role), s.seconds), lambda s: s.seconds)

    def cpu_us_per_task(self, role: str) -> Interval:
        """Processor time of a role for one task that was done, in µs; unknown if the system, which
        counts it in ticks, has counted too few.
        """
        used_s = sum((step.cores(role) or 0.0) * step.seconds for step in self.active)
        if used_s < TICKS_MIN / os.sysconf("SC_CLK_TCK"):
            return bootstrap_interval([])
        return _ratio(
            self.active,
            lambda s: _times(s.cores(role), s.seconds * 1e6),
            lambda s: s.rise("done"),
        )

    @cached_property
    def latency_ms(self) -> Mapping[int, Interval]:
        """Percentiles of the time of own tasks from being sent to their outcome, in ms."""
        found = [1e3 * latency_s for latency_s in self.own.latencies_s()]
        return {q: percentile_interval(found, q) for q in PERCENTILES}

    @cached_property
    def trace(self) -> Waterfall:
        """The stages of the traced tasks."""
        return waterfall(self.own.traces)

    def depth(self, value: Callable[[Look], int | None]) -> Interval:
        """The median over the looks with work of how many tasks waited or ran."""
        looks = [step.after for step in self.active if step.after.has_work]
        return bootstrap_interval([found for look in looks if (found := value(look)) is not None])

    @cached_property
    def waited(self) -> Interval:
        """The share of the looks with work in which tasks waited."""
        return _mean([float(bool(step.after.waiting)) for step in self.inner])

    @cached_property
    def limits(self) -> tuple[Limit, ...]:
        """What may have limited the work, what limits the others too first."""
        inner, cores = self.inner, self.cores
        machine = [sum(step.cores(role) or 0.0 for role in ROLES) / cores for step in inner
                   ] if cores else []  # fmt: skip
        occupied = [
            step.after.occupied / step.after.workers
            for step in inner
            if step.after.workers and step.after.occupied is not None
        ]
        used = {role: [step.cores(role) for step in inner] for role in (COORDINATOR, CLIENT)}
        return (
            Limit("the machine's processors", _mean(machine),
                  f"of {quantity(cores, 'cores')}, by the cluster and this process"),
            Limit("the coordinator", _mean(used[COORDINATOR]), "of the one core it can use"),
            Limit("this process", _mean(used[CLIENT]), "of the one core that its Python can use"),
            Limit("the workers", _mean(occupied), "of them held tasks"),
        )  # fmt: skip

    @property
    def limit_words(self) -> str:
        """What limited the work, in a sentence."""
        reached = next((it for it in self.limits if it.verdict is Verdict.MET), None)
        waited = judge(self.waited, WAITED_FROM, "higher")
        if self.whole.after.workers == 0 and waited is not Verdict.MISSED:
            return "No worker was there at the end."
        if reached is not None:
            share = quantity(round(100 * (reached.used.value or 0.0)), "%")
            tail = ", while tasks waited" if waited is Verdict.MET else ""
            return f"Limited by {reached.name}: {share} in use{tail}."
        if any(it.verdict is Verdict.INCONCLUSIVE for it in self.limits):
            looks = len(self.inner)
            why = f": {f'only {looks}' if looks else 'no'} looks fell wholly into the work"
            return f"What limited it is inconclusive{why if looks < FEW_LOOKS else ''}."
        if waited is Verdict.MET:
            return "Tasks waited although workers were free: look at their kinds and requirements."
        return "Nothing was at its limit: work was handed in more slowly than it could be done."

    @property
    def sentence(self) -> str:
        """The verdict: what ran, how fast, what limited it."""
        if not self.ran:
            return f"No task ran in {duration(self.wall_s)}."
        counts = self.counts
        unhappy = [f"{quantity(counts[name])} {name}" for name in OUTCOMES[1:] if counts.get(name)]
        unhappy += [f"{quantity(self.own.unended)} not ended"] if self.own.unended else []
        ended = ", ".join([f"{count_of(self.done, 'task')} done", *unhappy])
        if not self.busy_s:
            return f"{ended}. {self.limit_words}"
        rate = estimate(self.throughput, "tasks/s")
        took = duration(self.busy_s) if self.busy_s >= 1 else quantity(self.busy_s, "s")
        return f"{ended} in {took} of work: {rate}. {self.limit_words}"

    @property
    def disturbance(self) -> Disturbance:
        """What others used of the machine meanwhile."""
        if not self.steps:
            return Disturbance()
        whole = self.whole
        own = [whole.cores(role) for role in ROLES]
        others = whole.busy_cores - sum(used for used in own if used is not None)
        ends = whole.before.steal_s, whole.after.steal_s
        steal = None
        if ends[0] is not None and ends[1] is not None and self.cores:
            steal = max(0.0, ends[1] - ends[0]) / whole.seconds / self.cores
        return Disturbance(others_cores=max(0.0, others), steal=steal)

    def limits_sheet(self) -> Sheet:
        """The limits as a table."""
        rows = [
            (it.name, f"{percent(it.used)} {it.measured}" if it.used.value is not None else
             percent(it.used), LIMIT_WORDS.get(it.verdict, it.verdict.value))
            for it in self.limits
        ]  # fmt: skip
        notes = [
            f"Means over {count_of(len(self.inner), 'look')} with work before and after. From "
            f"{quantity(100 * FULL_FROM, '%')} on a thing counts as at its limit; it is "
            "inconclusive if the interval holds both sides, or there are too few looks."
        ]
        if self.inner:
            notes.append(f"Tasks waited in {percent(self.waited)} of these looks.")
        header = ("what", "in use (95 % interval)", "verdict")
        return Sheet("What limited the work", header, rows, notes)


def _ratio(
    steps: Sequence[Step],
    part: Callable[[Step], float | None],
    whole: Callable[[Step], float | None],
) -> Interval:
    pairs = [(part(step), whole(step)) for step in steps]
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    return ratio_interval([a for a, _ in known], [b for _, b in known])


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _mean(values: Sequence[float | None]) -> Interval:
    return bootstrap_interval([value for value in values if value is not None], "mean")
