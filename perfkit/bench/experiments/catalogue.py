"""The experiments of `perfkit bench` by name, which notebooks quote.

Each runs real processes, a cluster of a named spec or another engine, checks every result before a
time counts, and returns raw samples; the figure and its interval follow from these.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from cluster.spec import ClusterSpec
from cluster.vocabulary.errors import did_you_mean
from perfkit.bench.experiments import closed_loop, failover
from perfkit.bench.experiments.setting import Experiment, Profile, Setting
from perfkit.bench.workloads.load import ExperimentError
from perfkit.bench.workloads.rounds import Say, prefixed
from perfkit.engines import ENGINES
from perfkit.engines.zmq import ZmqEngine
from perfkit.evidence.results import Recording, Result

#: The spec of a result without a cluster; no ClusterSpec can have this name.
NO_SPEC = "-"
WORKERS_MAX = 64
EXPERIMENTS: Mapping[str, Experiment] = {
    experiment.name: experiment
    for experiment in (
        *closed_loop.EXPERIMENTS,
        *failover.EXPERIMENTS,
    )
}


def run(
    name: str,
    *,
    spec: ClusterSpec,
    workers: int = 2,
    tasks: int | None = None,
    seed: int = 0,
    engine: str = "zmq",
    model: str | None = None,
    profile: Profile = "quick",
    progress: Say | None = None,
) -> Result:
    """Run one experiment on an engine on this machine and return its result.

    `spec` is for the engine zmq; results of other engines have no spec and no counts of messages.
    `tasks` None takes as many as the experiment's
    `profile` has. `model` sends real inputs to a served model instead of payloads to echo.
    `progress` gets one plain line at a time.

    Raises ExperimentError for an unknown experiment or engine or a number out of range,
    MissingExtra for an engine that is not installed, WrongResult if any task gave a wrong result,
    and what the engine raises.
    """
    if name not in EXPERIMENTS:
        hint = did_you_mean(name, EXPERIMENTS)
        raise ExperimentError(f"no experiment {name!r}; there are {', '.join(EXPERIMENTS)}{hint}")
    experiment = EXPERIMENTS[name]
    if engine not in ENGINES:
        raise ExperimentError(f"no engine {engine!r}; there are {', '.join(ENGINES)}")
    tasks = experiment.tasks[profile] if tasks is None else tasks
    _check_range("tasks", tasks, experiment.tasks_max, name)
    _check_range("workers", workers, WORKERS_MAX, name)
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


def _check_range(what: str, value: int, most: int, name: str) -> None:
    if not 1 <= value <= most:
        raise ExperimentError(f"{name} takes 1 to {most:,} {what}, not {value:,}")
