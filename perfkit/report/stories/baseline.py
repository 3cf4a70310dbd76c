"""What the baseline notebook says: the plan's claims beside the measured figures, and the verdict.

The plan this project began with named figures for a platform that never ran. They are quoted as
claims. Every sentence here is made from results, so a report of another machine, or of a slower
cluster, says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.vocabulary.printable import count_of
from perfkit.bench.experiments.roles import API, COORDINATOR, WORKER, RoleTable
from perfkit.bench.experiments.setting import is_full
from perfkit.evidence.results import Result
from perfkit.evidence.samples import Interval, bootstrap_interval
from perfkit.evidence.showing import Figures, Sheet, Showable
from perfkit.evidence.tables import data_frame
from perfkit.evidence.text import estimate, measured, percent, quantity
from perfkit.evidence.verdicts import Direction, Verdict, judge
from perfkit.report.engine import headlines
from perfkit.report.figures.charts import Bar
from perfkit.report.stories.bottlenecks import Bottlenecks
from perfkit.report.stories.views import (
    CLAIMED_MB,
    FULL,
    MB,
    Words,
    interval_of,
)

if TYPE_CHECKING:
    import pandas as pd

    from perfkit.profile.latency import Waterfall


def task_counts(profile: str, tasks: int) -> dict[str, int]:
    """How many tasks each measurement gets, and how many clusters are started (`startups`).

    The throughput gets `tasks`, the rest fewer. The profile `full` takes FULL times as many of
    each, for narrower intervals.
    """
    times = FULL if is_full(profile) else 1
    tasks *= times
    return {
        "throughput": tasks,
        "latency": max(20, tasks // 8),
        "burst": max(10, tasks // 20),
        "startups": 3 * times,
        "roles": max(60, tasks),
        "profiled": max(60, tasks // 2),
        "traced": max(20, tasks // 16),
        "choices": max(100, tasks // 2),
        "items": max(20, tasks // 50),
        "single_items": max(10, tasks // 100),
    }


@dataclass(frozen=True)
class Finding:
    """One claim beside its measured figure; `claim` None where the claim is no plain number.

    `better` is "higher" or "lower"; `note` says what exactly was measured, or why nothing was.
    """

    what: str
    claimed: str
    claim: float | None
    unit: str
    better: Direction
    figure: Interval
    note: str

    @property
    def verdict(self) -> Verdict:
        """The judgement by the whole interval; a claim in words is not judged."""
        return judge(self.figure, self.claim, self.better)

    @property
    def sentence(self) -> str:
        """The finding in words."""
        if self.figure.value is None:
            return f"{self.what}: claimed {self.claimed}; not measured here, {self.note}."
        told = f"{self.what}: claimed {self.claimed}, measured {estimate(self.figure, self.unit)}"
        if self.claim is None:
            return f"{told}."
        if self.verdict is Verdict.INCONCLUSIVE:
            return f"{told}; the interval does not decide whether that holds."
        times = quantity(self.figure.value / self.claim, "×")
        return f"{told}: {times} the claim, so it is {self.verdict}."


@dataclass(frozen=True)
class Findings(Showable):
    """A table of the plan, filled in; `title` says which."""

    rows: tuple[Finding, ...]
    title: str = "The plan's baseline, claimed for a platform that never ran, beside this machine's"

    def __add__(self, other: Findings) -> Findings:
        return Findings(self.rows + other.rows, self.title)

    @property
    def words(self) -> Words:
        """A sentence for each."""
        return Words(tuple(row.sentence for row in self.rows))

    def bars(self) -> list[Bar]:
        """Each measured figure as a multiple of its claim, where the claim is a plain number."""
        return [
            Bar.of(row.what, row.figure.scaled(1 / row.claim), 1.0)
            for row in self.rows
            if row.claim is not None
        ]

    def record(self, out_dir: str | Path) -> None:
        """Save every finding as a headline of the run."""
        for row in self.rows:
            headlines.record(
                out_dir,
                row.what,
                row.figure.value,
                row.unit,
                row.figure.low,
                row.figure.high,
                row.claimed if row.claim is None else row.claim,
                row.verdict,
                note=row.note,
            )

    def to_frame(self) -> pd.DataFrame:
        """A row for each claim; a figure and its bounds in columns."""
        return data_frame(self.rows)

    def _sheets(self) -> Iterator[Sheet]:
        yield Sheet(
            self.title,
            ("what", "claimed", "measured here (95 % interval)", "verdict", "what was measured"),
            [
                (row.what, row.claimed, estimate(row.figure, row.unit), row.verdict, row.note)
                for row in self.rows
            ],
        )

    def _figures(self) -> Figures:
        return "× the claim", [(bar.label, bar) for bar in self.bars()]


def about_throughput(throughput: Result) -> Findings:
    """The plan's claims about throughput, in messages and in tasks."""
    counts = [throughput.counters.get(f"messages_{way}_per_task") for way in ("in", "out")]
    known = [count for count in counts if count is not None]
    messages = sum(known) if len(known) == len(counts) else None
    tasks_per_s = interval_of(throughput)
    messages_per_s = bootstrap_interval([]) if messages is None else tasks_per_s.scaled(messages)
    load = _load(throughput)
    note = f"in and out of the coordinator, {quantity(messages)} per task, {load}"
    checked = f"{load}, {count_of(throughput.workers, 'worker')}, every result checked"
    return Findings(
        (
            Finding("Message throughput", "~1,000 msg/s", 1_000.0, "msg/s", "higher",
                    messages_per_s, note),
            Finding("Task throughput", "100 tasks/s", 100.0, "tasks/s", "higher", tasks_per_s,
                    checked),
        )
    )  # fmt: skip


def about_latency(latency: Result) -> Findings:
    """The plan's claim about the overhead of a task."""
    note = f"median from submit to result, {_load(latency)}, one task in flight"
    figure = interval_of(latency)
    return Findings((Finding("Task overhead", "~15 ms", 15.0, "ms", "lower", figure, note),))


def about_selection(selection: Result) -> Findings:
    """The plan's claim about choosing a worker."""
    policy = selection.parameters.get("policy")
    figure = interval_of(selection).scaled(1e-3)
    note = f"median, {count_of(selection.workers, 'worker')}, policy {policy}"
    return Findings((Finding("Worker selection", "< 1 ms", 1.0, "ms", "lower", figure, note),))


def about_memory(roles: RoleTable, served: RoleTable) -> Findings:
    """The plan's claims about memory; `served` was measured with a model loaded."""
    coordinator, worker, api = roles.of(COORDINATOR), roles.of(WORKER), roles.of(API)
    with_model = next(row for row in served.rows if row.role.startswith(WORKER))
    wanted = (
        ("Coordinator memory", coordinator, "RSS under load"),
        ("Worker memory", worker, "RSS under load, no model loaded"),
        ("Worker memory with a model", with_model, f"RSS, {with_model.role}"),
        ("API memory", api, f"the API is {api.note}" if api.note else "RSS, no requests"),
    )
    rows = []
    for what, row, note in wanted:
        claim = CLAIMED_MB.get(row.role)
        claimed = "~500 MB + model" if claim is None else f"~{quantity(claim, 'MB')}"
        figure = row.rss_bytes.scaled(1 / MB)
        rows.append(Finding(what, claimed, claim, "MB", "lower", figure, note))
    return Findings(tuple(rows))


def verdict(
    table: Findings,
    latency: Result,
    roles: RoleTable,
    trace: Waterfall,
    hot: Bottlenecks,
    served: Result,
) -> Words:
    """The notebook's conclusion in sentences, all of them from these results.

    It names the claims that are not plainly met; the table has the others.
    """
    judged = [row for row in table.rows if row.claim is not None]
    met, missed, undecided = (
        sum(row.verdict is word and row.figure.value is not None for row in judged)
        for word in headlines.GOAL_VERDICTS
    )
    unknown = sum(row.figure.value is None for row in judged)
    count = (
        f"Of {len(judged)} claims that are plain numbers this machine meets {met} and misses "
        f"{missed}; {undecided} cannot be decided, {unknown} cannot be measured yet."
    )
    open_ones = (row.sentence for row in table.rows if row.verdict is not Verdict.MET)
    model = (
        f"The model {served.parameters['model']} is served at {served.figure_text} on "
        f"{served.parameters['provider']}, every answer checked."
    )
    told = [*_where_time_goes(latency, trace), *_who_pays(roles, hot), model]
    return Words((count, *open_ones, *told))


def _where_time_goes(latency: Result, trace: Waterfall) -> list[str]:
    known = [stage for stage in trace.stages if stage.share.value is not None]
    if not known or latency.value is None:
        return []
    longest = max(known, key=lambda stage: stage.share.value or 0.0)
    service = next(stage for stage in known if stage.stage == "service")
    told = [
        f"The longest stage of a task alone in the cluster is the {longest.stage}, with "
        f"{percent(longest.share)} of its time. The handler takes {percent(service.share)}; the "
        "rest is the cluster's own."
    ]
    p99 = latency.counters.get("latency_ms_p99")
    if p99 is not None:
        told.append(f"The 99th percentile is {quantity(p99 / latency.value, '×')} the median.")
    return told


def _who_pays(roles: RoleTable, hot: Bottlenecks) -> list[str]:
    cost = roles.of(COORDINATOR).cpu_us_per_task
    costs = [row.cpu_us_per_task.value for row in roles.rows]
    whole = sum(value for value in costs if value is not None)
    if not cost.value or not whole:
        return []
    value, high, low = (None if not end else 1e6 / end for end in (cost.value, cost.low, cost.high))
    told = [
        f"The coordinator uses {estimate(cost, 'µs')} of processor time per task, "
        f"{quantity(100 * cost.value / whole, '%')} of the total of all roles. A core of its own "
        f"gives {measured(value, 'tasks/s', low, high)}, however fast the workers are."
    ]
    if hot.functions:
        first = hot.functions[0]
        told.append(
            f"Its most expensive function is {first.place}, with {percent(first.share)} of its "
            "busy time under the profiler."
        )
    return told


def _load(result: Result) -> str:
    return f"{result.parameters.get('payload_bytes')} B echo"
