"""What a notebook shows of results: small tables, and rows for the pictures of `figures`.

A notebook must read as a story, so what turns a result into a table or into the rows of a picture
is here, where it is tested, and each is one call there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import msgspec

from perfkit.bench.experiments.roles import API, COORDINATOR, WORKER, RoleTable
from perfkit.bench.workloads.load import TRAFFIC
from perfkit.evidence.environment import fingerprint
from perfkit.evidence.results import Result
from perfkit.evidence.stats import Interval, bootstrap_interval
from perfkit.evidence.tables import html_table
from perfkit.evidence.text import measured, quantity
from perfkit.report.figures.charts import Bar, Stage
from perfkit.report.page.index import machine_facts

if TYPE_CHECKING:
    from perfkit.profile.cpu import CpuProfile, HotSpot
    from perfkit.profile.latency import Waterfall

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
class HotFunction:
    """One function of the coordinator: its calls and own time per task, its part of the busy time.

    `line` is None for a built-in one; `share` is in 0..1.
    """

    function: str
    file: str
    line: int | None
    calls_per_task: float
    own_us: Interval
    share: Interval

    @property
    def place(self) -> str:
        """The function with its module."""
        module = self.file.rpartition(".py")[0] or self.file
        return f"{module.replace('/', '.')}: {self.function}"


@dataclass(frozen=True)
class Bottlenecks:
    """Where a coordinator's time goes while it works: its busiest functions, waiting set apart.

    Times are in µs per task, with their intervals over `runs` profiles of `tasks` tasks each.
    """

    functions: tuple[HotFunction, ...]
    busy_us: Interval
    waiting_us: Interval
    runs: int
    tasks: int

    def bars(self) -> list[Bar]:
        """Own time per task in µs, by function."""
        return [Bar(function.place, *ends(function.own_us)) for function in self.functions]

    def _repr_html_(self) -> str:
        return html_table(
            f"The coordinator's {len(self.functions)} most expensive functions",
            ("function", "where", "calls per task", "own µs per task", "share of busy time"),
            [
                (
                    hot.function,
                    hot.file if hot.line is None else f"{hot.file}:{hot.line}",
                    f"{hot.calls_per_task:.2f}",
                    _unbroken(measured(*_with_unit(hot.own_us, ""))),
                    _unbroken(percent(hot.share)),
                )
                for hot in self.functions
            ],
            [
                f"Medians of {self.runs} runs of {self.tasks:,} tasks each under cProfile, with "
                "95 % intervals. "
                f"{measured(*_with_unit(self.busy_us, 'µs'))} per task are busy; "
                f"{measured(*_with_unit(self.waiting_us, 'µs'))} of waiting for messages, start "
                "and end of the process included, are left out. The profiler makes every call "
                "dearer and counts the time off the processor too: a ranking, not a price list."
            ],
        )


def bottlenecks(profiles: Sequence[CpuProfile], tasks: int, limit: int = 10) -> Bottlenecks:
    """The `limit` functions with the most own time, from profiles of `tasks` tasks each.

    Raises ValueError without a profile.
    """
    if not profiles:
        raise ValueError("bottlenecks need at least one profile")
    per_run = [
        {(spot.file, spot.line, spot.function): spot for spot in profile.top(len(profile.table))}
        for profile in profiles
        if profile.table
    ]
    waiting_s = [sum(s.own_s for s in run.values() if _waits(s)) for run in per_run]
    busy_s = [sum(s.own_s for s in run.values() if not _waits(s)) for run in per_run]
    found = []
    for key, spot in {key: spot for run in per_run for key, spot in run.items()}.items():
        if _waits(spot):
            continue
        # A function that a run never called took no time in it.
        own_s = [run[key].own_s if key in run else 0.0 for run in per_run]
        shares = [own / busy for own, busy in zip(own_s, busy_s, strict=True) if busy > 0]
        calls = sum(run[key].calls for run in per_run if key in run) / len(per_run)
        figures = bootstrap_interval([own * 1e6 / tasks for own in own_s])
        found.append(HotFunction(*_named(spot), calls / tasks, figures, bootstrap_interval(shares)))
    found.sort(key=lambda hot: -(hot.own_us.value or 0.0))
    return Bottlenecks(
        tuple(found[:limit]),
        bootstrap_interval([busy * 1e6 / tasks for busy in busy_s]),
        bootstrap_interval([waiting * 1e6 / tasks for waiting in waiting_s]),
        len(per_run),
        tasks,
    )


@dataclass(frozen=True)
class Facts:
    """A small table of names and texts."""

    title: str
    rows: tuple[tuple[str, str], ...]
    note: str = ""

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in self.rows
        )
        note = f"<p>{escape(self.note)}</p>" if self.note else ""
        title = f"<caption>{escape(self.title)}</caption>"
        return f"<table>{title}<tbody>{rows}</tbody></table>{note}"


@dataclass(frozen=True)
class Words:
    """Sentences that follow from results, shown as a list."""

    sentences: tuple[str, ...]

    def _repr_html_(self) -> str:
        return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in self.sentences)}</ul>"


def machine() -> Facts:
    """Where all of this is measured."""
    return Facts("This machine", tuple(machine_facts(msgspec.to_builtins(fingerprint()))))


@dataclass(frozen=True)
class Counters:
    """Counts per task by experiment; None is a count that nobody took."""

    rows: tuple[tuple[str, tuple[float | None, ...]], ...]

    def _repr_html_(self) -> str:
        return html_table(
            "Per task, counted at the coordinator, heartbeats left out",
            ("experiment", *(name.replace("_", " ") for name in TRAFFIC)),
            [(name, *(quantity(count) for count in counts)) for name, counts in self.rows],
        )


def counters(results: Iterable[Result]) -> Counters:
    """The counts per task of each experiment, which a machine's mood does not change."""
    return Counters(
        tuple(
            (
                result.experiment,
                tuple(result.counters.get(f"{name}_per_task") for name in TRAFFIC),
            )
            for result in results
        )
    )


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
    """The figure of each result with its interval, and how many samples it rests on."""
    rows = tuple(
        (result.experiment, f"{said(result)}, from {len(result.samples):,} samples")
        for result in results
    )
    return Facts("Median, 95 % interval", rows)


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


def percent(share: Interval) -> str:
    """A share of 0..1 in percent, with its interval."""
    return measured(*_with_unit(scaled(share, 100), "%"))


def _with_unit(figure: Interval, unit: str) -> tuple[float | None, str, float | None, float | None]:
    return figure.value, unit, figure.low, figure.high


def _unbroken(text: str) -> str:
    """The text of a narrow column, whose line may end before an interval but not inside of it."""
    return text.replace(" to ", "\u00a0to\u00a0")


def _named(spot: HotSpot) -> tuple[str, str, int | None]:
    return spot.function, spot.file, spot.line


def _waits(spot: HotSpot) -> bool:
    return spot.function in WAITING and spot.file.startswith("zmq/")


def tail_said(latency: Result, q: str) -> str:
    """A percentile of a latency result, such as "p95", in words, with its interval."""
    value, low, high = (
        latency.counters.get(f"latency_ms_{q}{end}") for end in ("", "_low", "_high")
    )
    return measured(value, "ms", low, high)
