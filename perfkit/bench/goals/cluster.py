"""The goals for the cluster: throughput, latency, and what choices, headers and payloads cost."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from cluster.spec import ClusterSpec
from cluster.vocabulary.printable import count_of
from perfkit.bench.goals import cluster_runs as runs
from perfkit.bench.goals.cluster_runs import ClusterSizes
from perfkit.bench.goals.table import BASELINE, Contest, Goal, GoalTable, at_most, chosen, make_row
from perfkit.bench.workloads.rounds import Say, prefixed
from perfkit.evidence.environment import fingerprint
from perfkit.optimized.specs import OPTIMIZED

#: Quick is for a look, about a minute on two cores; full is for a claim.
PROFILES: Mapping[str, ClusterSizes] = {
    "quick": ClusterSizes(
        rounds=8, map_tasks=200_000, baseline_tasks=4_000, submit_tasks=20_000, latency_tasks=1_000,
        mixed_rounds=6, open_tasks=500, burst_tasks=2_000, big_payloads=32, choices=200,
        codec_tasks=4_000,
    ),
    "full": ClusterSizes(
        rounds=16, map_tasks=400_000, baseline_tasks=10_000, submit_tasks=50_000,
        latency_tasks=4_000, mixed_rounds=12, open_tasks=2_000, burst_tasks=8_000, big_payloads=48,
        choices=1_000, codec_tasks=20_000,
    ),
}  # fmt: skip


GOALS: Sequence[Goal] = (
    Goal(
        "map_throughput", "map", "tasks/s", "higher", "value", 700_000,
        "≥ 700,000 tasks/s", runs.PACKED, note="Client.map echoing 200 B, 2 workers",
    ),
    Goal(
        "map_vs_packed", "map", "tasks/s", "higher", "ratio", 1.5,
        "≥ 1.5 × the packed broker", runs.PACKED, note="Client.map echoing 200 B, 2 workers",
    ),
    Goal(
        "submit_throughput", "submit", "tasks/s", "higher", "value", 50_000,
        "≥ 50,000 tasks/s", runs.FORWARDER, note="Client.submit, 1,000 futures in flight",
    ),
    *(
        goal
        for figure, where in (("latency", "pinned"), ("unpinned", "wherever the system puts it"))
        for goal in (
            Goal(
                f"{figure}_p50", f"{figure}_p50", "µs", "lower", "ratio", 3.0,
                "≤ 3 × the bare round trip", runs.ROUND_TRIP, note=f"a lone task, {where}",
            ),
            Goal(
                f"{figure}_p50_vs_messages", f"{figure}_p50", "µs", "lower", "ratio", 2.0,
                "≤ 2 × the same messages without a scheduler", runs.MESSAGES,
                note=f"a lone task, {where}",
            ),
            Goal(
                f"{figure}_p50_vs_baseline", f"{figure}_p50", "µs", "lower", "ratio", 1.0,
                "lower than the baseline's", runs.ROUND_TRIP, BASELINE,
                note=f"a lone task, {where}",
            ),
            Goal(
                f"{figure}_p99_vs_baseline", f"{figure}_p99", "µs", "lower", "ratio", 1.0,
                "lower than the baseline's", runs.ROUND_TRIP, BASELINE,
                note=f"a lone task, {where}",
            ),
        )
    ),
    at_most(
        "coordinator_cpu_per_task", "cpu", "µs", 1.5,
        "processor time of the coordinator during the map", runs.PACKED,
    ),
    Goal(
        "mixed_p99", "mixed_p99", "ms", "lower", "value", 5.0,
        "≤ 5 ms", pooled="mixed_ms",
        note="no-ops among 1 % tasks of 100 ms, open loop, 4 workers, at least three of them free",
    ),
    Goal(
        # Graham's bound holds if no worker idles while work waits. A tenth more covers the quick
        # tasks, waking from 100 ms of sleep and a recall or two of 5 ms; one slow task that traps
        # another costs more.
        "mixed_idle", "mixed_burst", "s", "lower", "ratio", 1.1,
        "≤ 1.1 × Graham's bound", runs.CONSERVING,
        note="map of the same mixture: no worker idle while work waits",
    ),
    *(
        at_most(
            f"selection_{workers}", f"selection_{workers}", "µs", 1,
            f"a choice with requirements among {count_of(workers, 'worker')}, the clock's cost "
            "included",
            runs.QUEUE,
        )
        for workers in runs.ROSTERS
    ),
    Goal(
        # A scan would take 100 times as long and a tree three times; caches explain half more.
        "selection_flat", "selection_flat", "µs", "lower", "ratio", 1.5,
        "≤ 1.5 × that among 10", against=runs.FEW_WORKERS,
        note="1,000 workers against 10",
    ),
    at_most(
        "header_codec", "codec", "µs", 0.5, "encode and decode, per task of 200 B and hop",
        runs.PACKING,
    ),
    Goal(
        "one_mib_payloads", "one_mib", "MB/s", "higher", "ratio", 0.7,
        "≥ 0.7 × raw send/recv", runs.RAW,
        note="an echo's 1 MiB crosses four sockets and counts four times, raw send/recv one",
    ),
    Goal(
        "one_mib_same_path", "one_mib", "MB/s", "higher", "ratio", None,
        "for comparison", runs.UNCOPIED,
        note="the same four hops through a bare forwarder that copies nothing",
    ),
    Goal(
        "optimized_vs_baseline", "map", "tasks/s", "higher", "ratio", 30.0,
        "≥ 30 × the baseline", against=BASELINE, note="Client.map echoing 200 B, 2 workers",
    ),
)  # fmt: skip


def measure_cluster(
    profile: str | ClusterSizes = "quick",
    *,
    optimized: ClusterSpec = OPTIMIZED,
    seed: int = 0,
    progress: Say | None = None,
) -> GoalTable:
    """Measure every goal on this machine: clusters, bare brokers and their clients in turns.

    Raises ExperimentError for an unknown profile, WrongResult if any result was wrong, and what the
    cluster raises.
    """
    name, sizes = chosen(profile, PROFILES)
    environment, began_s = fingerprint(), time.perf_counter()
    contest = Contest(optimized, sizes, seed, prefixed(progress, "limits"))
    samples = runs.throughput(contest)
    latencies, layout = runs.latency(contest)
    samples |= latencies | runs.mixed(contest) | runs.payloads(contest)
    samples |= runs.choosing(contest) | runs.headers(contest)
    return GoalTable(
        tuple(make_row(goal, samples, seed) for goal in GOALS),
        environment,
        name,
        seed,
        layout.name,
        time.perf_counter() - began_s,
    )
