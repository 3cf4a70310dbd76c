"""Where the time of one task goes between its client and back, stage by stage.

Each party writes down its monotonic clock when a traced task passes. Seven stamps make six stages
that follow on each other without a gap, so they add up to the latency the client saw, exactly.

The parties have to share a host, whose processes all read the same monotonic clock. A trace that
cannot be right is left out and counted, with the reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

from cluster.vocabulary.printable import count_of
from perfkit.evidence.samples import (
    Interval,
    bootstrap_interval,
    percentile_interval,
    ratio_interval,
)
from perfkit.evidence.showing import Sheet, Showable
from perfkit.evidence.tables import data_frame
from perfkit.evidence.text import estimate, percent

if TYPE_CHECKING:
    import pandas as pd

#: The seven stamps of a task in seconds, None where one is missing: sent by the client, received
#: by the coordinator, handed to the worker's socket, handler's start and end at the worker, result
#: received by the coordinator and by the client.
Stamps: TypeAlias = Sequence[float | None]
STAMPS = 7
NS = 1_000_000_000
#: Thirty thousand years, beyond every monotonic clock.
_LATEST_S = 1e12

#: A stage ends with the stamp of the same index + 1.
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
class Waterfall(Showable):
    """Where the time of traced tasks went.

    `stages` are the six of STAGES in order; their shares add up to 1 (their percentiles do not add
    up to anything). `traces` were used, `left_out` counts the others by reason. `intervals_ns`
    holds the raw stages of each trace that was used, which add up to its latency exactly.
    """

    stages: tuple[StageTime, ...]
    end_to_end: StageTime
    traces: int
    left_out: Mapping[str, int]
    intervals_ns: tuple[tuple[int, ...], ...] = field(repr=False)

    def to_frame(self) -> pd.DataFrame:
        """A row for each stage and one for the whole; a figure and its bounds in columns."""
        return data_frame([*self.stages, self.end_to_end])

    def _sheets(self) -> Iterator[Sheet]:
        rows = [
            (stage.stage, estimate(stage.p50_ms), estimate(stage.p95_ms), percent(stage.share))
            for stage in (*self.stages, self.end_to_end)
        ]
        yield Sheet(
            f"Where the time of {self.traces:,} traced tasks went (95 % intervals)",
            ("stage", "p50 ms", "p95 ms", "share"),
            rows,
            [
                f"{count_of(n, 'trace')} left out: {why}."
                for why, n in sorted(self.left_out.items())
            ],
        )


def waterfall(traces: Iterable[Stamps]) -> Waterfall:
    """The stages of many traces, with what each takes and its share of the whole.

    All intervals take the traces to be independent, which tasks of one burst are not quite.
    """
    left_out: Counter[str] = Counter()
    kept: list[tuple[int, ...]] = []
    for stamps in traces:
        intervals, reason = _intervals(stamps)
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
        intervals_ns=tuple(kept),
    )


def _intervals(stamps: Stamps) -> tuple[tuple[int, ...] | None, str]:
    """The six stages in whole nanoseconds, whose sums are exact; or None and what is wrong."""
    seven = [stamp for stamp in stamps[:STAMPS] if stamp is not None]
    if len(seven) < STAMPS:
        return None, "incomplete: a stamp is missing"
    if not all(abs(stamp) <= _LATEST_S for stamp in seven):  # NaN compares false
        return None, "a stamp is not a possible time"
    ns = [round(stamp * NS) for stamp in seven]
    intervals = tuple(later - earlier for earlier, later in pairwise(ns))
    for stage, interval in zip(STAGES, intervals, strict=True):
        if interval < 0:
            return None, f"{stage} is negative"
    return intervals, ""


def _stage_time(stage: str, parts_ns: list[int], wholes_ns: list[int]) -> StageTime:
    parts_ms = [part / 1e6 for part in parts_ns]
    return StageTime(
        stage=stage,
        p50_ms=bootstrap_interval(parts_ms, resamples=RESAMPLES),
        p95_ms=percentile_interval(parts_ms, 95),
        share=ratio_interval(parts_ns, wholes_ns, RESAMPLES),
    )
