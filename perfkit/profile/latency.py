"""Where the time of one task goes between its client and back, stage by stage.

A few tasks carry stamps: each party writes down its own monotonic clock when a traced task passes.
Seven stamps make six stages that follow on each other without a gap, so they add up to the latency
the client saw, exactly, and the picture of them (a waterfall) cannot hide anything.

Between hosts the clocks have nothing to do with each other. Their offset is then estimated from the
traces themselves, with its uncertainty, and a hop is only as certain as that; the stages measured
on one clock (queue wait, service) and the whole are not touched by it. A trace that cannot be right
is left out and counted, with the reason.
"""

from __future__ import annotations

import math
import random
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from perfkit.evidence.stats import Interval, bootstrap_interval, percentile_interval
from perfkit.evidence.tables import data_frame, html_table
from perfkit.profile.clocks import (
    NS,
    STAMPS,
    Offsets,
    Stamps,
    Trace,
    checked,
    estimate_offsets,
    worker_of,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "STAGES",
    "LatencySampler",
    "Offsets",
    "StageTime",
    "Stamps",
    "Trace",
    "Waterfall",
    "estimate_offsets",
    "waterfall",
]

#: A stage ends with the stamp of the same index + 1 in Trace; see there for the clocks.
STAGES = ("submit hop", "queue wait", "assign hop", "service", "result hop", "deliver hop")
END_TO_END = "end to end"
#: The share's interval needs no more than this; medians cost the same for any number.
RESAMPLES = 1000


@dataclass(frozen=True)
class StageTime:
    """One stage over all traces: median and 95th percentile in ms, share of all time in 0..1.

    Each is an Interval, whose bounds are None where there are too few traces to give any.
    """

    stage: str
    p50_ms: Interval
    p95_ms: Interval
    share: Interval


@dataclass(frozen=True)
class Waterfall:
    """Where the time of traced tasks went.

    `stages` are the six of STAGES in order; their shares add up to 1 (their percentiles do not add
    up to anything). `traces` were used, `left_out` counts the others by reason. `intervals_ns`
    holds the raw stages of each trace that was used, which add up to its latency exactly; a hop
    between hosts may be negative by as much as the clocks are uncertain. `offsets` is None when all
    stamps are from one clock.
    """

    stages: tuple[StageTime, ...]
    end_to_end: StageTime
    traces: int
    left_out: Mapping[str, int]
    offsets: Offsets | None
    intervals_ns: tuple[tuple[int, ...], ...] = field(repr=False)

    @property
    def clock_note(self) -> str:
        """What was done about the clocks, in one sentence."""
        if self.offsets is None:
            return "All stamps are from one host's monotonic clock; no offset is applied."
        return self.offsets.describe() + "."

    def to_frame(self) -> pd.DataFrame:
        """A row for each stage and one for the whole; a figure and its bounds in columns."""
        columns = ["stage"]
        for figure in ("p50", "p95"):
            columns += [f"{figure}_ms", f"{figure}_low_ms", f"{figure}_high_ms"]
        columns += ["share", "share_low", "share_high"]
        rows = []
        for stage in (*self.stages, self.end_to_end):
            bounds = [
                bound
                for figure in (stage.p50_ms, stage.p95_ms, stage.share)
                for bound in (figure.value, figure.low, figure.high)
            ]
            rows.append(dict(zip(columns, [stage.stage, *bounds], strict=True)))
        return data_frame(rows, columns)

    def _repr_html_(self) -> str:
        rows = (
            (
                stage.stage,
                _text(stage.p50_ms, ".3f"),
                _text(stage.p95_ms, ".3f"),
                _text(stage.share, ".1%"),
            )
            for stage in (*self.stages, self.end_to_end)
        )
        notes = [self.clock_note]
        notes += [f"{n} traces left out: {why}." for why, n in sorted(self.left_out.items())]
        return html_table(
            f"Where the time of {self.traces} traced tasks went (95 % intervals)",
            ("stage", "p50 ms", "p95 ms", "share"),
            rows,
            notes,
        )


def waterfall(
    traces: Iterable[Stamps], offsets: Offsets | None = None, same_host: bool = True
) -> Waterfall:
    """The stages of many traces, with what each takes and its share of the whole.

    With `offsets`, they are applied. Without, the parties share one host, whose monotonic clock is
    the same for all its processes; with `same_host=False` offsets are estimated from the traces.

    The interval of a share is that of a ratio of sums, by its linearisation (W. G. Cochran,
    "Sampling Techniques", section 6.4). All intervals take the traces to be independent, which
    tasks of one burst are not quite. Raises ValueError as `estimate_offsets` does.
    """
    all_stamps = list(traces)
    if offsets is None and not same_host:
        offsets = estimate_offsets(all_stamps)
    left_out: Counter[str] = Counter()
    kept: list[tuple[int, ...]] = []
    for stamps in all_stamps:
        intervals, reason = _intervals(stamps, offsets)
        if intervals is None:
            left_out[reason] += 1
        else:
            kept.append(intervals)
    wholes = [sum(intervals) for intervals in kept]
    return Waterfall(
        stages=tuple(
            _stage_time(stage, [intervals[i] for intervals in kept], wholes)
            for i, stage in enumerate(STAGES)
        ),
        end_to_end=_stage_time(END_TO_END, wholes, wholes),
        traces=len(kept),
        left_out=dict(left_out),
        offsets=offsets,
        intervals_ns=tuple(kept),
    )


class LatencySampler:
    """Decides which tasks carry stamps, and keeps a bounded, fair choice of the traces.

    Of every `every` tasks in a row one is traced, at a place that differs from row to row, so that
    batches of a regular size do not always show the same one of their tasks. Which ones depends on
    `seed` and the position alone. Of all traces added, `limit` are kept, each with the same chance:
    a reservoir (J. S. Vitter, "Random Sampling with a Reservoir", algorithm R, 1985). May be used
    by several threads. Raises ValueError for `every` or `limit` below 1.
    """

    def __init__(self, every: int = 100, limit: int = 10_000, seed: int = 0) -> None:
        if every < 1 or limit < 1:
            raise ValueError(f"every and limit must be at least 1, not {every} and {limit}.")
        self.every = every
        self.limit = limit
        self._seed = seed
        self._rng = random.Random(seed)
        self._kept: list[Trace] = []
        self._seen = 0
        self._lock = threading.Lock()

    def wants(self, position: int) -> bool:
        """Whether the task at this position, counted from 0, is to be traced."""
        row, place = divmod(position, self.every)
        return place == _scramble(row ^ self._seed * 0x9E3779B97F4A7C15) % self.every

    def add(self, trace: Stamps) -> None:
        """Take a trace, complete or not; raises ValueError when it has another number of stamps."""
        if len(trace) not in (STAMPS, STAMPS + 1):
            raise ValueError(f"A trace has {STAMPS} stamps, not {len(trace)}.")
        taken = trace if isinstance(trace, Trace) else _trace(trace)
        with self._lock:
            self._seen += 1
            if len(self._kept) < self.limit:
                self._kept.append(taken)
                return
            place = self._rng.randrange(self._seen)
            if place < self.limit:
                self._kept[place] = taken

    @property
    def seen(self) -> int:
        """How many traces were added, kept or not."""
        return self._seen

    @property
    def traces(self) -> list[Trace]:
        """The traces that are kept, in no order that means anything once `limit` is passed."""
        with self._lock:
            return list(self._kept)


def _trace(stamps: Sequence[float | None]) -> Trace:
    sent, received, assigned, start, end, result, delivered = stamps[:STAMPS]
    return Trace(sent, received, assigned, start, end, result, delivered, worker_of(stamps))


def _intervals(stamps: Stamps, offsets: Offsets | None) -> tuple[tuple[int, ...] | None, str]:
    """The six stages in nanoseconds of the coordinator's clock, or None and the reason."""
    ns, reason = checked(stamps)
    if ns is None:
        return None, reason
    slack = [0, 0, 0, 0, 0, 0]
    whole = ns[6] - ns[0]
    if offsets is not None:
        worker = offsets.of_worker(worker_of(stamps))
        if worker is None:
            return None, "no clock offset is known for its worker"
        for index in (0, 6):
            ns[index] += round(offsets.client_s * NS)
        for index in (3, 4):
            ns[index] += round(worker.offset_s * NS)
        # One more for each offset that was rounded to whole nanoseconds.
        slack[0] = slack[5] = math.ceil(offsets.client_uncertainty_s * NS) + 1
        slack[2] = slack[4] = math.ceil(worker.uncertainty_s * NS) + 1
    intervals = tuple(later - earlier for earlier, later in pairwise(ns))
    for stage, interval, allowed in zip(STAGES, intervals, slack, strict=True):
        if interval < -allowed:
            return None, f"{stage} is negative beyond the clocks' uncertainty"
    assert sum(intervals) == whole, "stages that follow on each other add up to the whole"
    return intervals, ""


def _stage_time(stage: str, parts_ns: list[int], wholes_ns: list[int]) -> StageTime:
    parts_ms = [part / 1e6 for part in parts_ns]
    return StageTime(
        stage=stage,
        p50_ms=bootstrap_interval(parts_ms, resamples=RESAMPLES),
        p95_ms=percentile_interval(parts_ms, 95),
        share=_share(parts_ns, wholes_ns),
    )


def _share(parts_ns: list[int], wholes_ns: list[int]) -> Interval:
    """Sum of parts over sum of wholes; unknown when there is no time to share."""
    total = sum(wholes_ns)
    if total == 0:
        return bootstrap_interval([])
    ratio, mean = sum(parts_ns) / total, total / len(wholes_ns)
    around = [
        ratio + (part - ratio * whole) / mean
        for part, whole in zip(parts_ns, wholes_ns, strict=True)
    ]
    return bootstrap_interval(around, "mean", resamples=RESAMPLES)


def _scramble(number: int) -> int:
    """A 64-bit mix in which near numbers come out far apart (the finaliser of splitmix64)."""
    number &= 0xFFFFFFFFFFFFFFFF
    number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    number = (number ^ number >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return number ^ number >> 31


def _text(figure: Interval, form: str) -> str:
    if figure.value is None:
        return "unknown"
    low, high = (
        "unknown" if bound is None else format(bound, form) for bound in (figure.low, figure.high)
    )
    return f"{figure.value:{form}} ({low} to {high})"
