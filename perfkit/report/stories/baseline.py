"""What the baseline notebook says: the plan's claims beside what was measured, and the verdict.

The plan this project began with named figures for a platform that never ran. They are quoted as
claims. Every sentence here is made from results, so that a report of another machine, or of a
cluster that has become slower, says so by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from perfkit.bench.experiments.roles import API, COORDINATOR, WORKER, RoleTable
from perfkit.evidence.results import Result, save
from perfkit.evidence.stats import Interval
from perfkit.evidence.tables import data_frame, html_table
from perfkit.evidence.text import measured, quantity
from perfkit.report.engine import headlines
from perfkit.report.engine.headlines import Verdict
from perfkit.report.figures.charts import Bar
from perfkit.report.stories.views import (
    CLAIMED_MB,
    CONFIDENCE,
    MB,
    Bottlenecks,
    Words,
    ends,
    percent,
    said,
    scaled,
)

if TYPE_CHECKING:
    import pandas as pd

    from perfkit.profile.latency import Waterfall


@dataclass(frozen=True)
class Finding:
    """One claim beside what was measured here; `claim` None where the claim is no plain number.

    `better` says which way; `note` says what exactly was measured, or why nothing was.
    """

    what: str
    claimed: str
    claim: float | None
    unit: str
    better: str
    figure: Interval
    note: str

    @property
    def verdict(self) -> Verdict:
        """Judged by the whole interval: a claim inside of it is neither met nor missed."""
        low, high = self.figure.low, self.figure.high
        if self.claim is None or self.figure.value is None:
            return Verdict.MEASURED
        if low is None or high is None or low <= self.claim <= high:
            return Verdict.INCONCLUSIVE
        return Verdict.FASTER if (low > self.claim) == (self.better == "higher") else Verdict.SLOWER

    @property
    def is_memory(self) -> bool:
        """Whether less, and not faster, is the word."""
        return self.unit == "MB"

    @property
    def sentence(self) -> str:
        """The finding in words."""
        if self.figure.value is None:
            return f"{self.what}: claimed {self.claimed}; not measured here, {self.note}."
        found = measured(self.figure.value, self.unit, self.figure.low, self.figure.high)
        told = f"{self.what}: claimed {self.claimed}, measured {found}"
        if self.claim is None:
            return f"{told}."
        if self.verdict is Verdict.INCONCLUSIVE:
            return f"{told}; the interval does not decide whether that holds."
        times = self.figure.value / self.claim
        ratio = (
            f"{times:.3g} times the claim" if times >= 1 else f"{100 * times:.3g} % of the claim"
        )
        kept = "kept" if self.verdict is Verdict.FASTER else "missed"
        return f"{told}: {ratio}, so it is {kept}."

    def shown_verdict(self) -> Verdict:
        """The verdict as the index shows it, where memory is not called faster."""
        return Verdict.MEASURED if self.is_memory else self.verdict


@dataclass(frozen=True)
class Findings:
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
            Bar(row.what, *ends(scaled(row.figure, 1 / row.claim)), 1.0)
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
                row.shown_verdict(),
                note=row.note,
            )

    def to_frame(self) -> pd.DataFrame:
        """A row for each claim; a figure and its bounds in columns."""
        columns = ["what", "claimed", "value", "low", "high", "unit", "verdict", "note"]
        rows = [
            [row.what, row.claimed, *ends(row.figure), row.unit, str(row.verdict), row.note]
            for row in self.rows
        ]
        return data_frame([dict(zip(columns, row, strict=True)) for row in rows], columns)

    def _repr_html_(self) -> str:
        return html_table(
            self.title,
            ("what", "claimed", "measured here (95 % interval)", "what was measured"),
            [
                (
                    row.what,
                    row.claimed,
                    measured(row.figure.value, row.unit, row.figure.low, row.figure.high),
                    row.note,
                )
                for row in self.rows
            ],
        )


def about_throughput(throughput: Result) -> Findings:
    """What the plan says of throughput, in messages and in tasks."""
    messages = _messages_per_task(throughput)
    load = _load(throughput)
    return Findings(
        (
            Finding(
                "Message throughput",
                "~1,000 msg/s",
                1_000.0,
                "msg/s",
                "higher",
                scaled(_figure(throughput), messages),
                f"in and out of the coordinator, {quantity(messages)} per task, {load}",
            ),
            Finding(
                "Task throughput",
                "100 tasks/s",
                100.0,
                "tasks/s",
                "higher",
                _figure(throughput),
                f"{load}, {throughput.workers} workers, every result checked",
            ),
        )
    )


def about_latency(latency: Result) -> Findings:
    """What the plan says of the overhead of a task."""
    note = f"median from submit to result, {_load(latency)}, one task in flight"
    return Findings(
        (Finding("Task overhead", "~15 ms", 15.0, "ms", "lower", _figure(latency), note),)
    )


def about_selection(selection: Result) -> Findings:
    """What the plan says of choosing a worker."""
    policy = selection.parameters.get("policy")
    figure = scaled(_figure(selection), 1e-3)
    note = f"median, {selection.workers} workers, policy {policy}"
    return Findings((Finding("Worker selection", "< 1 ms", 1.0, "ms", "lower", figure, note),))


def about_memory(roles: RoleTable, served: RoleTable) -> Findings:
    """What the plan says of memory; `served` was measured with a model loaded."""
    coordinator, worker, api = roles.of(COORDINATOR), roles.of(WORKER), roles.of(API)
    with_model = next(row for row in served.rows if row.role.startswith(WORKER))
    wanted = (
        ("Coordinator memory", "", coordinator, "RSS under load"),
        ("Worker memory", "", worker, "RSS under load, no model loaded"),
        ("Worker memory with a model", "~500 MB + model", with_model, f"RSS, {with_model.role}"),
        ("API memory", "", api, f"the API is {api.note}"),
    )
    rows = []
    for what, claimed, row, note in wanted:
        claim = CLAIMED_MB.get(row.role)
        figure = scaled(row.rss_bytes, 1 / MB)
        rows.append(Finding(what, claimed or f"~{claim:g} MB", claim, "MB", "lower", figure, note))
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

    Of the claims those are named that are not plainly kept; the table has the others.
    """
    judged = [row.verdict for row in table.rows if row.claim is not None]
    kept, missed = judged.count(Verdict.FASTER), judged.count(Verdict.SLOWER)
    undecided, unknown = judged.count(Verdict.INCONCLUSIVE), judged.count(Verdict.MEASURED)
    count = (
        f"Of {len(judged)} claims that are plain numbers this machine keeps {kept} and misses "
        f"{missed}; {undecided} cannot be decided, {unknown} cannot be measured yet."
    )
    open_ones = (row for row in table.rows if row.verdict is not Verdict.FASTER)
    sentences = [count, *(row.sentence for row in open_ones)]
    sentences += [*_where_time_goes(latency, trace), *_who_pays(roles, hot)]
    sentences.append(
        f"The model {served.parameters['model']} is served at {said(served)} on "
        f"{served.parameters['provider']}, every answer checked."
    )
    return Words(tuple(sentences))


def save_results(out_dir: str | Path, results: Mapping[str, Result]) -> list[str]:
    """Save each result under its name in the run's folder for results; returns the file names."""
    for name, result in results.items():
        save(result, Path(out_dir) / f"{name}.json")
    return [f"{name}.json" for name in results]


def _where_time_goes(latency: Result, trace: Waterfall) -> list[str]:
    known = [stage for stage in trace.stages if stage.share.value is not None]
    if not known or latency.value is None:
        return []
    longest = max(known, key=lambda stage: stage.share.value or 0.0)
    service = next(stage for stage in known if stage.stage == "service")
    told = [
        f"The longest stage of a task alone in the cluster is the {longest.stage}, with "
        f"{percent(longest.share)} of its time; the handler takes {percent(service.share)}, all "
        "else is the cluster's own."
    ]
    tail = latency.counters.get("latency_ms_p99")
    if tail is not None:
        told.append(f"The slowest hundredth takes {tail / latency.value:.3g} times the median.")
    return told


def _who_pays(roles: RoleTable, hot: Bottlenecks) -> list[str]:
    cost = roles.of(COORDINATOR).cpu_us_per_task
    costs = [row.cpu_us_per_task.value for row in roles.rows]
    whole = sum(value for value in costs if value is not None)
    if not cost.value or not whole:
        return []
    told = [
        f"The coordinator uses {measured(cost.value, 'µs', cost.low, cost.high)} of processor time "
        f"per task, {100 * cost.value / whole:.0f} % of what all roles use: a core to itself is "
        f"worth {measured(*_per_core(cost))}, whatever the workers do."
    ]
    if hot.functions:
        first = hot.functions[0]
        told.append(
            f"Its most expensive function is {first.place}, with {percent(first.share)} of its "
            "busy time under the profiler."
        )
    return told


def _per_core(cost_us: Interval) -> tuple[float | None, str, float | None, float | None]:
    """Tasks per second that a role can do with one core at this cost per task."""
    value, high, low = (None if not end else 1e6 / end for end in ends(cost_us))
    return value, "tasks/s", low, high


def _messages_per_task(throughput: Result) -> float | None:
    both = [throughput.counters.get(f"messages_{way}_per_task") for way in ("in", "out")]
    known = [count for count in both if count is not None]
    return sum(known) if len(known) == len(both) else None


def _figure(result: Result) -> Interval:
    return Interval(result.value, result.low, result.high, CONFIDENCE, "")


def _load(result: Result) -> str:
    return f"{result.parameters.get('payload_bytes')} B echo"
