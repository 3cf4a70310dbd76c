"""Tables and rows for pictures: each says what its result says, and no more."""

from pathlib import Path

from perfkit.bench.experiments.roles import RoleTable, RoleUse
from perfkit.evidence.results import load
from perfkit.profile.latency import STAGES, waterfall
from perfkit.report.stories import views
from tests.perfkit.report.stories.made_up import interval, result


def test_rates_are_placed_where_their_blocks_ended() -> None:
    assert views.rates(result("throughput")) == [(1.0, 10.0), (3.0, 5.0)]


def test_counts_are_a_row_for_each_experiment_with_gaps() -> None:
    counted = {"messages_in_per_task": 2.0, "messages_out_per_task": 3.0, "bytes_in_per_task": None}
    table = views.counters([result("throughput", counters=counted), result("burst")])
    assert table.rows == (
        ("throughput", "2", "3", "unknown", "unknown"),
        ("burst", "unknown", "unknown", "unknown", "unknown"),
    )


def test_percentiles_come_with_their_intervals() -> None:
    counters = {"latency_ms_p95": 20.0, "latency_ms_p95_low": 15.0, "latency_ms_p95_high": None}
    shown = views.percentiles(result("latency", unit="ms", counters=counters))
    assert shown.rows == (
        ("p50", "10 ms (9 to 11)"),
        ("p95", "20 ms (15 or more)"),
        ("p99", "unknown"),
    )


def test_a_model_is_shown_with_what_ran_and_how_right_it_was() -> None:
    parameters = {"model": "digits", "provider": "CPUExecutionProvider", "distinct_inputs": 360}
    counters = {"accuracy": 0.98, "accuracy_low": 0.96, "accuracy_high": 0.99}
    facts = views.model_facts(
        result("throughput", unit="items/s", parameters=parameters, counters=counters),
        result("latency", unit="ms"),
    )
    assert dict(facts.rows) == {
        "model": "digits",
        "ran on": "CPUExecutionProvider",
        "accuracy": "0.98 (0.96 to 0.99), on 360 inputs",
        "items per second": "10 items/s (9 to 11)",
        "latency of one item, p50": "10 ms (9 to 11)",
        "latency of one item, p95": "unknown",
    }
    assert facts._repr_html_().endswith(
        "<p>Every answer was compared with this process&#x27;s own.</p>"
    )


def test_experiments_and_the_machine_are_tables() -> None:
    shown = views.experiments([result("burst", unit="ms")])
    assert shown.rows == (("burst", "10 ms (9 to 11), from 2 samples"),)
    machine = {label for label, _ in views.machine().rows}
    assert {"Processor", "Cores", "Memory", "Python"} <= machine


def test_memory_is_in_megabytes_with_each_role_once_and_gaps_last() -> None:
    plain = (
        RoleUse("coordinator", 1, interval(200.0, 199.0), interval(30e6)),
        RoleUse("API", 0),
        RoleUse("worker", 2, interval(300.0), interval(20e6)),
    )
    served = (
        RoleUse("coordinator", 1, rss_bytes=interval(1e6)),
        RoleUse("worker with digits", 2, rss_bytes=interval(80e6)),
    )
    first = RoleTable(plain, "echo", 1, result("roles"))
    bars = views.memory_bars(first, RoleTable(served, "digits", 1, result("roles")))
    assert [(bar.label, bar.value, bar.claim) for bar in bars] == [
        ("coordinator", 30.0, 100.0),
        ("worker", 20.0, 500.0),
        ("worker with digits", 80.0, None),
        ("API", None, 200.0),
    ]
    assert [(bar.label, bar.value, bar.low) for bar in views.cpu_bars(first)] == [
        ("coordinator", 200.0, 199.0),
        ("API", None, None),
        ("worker", 300.0, None),
    ]


def test_stages_are_the_medians_of_the_waterfall() -> None:
    stamps = [(n, n + 0.25, n + 0.5, n + 1.0, n + 2.0, n + 2.5, n + 3.0) for n in range(5)]
    stages = {stage.label: stage.value for stage in views.stages(waterfall(stamps))}
    assert [*stages] == [*STAGES]
    assert [*stages.values()] == [250.0, 250.0, 500.0, 1000.0, 500.0, 500.0]


def test_results_are_saved_under_their_names(tmp_path: Path) -> None:
    names = views.save_results(tmp_path / "results", {"latency": result("latency")})
    assert names == ["latency.json"]
    assert load(tmp_path / "results" / "latency.json").experiment == "latency"
