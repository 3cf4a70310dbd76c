"""What every experiment is made of: its setting, its measurement, its row of the catalogue."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from cluster.spec import BASELINE, ClusterSpec
from cluster.vocabulary.errors import did_you_mean
from perfkit.bench.workloads.load import (
    ExperimentError,
    Submitter,
    Work,
    echo_work,
    traffic_per_task,
)
from perfkit.bench.workloads.rounds import Say
from perfkit.bench.workloads.served import model_work
from perfkit.engines import Engine, make_engine
from perfkit.engines.zmq import ZmqEngine
from perfkit.evidence.samples import Interval, percentile_interval
from perfkit.evidence.verdicts import Direction, FigureGoal
from perfkit.optimized.specs import OPTIMIZED

Profile = Literal["quick", "full"]

#: Enough for a count that repeats exactly.
COUNTED_TASKS = 100
#: A saved series is thinned to this many points.
SERIES_POINTS = 2_000
PROFILES: tuple[Profile, ...] = get_args(Profile)


@dataclass(frozen=True)
class Setting:
    """The parameters of an experiment; `tasks` is within its bounds.

    `profile` decides how many points and rounds an experiment measures that has several.
    """

    engine: str
    spec: ClusterSpec
    workers: int
    tasks: int
    seed: int
    model: str | None
    profile: Profile
    say: Say

    def work(self) -> Work:
        """The tasks: distinct payloads to echo, or a model's inputs with the right answers."""
        if self.model is None:
            return echo_work(self.tasks, self.seed)
        return model_work(self.model, self.tasks, self.seed)

    def fresh(self) -> Engine:
        """A fresh engine, to be entered."""
        models = () if self.model is None else (self.model,)
        return make_engine(self.engine, workers=self.workers, spec=self.spec, models=models)

    def count(
        self, work: Work, drive: Callable[[Submitter, Work], object]
    ) -> dict[str, float | int | None]:
        """Messages and bytes per task, for some of the work; only a cluster counts them.

        A model's are left out: its messages are the same, and their bytes are its inputs'.
        """
        if self.model is not None or self.engine != ZmqEngine.name:
            return {}
        self.say("counting messages")
        return traffic_per_task(self.spec, self.workers, work.part(0, COUNTED_TASKS), drive)


@dataclass(frozen=True)
class Measurement:
    """The outcome of an experiment: raw samples, the figure that follows, and counts."""

    samples: list[float]
    figure: Interval
    counters: dict[str, float | int | None] = field(default_factory=dict)
    series: dict[str, list[float | None]] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """One experiment: what it measures, its unit, and which direction is better.

    `tasks` and `tasks_max` count tasks, or for startup clusters. `goals` judge figures of its
    result. It runs with `workers` unless told otherwise, at most `workers_max`. An experiment of
    the `cluster_only` takes no other engine and no model. `specs` are those whose figures differ,
    by name.
    """

    name: str
    help: str
    unit: str
    tasks: Mapping[Profile, int]
    tasks_max: int
    direction: Direction
    function: Callable[[Setting], Measurement]
    goals: tuple[FigureGoal, ...] = ()
    workers: int = 2
    workers_max: int = 64
    cluster_only: bool = False
    specs: tuple[str, ...] = (BASELINE.name, OPTIMIZED.name)


def known_profile(profile: str) -> Profile:
    """The profile of this name; raises ExperimentError if there is none."""
    for known in PROFILES:
        if profile == known:
            return known
    hint = did_you_mean(profile, PROFILES)
    raise ExperimentError(f"no profile {profile!r}; there are {', '.join(PROFILES)}{hint}")


def is_full(profile: str) -> bool:
    """Whether a profile is the thorough one; raises ExperimentError if there is none."""
    return known_profile(profile) == "full"


def percentiles(name: str, samples: Sequence[float], *wanted: int) -> dict[str, float | None]:
    """`<name>_p95` and its bounds, for each percentile; unknown bounds are None."""
    found: dict[str, float | None] = {}
    for q in wanted:
        found |= percentile_interval(samples, q).columns(f"{name}_p{q}")
    return found


def exact(name: str, count: float | None) -> dict[str, float | int | None]:
    """A figure that was counted, not estimated: its interval is itself."""
    return {name: count, f"{name}_low": count, f"{name}_high": count}


def thinned(samples: Sequence[float]) -> list[float | None]:
    """At most SERIES_POINTS of the samples, evenly spread over them."""
    return list(samples[:: -(-len(samples) // SERIES_POINTS)])
