"""Tables and rows for pictures: each says what its result says, and no more."""

from typing import Any

import pytest

from perfkit.bench.experiments.roles import RoleTable, RoleUse
from perfkit.evidence.environment import fingerprint
from perfkit.evidence.results import Result
from perfkit.evidence.stats import Interval
from perfkit.profile.cpu import CpuProfile
from perfkit.profile.latency import waterfall
from perfkit.report.stories import views

UNKNOWN = Interval(None, None, None, 0.95, "")


def result(experiment: str, value: float = 10.0, **facts: Any) -> Result:
    fields: dict[str, Any] = {
        "unit": "tasks/s",
        "samples": [10.0, 5.0],
        "tasks": 20,
        "low": 9.0,
        "high": 11.0,
        **facts,
    }
    return Result(
        experiment=experiment,
        spec="baseline",
        engine="zmq",
        workers=2,
        value=value,
        environment=fingerprint(),
        **fields,
    )


def figure(value: float) -> Interval:
    return Interval(value, value - 1, value + 1, 0.95, "")


def test_full_measures_more_of_everything_than_quick() -> None:
    quick, full = views.amounts("quick", 4_000), views.amounts("full", 4_000)
    assert quick.throughput == 4_000
    for name in ("throughput", "latency", "burst", "startups", "roles", "traced", "items"):
        assert getattr(full, name) == 5 * getattr(quick, name)


def test_the_smallest_run_still_has_enough_of_everything() -> None:
    least = views.amounts("quick", 20)
    assert least.latency >= 20
    assert least.single_items >= 10
    assert least.choices >= 100


def test_rates_are_placed_where_their_blocks_ended() -> None:
    assert views.rates(result("throughput")) == [(1.0, 10.0), (3.0, 5.0)]


def test_counts_are_a_row_for_each_experiment_with_gaps() -> None:
    counted = {"messages_in_per_task": 2.0, "messages_out_per_task": 3.0, "bytes_in_per_task": None}
    table = views.counters([result("throughput", counters=counted), result("burst")])
    assert table.rows == (
        ("throughput", (2.0, 3.0, None, None)),
        ("burst", (None, None, None, None)),
    )
    shown = table._repr_html_()
    assert "<td>throughput</td><td>2</td><td>3</td><td>unknown</td><td>unknown</td>" in shown


def test_percentiles_come_with_their_intervals() -> None:
    counters = {"latency_ms_p95": 20.0, "latency_ms_p95_low": 15.0, "latency_ms_p95_high": None}
    shown = views.percentiles(result("latency", unit="ms", counters=counters))
    assert shown.rows == (
        ("p50", "10 ms (9 to 11)"),
        ("p95", "20 ms (15 to unknown)"),
        ("p99", "unknown"),
    )
    assert "<th>p95</th><td>20 ms (15 to unknown)</td>" in shown._repr_html_()


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


def test_experiments_are_listed_with_their_figures_and_samples() -> None:
    shown = views.experiments([result("burst", unit="ms")])
    assert shown.rows == (("burst", "10 ms (9 to 11), from 2 samples"),)


def test_the_machine_is_described_without_naming_it() -> None:
    shown = dict(views.machine().rows)
    assert {"Processor", "Cores", "Memory", "Python"} <= shown.keys()


def test_memory_is_in_megabytes_with_each_role_once_and_gaps_last() -> None:
    plain = (
        RoleUse("coordinator", 1, figure(200.0), rss_bytes=Interval(30e6, 29e6, 31e6, 0.95, "")),
        RoleUse("API", 0),
        RoleUse("worker", 2, figure(300.0), rss_bytes=Interval(20e6, None, None, 0.95, "")),
    )
    served = (
        RoleUse("coordinator", 1, rss_bytes=Interval(1e6, 1e6, 1e6, 0.95, "")),
        RoleUse("worker with digits", 2, rss_bytes=Interval(80e6, 79e6, 81e6, 0.95, "")),
    )
    first = RoleTable(plain, "echo", 1, result("roles"))
    bars = views.memory_bars(first, RoleTable(served, "digits", 1, result("roles")))
    assert [(bar.label, bar.value, bar.claim) for bar in bars] == [
        ("coordinator", 30.0, 100.0),
        ("worker", 20.0, 500.0),
        ("worker with digits", 80.0, None),
        ("API", None, 200.0),
    ]
    cpu = views.cpu_bars(first)
    assert [(bar.label, bar.value, bar.low) for bar in cpu] == [
        ("coordinator", 200.0, 199.0),
        ("API", None, None),
        ("worker", 300.0, 299.0),
    ]


def test_stages_are_the_medians_of_the_waterfall() -> None:
    stamps = [(n, n + 0.25, n + 0.5, n + 1.0, n + 2.0, n + 2.5, n + 3.0) for n in range(5)]
    stages = views.stages(waterfall(stamps))
    assert [(stage.name, stage.value) for stage in stages] == [
        ("submit hop", 250.0),
        ("queue wait", 250.0),
        ("assign hop", 500.0),
        ("service", 1000.0),
        ("result hop", 500.0),
        ("deliver hop", 500.0),
    ]


def profile(*rows: tuple[str, str, float]) -> CpuProfile:
    table = {(file, 1, name): (4, 4, own_s, own_s, {}) for file, name, own_s in rows}
    return CpuProfile("coordinator", table)


RUNS = [
    profile(
        ("zmq/sugar/poll.py", "poll", 9.0 * speed),
        ("cluster/protocol/codec.py", "_pack", 1.0 * speed),
        ("cluster/core/run.py", "poll", 2.0 * speed),
        ("~", "<built-in method len>", 1.0 * speed),
    )
    for speed in (1.0, 2.0, 3.0)
]


def test_waiting_is_no_bottleneck() -> None:
    hot = views.bottlenecks(RUNS, tasks=2, limit=2)
    assert next(function.place for function in hot.functions) == "cluster.core.run: poll"
    assert (len(hot.functions), hot.runs) == (2, 3)
    assert (hot.busy_us.value, hot.waiting_us.value) == (4e6, 9e6)
    shown = hot._repr_html_()
    assert "zmq/sugar" not in shown
    assert "<td>poll</td><td>cluster/core/run.py:1</td><td>2.00</td>" in shown


def test_a_hot_function_has_intervals_over_the_runs() -> None:
    (first,) = views.bottlenecks(RUNS, tasks=2, limit=1).functions
    assert first.own_us.value == 2e6
    assert (first.own_us.low, first.own_us.high) == (1e6, 3e6)
    assert first.share.value == 0.5
    (bar,) = views.bottlenecks(RUNS, tasks=2, limit=1).bars()
    assert (bar.value, bar.low, bar.high) == (2e6, 1e6, 3e6)


def test_a_function_that_one_run_never_called_took_no_time_there() -> None:
    rare = profile(("cluster/rare.py", "f", 3.0))
    found = {f.function: f for f in views.bottlenecks([*RUNS, rare], tasks=1).functions}
    assert found["f"].own_us.value == 0.0
    assert found["f"].calls_per_task == 1.0


def test_one_profile_gives_no_interval_and_none_is_refused() -> None:
    (first, *_) = views.bottlenecks(RUNS[:1], tasks=2).functions
    assert (first.own_us.low, first.own_us.high) == (None, None)
    idle = views.bottlenecks([profile(("cluster/core/run.py", "f", 0.0))], tasks=1)
    assert idle.functions[0].share.value is None
    assert "unknown" in idle._repr_html_()
    with pytest.raises(ValueError, match="at least one profile"):
        views.bottlenecks([], tasks=1)


@pytest.mark.parametrize("factor", [None, 2.0])
def test_the_unknown_stays_unknown_in_another_unit(factor: float | None) -> None:
    assert views.ends(views.scaled(UNKNOWN, factor)) == (None, None, None)


def test_sentences_are_escaped() -> None:
    words = views.Words(("a < b",))
    assert words._repr_html_() == "<ul><li>a &lt; b</li></ul>"
