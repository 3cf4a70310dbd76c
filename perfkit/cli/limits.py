"""``perfkit bench limits`` and ``bench gpu``: every goal and what was measured, in one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from cluster.spec import load_part
from cluster.vocabulary.errors import did_you_mean
from perfkit.cli.config import SettingError
from perfkit.cli.output import out

if TYPE_CHECKING:
    from perfkit.bench.goals.table import GoalRow, GoalTable

STYLES = {"met": "green", "missed": "bold red", "inconclusive": "yellow"}


#: What measures each table; its module has the `PROFILES` that it takes.
TABLES = {
    "limits": ("perfkit.bench.goals.cluster", "measure_cluster"),
    "gpu": ("perfkit.bench.goals.gpu", "measure_gpu"),
    "memory": ("perfkit.bench.goals.memory", "measure_memory"),
}


def measure(name: str, profile: str, seed: int, say: Callable[[str], None]) -> GoalTable:
    """Measure every goal of a table."""
    table: GoalTable = load_part(":".join(TABLES[name]))(profile, seed=seed, progress=say)
    return table


def check_words(name: str, profile: str, others: Mapping[str, object]) -> None:
    """Refuse a profile that there is not, and what was given for another experiment.

    `others` holds by option what is set, and nothing or false for what is not. Raises SettingError.
    """
    for option, value in others.items():
        if value:
            raise SettingError(
                f"--{option} is not for {name}, where each goal says what it is measured with"
            )
    profiles = load_part(f"{TABLES[name][0]}:PROFILES")
    if profile not in profiles:
        known, hint = ", ".join(profiles), did_you_mean(profile, [*profiles])
        raise SettingError(f"--profile: there is no {profile!r}; there are {known}{hint}")


def show(table: GoalTable, machine: str) -> None:
    """The goals as a table, then how they were measured and where."""
    console = out()
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for name in table.columns:
        left = name in ("goal", "asked", "met")
        shown.add_column(name, justify="left" if left else "right", no_wrap=name in ("goal", "met"))
    for row in table.rows:
        cells = _cells(row)
        shown.add_row(*(cells[name] for name in table.columns))
    console.print(shown)
    how = f"profile {table.profile}, seed {table.seed}, {table.duration_s:,.0f} s"
    if table.layout:
        console.print(f"  latency   {table.layout}", markup=False)
    console.print(f"  measured  {how}, all in turns; intervals of 95 %", markup=False)
    console.print(f"  machine   {machine}", markup=False)
    for note in table.notes:
        console.print(f"\n{note}", markup=False)


def _cells(row: GoalRow) -> dict[str, str | Text]:
    from perfkit.bench.goals.table import cells

    # The interval goes below its figure, to keep the table narrow.
    shown = {name: text.replace(" (", "\n(") for name, text in cells(row).items()}
    shown["bare limit"] = shown["bare limit"].replace(" ", "\n", 1)
    return {**shown, "met": Text(shown["met"], STYLES.get(shown["met"], "dim"))}
