"""``perfkit bench limits``: every goal beside what bare parts do on this machine, in one table."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from cluster.errors import ClusterError
from perfkit.cli.bench import _check_target, _machine, _progress
from perfkit.cli.config import SettingError, did_you_mean
from perfkit.cli.output import errors_as_lines, note, out, write_json

if TYPE_CHECKING:
    from perfkit.bench.limits import LimitRow, LimitTable

NAME = "limits"
DEFAULT_PROFILE = "quick"
STYLES = {"met": "green", "missed": "bold red", "inconclusive": "yellow"}


def bench_limits(
    profile: str | None, seed: int, as_json: str | None, others: dict[str, Any]
) -> None:
    """Measure every goal and print the table, or JSON alone for ``-``.

    `others` are options of the other experiments, with what they were given; here they have no
    meaning and are refused.
    """
    from perfkit.bench.limits import PROFILES, measure_limits
    from perfkit.bench.results import ResultError

    chosen = profile or DEFAULT_PROFILE
    with errors_as_lines(ClusterError, ResultError):
        for name, value in others.items():
            if value:
                raise SettingError(
                    f"--{name} is not for limits, which measures goals that name their own"
                )
        if chosen not in PROFILES:
            hint = did_you_mean(chosen, [*PROFILES])
            known = ", ".join(PROFILES)
            raise SettingError(f"--profile: there is no {chosen!r}; there are {known}{hint}")
        _check_target(as_json)
        with _progress() as say:
            table = measure_limits(chosen, seed=seed, progress=say)
        if as_json is not None:
            _save(table, as_json)
        if as_json != "-":
            show(table)
            if as_json is not None:
                note(f"saved to {as_json}")


def show(table: LimitTable) -> None:
    """The goals as a table, then how they were measured and where."""
    console = out()
    shown = Table(box=None, pad_edge=False, header_style="bold", collapse_padding=True)
    for name in ("goal", "asked", "optimized", "baseline", "bare limit", "ratio", "met"):
        right = name in ("optimized", "baseline", "bare limit", "ratio")
        shown.add_column(name, justify="right" if right else "left")
    for row in table.rows:
        shown.add_row(*_cells(row))
    console.print(shown)
    console.print(f"  latency   {table.layout}", markup=False)
    console.print(
        f"  measured  profile {table.profile}, seed {table.seed}, {table.duration_s:,.0f} s, all "
        "in turns; intervals of 95 %",
        markup=False,
    )
    console.print(f"  machine   {_machine(table.environment)}", markup=False)


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
