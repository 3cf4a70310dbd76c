"""A table of goals: its rows, their verdicts, and how samples become a row.

A goal in tasks per second says little about an unknown machine; a ratio to the bare limit, measured
in the same minutes on the same machine, says how much of the possible is reached. Each figure, its
ratio and their intervals come from rounds in which all arms took turns. A goal is met or missed
only by a whole interval.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Generic, Literal, TypeVar

from cluster.spec import BASELINE as BASELINE_SPEC
from cluster.spec import ClusterSpec
from perfkit.bench.workloads.load import ExperimentError
from perfkit.bench.workloads.rounds import Arm, ArmSamples, Say, take_turns
from perfkit.evidence.environment import Environment
from perfkit.evidence.samples import Interval, bootstrap_interval, percentile_interval
from perfkit.evidence.showing import Figures, ResultTable, Sheet
from perfkit.evidence.stats import compare_blocks
from perfkit.evidence.tables import encode_rows
from perfkit.evidence.text import measured, quantity
from perfkit.evidence.verdicts import Direction, Verdict, judge

S = TypeVar("S")
#: The arms of every table; each bare limit has its own name.
OPTIMIZED, BASELINE = "optimized", "baseline"
#: A goal that is neither met nor missed has None.
MET = {Verdict.MET: True, Verdict.MISSED: False}


@dataclass(frozen=True)
class Goal:
    """The goal of one figure, or of its ratio to the arm `against`.

    `limit` names the arm of the bare limit, which is also the default of `against`. With `pooled`,
    the figure is the p99 of those samples over all rounds.
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


def at_most(
    name: str, figure: str, unit: str, goal: float, note: str, limit: str | None = None
) -> Goal:
    """The goal that a figure, not a ratio, is at most this."""
    text = f"≤ {quantity(goal)} {unit}"
    return Goal(name, figure, unit, "lower", "value", goal, text, limit, note=note)


@dataclass(frozen=True, kw_only=True)
class GoalRow:
    """One goal: the cluster's figure, the bare `limit`'s, their ratio, and whether it is met.

    `value`, between `low` and `high`, and `limit` and `baseline` are in `unit`; `ratio` is `value`
    over the figure of the arm `against`. `goal` is None in a row for comparison. `met` is None if
    the interval holds both sides of the goal, or something is unknown. `samples` holds each arm's
    samples, round by round.
    """

    name: str
    value: float | None
    unit: str
    low: float | None
    high: float | None
    limit: float | None = None
    ratio: float | None = None
    goal: float | None
    met: bool | None
    goal_text: str
    note: str
    limit_name: str | None = None
    against: str | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    baseline: float | None
    samples: Mapping[str, Sequence[float]] = field(repr=False)


#: The columns of the table, in the terminal and in HTML.
COLUMNS = ("goal", "asked", "optimized", "baseline", "bare limit", "ratio", "met")


@dataclass(frozen=True)
class GoalTable(ResultTable[GoalRow]):
    """Every goal of a profile, on the machine it was measured on.

    `layout` says where the processes of a latency ran, `notes` stand below the table, and `arms`
    are the headings of the two arms.
    """

    environment: Environment
    profile: str
    seed: int
    layout: str
    duration_s: float
    notes: tuple[str, ...] = ()
    arms: tuple[str, str] = (OPTIMIZED, BASELINE)

    @property
    def columns(self) -> tuple[str, ...]:
        """COLUMNS without empty ones: some tables have no bare limit, or no baseline."""
        known = {
            "baseline": any(row.baseline is not None for row in self.rows),
            "bare limit": any(row.limit is not None for row in self.rows),
        }
        return tuple(name for name in COLUMNS if known.get(name, True))

    def encode(self) -> str:
        """The rows as a JSON list, one to a line, each with its machine and time."""
        source = {
            "profile": self.profile,
            "seed": self.seed,
            "machine_id": self.environment.machine_id,
            "git_commit": self.environment.git_commit,
            "utc": self.environment.utc,
        }
        return encode_rows({**asdict(row), **source} for row in self.rows)

    def _sheets(self) -> Iterator[Sheet]:
        headings = dict(zip((OPTIMIZED, BASELINE), self.arms, strict=True))
        yield Sheet(
            "Goals, each beside what it is measured against, in turns (95 % intervals)",
            [*(headings.get(name, name) for name in self.columns), "what"],
            [(*(cells(row)[name] for name in self.columns), row.note) for row in self.rows],
            [
                *([f"Latency: {self.layout}."] if self.layout else []),
                *self.notes,
                f"Profile {self.profile}, seed {self.seed}.",
            ],
        )

    def _figures(self) -> Figures:
        ratios = [
            (row.name, Interval(row.ratio, row.ratio_low, row.ratio_high, 0.95, ""))
            for row in self.rows
        ]
        return "×", ratios


def cells(row: GoalRow) -> dict[str, str]:
    """The texts of a row by column; a dash is for what the row does not have."""
    limit = "–" if row.limit_name is None else f"{quantity(row.limit)} {row.limit_name}"
    ratio = measured(row.ratio, "", row.ratio_low, row.ratio_high)
    return {
        "goal": row.name,
        "asked": row.goal_text,
        OPTIMIZED: measured(row.value, row.unit, row.low, row.high),
        BASELINE: "–" if row.baseline is None else quantity(row.baseline),
        "bare limit": limit,
        "ratio": "–" if row.against is None else ratio,
        "met": verdict(row),
    }


def chosen(profile: str | S, profiles: Mapping[str, S]) -> tuple[str, S]:
    """A profile's name and sizes; the name of given sizes is "custom".

    Raises ExperimentError for an unknown name.
    """
    if not isinstance(profile, str):
        return "custom", profile
    if profile not in profiles:
        raise ExperimentError(f"no profile {profile!r}; there are {', '.join(profiles)}")
    return profile, profiles[profile]


def make_row(goal: Goal, samples: ArmSamples, seed: int = 0) -> GoalRow:
    """The row of a goal from its samples; without samples its figures are None."""
    arms = samples.get(goal.figure, {})
    own = arms.get(OPTIMIZED, [])
    figure = bootstrap_interval(own, seed=seed)
    if goal.pooled is not None:
        figure = percentile_interval(samples.get(goal.pooled, {}).get(OPTIMIZED, []), 99)
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
        met=MET.get(judge(judged, goal.goal, goal.better)),
        goal_text=goal.text,
        note=goal.note,
        limit_name=goal.limit,
        against=against,
        ratio_low=ratio.low,
        ratio_high=ratio.high,
        baseline=bootstrap_interval(arms.get(BASELINE, [])).value,
        samples=arms,
    )


def verdict(row: GoalRow) -> str:
    """Whether the goal is met, as a word."""
    if row.goal is None:
        return "–"
    return next((str(word) for word, met in MET.items() if met is row.met), Verdict.INCONCLUSIVE)


def _ratio(
    below: Sequence[float], above: Sequence[float], better: Direction, seed: int
) -> Interval:
    """The ratio of neighbouring blocks, with its interval; unknown without a sample in each."""
    known = len(below) == len(above) and all(value > 0 for value in (*below, *above))
    if not below or not known:
        return Interval(None, None, None, 0.95, "unknown")
    return compare_blocks(below, above, direction=better, seed=seed).factor


@dataclass(frozen=True)
class Contest(Generic[S]):
    """The spec to compare, the sizes of each block, and a listener for progress lines."""

    optimized: ClusterSpec
    sizes: S
    seed: int
    say: Say

    @property
    def specs(self) -> Mapping[str, ClusterSpec]:
        """The spec of each arm that is a cluster."""
        return {OPTIMIZED: self.optimized, BASELINE: BASELINE_SPEC}

    def take_turns(
        self, arms: Mapping[str, Arm], rounds: int, unit: str, *, warm: bool = True
    ) -> ArmSamples:
        """Run a block of every arm in each round."""
        return take_turns(arms, rounds, self.seed, unit, self.say, warm=warm)
