"""The benchmark notebook's pictures and goals, from made-up results of each experiment."""

from pathlib import Path

from perfkit.bench.experiments.catalogue import EXPERIMENTS
from perfkit.bench.experiments.peers import PeerRow, PeerTable
from perfkit.bench.goals import serving
from perfkit.bench.goals.table import GoalTable, make_row
from perfkit.evidence.verdicts import Verdict
from perfkit.report.engine import headlines
from perfkit.report.stories import benchmarks
from tests.perfkit.machine import HERE
from tests.perfkit.report.stories.made_up import result

CURVE = {
    "share": [0.2, 0.5, 0.2, 0.5],
    "bursty": [0.0, 0.0, 1.0, 1.0],
    **{
        f"{name}{end}": [1.0, None, 3.0, 4.0]
        for name in ("p50_ms", "p95_ms", "p99_ms")
        for end in ("", "_low", "_high")
    },
    "percentile": [0.0, 90.0, 99.0],
    "quantile_ms_poisson_20": [1.0, 2.0, None],
    "quantile_ms_poisson_50": [1.0, 4.0, 9.0],
}
LOAD = result(
    "load", 7.0, 6.0, 8.0, "ms", series=CURVE, counters={"knee_percent_poisson": 50},
    parameters={"processes": ["poisson", "bursty"]},
)  # fmt: skip
FAILOVER = result(
    "failover", 20.0, 10.0, 30.0, "ms",
    counters={"sigkill_delay_ms_p99": 600.0, "sigkill_delay_ms_p99_low": 550.0, "false_deaths": 0,
              "false_deaths_low": 0, "false_deaths_high": 0, "sigkill_detection_ms_p50": 11.0},
    series={"sigkill_done_s": [-0.1, 0.2, 0.1], "sigkill_detection_ms": [10.0, 12.0],
            "sigkill_delay_ms": [20.0, 30.0]},
    parameters={"liveness_s": 0.6},
)  # fmt: skip


def test_goals_are_judged_by_whole_intervals_in_the_table_and_as_headlines(tmp_path: Path) -> None:
    html = benchmarks.goal_table([LOAD, FAILOVER])._repr_html_()
    assert "7 ms (6 to 8)" in html
    assert "600 ms (550 or more)" in html
    benchmarks.record(tmp_path, [LOAD, FAILOVER])
    found = {
        one.title.partition(": ")[2].partition(": ")[2]: one.verdict
        for one in headlines.load(tmp_path)
    }
    assert found == {
        "p95 at half of the capacity": Verdict.MET,
        "p99 delay after a worker's SIGKILL": Verdict.MISSED,
        "peers taken for dead while every core was busy": Verdict.MET,
    }


def test_the_load_curve_has_each_percentile_its_gaps_and_the_knee() -> None:
    figure = benchmarks.load_curve(LOAD)
    assert "p95, poisson: 1 ms at 20 % of the capacity" in figure.alt
    assert "1 point unknown" in figure.alt
    assert "p95, bursty: 3 ms" in figure.alt
    assert figure.alt.endswith("knee: 50 % of the capacity.")


def test_a_percentile_plot_gives_each_nine_the_same_room_and_ends_with_the_samples() -> None:
    figure = benchmarks.percentile_plot(LOAD)
    assert "20 % of capacity: 1 ms at fastest to 2 ms at p90, 1 point unknown." in figure.alt
    assert "50 % of capacity: 1 ms at fastest to 9 ms at p99." in figure.alt


def test_a_failover_shows_each_fault_with_its_repeats_and_its_worst() -> None:
    assert "worker killed: 1 at -0.1 s to 3 at 0.2 s." in benchmarks.failover_timeline(FAILOVER).alt
    rows = benchmarks.failover_table(FAILOVER).rows
    assert rows[0] == ("worker killed", "2", "11 ms (at most 12 ms)", "unknown (at most 30 ms)")
    assert rows[1][:2] == ("worker stopped", "0")


def test_an_overload_shows_rates_depths_and_memory() -> None:
    stress = result(
        "stress", 700.0, 690.0, 710.0,
        series={"at_s": [0.0, 1.0], "done_per_s": [700.0, 710.0], "refused_per_s": [0.0, 1_400.0],
                "queued_tasks": [0.0, 1_000.0], "assigned_tasks": [0.0, 4.0],
                "rss_at_s": [0.0, 1.0], "rss_bytes": [30e6, 31e6]},
        parameters={"offered_times_capacity": 3.0},
    )  # fmt: skip
    figure = benchmarks.overload(stress)
    assert "offered 3 × the capacity" in figure.alt
    assert "refused: 0 to 1,400 per s." in figure.alt
    assert "queued: 0 to 1,000 tasks. assigned: 0 to 4 tasks." in figure.alt
    assert "RSS: 30 to 31 MB." in figure.alt


def test_scaling_tells_measured_from_simulated() -> None:
    series = {"workers": [1.0, 100.0], "simulated_workers": [1.0, 1_000.0]}
    for kind in ("", "simulated_"):
        for end in ("", "_low", "_high"):
            series[f"{kind}efficiency_5ms{end}"] = [1.0, 0.5]
    scaling = result(
        "scaling", 0.5, 0.4, 0.6, "", series=series,
        parameters={"services_s": [0.005], "saturates_first": {"1000 simulated workers": "tasks"}},
    )  # fmt: skip
    assert (
        "tasks of 5 ms, simulated: 1 at 1 to 0.5 at 1,000." in benchmarks.scaling_curve(scaling).alt
    )
    assert benchmarks.scaling_table(scaling).rows == (("1000 simulated workers", "tasks"),)


def test_a_policy_is_shown_as_measured_and_as_simulated() -> None:
    counters = {
        "makespan_of_bound_round-robin": 1.2,
        "simulated_makespan_of_bound_round-robin": 1.1,
    }
    balancing = result("balancing", counters=counters, parameters={"policies": ["round-robin"]})
    alt = benchmarks.policy_bars(balancing).alt
    assert "round-robin: 1.2 × the bound. round-robin, simulated: 1.1 × the bound." in alt


def test_traffic_names_what_the_sockets_told() -> None:
    columns = {
        f"{name}_{way}_per_s": [1.0, 2e6] for name in ("messages", "bytes") for way in ("in", "out")
    }
    network = result(
        "network",
        series={"at_s": [0.0, 1.0], "queued_tasks": [0.0, 5.0], "assigned_tasks": [0.0, 2.0],
                **columns},
        counters={"zmq_connect_retried": 3},
    )  # fmt: skip
    figure = benchmarks.traffic(network)
    assert "connect retried 3" in figure.caption
    assert "queued: 0 to 5 tasks. assigned: 0 to 2 tasks." in figure.alt


def test_overhead_is_drawn_for_one_task_and_for_a_map() -> None:
    overhead = result(
        "overhead",
        series={"payload_bytes": [0.0, 200.0], "overhead_bytes_per_task": [199.0, 211.0],
                "mapped_overhead_bytes_per_task": [12.0, 12.0]},
    )  # fmt: skip
    assert (
        "one at a time: 199 B at 1 B to 211 B at 200 B." in benchmarks.overhead_curve(overhead).alt
    )


def test_the_scale_changes_every_experiment_and_each_keeps_a_task() -> None:
    assert benchmarks.sizes("quick", 1.0) == {
        name: experiment.tasks["quick"] for name, experiment in EXPERIMENTS.items()
    }
    assert set(benchmarks.sizes("quick", 1e-9).values()) == {1}
    less, more = (benchmarks.peer_amounts(profile, 1.0) for profile in ("quick", "full"))
    assert [one.experiment for one in less] == ["burst", "latency"]
    assert all(few.tasks < many.tasks for few, many in zip(less, more, strict=True))


def test_peers_are_told_as_multiples_and_gaps_with_their_reason() -> None:
    ours, theirs = result("burst", 100.0, unit="ms"), result("burst", 150.0, unit="ms")
    table = PeerTable(
        (
            PeerRow("zmq optimized", {"burst": ours}),
            PeerRow("ray", {"burst": theirs}),
            PeerRow("dask", reason="not installed"),
        ),
        ("burst",),
    )
    ray, dask = benchmarks.peer_words(table).sentences
    assert ray == "ray takes 150 ms for the burst, 1.5 × zmq optimized."
    assert dask == "dask is left out: not installed."
    assert [bar.value for bar in benchmarks.peer_bars(table, "burst")] == [100.0, 150.0, None]


def test_the_servers_are_drawn_from_the_slowest_to_the_fastest() -> None:
    rates = {"optimized": [20.0, 21.0, 22.0], "litserve": [5.0, 6.0, 7.0], "bare": [50.0] * 3}
    row = make_row(
        next(goal for goal in serving.GOALS if goal.name == "digits_32_vs_bare"),
        {"digits_32": rates},
    )
    table = GoalTable((row,), HERE, "quick", 1, "", 1.0)
    bars = benchmarks.serving_bars(table)
    assert [(bar.label, bar.value) for bar in bars] == [
        ("litserve", 6.0), ("API", 21.0), ("bare", 50.0),
    ]  # fmt: skip
    assert benchmarks.serving_sizes("full") is serving.PROFILES["full"]
    assert benchmarks.serving_sizes("quick").hostile == 0
