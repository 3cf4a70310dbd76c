"""Latency under load that does not wait: at shares of the capacity, measured on the same cluster.

A Python client can send some ten thousand tasks a second; a worker answers as fast. So that the
cluster is the bottleneck and not the sender, a task holds its worker for SERVICE_S without
computing, a GPU's stand-in, and two workers bear about a thousand a second. The sender notes how
late it was itself; a point for which it was late is unknown, not a figure.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise
from statistics import fmean

from perfkit.bench.experiments.setting import (
    Experiment,
    Measurement,
    Profile,
    Setting,
    thinned,
)
from perfkit.bench.workloads.arrivals import PROCESSES, waiting_work
from perfkit.bench.workloads.load import Submitter, Work, ends_s, send
from perfkit.bench.workloads.rounds import Say
from perfkit.evidence.samples import Interval, bootstrap_interval, percentile, percentile_interval
from perfkit.evidence.text import quantity
from perfkit.evidence.verdicts import FigureGoal

SERVICE_S = 0.002
SHARES: Mapping[Profile, tuple[int, ...]] = {
    "quick": (20, 50, 80, 95),
    "full": (20, 35, 50, 65, 80, 90, 95),
}
ROUNDS: Mapping[Profile, int] = {"quick": 1, "full": 3}
#: The share of the capacity, in percent, and the process of the experiment's own figure.
HEADLINE = ("poisson", 50)
CAPACITY_BLOCKS, CAPACITY_TASKS = 5, 300
#: A point is unknown if more than a twentieth of its tasks left later than this, and than this
#: share of the latency at p95.
LAG_MS_MAX, LAG_SHARE_MAX = 1.0, 0.1
QUANTILES = (50, 95, 99, 99.9)
#: Neighbouring latencies share a queue, so parts of a round are resampled, not single ones.
PARTS, RESAMPLES = 10, 200
#: The axis of a percentile plot: ten points for each nine.
AXIS = tuple(100 * (1 - 10 ** (-step / 10)) for step in range(41))


@dataclass
class Point:
    """One share of the capacity under one process of arrivals, over all rounds."""

    process: str
    share: int
    offered_per_s: float
    achieved_per_s: list[float] = field(default_factory=list)
    lags_ms: list[float] = field(default_factory=list)
    rounds_ms: list[list[float]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """For columns: poisson_50."""
        return f"{self.process}_{self.share}"

    @property
    def latencies_ms(self) -> list[float]:
        """All latencies in the order in which the tasks were due."""
        return list(chain.from_iterable(self.rounds_ms))

    @property
    def lag_ms_p95(self) -> float:
        """How late the sender was, for all but a twentieth of the tasks."""
        return percentile(self.lags_ms, 95) or 0.0

    @property
    def is_valid(self) -> bool:
        """Whether the sender kept up, so that the latencies are the cluster's."""
        p95_ms = percentile(self.latencies_ms, 95) or 0.0
        return self.lag_ms_p95 <= max(LAG_MS_MAX, LAG_SHARE_MAX * p95_ms)

    def quantiles(self, seed: int) -> list[Interval]:
        """QUANTILES of the latency in ms; unknown if the sender was late."""
        if not self.is_valid:
            return [Interval(None, None, None, 0.95, "the sender was late")] * len(QUANTILES)
        return blocked_quantiles(self.rounds_ms, seed)


def load(setting: Setting) -> Measurement:
    """p95 in ms at half of the capacity, and the whole curve of latency over load."""
    rng = random.Random(setting.seed)
    rounds = min(ROUNDS[setting.profile], setting.tasks)
    with setting.fresh() as engine:
        rates = capacity_rates(
            engine, _work(setting, min(setting.tasks, CAPACITY_TASKS)), setting.say
        )
        capacity = bootstrap_interval(rates, seed=setting.seed)
        per_s = capacity.value or 0.0
        points = [
            Point(process, share, per_s * share / 100)
            for process in PROCESSES
            for share in SHARES[setting.profile]
        ]
        work = _work(setting, max(1, setting.tasks // rounds))
        for number in range(1, rounds + 1):
            for point in rng.sample(points, len(points)):
                _measure(engine, work, point, rng)
                setting.say(_said(point, number, rounds))
    (headline,) = (point for point in points if (point.process, point.share) == HEADLINE)
    figure = headline.quantiles(setting.seed)[QUANTILES.index(95)]
    return Measurement(
        headline.latencies_ms,
        figure,
        counters={
            **capacity.columns("capacity_per_s"),
            **{f"knee_percent_{process}": knee(points, process) for process in PROCESSES},
            "points": len(points),
            "points_with_late_sender": sum(not point.is_valid for point in points),
            "sender_lag_ms_max": max(max(point.lags_ms) for point in points),
        },
        series={
            **_curve(points, setting.seed),
            "percentile": list(AXIS),
            **{f"quantile_ms_{point.name}": _axis_ms(point) for point in points},
            **{f"latency_ms_{point.name}": thinned(point.latencies_ms) for point in points},
        },
        parameters={
            **work.facts,
            "profile": setting.profile,
            "rounds": rounds,
            "processes": list(PROCESSES),
            "latency_from": "the intended send time",
            "sender_lag_ms_p95_max": LAG_MS_MAX,
            "sender_lag_share_max": LAG_SHARE_MAX,
        },
    )


def _work(setting: Setting, tasks: int) -> Work:
    """A model's inputs, or tasks of a fixed service time."""
    if setting.model is None:
        return waiting_work(tasks, SERVICE_S)
    return setting.work().part(0, tasks)


def capacity_rates(engine: Submitter, work: Work, say: Say) -> list[float]:
    """Tasks per second with a queue that never empties, block by block, after a warm-up.

    The first and the last tenth of a block are left out: there the queue fills and empties.
    """
    ends_s(engine, work)
    rates = []
    for _ in range(CAPACITY_BLOCKS):
        ended_s = sorted(ends_s(engine, work))
        edge = len(ended_s) // 10
        if edge:
            ended_s = ended_s[edge:-edge]
            rates.append((len(ended_s) - 1) / (ended_s[-1] - ended_s[0]))
        else:
            rates.append(len(ended_s) / ended_s[-1])
    say(f"capacity {quantity(percentile(rates, 50), 'tasks/s')}")
    return rates


def _measure(engine: Submitter, work: Work, point: Point, rng: random.Random) -> None:
    """One round of a point; raises WrongResult for a wrong result."""
    at_s = PROCESSES[point.process](len(work), point.offered_per_s, rng)
    sending = send(engine, work, at_s)
    work.check([future.result() for future in sending.futures])
    point.lags_ms += [lag_s * 1e3 for lag_s in sending.lags_s(at_s)]
    point.rounds_ms.append([late_s * 1e3 for late_s in sending.latencies_s(at_s)])
    point.achieved_per_s.append(len(work) / max(sending.ended_s))


def _said(point: Point, number: int, rounds: int) -> str:
    p95 = quantity(percentile(point.rounds_ms[-1], 95), "ms")
    late = "" if point.is_valid else ", but the sender was late"
    return f"round {number} of {rounds}, {point.process} {point.share} %: p95 {p95}{late}"


def blocked_quantiles(rounds: Sequence[Sequence[float]], seed: int) -> list[Interval]:
    """QUANTILES of all samples with 95 % intervals that allow for a queue's memory.

    Each round is cut into PARTS of neighbours, which are resampled whole (H. R. Künsch, "The
    Jackknife and the Bootstrap for General Stationary Observations", Annals of Statistics 17,
    1989). A bound is unknown where order statistics of as many independent samples know none.
    """
    parts = [
        samples[start:stop]
        for samples in rounds
        for start, stop in pairwise(len(samples) * i // PARTS for i in range(PARTS + 1))
        if stop > start
    ]
    rng = random.Random(seed)
    draws: list[list[float]] = [[] for _ in QUANTILES]
    for _ in range(RESAMPLES):
        drawn = list(chain.from_iterable(rng.choices(parts, k=len(parts))))
        for found, q in zip(draws, QUANTILES, strict=True):
            found.append(percentile(drawn, q) or 0.0)
    pooled = list(chain.from_iterable(parts))
    return [_interval(pooled, q, found) for q, found in zip(QUANTILES, draws, strict=True)]


def _interval(samples: Sequence[float], q: float, draws: Sequence[float]) -> Interval:
    alone = percentile_interval(samples, q)
    low, high = percentile(draws, 2.5), percentile(draws, 97.5)
    return Interval(
        alone.value,
        None if alone.low is None or low is None else min(low, alone.low),
        None if alone.high is None or high is None else max(high, alone.high),
        0.95,
        "bootstrap over parts, at least order statistics",
    )


def _curve(points: Sequence[Point], seed: int) -> dict[str, list[float | None]]:
    """A column for each figure, a row for each point."""
    columns: dict[str, list[float | None]] = {}
    for point in points:
        row: dict[str, float | None] = {
            "share": point.share / 100,
            "bursty": float(point.process == "bursty"),
            "offered_per_s": point.offered_per_s,
            "achieved_per_s": fmean(point.achieved_per_s),
            "sender_lag_ms_p95": point.lag_ms_p95,
            "sender_lag_ms_max": max(point.lags_ms),
            "valid": float(point.is_valid),
        }
        for q, figure in zip(QUANTILES, point.quantiles(seed), strict=True):
            row |= figure.columns(f"p{q:g}_ms".replace(".", "_"))
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
    return columns


def _axis_ms(point: Point) -> list[float | None]:
    """The latency at each percentile of AXIS; None where no sample lies beyond it."""
    ordered = sorted(point.latencies_ms)
    rows: Iterator[float | None] = (
        percentile(ordered, q) if point.is_valid and len(ordered) * (1 - q / 100) >= 1 else None
        for q in AXIS
    )
    return list(rows)


def knee(points: Sequence[Point], process: str) -> float | None:
    """The share in percent with the most load per latency, None if a point is unknown.

    L. Kleinrock calls the ratio of throughput and mean response time power ("Power and
    Deterministic Rules of Thumb for Probabilistic Problems in Computer Communications", ICC 1979).
    """
    ours = [point for point in points if point.process == process]
    if not all(point.is_valid for point in ours):
        return None
    return max(ours, key=lambda point: point.offered_per_s / fmean(point.latencies_ms)).share


EXPERIMENTS = (
    Experiment(
        "load", "latency in an open loop at shares of the capacity: TASKS for each point", "ms",
        {"quick": 250, "full": 6_000}, 100_000, "lower", load,
        goals=(
            FigureGoal("", "p95 at half of the capacity", "ms", "lower", 10.0),
        ),
    ),
)  # fmt: skip
