"""``perfkit bench limits`` and ``memory``: every goal with what was measured, in one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from cluster.errors import did_you_mean
from perfkit.cli.config import SettingError
from perfkit.cli.output import out

if TYPE_CHECKING:
    from perfkit.bench.limits import LimitRow, LimitTable

#: The tables of goals, and the profiles that each of them has.
TABLES = ("limits", "memory")
PROFILES = ("quick", "full")
STYLES = {"met": "green", "missed": "bold red", "inconclusive": "yellow"}


def measure(name: str, profile: str, seed: int, say: Callable[[str], None]) -> LimitTable:
    """Measure every goal of the table of that name."""
    if name == "memory":
        from perfkit.bench.memory import measure_memory

        return measure_memory(profile, seed=seed, progress=say)
    from perfkit.bench.limits import measure_limits

    return measure_limits(profile, seed=seed, progress=say)


def check_words(name: str, profile: str, others: Mapping[str, object]) -> None:
    """Refuse a profile that there is not, and what was given for another experiment.

    `others` holds by option what is set, and nothing or false for what is not. Raises SettingError.
    """
    for option, value in others.items():
        if value:
            raise SettingError(
                f"--{option} is not for {name}, where each goal says what it is measured with"
            )
    if profile not in PROFILES:
        known, hint = ", ".join(PROFILES), did_you_mean(profile, PROFILES)
        raise SettingError(f"--profile: there is no {profile!r}; there are {known}{hint}")


def show(table: LimitTable, machine: str) -> None:
    """The goals as a table, then how they were measured and where."""
    console = out()
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("goal", "asked", "optimized", "baseline", "bare limit", "ratio", "met"):
        right = name in ("optimized", "baseline", "bare limit", "ratio")
        shown.add_column(name, justify="right" if right else "left")
    for row in table.rows:
        shown.add_row(*_cells(row))
    console.print(shown)
    how = f"profile {table.profile}, seed {table.seed}, {table.duration_s:,.0f} s"
    if table.layout:
        console.print(f"  latency   {table.layout}", markup=False)
    console.print(f"  measured  {how}, all in turns; intervals of 95 %", markup=False)
    console.print(f"  machine   {machine}", markup=False)


def _cells(row: LimitRow) -> list[str | Text]:
    from perfkit.bench.limits import ends, number, verdict

    word = verdict(row)
    return [
        row.name,
        row.goal_text,
        f"{number(row.value)} {row.unit}\n{ends(row.low, row.high)}",
        number(row.baseline),
        f"{number(row.limit)}\n{row.limit_name or ''}".rstrip(),
        f"{number(row.ratio)}\n{ends(row.ratio_low, row.ratio_high)}".rstrip(),
        Text(word, STYLES.get(word, "dim")),
    ]
