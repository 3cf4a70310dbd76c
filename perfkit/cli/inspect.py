"""``perfkit inspect``: look into a running cluster from outside, by the name of a process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from perfkit.cli.terminal import options as opt
from perfkit.cli.terminal.command import add_command, examples
from perfkit.cli.terminal.output import FAILED, complain, note, out, plain_table, write_json
from perfkit.evidence.text import size
from perfkit.optimized.knobs import SettingError

if TYPE_CHECKING:
    from perfkit.profile.watch import MemoryFinding, MemorySeries

EXAMPLES = (
    ("the coordinator, for five seconds", "perfkit inspect memory coordinator"),
    ("a worker, for a program", "perfkit inspect memory worker-0 --seconds 60 --json"),
    ("who allocates, as a page", "perfkit inspect memory worker-0 --attach --flame page.html"),
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
    attach: Annotated[
        bool,
        typer.Option(
            "--attach",
            help="Also record its allocations, by memray and gdb. On some kernels that kills a "
            "process: it is rehearsed on another one first, and refused where that one dies.",
        ),
    ] = False,
    flame: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With --attach: draw the allocations into this page."),
    ] = None,
    as_json: Annotated[Path | None, opt.json_option("Rows, samples and reasons")] = None,
    endpoint: opt.Endpoint = None,
    spec: opt.Spec = None,
    knobs: opt.Knobs = None,
    config: opt.Config = None,
) -> None:
    """Sample the memory of a running coordinator or worker, found by its name.

    RSS counts shared pages in full, PSS divided by who shares them, USS not at all.

    Ends with 1 if there is no such process, it ended meanwhile, or its allocations can't be seen.
    """
    if flame is not None and not attach:
        raise SettingError("--flame draws what --attach records: give both")
    found = opt.settings(config, knobs, endpoint=endpoint, spec=spec)
    from perfkit.profile.heap import RISK, HeapProfile, attach_heap
    from perfkit.profile.processes import find_process
    from perfkit.profile.watch import watch_memory

    pid = find_process(name, found.coordinator, spec=found.peer_spec())
    heap = HeapProfile(name)
    with watch_memory(pid, role=name, interval_s=interval) as watch:
        if attach:
            note(RISK)
            heap = attach_heap(pid, name, lambda: watch.wait(seconds), flame)
        if not attach or heap.reason:
            watch.wait(seconds)
    series = watch.series
    reasons = [reason for reason in (series.reason, heap.reason) if reason]
    _show([*series.findings, *heap.findings], series, reasons, as_json=as_json)
    if heap.flame_graph:
        note(f"flame graph: {heap.flame_graph}")
    for reason in reasons:
        complain(reason)
    if reasons:
        raise typer.Exit(FAILED)


def _show(
    rows: Sequence[MemoryFinding], series: MemorySeries, reasons: list[str], *, as_json: Path | None
) -> None:
    if as_json is not None:
        pairs = zip(series.at_s, series.samples, strict=True)
        samples = [{"at_s": at_s, **sample._asdict()} for at_s, sample in pairs]
        write_json({"rows": [*map(asdict, rows)], "samples": samples, "reasons": reasons}, as_json)
        return
    shown = plain_table(series.role, "held", "peak", "growth", "count", left=(series.role,))
    for column in shown.columns:
        column.no_wrap = True
    for row in rows:
        shown.add_row(
            Text(row.where),
            _cell(row.size_bytes),
            _cell(row.peak_bytes),
            _cell(row.growth_bytes, sign="+"),
            "–" if row.count is None else f"{row.count:,} {row.counted}",
        )
    out().print(shown)


def _cell(size_bytes: int | None, sign: str = "-") -> str:
    """A size; what an instrument does not tell is a dash."""
    return "–" if size_bytes is None else size(size_bytes, sign)


add_command(app, "memory", memory, *EXAMPLES)
