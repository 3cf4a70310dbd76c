"""What the benchmark notebook shows of each experiment: its picture, and its goals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from perfkit.bench.experiments.catalogue import EXPERIMENTS, figure_of, judged
from perfkit.bench.experiments.peers import Amount, PeerTable
from perfkit.bench.experiments.setting import Profile, is_full, known_profile
from perfkit.bench.goals.serving import PROFILES as SERVING_PROFILES
from perfkit.bench.goals.serving_runs import BARE, ServingSizes
from perfkit.bench.goals.table import OPTIMIZED as ARM_OPTIMIZED
from perfkit.bench.goals.table import GoalTable
from perfkit.evidence.results import Result
from perfkit.evidence.samples import bootstrap_interval
from perfkit.evidence.text import estimate, quantity
from perfkit.optimized.specs import OPTIMIZED
from perfkit.report.engine import headlines
from perfkit.report.figures.charts import Bar, Figure, bars_with_intervals
from perfkit.report.figures.curves import Axis, Column, Curve, curves
from perfkit.report.figures.panels import Panel, panels
from perfkit.report.stories.views import Table, Words

#: The ticks of a percentile axis, which gives each nine the same room.
NINES = (0.0, 90.0, 99.0, 99.9, 99.99)
QUANTILES = (("p50_ms", "p50"), ("p95_ms", "p95"), ("p99_ms", "p99"))
PEER_TASKS: Mapping[Profile, int] = {"quick": 100, "full": 2_000}
#: Each fault of the failover experiment, in words.
FAULTS = {
    "sigkill": "worker killed",
    "sigstop": "worker stopped",
    "network_gone": "network gone",
    "coordinator_killed": "coordinator killed",
}


def goal_table(results: Iterable[Result]) -> Table:
    """Every goal of the experiments, with its figure and its verdict."""
    rows = [
        (
            result.experiment,
            found.goal.what,
            f"{'≥' if found.goal.better == 'higher' else '≤'} "
            f"{quantity(found.goal.goal, found.goal.unit)}",
            estimate(found.figure, found.goal.unit),
            str(found.verdict),
        )
        for result in results
        for found in judged(result)
    ]
    header = ("experiment", "figure", "goal", "measured", "verdict")
    return Table("Goals of the experiments (95 % intervals)", tuple(rows), header)


def record(out_dir: str | Path, results: Iterable[Result]) -> None:
    """Save the goals of the experiments as headlines of the run."""
    for result in results:
        for goal, figure, verdict in judged(result):
            sign = "≥" if goal.better == "higher" else "≤"
            headlines.record(
                out_dir,
                f"Goal: {result.experiment}: {goal.what}",
                figure.value,
                goal.unit,
                figure.low,
                figure.high,
                f"{sign} {quantity(goal.goal, goal.unit)}",
                verdict,
            )


def percentile_plot(load: Result, process: str = "poisson") -> Figure:
    """Latency over percentile, one curve for each load, each nine with the same room."""
    axis: list[float | None] = [
        -math.log10(1 - (q or 0.0) / 100) for q in load.series["percentile"]
    ]
    shares = [key.rpartition("_")[2] for key in _of(load, f"quantile_ms_{process}_")]
    rows = [
        Curve(f"{share} % of capacity", axis, load.series[f"quantile_ms_{process}_{share}"])
        for share in shares
    ]
    ticks = {-math.log10(1 - q / 100): f"p{q:g}" if q else "fastest" for q in NINES}
    return curves(
        rows,
        Axis("percentile", ticks=ticks),
        Axis("latency", "ms", is_logarithmic=True),
        title=f"latency by percentile, {process} arrivals",
        caption="Latency counts from the intended send time. A curve ends where samples end.",
    )


def load_curve(load: Result) -> Figure:
    """Percentiles of the latency over the load, for both processes of arrivals, with the knee."""
    rows = [
        *(_load_curve(load, "poisson", column, name) for column, name in QUANTILES),
        _load_curve(load, "bursty", "p95_ms", "p95"),
    ]
    return curves(
        rows,
        Axis("offered load", "% of the capacity"),
        Axis("latency", "ms", is_logarithmic=True),
        marks={"knee": load.counters.get("knee_percent_poisson")},
        title="latency over load",
        caption="Open loop: tasks are sent when they are due, whether or not others are done.",
    )


def _load_curve(load: Result, process: str, column: str, name: str) -> Curve:
    is_bursty = float(process == "bursty")
    places = [at for at, bursty in enumerate(load.series["bursty"]) if bursty == is_bursty]
    value, low, high = (_at(load.series[f"{column}{end}"], places) for end in ("", "_low", "_high"))
    share = [100 * (value or 0.0) for value in _at(load.series["share"], places)]
    return Curve(f"{name}, {process}", share, value, low, high)


def overload(stress: Result) -> Figure:
    """Done and refused tasks, the queue, and the coordinator's memory while too much is offered."""
    at_s, series = stress.series["at_s"], stress.series
    rows = [
        Panel("tasks", "per s", {
            "done": _points(at_s, series["done_per_s"]),
            "refused": _points(at_s, series["refused_per_s"]),
        }),
        _depths(stress),
        Panel("coordinator", "MB", {
            "RSS": _points(series["rss_at_s"], [_mb(rss) for rss in series["rss_bytes"]]),
        }),
    ]  # fmt: skip
    times = quantity(stress.parameters["offered_times_capacity"], "×")
    return panels(rows, title=f"offered {times} the capacity")


def overhead_curve(overhead: Result) -> Figure:
    """Bytes beside the payload, per task: one task at a time, and in a map."""
    series = overhead.series
    sizes = [max(1.0, size or 0.0) for size in series["payload_bytes"]]
    rows = [
        Curve("one at a time", sizes, series["overhead_bytes_per_task"]),
        Curve("in a map", sizes, series["mapped_overhead_bytes_per_task"]),
    ]
    return curves(
        rows,
        Axis("payload", "B", is_logarithmic=True),
        Axis("beside the payload", "B", is_logarithmic=True),
        title="bytes that a task adds to its payload",
        caption="Both directions, counted at the coordinator; an empty payload is drawn at 1 B.",
    )


def scaling_curve(scaling: Result) -> Figure:
    """Efficiency over the number of workers: ideal, measured, without a cluster, and simulated."""
    series, rows = scaling.series, []
    simulated = series["simulated_workers"]
    for service_s in scaling.parameters["services_s"]:
        label = f"{service_s * 1e3:g}ms"
        workers, name = series["workers"], f"tasks of {service_s * 1e3:g} ms"
        rows += [
            Curve(
                name, workers, series[f"efficiency_{label}"],
                series[f"efficiency_{label}_low"], series[f"efficiency_{label}_high"],
            ),
            Curve(f"{name}, simulated", simulated, series[f"simulated_efficiency_{label}"],
                  is_dashed=True),
        ]  # fmt: skip
    rows.append(Curve("ideal", simulated, [1.0] * len(simulated), is_dashed=True))
    return curves(
        rows,
        Axis("workers", is_logarithmic=True),
        Axis("rate, of N times one worker's best"),
        title="efficiency over the number of workers",
        caption="Solid: measured. Dashed: simulated, beyond what this machine can hold, or ideal.",
    )


def scaling_table(scaling: Result) -> Table:
    """What the simulation says saturates first, by number of workers and service time."""
    rows = tuple(scaling.parameters["saturates_first"].items())
    return Table("What saturates first (simulated)", rows, ("point", "first to saturate"))


def policy_bars(balancing: Result) -> Figure:
    """The makespan of each policy over its lower bound, on the real cluster and simulated."""
    bars = []
    for policy in balancing.parameters["policies"]:
        name = f"makespan_of_bound_{policy}"
        bars += [
            Bar.of(policy, figure_of(balancing, name)),
            Bar.of(f"{policy}, simulated", figure_of(balancing, f"simulated_{name}")),
        ]
    return bars_with_intervals(
        bars,
        "× the bound",
        title="makespan on uneven workers",
        caption="Workers of speed 1, 2 and 5; one task in ten takes ten times as long.",
    )


def traffic(network: Result) -> Figure:
    """Messages, bytes and queue depths over time, and when the sockets told of something."""
    at_s, series = network.series["at_s"], network.series
    directions = {"in": "in", "out": "out"}
    rows = [
        Panel("messages", "per s", {
            name: _points(at_s, series[f"messages_{way}_per_s"])
            for way, name in directions.items()
        }),
        Panel("bytes", "MB/s", {
            name: _points(at_s, [_mb(size) for size in series[f"bytes_{way}_per_s"]])
            for way, name in directions.items()
        }),
        _depths(network),
    ]  # fmt: skip
    events = sorted(
        (name.removeprefix("zmq_"), count)
        for name, count in network.counters.items()
        if name.startswith("zmq_")
    )
    told = ", ".join(f"{name.replace('_', ' ')} {quantity(count)}" for name, count in events)
    return panels(
        rows,
        title="traffic at the coordinator",
        caption=f"Events of the client's socket: {told or 'none'}. The coordinator was replaced.",
    )


def failover_timeline(failover: Result) -> Figure:
    """Tasks done over the time around each fault; a step that is missing is an outage."""
    rows = []
    for fault, label in FAULTS.items():
        done = sorted(at for at in failover.series.get(f"{fault}_done_s", []) if at is not None)
        rows.append(Curve(label, done, [float(number) for number in range(1, len(done) + 1)]))
    return curves(
        rows,
        Axis("time from the fault", "s"),
        Axis("tasks done"),
        marks={"fault": 0.0},
        title="tasks done around a fault",
        caption="One repeat of each fault under a steady flow. A flat stretch is the outage.",
    )


def failover_table(failover: Result) -> Table:
    """How long each fault takes to be noticed, and how late the last affected task is."""
    counters = failover.counters
    rows = []
    for fault, label in FAULTS.items():
        texts = [label, f"{len(failover.series.get(f'{fault}_delay_ms', []))}"]
        for name in ("detection_ms", "delay_ms"):
            p50 = quantity(counters.get(f"{fault}_{name}_p50"), "ms")
            worst = [at for at in failover.series.get(f"{fault}_{name}", []) if at is not None]
            texts.append(f"{p50} (at most {quantity(max(worst, default=None), 'ms')})")
        rows.append(tuple(texts))
    header = ("fault", "repeats", "noticed after, median", "last task late by, median")
    notes = (
        f"A silent worker is given up after {failover.parameters['liveness_s']:g} s "
        "(limits.liveness_s); a killed one is reported by its supervisor.",
    )
    return Table("What each loss costs", tuple(rows), header, notes)


def sizes(profile: Profile, scale: float) -> dict[str, int]:
    """How many tasks each experiment gets: its own number times `scale`."""
    return {
        name: max(1, round(scale * experiment.tasks[known_profile(profile)]))
        for name, experiment in EXPERIMENTS.items()
    }


def serving_sizes(profile: Profile) -> ServingSizes:
    """How much of serving is measured: `quick` has one model and no hostile requests."""
    if is_full(profile):
        return SERVING_PROFILES["full"]
    return ServingSizes(
        rounds=4, load_s=0.25, open_s=0.0, hostile=0, models=("digits",), connections=(8, 32)
    )


def serving_bars(table: GoalTable, figure: str = "digits_32") -> list[Bar]:
    """Requests per second of every server at one concurrency, the best last."""
    arms = table.of(f"{figure}_vs_{BARE}").samples
    found = {name: bootstrap_interval(rates) for name, rates in arms.items()}
    ordered = sorted(found, key=lambda name: found[name].value or 0.0)
    return [Bar.of("API" if name == ARM_OPTIMIZED else name, found[name]) for name in ordered]


def peer_amounts(profile: Profile, scale: float) -> tuple[Amount, ...]:
    """The experiments that every engine runs; the slowest does hundreds of tasks a second."""
    few = max(20, round(scale * PEER_TASKS[known_profile(profile)]))
    return Amount("burst", few), Amount("latency", few)


def peer_bars(table: PeerTable, experiment: str) -> list[Bar]:
    """One experiment on every engine; an engine that could not run is a gap."""
    unknown = bootstrap_interval([])
    return [Bar.of(row.name, row.results.get(experiment, unknown)) for row in table.rows]


def peer_words(table: PeerTable) -> Words:
    """Each peer's times as multiples of the optimised cluster's; a missing peer and its reason."""
    ours = next((row for row in table.rows if row.name.endswith(OPTIMIZED.name)), None)
    told = []
    for row in table.rows:
        if row.reason:
            told.append(f"{row.name} is left out: {row.reason}.")
        if ours is None or row is ours:
            continue
        for experiment in ("burst", "latency"):
            theirs, own = row.results.get(experiment), ours.results.get(experiment)
            if theirs and own and theirs.value and own.value:
                told.append(
                    f"{row.name} takes {quantity(theirs.value, theirs.unit)} for the {experiment}, "
                    f"{quantity(theirs.value / own.value, '×')} {ours.name}."
                )
    return Words(tuple(told))


def _depths(result: Result) -> Panel:
    """The tasks that wait and those with workers, over time."""
    series = result.series
    names = {"queued": "queued_tasks", "assigned": "assigned_tasks"}
    return Panel(
        "depth",
        "tasks",
        {label: _points(series["at_s"], series[name]) for label, name in names.items()},
    )


def _of(result: Result, prefix: str) -> list[str]:
    return [key for key in result.series if key.startswith(prefix)]


def _at(column: Column, places: Sequence[int]) -> Column:
    return [column[place] for place in places]


def _points(at_s: Column, column: Column) -> list[tuple[float, float | None]]:
    return [(at or 0.0, value) for at, value in zip(at_s, column, strict=False)]


def _mb(size_bytes: float | None) -> float | None:
    return None if size_bytes is None else size_bytes / 1e6
