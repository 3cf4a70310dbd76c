"""What notebooks show of results: small tables, and bars for the pictures of `figures`.

A notebook must read as a story, so each table and picture is one call there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cluster.vocabulary.printable import count_of
from perfkit.bench.experiments.roles import API, COORDINATOR, WORKER, RoleTable
from perfkit.bench.workloads.load import TRAFFIC
from perfkit.evidence.environment import fingerprint
from perfkit.evidence.results import Result, save
from perfkit.evidence.samples import Interval
from perfkit.evidence.showing import Sheet, Showable
from perfkit.evidence.tables import data_frame, html_list
from perfkit.evidence.text import estimate, measured, quantity
from perfkit.report.figures.charts import Bar
from perfkit.report.page.index import machine_facts

if TYPE_CHECKING:
    import pandas as pd

    from perfkit.profile.latency import Waterfall

MB = 1e6
CONFIDENCE = 0.95
#: What the plan claims for a process of each role, in MB.
CLAIMED_MB = {COORDINATOR: 100.0, WORKER: 500.0, API: 200.0}
#: `full` measures this many times as much as `quick`.
FULL = 5


@dataclass(frozen=True)
class Table(Showable):
    """A small table of texts; without a header the first text of a row names it."""

    title: str
    rows: tuple[tuple[str, ...], ...]
    header: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """The texts, a row to a row."""
        names = self.header or ("name", *("value" for _ in self.rows[0][1:])) if self.rows else ()
        return data_frame([dict(zip(names, row, strict=False)) for row in self.rows], names)

    def _sheets(self) -> Iterator[Sheet]:
        yield Sheet(self.title, self.header, self.rows, self.notes)


@dataclass(frozen=True)
class Words(Showable):
    """Sentences that follow from results, shown as a list."""

    sentences: tuple[str, ...]

    def to_frame(self) -> pd.DataFrame:
        """A row for each sentence."""
        return data_frame([{"sentence": it} for it in self.sentences], ["sentence"])

    def _sheets(self) -> Iterator[Sheet]:
        yield Sheet("", notes=self.sentences)

    def _repr_html_(self) -> str:
        return html_list(self.sentences)


def machine() -> Table:
    """The machine that all figures of a notebook belong to."""
    return Table("This machine", tuple(machine_facts(msgspec.to_builtins(fingerprint()))))


def counters(results: Iterable[Result]) -> Table:
    """The counts per task of each experiment, which do not depend on the machine's load."""
    rows = []
    for result in results:
        counts = (quantity(result.counters.get(f"{name}_per_task")) for name in TRAFFIC)
        rows.append((result.experiment, *counts))
    header = ("experiment", *(name.replace("_", " ") for name in TRAFFIC))
    return Table("Per task, counted at the coordinator, without heartbeats", tuple(rows), header)


def model_facts(throughput: Result, latency: Result) -> Table:
    """How a real model was served: what ran, how right it was, how fast."""
    parameters, counts = throughput.parameters, throughput.counters
    ends = (counts.get(f"accuracy{end}") for end in ("", "_low", "_high"))
    right = measured(next(ends), "", *ends)
    rows = (
        ("model", str(parameters["model"])),
        ("ran on", str(parameters["provider"])),
        ("accuracy", f"{right}, on {parameters['distinct_inputs']} inputs"),
        ("items per second", throughput.figure_text),
        ("latency of one item, p50", latency.figure_text),
        ("latency of one item, p95", estimate(tail(latency, "p95"), "ms")),
    )
    title = "A real model, served by the cluster (95 % intervals)"
    return Table(title, rows, notes=("Every answer was compared with this process's own.",))


def percentiles(latency: Result) -> Table:
    """p50, p95 and p99 of the latency, each with its interval."""
    tails = ((q, estimate(tail(latency, q), "ms")) for q in ("p95", "p99"))
    title = f"Latency of {count_of(len(latency.samples), 'task')} (95 % intervals)"
    return Table(title, (("p50", latency.figure_text), *tails))


def experiments(results: Iterable[Result]) -> Table:
    """The figure of each result with its interval and the number of its samples."""
    rows = tuple(
        (result.experiment, f"{result.figure_text}, from {count_of(len(result.samples), 'sample')}")
        for result in results
    )
    return Table("Median, 95 % interval", rows)


def rates(throughput: Result) -> list[tuple[float, float | None]]:
    """Tasks per second of each block, at the second of measuring in which the block ended."""
    per_block = (throughput.tasks or 0) / max(1, len(throughput.samples))
    points: list[tuple[float, float | None]] = []
    at_s = 0.0
    for rate in throughput.samples:
        at_s += per_block / rate
        points.append((at_s, rate))
    return points


def stages(found: Waterfall) -> list[Bar]:
    """The median of each stage in ms, for the picture."""
    return [Bar.of(stage.stage, stage.p50_ms) for stage in found.stages]


def cpu_bars(roles: RoleTable) -> list[Bar]:
    """Processor time per task in µs by role."""
    return [Bar.of(row.role, row.cpu_us_per_task) for row in roles.rows]


def memory_bars(*tables: RoleTable) -> list[Bar]:
    """Memory of one process in MB of RSS, each role once, beside the plan's claim; unknown last."""
    found: dict[str, Bar] = {}
    for row in (row for table in tables for row in table.rows):
        figure = row.rss_bytes.scaled(1 / MB)
        found.setdefault(row.role, Bar.of(row.role, figure, CLAIMED_MB.get(row.role)))
    return sorted(found.values(), key=lambda bar: bar.value is None)


def save_results(out_dir: str | Path, results: Mapping[str, Result]) -> list[str]:
    """Save each result under its name in the run's folder for results; returns the file names."""
    for name, result in results.items():
        save(result, Path(out_dir) / f"{name}.json")
    return [f"{name}.json" for name in results]


def interval_of(result: Result) -> Interval:
    """A result's figure with its interval."""
    return Interval(result.value, result.low, result.high, CONFIDENCE, "")


def tail(latency: Result, q: str) -> Interval:
    """A percentile of a latency result, such as "p95", in ms with its interval."""
    value, low, high = (
        latency.counters.get(f"latency_ms_{q}{end}") for end in ("", "_low", "_high")
    )
    return Interval(value, low, high, CONFIDENCE, "")
