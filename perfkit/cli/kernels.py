"""``perfkit kernels``: which kernels took the most time, from a file that rocprof wrote."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from perfkit.cli.output import errors_as_lines, note, out, plain_table, write_json

if TYPE_CHECKING:
    from perfkit.gpu.rocprof import KernelProfile, TopKernels

EXAMPLES = (
    ("the ten that took the most time", "perfkit kernels results.csv"),
    ("against the memory of an RX 580", "perfkit kernels results.csv --top 5 --peak 256"),
    ("for a program", "perfkit kernels kernel_trace.csv --json | jq .top"),
)


def kernels(
    file: Annotated[Path, typer.Argument(help="CSV, printed lines or JSON trace of rocprof.")],
    top: Annotated[int, typer.Option(min=1, metavar="N", help="How many kernels to show.")] = 10,
    peak: Annotated[
        float | None,
        typer.Option(
            min=0.001, metavar="GB/S", help="The card's memory bandwidth, to show shares of it."
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print every dispatch and transfer as JSON.")
    ] = False,
) -> None:
    """Show which GPU kernels took the most time, and their bandwidth if it was counted.

    Reads files of rocprof v1, rocprofv2 and rocprofv3, told apart by content. Notes below the table
    say what was repaired or is unknown.

    Ends with 1 if the file cannot be read as a profile.
    """
    from perfkit.gpu.rocprof import RocprofError, read

    with errors_as_lines(RocprofError):
        profile = read(file)
        ranked = profile.top_kernels(top, None if peak is None else peak * 1e9)
        if as_json:
            write_json(profile.to_json(ranked))
        else:
            show(profile, ranked)


def show(profile: KernelProfile, ranked: TopKernels) -> None:
    """Print the top as a table, then the counts, then the notes."""
    console = out()
    if ranked.kernels:
        header, rows = ranked.texts()
        table = plain_table(*header, left=("kernel",))
        for row in rows:
            table.add_row(*map(Text, row))
        console.print(table)
    counts = (
        f"{len(profile.kernels):,} dispatches of {ranked.names:,} kernels",
        f"{len(profile.transfers):,} transfers",
        profile.format,
    )
    console.print(f"  {', '.join(counts)}", markup=False)
    for line in profile.notes:
        note(f"  {line}")
