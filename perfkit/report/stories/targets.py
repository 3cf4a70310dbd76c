"""The plan's targets for the optimised cluster, filled in with what this machine measured.

They were set for a platform that never ran, and bare ZeroMQ beats them; so they are quoted and
judged like every other claim, and the bare limit beside them is what says how much is left.
"""

from __future__ import annotations

from perfkit.bench.counts.headers import HOPS, codec_us
from perfkit.bench.experiments.ablation import FIGURE, Study
from perfkit.bench.workloads.load import echo_work
from perfkit.evidence.results import Result
from perfkit.evidence.stats import Interval, bootstrap_interval
from perfkit.optimized.specs import OPTIMIZED
from perfkit.profile.latency import STAGES, Waterfall
from perfkit.report.stories.baseline import Finding, Findings
from perfkit.report.stories.views import CONFIDENCE

TITLE = "The plan's targets for the optimised cluster, beside this machine's"
CODEC_ROUNDS = 8


def about_targets(
    traced: Waterfall, latency: Result, throughput: Study, codec_ms: Interval
) -> Findings:
    """The plan's table of targets: assignment, serialization, round trip and throughput.

    `traced` and `latency` are of the optimised cluster, `codec_ms` is what `serialization_ms` gave.
    """
    tail = [latency.counters.get(f"latency_ms_p99{end}") for end in ("", "_low", "_high")]
    in_flight = "one task in flight, from submit to result"
    blocks = list(throughput.figures[OPTIMIZED.name][FIGURE])
    rows = (
        Finding(
            "Assignment",
            "< 2 ms",
            2.0,
            "ms",
            "lower",
            assignment_ms(traced),
            "median from a task's arrival at the coordinator to its worker, the wire included",
        ),
        Finding(
            "Serialization",
            "< 0.5 ms",
            0.5,
            "ms",
            "lower",
            codec_ms,
            f"encode and decode of one task of 200 B on all {HOPS} hops, as a map packs them",
        ),
        Finding(
            "Round trip",
            "< 5 ms",
            5.0,
            "ms",
            "lower",
            Interval(latency.value, latency.low, latency.high, CONFIDENCE, ""),
            f"median, {in_flight}",
        ),
        Finding(
            "Round trip, slowest hundredth",
            "< 5 ms",
            5.0,
            "ms",
            "lower",
            Interval(tail[0], tail[1], tail[2], CONFIDENCE, ""),
            f"p99, {in_flight}",
        ),
        Finding(
            "Task throughput, optimised",
            "> 500 tasks/s",
            500.0,
            "tasks/s",
            "higher",
            bootstrap_interval(blocks, seed=throughput.seed),
            "a map of 200 B echoes on fresh processes, every result checked",
        ),
    )
    return Findings(rows, TITLE)


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
