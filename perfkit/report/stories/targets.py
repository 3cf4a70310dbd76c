"""The plan's targets for the optimised cluster, beside this machine's figures.

They were set for a platform that never ran, and bare ZeroMQ beats them; so they are quoted and
judged like every other claim. The bare limit beside them says how much is left to gain.
"""

from __future__ import annotations

from perfkit.bench.counts.headers import HOPS, codec_us
from perfkit.bench.experiments.ablation import FIGURE, Study
from perfkit.bench.workloads.load import echo_work
from perfkit.evidence.results import Result
from perfkit.evidence.samples import Interval, bootstrap_interval
from perfkit.evidence.text import quantity
from perfkit.optimized.specs import OPTIMIZED
from perfkit.profile.latency import STAGES, Waterfall
from perfkit.report.stories.baseline import Finding, Findings
from perfkit.report.stories.views import interval_of, tail

TITLE = "The plan's targets for the optimised cluster, beside this machine's"
CODEC_ROUNDS = 8


def about_targets(
    traced: Waterfall, latency: Result, throughput: Study, codec_ms: Interval
) -> Findings:
    """The plan's table of targets: assignment, serialization, round trip and throughput.

    `traced` and `latency` are of the optimised cluster, `codec_ms` is from `serialization_ms`.
    """
    blocks = list(throughput.figures[OPTIMIZED.name][FIGURE])
    in_flight = "one task in flight, from submit to result"
    times = (
        (
            "Assignment",
            2.0,
            assignment_ms(traced),
            "median from a task's arrival at the coordinator to its worker, the wire included",
        ),
        (
            "Serialization",
            0.5,
            codec_ms,
            f"encode and decode of one task of 200 B on all {HOPS} hops, as a map packs them",
        ),
        ("Round trip", 5.0, interval_of(latency), f"median, {in_flight}"),
        ("Round trip, slowest hundredth", 5.0, tail(latency, "p99"), f"p99, {in_flight}"),
    )
    rows = [
        Finding(what, f"< {quantity(target, 'ms')}", target, "ms", "lower", figure, note)
        for what, target, figure, note in times
    ]
    tasks_per_s = bootstrap_interval(blocks, seed=throughput.seed)
    note = "a map of 200 B echoes on fresh processes, every result checked"
    what = "Task throughput, optimised"
    rows.append(Finding(what, "> 500 tasks/s", 500.0, "tasks/s", "higher", tasks_per_s, note))
    return Findings(tuple(rows), TITLE)


def assignment_ms(traced: Waterfall) -> Interval:
    """Milliseconds from arrival to the worker: two neighbouring stages of each trace together."""
    first, last = STAGES.index("queue wait"), STAGES.index("assign hop")
    return bootstrap_interval([sum(row[first : last + 1]) / 1e6 for row in traced.intervals_ns])


def serialization_ms(tasks: int, seed: int) -> Interval:
    """Milliseconds that OPTIMIZED's codec takes for a task on all of its hops, checked."""
    work = echo_work(tasks, seed)
    return bootstrap_interval(
        [codec_us(OPTIMIZED, work) * HOPS / 1e3 for _ in range(CODEC_ROUNDS)], seed=seed
    )
