"""``perfkit profile``: look into a running cluster from outside, by the name of a process."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from cluster.vocabulary.errors import ClusterError
from perfkit.cli import options as opt
from perfkit.cli.config import build_spec
from perfkit.cli.output import (
    FAILED,
    add_command,
    complain,
    errors_as_lines,
    examples,
    note,
    out,
    write_json,
)
from perfkit.evidence.text import size

if TYPE_CHECKING:
    from perfkit.profile import MemorySeries, MemoryTable

EXAMPLES = (
    ("the coordinator, for five seconds", "perfkit profile memory coordinator"),
    ("a worker, for a program", "perfkit profile memory worker-0 --seconds 60 --json"),
    ("who allocates, as a page", "perfkit profile memory coordinator --flame coordinator.html"),
)

app = typer.Typer(
    help="Look into a running coordinator or worker from outside.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    epilog=examples(EXAMPLES[0]),
)


def memory(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="coordinator, or a worker's name: worker-0, …")
    ],
    seconds: Annotated[float, typer.Option(min=0.1, help="How long to look.")] = 5.0,
    interval: Annotated[float, typer.Option(min=0.001, help="Seconds between samples.")] = 0.1,
    flame: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Record its allocations as well and draw them into this HTML file. It needs "
            "memray and gdb, which stop the process for a moment, slow it down and add to its RSS.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write JSON: rows, samples and reasons.")
    ] = False,
    endpoint: opt.Endpoint = None,
    spec: opt.Spec = None,
    knobs: opt.Knobs = None,
    config: opt.Config = None,
) -> None:
    """Sample the memory of a running coordinator or worker, found by its name.

    RSS counts shared pages in full, PSS divided by who shares them, USS not at all.

    Ends with 1 if there is no such process, it ended meanwhile, or its allocations can't be seen.
    """
    with errors_as_lines(ClusterError):
        found = opt.settings(config, knobs, endpoint=endpoint, spec=spec)
        from perfkit.profile import attach_heap, find_process, memory_table, watch_memory

        pid = find_process(name, found.coordinator, spec=build_spec(found.spec, found.set))
        with watch_memory(pid, role=name, interval_s=interval) as watch:
            heap = None
            if flame is not None:
                heap = attach_heap(pid, name, lambda: watch.wait(seconds), flame)
            if heap is None or heap.reason:
                watch.wait(seconds)
        table = memory_table(watch.series, *([heap] if heap else []))
        _show(table, watch.series, as_json=as_json)
        if heap and heap.flame_graph:
            note(f"flame graph: {heap.flame_graph}")
        for reason in table.reasons:
            complain(reason)
        if table.reasons:
            raise typer.Exit(FAILED)


def _show(table: MemoryTable, series: MemorySeries, *, as_json: bool) -> None:
    if as_json:
        rows = [asdict(row) for row in table.rows]
        samples = [
            {"at_s": at_s, **asdict(sample)}
            for at_s, sample in zip(series.at_s, series.samples, strict=True)
        ]
        write_json({"rows": rows, "samples": samples, "reasons": list(table.reasons)})
        return
    shown = Table(box=None, pad_edge=False, header_style="bold")
    shown.add_column(series.role, no_wrap=True)
    for column in ("held", "peak", "growth", "count"):
        shown.add_column(column, justify="right", no_wrap=True)
    for row in table.rows:
        shown.add_row(
            Text(row.where),
            size(row.size_bytes),
            size(row.peak_bytes),
            _growth(row.growth_bytes),
            "–" if row.count is None else f"{row.count:,} {row.counted}",
        )
    out().print(shown)


def _growth(growth_bytes: int | None) -> str:
    return size(None) if growth_bytes is None else f"{growth_bytes:+}"[0] + size(abs(growth_bytes))


add_command(app, "memory", memory, *EXAMPLES)
