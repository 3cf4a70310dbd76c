"""Experiments in a closed loop: the next task waits for a result, or for room.

Blocks of tasks are independent enough for a bootstrap; a percentile of single latencies is bounded
by order statistics.
"""

from __future__ import annotations

import time

from cluster.vocabulary.printable import count_of
from perfkit.bench.experiments.setting import (
    Experiment,
    Measurement,
    Setting,
    percentiles,
    thinned,
)
from perfkit.bench.workloads.load import (
    IN_FLIGHT,
    WrongResult,
    burst_ms,
    echo_work,
    map_s,
    one_by_one_ms,
    submit_s,
)
from perfkit.engines.zmq import ZmqEngine
from perfkit.evidence.samples import bootstrap_interval, percentile_interval
from perfkit.evidence.text import quantity
from perfkit.evidence.verdicts import FigureGoal

#: Blocks of a throughput, whose figure is their median.
BLOCKS = 10
BURSTS = 7


def throughput(setting: Setting) -> Measurement:
    """Tasks per second of a map that keeps every worker busy, in blocks after a warm-up.

    A map is the engine's own way to do many tasks: a cluster tracks each task, the others only
    columns of them (see `perfkit.engines.base`). A burst submits the same work task by task.
    """
    work = setting.work()
    rates = []
    with setting.fresh() as engine:
        setting.say(f"warm-up, {count_of(len(work.warm_up), 'task')}")
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


def submission(setting: Setting) -> Measurement:
    """Tasks per second that one client submits one by one, and the time of each call of submit.

    At most IN_FLIGHT futures are open, so the rate is one that the cluster keeps up with.
    """
    work = setting.work()
    rates = []
    calls_s: list[float] = []
    with setting.fresh() as engine:
        setting.say(f"warm-up, {count_of(len(work.warm_up), 'task')}")
        submit_s(engine, work.warm_up)
        for number, block in enumerate(work.blocks(BLOCKS), 1):
            rates.append(len(block) / submit_s(engine, block, calls_s))
            setting.say(f"block {number}, {quantity(rates[-1], 'tasks/s')}")
    calls_ms = [call_s * 1e3 for call_s in calls_s]
    return Measurement(
        rates,
        bootstrap_interval(rates, seed=setting.seed),
        counters={**percentiles("submit_ms", calls_ms, 50, 95, 99), **work.figures},
        series={"submit_ms": thinned(calls_ms)},
        parameters={**work.facts, "blocks": len(rates), "in_flight": IN_FLIGHT},
    )


def latency(setting: Setting) -> Measurement:
    """Milliseconds from submit to result with one task in flight."""
    work = setting.work()
    with setting.fresh() as engine:
        setting.say(f"warm-up, {count_of(len(work.warm_up), 'task')}")
        one_by_one_ms(engine, work.warm_up)
        took_ms: list[float] = []
        for number, block in enumerate(work.blocks(BLOCKS), 1):
            took_ms += one_by_one_ms(engine, block)
            setting.say(f"part {number}, {len(took_ms):,} of {count_of(len(work), 'task')}")
    counters = setting.count(work, one_by_one_ms)
    return Measurement(
        took_ms,
        percentile_interval(took_ms, 50),
        counters={**percentiles("latency_ms", took_ms, 95, 99), **counters, **work.figures},
        parameters={**work.facts, "in_flight": 1, "warm_up_tasks": len(work.warm_up)},
    )


def burst(setting: Setting) -> Measurement:
    """Milliseconds until the last result of a burst, all of its tasks submitted at once."""
    work = setting.work()
    last_ms: list[float] = []
    every_ms: list[float] = []
    with setting.fresh() as engine:
        setting.say(f"warm-up, {count_of(len(work), 'task')}")
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
        counters={**percentiles("task_ms", every_ms, 50, 95, 99), **counters, **work.figures},
        series={"task_ms": thinned(every_ms)},
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
                raise WrongResult(
                    f"a cluster of {count_of(len(work), 'worker')} said it was ready with {n}"
                )
        setting.say(f"cluster {number} of {setting.tasks}, {quantity(took_s[-1], 's')}")
    return Measurement(took_s, bootstrap_interval(took_s, seed=setting.seed))


EXPERIMENTS = (
    Experiment(
        "submission", "tasks per second submitted one by one; time of each submit()", "tasks/s",
        {"quick": 5_000, "full": 100_000}, 1_000_000, "higher", submission,
        goals=tuple(
            FigureGoal(f"submit_ms_p{q}", f"p{q} of submit()", "ms", "lower", goal_ms)
            for q, goal_ms in ((50, 2.0), (95, 5.0), (99, 10.0))
        ),
    ),
    Experiment(
        "latency", "time of one task, one in flight: p50, p95, p99", "ms",
        {"quick": 2_000, "full": 10_000}, 200_000, "lower", latency,
    ),
    Experiment(
        "throughput", "tasks per second, every worker busy", "tasks/s",
        {"quick": 20_000, "full": 100_000}, 1_000_000, "higher", throughput,
    ),
    Experiment(
        "burst", "time until the last of many tasks submitted at once", "ms",
        {"quick": 1_000, "full": 5_000}, 100_000, "lower", burst,
    ),
    Experiment(
        "startup", "time until every worker is ready, TASKS fresh clusters", "s",
        {"quick": 5, "full": 25}, 100, "lower", startup,
    ),
)  # fmt: skip
