"""The experiments of `perfkit bench` by name, which notebooks quote.

Each runs real processes, a cluster of a named spec or another engine, checks every result before a
time counts, and returns raw samples; the figure and its interval follow from these.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from cluster.spec import ClusterSpec
from cluster.vocabulary.errors import ClusterError, did_you_mean
from perfkit.bench.experiments import (
    balancing,
    closed_loop,
    failover,
    network,
    open_loop,
    scaling,
    stress,
)
from perfkit.bench.experiments.setting import Experiment, Profile, Setting, known_profile
from perfkit.bench.workloads.load import ExperimentError
from perfkit.bench.workloads.rounds import Say, prefixed
from perfkit.engines import ENGINES
from perfkit.engines.zmq import ZmqEngine
from perfkit.evidence.results import Recording, Result
from perfkit.evidence.samples import Interval
from perfkit.evidence.verdicts import FigureGoal, Verdict, judge
from perfkit.optimized.specs import spec_named

#: The spec of a result without a cluster; no ClusterSpec can have this name.
NO_SPEC = "-"
EXPERIMENTS: Mapping[str, Experiment] = {
    experiment.name: experiment
    for module in (closed_loop, open_loop, scaling, balancing, failover, stress, network)
    for experiment in module.EXPERIMENTS
}


class Judged(NamedTuple):
    """A goal, the figure of a result that it is about, and what that says."""

    goal: FigureGoal
    figure: Interval
    verdict: Verdict


@dataclass(frozen=True)
class Ran:
    """One experiment of a series, with its result or the `error` that ended it."""

    experiment: str
    spec: str
    result: Result | None = None
    error: str = ""


def run(
    name: str,
    *,
    spec: ClusterSpec,
    workers: int | None = None,
    tasks: int | None = None,
    seed: int = 0,
    engine: str = "zmq",
    model: str | None = None,
    profile: Profile = "quick",
    progress: Say | None = None,
) -> Result:
    """Run one experiment on an engine on this machine and return its result.

    `spec` is for the engine zmq; results of other engines have no spec and no counts of messages.
    `workers` None takes the experiment's own number, `tasks` None that of its `profile`. `model`
    sends real inputs to a served model instead of payloads to echo. `progress` gets one plain line
    at a time.

    Raises ExperimentError for an unknown experiment, engine or profile, one that the experiment
    does not take, or a number out of range; MissingExtra for an engine that is not installed,
    WrongResult if any task gave a wrong result, and what the engine raises.
    """
    experiment, profile = _known(name, engine, model), known_profile(profile)
    tasks = experiment.tasks[profile] if tasks is None else tasks
    workers = experiment.workers if workers is None else workers
    _check_range("tasks", tasks, experiment.tasks_max, name)
    _check_range("workers", workers, experiment.workers_max, name)
    setting = Setting(engine, spec, workers, tasks, seed, model, profile, prefixed(progress, name))
    recording = Recording()
    found = experiment.function(setting)
    result = recording.result(
        name,
        spec,
        found.figure,
        experiment.unit if model is None else experiment.unit.replace("tasks", "items"),
        found.samples,
        engine=engine,
        workers=workers,
        tasks=tasks,
        seed=seed,
        parameters={"model": model, **found.parameters},
        counters=found.counters,
        series=found.series,
    )
    return result if engine == ZmqEngine.name else msgspec.structs.replace(result, spec=NO_SPEC)


def run_all(
    *,
    specs: Sequence[ClusterSpec] = (),
    profile: Profile = "quick",
    seed: int = 0,
    progress: Say | None = None,
) -> Iterator[Ran]:
    """Run every experiment in turn, with each of `specs`, or with the specs that it names.

    Yields each when it has ended. An error ends one experiment, not the series.
    """
    turns = [
        (name, spec)
        for name, experiment in EXPERIMENTS.items()
        for spec in specs or map(spec_named, experiment.specs)
    ]
    for number, (name, spec) in enumerate(turns, 1):
        say = prefixed(progress, f"{number} of {len(turns)}, {spec.name}")
        say(f"{name}: begins")
        try:
            result = run(name, spec=spec, profile=profile, seed=seed, progress=say)
        except ClusterError as error:
            yield Ran(name, spec.name, error=str(error).splitlines()[0])
        except Exception as error:  # a fault of one experiment must not cost the others' figures
            yield Ran(name, spec.name, error=f"{type(error).__name__}: {error}")
        else:
            yield Ran(name, spec.name, result)


def judged(result: Result) -> list[Judged]:
    """The goals of the result's experiment with their verdicts; none for an unknown experiment."""
    experiment = EXPERIMENTS.get(result.experiment)
    found = []
    for goal in experiment.goals if experiment else ():
        figure = figure_of(result, goal.figure)
        found.append(Judged(goal, figure, judge(figure, goal.goal, goal.better)))
    return found


def figure_of(result: Result, name: str) -> Interval:
    """A counter of a result with its interval, or the result's own figure for ""; unknown if the
    result has no such counter.
    """
    value, low, high = (
        (result.counters.get(f"{name}{end}") for end in ("", "_low", "_high"))
        if name
        else (result.value, result.low, result.high)
    )
    return Interval(value, low, high, 0.95, str(result.parameters.get("interval")))


def _known(name: str, engine: str, model: str | None) -> Experiment:
    """The experiment of that name, which takes this engine and this model."""
    if name not in EXPERIMENTS:
        hint = did_you_mean(name, EXPERIMENTS)
        raise ExperimentError(f"no experiment {name!r}; there are {', '.join(EXPERIMENTS)}{hint}")
    if engine not in ENGINES:
        raise ExperimentError(f"no engine {engine!r}; there are {', '.join(ENGINES)}")
    experiment = EXPERIMENTS[name]
    if experiment.cluster_only and (engine != ZmqEngine.name or model is not None):
        raise ExperimentError(f"{name} is of this cluster: it takes no other engine and no model")
    return experiment


def _check_range(what: str, value: int, most: int, name: str) -> None:
    if not 1 <= value <= most:
        raise ExperimentError(f"{name} takes 1 to {most:,} {what}, not {value:,}")
