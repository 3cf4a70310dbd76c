"""A soak: a real cluster under a mixed load and churn for minutes, and whether it grows.

Load and churn come in rounds (soak_load.py). After each the cluster comes to rest, and the
coordinator's process is read: its objects, blocks, memory, descriptors, threads and containers.
What follows from the code (objects, containers, descriptors, threads) must be what it was, per
event of churn. RSS also follows from what two allocators keep free: it gets a slope with an
interval and their projection to a day of this load, and so does what is in use, which decides.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from cluster.spec import ClusterSpec
from perfkit.bench.leaks.check import (
    WARM_SHARE,
    Leak,
    LeakRow,
    growth_text,
    judge,
    left_over,
    worst,
)
from perfkit.bench.leaks.probe import ProbedCluster
from perfkit.bench.leaks.reading import Reading, fds_and_threads
from perfkit.bench.leaks.soak_load import MIX, Mix, SoakLoad
from perfkit.bench.workloads.load import ExperimentError
from perfkit.evidence.environment import Environment, fingerprint
from perfkit.evidence.results import encode_fields
from perfkit.evidence.samples import Interval
from perfkit.evidence.tables import data_frame, html_table, mib_text
from perfkit.evidence.trend import MAX_READINGS, scaled, theil_sen

if TYPE_CHECKING:
    import pandas as pd

DAY_S = 86_400.0
#: A round is at least so long; a long soak has longer ones, so that its readings stay few.
ROUND_S = 2.0
#: Silent clients are given up after so long instead of 10 s, or each round would wait for that.
CLIENT_LIVENESS_S = 1.0
#: Memory in use that surely grows by more than this in a day, also late, is a leak.
LEAK_BYTES_A_DAY = 64 << 20
#: What may, for all that is known, grow by more than this in a day is not known to be stable.
UNKNOWN_BYTES_A_DAY = 1 << 30


@dataclass(frozen=True)
class Round:
    """One round: when its reading was taken, what had happened until then, and what was read.

    `client_fds` and `client_threads` are of the process that makes the load.
    """

    at_s: float
    tasks: int
    churn: int
    coordinator: Reading
    client_fds: int | None
    client_threads: int


@dataclass(frozen=True)
class SoakResult:
    """What a soak found; figures are over the rounds after warm-up, unknown ones None.

    `growth` is per event of churn, `rss_bytes_per_s` over time, and so is `malloc_bytes_per_s`, of
    what is in use; the later half of each alone is beside it. `client_fds_more` and
    `client_threads_more` are left in the process that made the load.
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
        return scaled(self.rss_bytes_per_s, DAY_S)

    def encode(self) -> str:
        """The whole as a JSON object, a field to a line, every reading included."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        growth = {**asdict(self.growth)}
        del growth["readings"]
        return encode_fields({**fields, "growth": growth, "rss_bytes_a_day": self.rss_bytes_a_day})

    def to_frame(self) -> pd.DataFrame:
        """A row for each round, a column for each container."""
        rows = []
        for one in self.rounds:
            reading = msgspec.structs.asdict(one.coordinator)
            sizes = reading.pop("containers")
            row = {name: value for name, value in asdict(one).items() if name != "coordinator"}
            rows.append({**row, **reading, **sizes})
        columns = dict.fromkeys(name for row in rows for name in row)
        return data_frame(rows, list(columns))

    def lines(self) -> list[tuple[str, str]]:
        """What there is to tell, as names and texts."""
        growth = self.growth
        events = ", ".join(f"{count:,} {kind}" for kind, count in self.events.items())
        last = self.rounds[-1].coordinator if self.rounds else None
        rss, fds, threads = (
            (None, None, None) if last is None else (last.rss_bytes, last.fds, last.threads)
        )
        churn = f"per event of churn ({growth.events:,} after warm-up)"
        return [
            ("events", events or "none"),
            ("gc objects", f"{growth_text(growth.gc_objects_per_event)} {churn}"),
            ("blocks", f"{growth_text(growth.blocks_per_event)} {churn}"),
            ("RSS", f"{mib_text(rss)} at the end, "
                    f"{growth_text(self.rss_bytes_per_task)} B per task, "
                    f"{growth_text(growth.rss_bytes_per_event)} B per event of churn"),
            ("RSS slope", f"{_mib(scaled(self.rss_bytes_per_s, 3600))} MiB an hour, "
                          f"{_mib(scaled(self.rss_bytes_per_s_late, 3600))} in the later half"),
            ("RSS in 24 h", f"{_mib(self.rss_bytes_a_day)} MiB"),
            ("in use", f"{_mib(scaled(self.malloc_bytes_per_s, 3600))} MiB an hour of malloc's, "
                       f"{_mib(scaled(self.malloc_bytes_per_s_late, 3600))} in the later half"),
            ("fds", f"{_now(fds, growth.fds_more)}, "
                    f"client {_more(self.client_fds_more)}"),
            ("threads", f"{_now(threads, growth.threads_more)}, "
                        f"client {_more(self.client_threads_more)}"),
            ("containers", f"{len(last.containers) if last else 0} read, growing: "
                           + (", ".join(growth.growing) or "none")),
            ("verdict", f"{self.verdict}: {self.reason}"),
        ]  # fmt: skip

    def _repr_html_(self) -> str:
        ended = ", interrupted" if self.interrupted else ""
        return html_table(
            f"A soak of {self.spec}, {self.duration_s:,.0f} s{ended} (95 % intervals)",
            ("figure", "found"),
            self.lines(),
        )


def soak(
    spec: ClusterSpec,
    minutes: float = 10.0,
    *,
    workers: int = 2,
    mix: Mix = MIX,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> SoakResult:
    """Soak a fresh cluster for so long; Ctrl-C ends it early with what was measured so far.

    `progress` is called with a plain line after each round. Raises ExperimentError for a length or
    a number of workers that makes no sense and for a cluster that does not come to rest,
    WrongResult for a wrong result, and what the cluster raises.
    """
    if not 0.0 < minutes <= 7 * 24 * 60:
        raise ExperimentError(f"a soak takes more than 0 minutes and up to a week, not {minutes:g}")
    if workers < 1:
        raise ExperimentError(f"a soak needs a worker, not {workers}")
    limits = msgspec.structs.replace(spec.limits, client_liveness_s=CLIENT_LIVENESS_S)
    spec = msgspec.structs.replace(spec, limits=limits)
    environment, rounds, events = fingerprint(), list[Round](), dict[str, int]()
    round_s = max(ROUND_S, 60.0 * minutes / MAX_READINGS)
    began_s, interrupted = time.monotonic(), True
    with suppress(KeyboardInterrupt), ProbedCluster(workers, spec) as local:
        load = SoakLoad(local, mix, seed)
        while time.monotonic() - began_s < 60.0 * minutes:
            load.round(round_s)
            events = dict(load.events)
            rounds.append(_read(local, events, time.monotonic() - began_s))
            if progress is not None:
                progress(_line(rounds, minutes))
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
    """What rounds show; `facts` are the fields of SoakResult that do not follow from them."""
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
    """What is in use decides; where nobody knows that, RSS does, which may only be fragmented."""
    if in_use.value is None:
        return _judge_slope("RSS", rss, rss_late)
    verdict, reason = _judge_slope("memory in use", in_use, in_use_late)
    if rss.low is not None and rss.low * DAY_S > LEAK_BYTES_A_DAY:
        reason += "; RSS grew, by what allocators keep and nobody uses"
    return verdict, reason


def _judge_slope(what: str, slope: Interval, late: Interval) -> tuple[Leak, str]:
    """A leak is what grows in the later half too, when allocators have settled."""
    if slope.low is None or slope.high is None or late.low is None:
        return Leak.UNCLEAR, f"too few rounds for the slope of {what}; soak for longer"
    least, most = slope.low * DAY_S, slope.high * DAY_S
    if least > LEAK_BYTES_A_DAY:
        if late.low * DAY_S > LEAK_BYTES_A_DAY:
            return Leak.FOUND, f"{what} grows by at least {mib_text(round(least))} in 24 h"
        return Leak.UNCLEAR, f"{what} grew, and may have stopped: its later half does not tell"
    if most > UNKNOWN_BYTES_A_DAY:
        text = mib_text(round(most))
        return Leak.UNCLEAR, f"{what} may grow by {text} in 24 h for all that is known"
    return (
        Leak.NONE,
        f"{what} grows by at most {mib_text(max(0, round(most)))} in 24 h of this load",
    )


def _line(rounds: Sequence[Round], minutes: float) -> str:
    """How far it is and how the coordinator is, for who watches."""
    last, reading = rounds[-1], rounds[-1].coordinator
    fds = "unknown" if reading.fds is None else reading.fds
    return (
        f"soak: {last.at_s / 60:.1f} of {minutes:g} min, {last.tasks:,} tasks, {last.churn:,} "
        f"events of churn; coordinator {mib_text(reading.rss_bytes)}, "
        f"{reading.gc_objects:,} objects, {fds} fds, {reading.threads} threads"
    )


def _mib(figure: Interval) -> str:
    """Growth in MiB with its interval."""
    found = scaled(figure, 1 / 2**20)
    if found.value is None:
        return "unknown"
    ends = "" if found.low is None else f" [{found.low:+,.1f} – {found.high:+,.1f}]"
    return f"{found.value:+,.1f}{ends}"


def _now(count: int | None, more: int | None) -> str:
    return f"{'unknown' if count is None else count} at the end, {_more(more)} since warm-up"


def _more(count: int | None) -> str:
    return "unknown" if count is None else f"{count:+}"
