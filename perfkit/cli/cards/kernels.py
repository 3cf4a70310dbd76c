"""``perfkit kernels``: what ran on a card, from files that a profiler wrote."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from cluster.vocabulary.printable import count_of
from perfkit.cli.terminal import options as opt
from perfkit.cli.terminal.output import errors_as_lines, note, out, plain_table, write_json
from perfkit.optimized.knobs import SettingError

if TYPE_CHECKING:
    from perfkit.gpu.rocprof import KernelProfile, TopKernels

EXAMPLES = (
    ("the ten that took the most time", "perfkit kernels results.db"),
    ("of two processes together", "perfkit kernels 4242_results.db 4243_results.db"),
    ("against the memory of an RX 580", "perfkit kernels results.csv --top 5 --peak 256"),
    ("for a program", "perfkit kernels kernel_trace.csv --json | jq .top"),
)


def kernels(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Databases (rocpd), CSV, printed lines or JSON traces of profilers.",
        ),
    ],
    top: Annotated[int, typer.Option(min=1, metavar="N", help="How many kernels to show.")] = 10,
    peak: Annotated[
        float | None,
        typer.Option(
            min=0.001, metavar="GB/S", help="The card's memory bandwidth, to show shares of it."
        ),
    ] = None,
    as_json: Annotated[Path | None, opt.json_option("Every dispatch and transfer")] = None,
) -> None:
    """Show which GPU kernels took the most time, and their bandwidth if it was counted.

    Reads files of rocprof v1, rocprofv2, rocprofv3 and PyTorch, told apart by content. A dispatch
    that is in several files counts once. Notes below the table say what was repaired or is unknown.

    Ends with 1 if a file is no profile, with 2 if it is not there.
    """
    for file in files:
        if not file.exists():
            raise SettingError(f"there is no file {file}")
    from perfkit.gpu.rocprof import RocprofError, read

    with errors_as_lines(RocprofError):
        profile = read(*files)
        ranked = profile.top_kernels(top, None if peak is None else peak * 1e9)
        if as_json is not None:
            write_json(profile.to_json(ranked), as_json)
        else:
            _show(profile, ranked)


def _show(profile: KernelProfile, ranked: TopKernels) -> None:
    """Print the top as a table, then the counts, then the notes."""
    console = out()
    if ranked.kernels:
        header, rows = ranked.texts()
        table = plain_table(*header, left=("kernel",))
        for row in rows:
            table.add_row(*map(Text, row))
        console.print(table)
    counts = (
        f"{profile.dispatches_text} dispatches of {count_of(ranked.names, 'kernel')}",
        count_of(len(profile.transfers), "transfer"),
        profile.format,
    )
    console.print(f"  {', '.join(counts)}", markup=False)
    for line in profile.notes:
        note(f"  {line}")
