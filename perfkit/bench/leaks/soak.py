"""A soak: a real cluster under a mixed load and churn for minutes, and whether it grows.

Load and churn come in rounds (soak_load.py). After each round the cluster comes to rest, and the
coordinator's process is read: objects, blocks, memory, descriptors, threads and containers. Counts
that follow from the code must not grow per event of churn. RSS also depends on the free memory of
two allocators: it gets a slope with an interval, projected to a day of this load. So does memory in
use, which decides.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from cluster.spec import ClusterSpec
from cluster.vocabulary.printable import count_of
from perfkit.bench.leaks.check import WARM_SHARE, Leak, LeakRow, judge, left_over, worst
from perfkit.bench.leaks.probe import ProbedCluster
from perfkit.bench.leaks.reading import Reading, fds_and_threads
from perfkit.bench.leaks.soak_load import MIX, Mix, SoakLoad
from perfkit.bench.workloads.load import ExperimentError
from perfkit.bench.workloads.rounds import Say, prefixed
from perfkit.evidence.environment import Environment, fingerprint
from perfkit.evidence.results import encode_fields
from perfkit.evidence.samples import Interval
from perfkit.evidence.showing import Figures, Sheet, Showable
from perfkit.evidence.tables import data_frame
from perfkit.evidence.text import UNKNOWN, duration, interval, size
from perfkit.evidence.trend import MAX_READINGS, theil_sen

if TYPE_CHECKING:
    import pandas as pd

DAY_S = 86_400.0
#: The shortest round; a long soak has longer ones, so that its readings stay few.
ROUND_S = 2.0
#: Instead of 10 s, for which each round would have to wait.
CLIENT_LIVENESS_S = 1.0
#: Memory in use that surely grows by more than this in a day, even late, is a leak.
LEAK_BYTES_A_DAY = 64 << 20
#: Memory that may grow by more than this in a day is not known to be stable.
UNKNOWN_BYTES_A_DAY = 1 << 30


@dataclass(frozen=True)
class Round:
    """One round: when its reading was taken, the events until then, and the reading.

    `client_fds` and `client_threads` are of the process that makes the load.
    """

    at_s: float
    tasks: int
    churn: int
    coordinator: Reading
    client_fds: int | None
    client_threads: int


@dataclass(frozen=True)
class SoakResult(Showable):
    """The result of a soak, over the rounds after warm-up; unknown values are None.

    `growth` is per event of churn, `rss_bytes_per_s` and, of memory in use, `malloc_bytes_per_s`
    are over time, each also for the later half alone. `client_fds_more` and `client_threads_more`
    are left in the process that makes the load.
    """

    spec: str
    duration_s: float
    seed: int
    interrupted: bool
    events: Mapping[str, int]
    growth: LeakRow
    rss_bytes_per_s: Interval
    rss_bytes_per_s_late: Interval
    malloc_bytes_per_s: Interval
    malloc_bytes_per_s_late: Interval
    rss_bytes_per_task: Interval
    client_fds_more: int | None
    client_threads_more: int | None
    verdict: Leak
    reason: str
    environment: Environment
    rounds: Sequence[Round] = field(repr=False)

    @property
    def rss_bytes_a_day(self) -> Interval:
        """The slope of RSS, projected to 24 h of the same load."""
        return self.rss_bytes_per_s.scaled(DAY_S)

    def encode(self) -> str:
        """A JSON object with one field per line, every reading included."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        growth = asdict(self.growth)
        del growth["readings"]
        return encode_fields({**fields, "growth": growth, "rss_bytes_a_day": self.rss_bytes_a_day})

    def to_frame(self) -> pd.DataFrame:
        """A row for each round, a column for each container."""
        rows = []
        for one in self.rounds:
            row = asdict(one)
            row |= msgspec.structs.asdict(row.pop("coordinator"))
            row |= row.pop("containers")
            rows.append(row)
        return data_frame(rows, list(dict.fromkeys(name for row in rows for name in row)))

    def lines(self) -> list[tuple[str, str]]:
        """The findings, as names and texts."""
        growth = self.growth
        events = ", ".join(f"{count:,} {kind}" for kind, count in self.events.items())
        last = self.rounds[-1].coordinator if self.rounds else None
        rss, fds, threads = (
            (None, None, None) if last is None else (last.rss_bytes, last.fds, last.threads)
        )
        churn = f"per event of churn ({growth.events:,} after warm-up)"
        return [
            ("events", events or "none"),
            ("gc objects", f"{growth.gc_objects_per_event.text()} {churn}"),
            ("blocks", f"{growth.blocks_per_event.text()} {churn}"),
            ("RSS", f"{size(rss)} at the end, {self.rss_bytes_per_task.text('B')} per task, "
                    f"{growth.rss_bytes_per_event.text('B')} per event of churn"),
            ("RSS in 24 h", _in_a_day(self.rss_bytes_per_s, self.rss_bytes_per_s_late)),
            ("in use", "in 24 h, by malloc's account: "
                       + _in_a_day(self.malloc_bytes_per_s, self.malloc_bytes_per_s_late)),
            ("fds", f"{_now(fds, growth.fds_more)}, client {_more(self.client_fds_more)}"),
            ("threads", f"{_now(threads, growth.threads_more)}, "
                        f"client {_more(self.client_threads_more)}"),
            ("containers", f"{len(last.containers) if last else 0} read, growing: "
                           + (", ".join(growth.growing) or "none")),
            ("verdict", f"{self.verdict}: {self.reason}"),
        ]  # fmt: skip

    def _sheets(self) -> Iterator[Sheet]:
        ended = ", interrupted" if self.interrupted else ""
        yield Sheet(
            f"A soak of {self.spec}, {duration(self.duration_s)}{ended} (95 % intervals)",
            ("figure", "found"),
            self.lines(),
        )

    def _figures(self) -> Figures:
        malloc = self.malloc_bytes_per_s.scaled(DAY_S / 2**20)
        rss = self.rss_bytes_a_day.scaled(1 / 2**20)
        return "MiB a day", [("RSS", rss), ("in use by malloc's account", malloc)]


def soak(
    spec: ClusterSpec,
    minutes: float = 10.0,
    *,
    workers: int = 2,
    mix: Mix = MIX,
    seed: int = 0,
    progress: Say | None = None,
) -> SoakResult:
    """Soak a fresh cluster; Ctrl-C ends it early with the rounds so far.

    Raises ExperimentError for a length or a number of workers out of range and for a cluster that
    does not come to rest, WrongResult for a wrong result, and what the cluster raises.
    """
    if not 0.0 < minutes <= 7 * 24 * 60:
        raise ExperimentError(f"a soak takes more than 0 minutes and up to a week, not {minutes:g}")
    if workers < 1:
        raise ExperimentError(f"a soak needs a worker, not {workers}")
    limits = msgspec.structs.replace(spec.limits, client_liveness_s=CLIENT_LIVENESS_S)
    spec = msgspec.structs.replace(spec, limits=limits)
    environment, rounds, events = fingerprint(), list[Round](), dict[str, int]()
    round_s = max(ROUND_S, 60.0 * minutes / MAX_READINGS)
    say = prefixed(progress, "soak")
    began_s, interrupted = time.monotonic(), True
    with suppress(KeyboardInterrupt), ProbedCluster(workers, spec) as local:
        load = SoakLoad(local, mix, seed)
        while time.monotonic() - began_s < 60.0 * minutes:
            load.round(round_s)
            events = dict(load.events)
            rounds.append(_read(local, events, time.monotonic() - began_s))
            say(_line(rounds[-1], minutes))
        interrupted = False
    return summarise(
        rounds,
        spec=spec.name,
        duration_s=time.monotonic() - began_s,
        seed=seed,
        interrupted=interrupted,
        events=events,
        environment=environment,
    )


def summarise(rounds: Sequence[Round], **facts: Any) -> SoakResult:
    """The result of rounds; `facts` are the fields of SoakResult that do not follow from them."""
    growth = judge("churn", [one.churn for one in rounds], [one.coordinator for one in rounds])
    kept = rounds[round(WARM_SHARE * len(rounds)) :]
    rss = [one.coordinator.rss_bytes for one in kept]
    slope, slope_late = _slopes(kept, rss)
    in_use, in_use_late = _slopes(kept, [one.coordinator.malloc_bytes for one in kept])
    fds, threads = left_over(kept, "client_fds"), left_over(kept, "client_threads")
    findings = [
        (growth.verdict, growth.reason),
        _judge_memory(in_use, in_use_late, slope, slope_late),
    ]
    findings += [
        (Leak.FOUND, f"{more} {name} are left in the client's process")
        for name, more in (("fds", fds), ("threads", threads))
        if more is not None and more > 0
    ]
    verdict = worst(found for found, _ in findings)
    return SoakResult(
        growth=growth,
        rss_bytes_per_s=slope,
        rss_bytes_per_s_late=slope_late,
        malloc_bytes_per_s=in_use,
        malloc_bytes_per_s_late=in_use_late,
        rss_bytes_per_task=theil_sen([one.tasks for one in kept], rss),
        client_fds_more=fds,
        client_threads_more=threads,
        verdict=verdict,
        reason="; ".join(reason for found, reason in findings if found is verdict),
        rounds=tuple(rounds),
        **facts,
    )


def _read(local: ProbedCluster, events: Mapping[str, int], at_s: float) -> Round:
    churn = sum(events.values()) - events["task"]
    return Round(at_s, events["task"], churn, local.read_coordinator(), *fds_and_threads())


def _slopes(kept: Sequence[Round], sizes: Sequence[int | None]) -> tuple[Interval, Interval]:
    """Growth in bytes a second, over all rounds and over their later half."""
    known = [(one.at_s, size) for one, size in zip(kept, sizes, strict=True) if size is not None]
    at_s, found = [second for second, _ in known], [size for _, size in known]
    late = len(known) // 2
    return theil_sen(at_s, found), theil_sen(at_s[late:], found[late:])


def _judge_memory(
    in_use: Interval, in_use_late: Interval, rss: Interval, rss_late: Interval
) -> tuple[Leak, str]:
    """Memory in use decides; if it is unknown, RSS does, which may only be fragmented."""
    if in_use.value is None:
        return _judge_slope("RSS", rss, rss_late)
    verdict, reason = _judge_slope("memory in use", in_use, in_use_late)
    if rss.low is not None and rss.low * DAY_S > LEAK_BYTES_A_DAY:
        reason += "; RSS grew by unused memory that allocators keep"
    return verdict, reason


def _judge_slope(what: str, slope: Interval, late: Interval) -> tuple[Leak, str]:
    """A leak also grows in the later half, when allocators have settled."""
    if slope.low is None or slope.high is None or late.low is None:
        return Leak.UNCLEAR, f"too few rounds for the slope of {what}; soak for longer"
    least, most = slope.low * DAY_S, slope.high * DAY_S
    if least > LEAK_BYTES_A_DAY:
        if late.low * DAY_S > LEAK_BYTES_A_DAY:
            return Leak.FOUND, f"{what} grows by at least {size(round(least))} in 24 h"
        return Leak.UNCLEAR, f"{what} grew, and may have stopped: its later half does not tell"
    seen = f"no growth of {what} seen, " if least <= 0.0 else f"{what} grows, "
    bound = f"at most {size(max(0, round(most)))} in 24 h of this load"
    if most > UNKNOWN_BYTES_A_DAY:
        return Leak.UNCLEAR, f"{seen}{bound}, which is too wide: soak for longer"
    return Leak.NONE, seen + bound


def _in_a_day(slope: Interval, late: Interval) -> str:
    """The growth in 24 h of the same load; an interval that holds 0 shows none."""
    texts = []
    for one in (slope, late):
        day = one.scaled(DAY_S / 2**20)
        is_flat = day.low is not None and day.high is not None and day.low <= 0.0 <= day.high
        ends = f" ({interval(day.low, day.high, 'MiB')})"
        texts.append(f"no growth seen{ends}" if is_flat else day.text("MiB"))
    return f"{texts[0]}; by the later half: {texts[1]}"


def _line(last: Round, minutes: float) -> str:
    """The progress of the soak and the state of the coordinator."""
    reading = last.coordinator
    fds = UNKNOWN if reading.fds is None else reading.fds
    return (
        f"{last.at_s / 60:.1f} of {minutes:g} min, {count_of(last.tasks, 'task')}, {last.churn:,} "
        f"events of churn; coordinator {size(reading.rss_bytes)}, "
        f"{count_of(reading.gc_objects, 'object')}, {fds} fds, "
        f"{count_of(reading.threads, 'thread')}"
    )


def _now(count: int | None, more: int | None) -> str:
    return f"{UNKNOWN if count is None else count} at the end, {_more(more)} since warm-up"


def _more(count: int | None) -> str:
    return UNKNOWN if count is None else f"{count:+}"
