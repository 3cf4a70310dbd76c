"""The experiments of `perfkit bench` by name, which notebooks quote.

Each runs real processes, a cluster of a named spec or another engine, checks every result before a
time counts, and returns raw samples; the figure and its interval follow from these. Blocks of tasks
are independent enough for a bootstrap; a percentile of single latencies is bounded by order
statistics.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from cluster.spec import ClusterSpec
from cluster.vocabulary.errors import did_you_mean
from perfkit.bench.workloads.load import (
    ExperimentError,
    Submitter,
    Work,
    WrongResult,
    burst_ms,
    echo_work,
    map_s,
    one_by_one_ms,
    traffic_per_task,
)
from perfkit.bench.workloads.rounds import Say, prefixed
from perfkit.bench.workloads.served import model_work
from perfkit.engines import ENGINES, Engine, make_engine
from perfkit.engines.zmq import ZmqEngine
from perfkit.evidence.results import Recording, Result
from perfkit.evidence.samples import Interval, bootstrap_interval, percentile_interval
from perfkit.evidence.text import quantity

#: The spec of a result without a cluster; no ClusterSpec can have this name.
NO_SPEC = "-"
WORKERS_MAX = 64
#: Blocks of a throughput, whose figure is their median.
BLOCKS = 10
BURSTS = 7
#: Enough for a count that repeats exactly.
COUNTED_TASKS = 100
#: A saved series is thinned to this many points.
SERIES_POINTS = 2_000


@dataclass(frozen=True)
class Setting:
    """The parameters of an experiment; `tasks` is within its bounds."""

    engine: str
    spec: ClusterSpec
    workers: int
    tasks: int
    seed: int
    model: str | None
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

    `default_tasks` and `tasks_max` count tasks, or for startup clusters.
    """

    name: str
    help: str
    unit: str
    default_tasks: int
    tasks_max: int
    direction: Literal["higher", "lower"]
    function: Callable[[Setting], Measurement]


def run(
    name: str,
    *,
    spec: ClusterSpec,
    workers: int = 2,
    tasks: int | None = None,
    seed: int = 0,
    engine: str = "zmq",
    model: str | None = None,
    progress: Say | None = None,
) -> Result:
    """Run one experiment on an engine on this machine and return its result.

    `spec` is for the engine zmq; results of other engines have no spec and no counts of messages.
    `tasks` None takes the experiment's default. `model` sends real inputs to a served model instead
    of payloads to echo. `progress` gets one plain line at a time.

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
    tasks = experiment.default_tasks if tasks is None else tasks
    _check_range("tasks", tasks, experiment.tasks_max, name)
    _check_range("workers", workers, WORKERS_MAX, name)
    setting = Setting(engine, spec, workers, tasks, seed, model, prefixed(progress, name))
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


def throughput(setting: Setting) -> Measurement:
    """Tasks per second of a map that keeps every worker busy, in blocks after a warm-up.

    A map is the engine's own way to do many tasks: a cluster tracks each task, the others only
    columns of them (see `perfkit.engines.base`). A burst submits the same work task by task.
    """
    work = setting.work()
    rates = []
    with setting.fresh() as engine:
        setting.say(f"warm-up, {len(work.warm_up):,} tasks")
        map_s(engine, work.warm_up)
        for number, block in enumerate(work.blocks(BLOCKS), 1):
            rates.append(len(block) / map_s(engine, block))
            setting.say(f"block {number}, {quantity(rates[-1], 'tasks/s')}")
    counters = setting.count(work, map_s)
    return Measurement(
        rates,
        bootstrap_interval(rates, seed=setting.seed),
        counters={**counters, **work.figures},
        parameters={**work.facts, "blocks": len(rates), "warm_up_tasks": len(work.warm_up)},
    )


def latency(setting: Setting) -> Measurement:
    """Milliseconds from submit to result with one task in flight."""
    work = setting.work()
    with setting.fresh() as engine:
        setting.say(f"warm-up, {len(work.warm_up):,} tasks")
        one_by_one_ms(engine, work.warm_up)
        took_ms: list[float] = []
        for number, block in enumerate(work.blocks(BLOCKS), 1):
            took_ms += one_by_one_ms(engine, block)
            setting.say(f"part {number}, {len(took_ms):,} of {len(work):,} tasks")
    counters = setting.count(work, one_by_one_ms)
    return Measurement(
        took_ms,
        percentile_interval(took_ms, 50),
        counters={**_percentiles("latency_ms", took_ms, 95, 99), **counters, **work.figures},
        parameters={**work.facts, "in_flight": 1, "warm_up_tasks": len(work.warm_up)},
    )


def burst(setting: Setting) -> Measurement:
    """Milliseconds until the last result of a burst, all of its tasks submitted at once."""
    work = setting.work()
    last_ms: list[float] = []
    every_ms: list[float] = []
    with setting.fresh() as engine:
        setting.say(f"warm-up, {len(work):,} tasks")
        burst_ms(engine, work)
        for number in range(1, BURSTS + 1):
            took_ms = burst_ms(engine, work)
            last_ms.append(max(took_ms))
            every_ms += took_ms
            setting.say(f"burst {number} of {BURSTS}, {quantity(last_ms[-1], 'ms')}")
    counters = setting.count(work, burst_ms)
    return Measurement(
        last_ms,
        bootstrap_interval(last_ms, seed=setting.seed),
        counters={**_percentiles("task_ms", every_ms, 50, 95, 99), **counters, **work.figures},
        series={"task_ms": _thinned(every_ms)},
        parameters={**work.facts, "bursts": BURSTS},
    )


def startup(setting: Setting) -> Measurement:
    """Seconds until all workers of a fresh engine are ready, in a cluster registered."""
    work = echo_work(setting.workers, setting.seed)
    took_s = []
    for number in range(1, setting.tasks + 1):
        # Before the clock starts, because the first engine imports a peer's packages.
        engine = setting.fresh()
        began_s = time.perf_counter()
        with engine:
            took_s.append(time.perf_counter() - began_s)
            map_s(engine, work)
            if isinstance(engine, ZmqEngine) and (n := len(engine.status().workers)) != len(work):
                raise WrongResult(f"a cluster of {len(work)} workers said it was ready with {n}")
        setting.say(f"cluster {number} of {setting.tasks}, {quantity(took_s[-1], 's')}")
    return Measurement(took_s, bootstrap_interval(took_s, seed=setting.seed))


EXPERIMENTS: Mapping[str, Experiment] = {
    experiment.name: experiment
    for experiment in (
        Experiment(
            "throughput", "tasks per second, every worker busy", "tasks/s",
            20_000, 1_000_000, "higher", throughput,
        ),
        Experiment(
            "latency", "time of one task, one in flight: p50, p95, p99", "ms",
            2_000, 200_000, "lower", latency,
        ),
        Experiment(
            "burst", "time until the last of many tasks submitted at once", "ms",
            1_000, 100_000, "lower", burst,
        ),
        Experiment(
            "startup", "time until every worker is ready, TASKS fresh clusters", "s",
            5, 100, "lower", startup,
        ),
    )
}  # fmt: skip


def _check_range(what: str, value: int, most: int, name: str) -> None:
    if not 1 <= value <= most:
        raise ExperimentError(f"{name} takes 1 to {most:,} {what}, not {value:,}")


def _percentiles(name: str, samples: Sequence[float], *wanted: int) -> dict[str, float | None]:
    """`<name>_p95` and its bounds, for each percentile; unknown bounds are None."""
    found: dict[str, float | None] = {}
    for q in wanted:
        found |= percentile_interval(samples, q).columns(f"{name}_p{q}")
    return found


def _thinned(samples: Sequence[float]) -> list[float | None]:
    """At most SERIES_POINTS of the samples, evenly spread over them."""
    return list(samples[:: -(-len(samples) // SERIES_POINTS)])
