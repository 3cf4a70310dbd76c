"""A table of goals: its rows, their verdicts, and how a row is made of readings.

A goal in tasks per second says little about a machine nobody has seen; a ratio to the bare limit,
measured in the same minutes on the same machine, says how much of what is possible is there. Each
row's figure, its ratio and their intervals come from rounds in which all arms took turns, and a
goal is met or missed only by a whole interval.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Literal, TypeVar

import msgspec

from perfkit.bench.workloads.load import ExperimentError
from perfkit.bench.workloads.rounds import Readings
from perfkit.evidence.environment import Environment
from perfkit.evidence.stats import (
    Direction,
    Interval,
    bootstrap_interval,
    compare_blocks,
    percentile_interval,
)
from perfkit.evidence.tables import data_frame, html_table

if TYPE_CHECKING:
    import pandas as pd

S = TypeVar("S")
#: The arms of every table; a bare limit has a name of its own.
OPTIMIZED, BASELINE = "optimized", "baseline"


@dataclass(frozen=True)
class Goal:
    """What is asked of one figure, or of its ratio to the arm it is held `against`.

    `limit` is the arm whose figure is the bare limit; without `against` the ratio is to that one.
    `pooled` names readings whose p99 over all rounds is the figure.
    """

    name: str
    figure: str
    unit: str
    better: Direction
    of: Literal["value", "ratio"]
    goal: float | None
    text: str
    limit: str | None = None
    against: str | None = None
    pooled: str | None = None
    note: str = ""


@dataclass(frozen=True)
class GoalRow:
    """One goal: the cluster's figure, the bare `limit`'s, their ratio, and whether it is met.

    `value` is between `low` and `high`, in `unit` as `limit` and `baseline` are; `ratio` is of
    `value` to the arm `against` names. `met` is None where an interval holds both sides of the
    goal, or something is unknown; `goal` is None in a row that is there for comparison. `samples`
    holds each arm's readings, round by round.
    """

    name: str
    value: float | None
    unit: str
    low: float | None
    high: float | None
    limit: float | None
    ratio: float | None
    goal: float | None
    met: bool | None
    goal_text: str
    note: str
    limit_name: str | None
    against: str | None
    ratio_low: float | None
    ratio_high: float | None
    baseline: float | None
    samples: Mapping[str, Sequence[float]] = field(repr=False)


#: what the table shows of a row, wherever it is shown
COLUMNS = ("goal", "asked", "optimized", "baseline", "bare limit", "ratio", "met")


@dataclass(frozen=True)
class GoalTable:
    """Every goal of a profile, on the machine it was measured on; `layout` is how latency ran, and
    empty in a table without; `notes` say below the table what would be too long for its cells.
    """

    rows: tuple[GoalRow, ...]
    environment: Environment
    profile: str
    seed: int
    layout: str
    duration_s: float
    notes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[GoalRow]:
        return iter(self.rows)

    def of(self, name: str) -> GoalRow:
        """The row of a goal; raises KeyError that names those there are."""
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"no goal {name!r}; there are {', '.join(row.name for row in self.rows)}")

    @property
    def columns(self) -> tuple[str, ...]:
        """Those of COLUMNS that are not empty: some tables have no bare limit, or no baseline."""
        known = {
            "baseline": any(row.baseline is not None for row in self.rows),
            "bare limit": any(row.limit is not None for row in self.rows),
        }
        return tuple(name for name in COLUMNS if known.get(name, True))

    def encode(self) -> str:
        """The rows as a JSON list, one to a line; each says on which machine and when it was."""
        source = {
            "profile": self.profile,
            "seed": self.seed,
            "machine_id": self.environment.machine_id,
            "git_commit": self.environment.git_commit,
            "utc": self.environment.utc,
        }
        rows = [msgspec.json.encode({**asdict(row), **source}).decode() for row in self.rows]
        return "[\n  " + ",\n  ".join(rows) + "\n]\n"

    def to_frame(self) -> pd.DataFrame:
        """A row for each goal, without the samples."""
        rows = [{k: v for k, v in asdict(row).items() if k != "samples"} for row in self.rows]
        return data_frame(rows, list(rows[0]) if rows else [])

    def _repr_html_(self) -> str:
        def cells(row: GoalRow) -> dict[str, str]:
            return {
                "goal": row.name,
                "asked": row.goal_text,
                "optimized": f"{number(row.value)} {row.unit} {ends(row.low, row.high)}",
                "baseline": number(row.baseline),
                "bare limit": f"{number(row.limit)} {row.limit_name or ''}",
                "ratio": f"{number(row.ratio)} {ends(row.ratio_low, row.ratio_high)}",
                "met": verdict(row),
                "what": row.note,
            }

        shown = (*self.columns, "what")
        return html_table(
            "Goals, each beside what it is measured against, in turns (95 % intervals)",
            shown,
            [tuple(cells(row)[name] for name in shown) for row in self.rows],
            [
                *([f"Latency: {self.layout}."] if self.layout else []),
                *self.notes,
                f"Profile {self.profile}, seed {self.seed}.",
            ],
        )


def chosen(profile: str | S, profiles: Mapping[str, S]) -> tuple[str, S]:
    """A profile's name and sizes, "custom" where sizes are given; raises ExperimentError for a name
    that there is not.
    """
    if not isinstance(profile, str):
        return "custom", profile
    if profile not in profiles:
        raise ExperimentError(f"no profile {profile!r}; there are {', '.join(profiles)}")
    return profile, profiles[profile]


def make_row(goal: Goal, readings: Readings, seed: int = 0) -> GoalRow:
    """The row of a goal, from what was read; what nobody read is None."""
    arms = readings.get(goal.figure, {})
    own = arms.get(OPTIMIZED, [])
    figure = bootstrap_interval(own, seed=seed)
    if goal.pooled is not None:
        figure = percentile_interval(readings.get(goal.pooled, {}).get(OPTIMIZED, []), 99)
    against = goal.against or goal.limit
    ratio = _ratio(arms.get(against or "", []), own, goal.better, seed)
    judged = figure if goal.of == "value" else ratio
    return GoalRow(
        name=goal.name,
        value=figure.value,
        unit=goal.unit,
        low=figure.low,
        high=figure.high,
        limit=bootstrap_interval(arms.get(goal.limit or "", [])).value,
        ratio=ratio.value,
        goal=goal.goal,
        met=is_met(judged, goal.goal, goal.better),
        goal_text=goal.text,
        note=goal.note,
        limit_name=goal.limit,
        against=against,
        ratio_low=ratio.low,
        ratio_high=ratio.high,
        baseline=bootstrap_interval(arms.get(BASELINE, [])).value,
        samples=arms,
    )


def is_met(figure: Interval, goal: float | None, better: Direction) -> bool | None:
    """Whether the whole interval is on the good side of the goal; None if it is on both.

    The goal itself is good enough. An end that is not known may be anywhere.
    """
    if goal is None or figure.value is None:
        return None
    low, high = figure.low, figure.high
    if better == "higher":
        if low is not None and low >= goal:
            return True
        return False if high is not None and high < goal else None
    if high is not None and high <= goal:
        return True
    return False if low is not None and low > goal else None


def verdict(row: GoalRow) -> str:
    """Whether the goal is met, as a word."""
    if row.goal is None:
        return "–"
    return {True: "met", False: "missed", None: "inconclusive"}[row.met]


def number(value: float | None) -> str:
    """A figure as the table shows it, to three digits."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:#.3g}".rstrip(".")


def ends(low: float | None, high: float | None) -> str:
    """An interval as the table shows it; an open side is a dash."""
    return "" if low is None and high is None else f"[{number(low)} – {number(high)}]"


def _ratio(
    below: Sequence[float], above: Sequence[float], better: Direction, seed: int
) -> Interval:
    """Of neighbouring blocks, with its interval over rounds; unknown without a reading in each."""
    known = len(below) == len(above) and all(value > 0 for value in (*below, *above))
    if not below or not known:
        return Interval(None, None, None, 0.95, "unknown")
    found = compare_blocks(below, above, direction=better, seed=seed)
    return Interval(found.ratio, found.low, found.high, found.confidence, found.method)
