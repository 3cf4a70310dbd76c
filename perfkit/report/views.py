"""What a notebook shows of results: small tables, and rows for the pictures of `figures`.

A notebook must read as a story, so what turns a result into a table or into the rows of a picture
is here, where it is tested, and each is one call there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import msgspec

from perfkit.bench.environment import fingerprint
from perfkit.bench.results import Result
from perfkit.bench.roles import API, COORDINATOR, WORKER, RoleTable
from perfkit.bench.stats import Interval
from perfkit.profile import html_table
from perfkit.report.figures import Bar, Stage
from perfkit.report.index import machine_facts
from perfkit.report.units import measured, quantity

if TYPE_CHECKING:
    from perfkit.profile import CpuProfile, HotSpot, Waterfall

MB = 1e6
CONFIDENCE = 0.95
#: What the plan claims for a process of each role, in MB.
CLAIMED_MB = {COORDINATOR: 100.0, WORKER: 500.0, API: 200.0}
#: Where the coordinator's profile shows that it had nothing to do.
WAITING = frozenset({"poll", "zmq_poll"})
#: `full` measures so many times as much as `quick`.
FULL = 5


@dataclass(frozen=True)
class Amounts:
    """How many tasks each load of the notebook gets, and how many clusters are started."""

    throughput: int
    latency: int
    burst: int
    startups: int
    roles: int
    profiled: int
    traced: int
    choices: int
    items: int
    single_items: int


def amounts(profile: str, tasks: int) -> Amounts:
    """What follows from the notebook's parameters: `tasks` for the throughput, less for the rest.

    The profile `full` takes FULL times as many of each, so that intervals get narrower.
    """
    tasks *= FULL if profile == "full" else 1
    return Amounts(
        throughput=tasks,
        latency=max(20, tasks // 8),
        burst=max(10, tasks // 20),
        startups=3 * (FULL if profile == "full" else 1),
        roles=max(60, tasks),
        profiled=max(60, tasks // 2),
        traced=max(20, tasks // 16),
        choices=max(100, tasks // 2),
        items=max(20, tasks // 50),
        single_items=max(10, tasks // 100),
    )


@dataclass(frozen=True)
class Bottlenecks:
    """Where a coordinator's time goes while it works: its busiest functions, waiting set apart.

    `busy_s` is the profile's time without the waiting; shares are of it.
    """

    spots: tuple[HotSpot, ...]
    busy_s: float
    waiting_s: float
    tasks: int

    def bars(self) -> list[tuple[str, float | None]]:
        """Own time per task in µs, by function."""
        return [(place(spot), spot.own_s * 1e6 / self.tasks) for spot in self.spots]

    def share(self, spot: HotSpot) -> float | None:
        """A function's part of the busy time, in 0..1."""
        return spot.own_s / self.busy_s if self.busy_s > 0 else None

    def _repr_html_(self) -> str:
        return html_table(
            f"The coordinator's ten most expensive functions during {self.tasks:,} tasks",
            ("function", "where", "calls per task", "own µs per task", "share of busy time"),
            [
                (
                    spot.function,
                    spot.file if spot.line is None else f"{spot.file}:{spot.line}",
                    f"{spot.calls / self.tasks:.2f}",
                    f"{spot.own_s * 1e6 / self.tasks:.1f}",
                    "unknown" if (share := self.share(spot)) is None else f"{share:.1%}",
                )
                for spot in self.spots
            ],
            [
                f"{self.busy_s:.2f} s busy; {self.waiting_s:.2f} s of waiting for messages, start "
                "and end of the process included, are left out. One run under cProfile, which "
                "makes calls several times as expensive: a ranking, not a price list."
            ],
        )


def bottlenecks(profile: CpuProfile, tasks: int, limit: int = 10) -> Bottlenecks:
    """The `limit` functions with the most own time, and how long the coordinator only waited."""
    everything = profile.top(max(len(profile.table), 1))
    waiting_s = sum(spot.own_s for spot in everything if _waits(spot))
    spots = tuple(spot for spot in everything if not _waits(spot))[:limit]
    return Bottlenecks(spots, profile.own_s - waiting_s, waiting_s, tasks)


@dataclass(frozen=True)
class Facts:
    """A small table of names and texts."""

    title: str
    rows: tuple[tuple[str, str], ...]
    note: str = ""

    def _repr_html_(self) -> str:
        return html_table(self.title, ("", ""), self.rows, [self.note] if self.note else [])


@dataclass(frozen=True)
class Words:
    """Sentences that follow from results, shown as a list."""

    sentences: tuple[str, ...]

    def _repr_html_(self) -> str:
        return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in self.sentences)}</ul>"


def machine() -> Facts:
    """Where all of this is measured."""
    return Facts("This machine", tuple(machine_facts(msgspec.to_builtins(fingerprint()))))


def counters(results: Iterable[Result]) -> Facts:
    """The counts per task of each experiment, which a machine's mood does not change."""
    rows = [
        (f"{result.experiment}: {name.replace('_', ' ')}", quantity(value))
        for result in results
        for name, value in result.counters.items()
        if name.endswith("_per_task")
    ]
    note = "Counted at the coordinator, heartbeats left out."
    return Facts("Deterministic counters", tuple(rows), note)


def model_facts(throughput: Result, latency: Result) -> Facts:
    """How a real model was served: what ran, how right it was, how fast."""
    counts = throughput.counters
    right = measured(
        counts.get("accuracy"), "", counts.get("accuracy_low"), counts.get("accuracy_high")
    )
    rows = (
        ("model", str(throughput.parameters["model"])),
        ("ran on", str(throughput.parameters["provider"])),
        ("accuracy", f"{right}, on {throughput.parameters['distinct_inputs']} inputs"),
        ("items per second", said(throughput)),
        ("latency of one item, p50", said(latency)),
        ("latency of one item, p95", tail_said(latency, "p95")),
    )
    return Facts(
        "A real model, served by the cluster (95 % intervals)",
        rows,
        "Every answer was compared with this process's own.",
    )


def percentiles(latency: Result) -> Facts:
    """p50, p95 and p99 of the latency, each with its interval."""
    rows = [("p50", said(latency)), *((q, tail_said(latency, q)) for q in ("p95", "p99"))]
    return Facts(f"Latency of {len(latency.samples):,} tasks (95 % intervals)", tuple(rows))


def experiments(results: Iterable[Result]) -> Facts:
    """The figure of each result with its interval."""
    rows = tuple((result.experiment, said(result)) for result in results)
    return Facts("Measured, with 95 % intervals", rows)


def rates(throughput: Result) -> list[tuple[float, float | None]]:
    """Tasks per second of each block, at the second of measuring in which the block ended."""
    per_block = (throughput.tasks or 0) / max(1, len(throughput.samples))
    points: list[tuple[float, float | None]] = []
    at_s = 0.0
    for rate in throughput.samples:
        at_s += per_block / rate
        points.append((at_s, rate))
    return points


def stages(found: Waterfall) -> list[Stage]:
    """The median of each stage in ms, for the picture."""
    return [Stage(stage.stage, *ends(stage.p50_ms)) for stage in found.stages]


def cpu_bars(roles: RoleTable) -> list[Bar]:
    """Processor time per task in µs by role."""
    return [Bar(row.role, *ends(row.cpu_us_per_task)) for row in roles.rows]


def memory_bars(*tables: RoleTable) -> list[Bar]:
    """Memory of one process by role in MB of RSS, each role once; beside it the plan's claim."""
    found: dict[str, Bar] = {}
    for row in (row for table in tables for row in table.rows):
        value, low, high = ends(scaled(row.rss_bytes, 1 / MB))
        found.setdefault(row.role, Bar(row.role, value, low, high, CLAIMED_MB.get(row.role)))
    return sorted(found.values(), key=lambda bar: bar.value is None)


def scaled(figure: Interval, factor: float | None) -> Interval:
    """The interval in another unit; unknown when the factor is."""
    value, low, high = (
        None if end is None or factor is None else end * factor for end in ends(figure)
    )
    return Interval(value, low, high, figure.confidence, figure.method)


def ends(figure: Interval) -> tuple[float | None, float | None, float | None]:
    """Value, low and high."""
    return figure.value, figure.low, figure.high


def said(result: Result) -> str:
    """A result's figure in words, with its interval."""
    return measured(result.value, result.unit, result.low, result.high)


def place(spot: HotSpot) -> str:
    """A function with its module."""
    module = spot.file.rpartition(".py")[0] or spot.file
    return f"{module.replace('/', '.')}: {spot.function}"


def _waits(spot: HotSpot) -> bool:
    return spot.function in WAITING and spot.file.startswith("zmq/")


def tail_said(latency: Result, q: str) -> str:
    """A percentile of a latency result, such as "p95", in words, with its interval."""
    value, low, high = (
        latency.counters.get(f"latency_ms_{q}{end}") for end in ("", "_low", "_high")
    )
    return measured(value, "ms", low, high)
