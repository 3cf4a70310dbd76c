"""Exports hold what their formats ask for, by the formats' own definitions."""

import json
import statistics
from datetime import UTC, datetime
from itertools import product
from typing import Any

import msgspec
import pytest

from perfkit.evidence.exports import ASV_COLUMNS, FORMATS, benchmark_name
from perfkit.evidence.results import Result, ResultError
from tests.perfkit import machine
from tests.perfkit.evidence.test_results import result

HERE = msgspec.structs.replace(
    machine.HERE, git_commit="0123456789abcdef", git_dirty=False, utc="2030-01-01T00:00:00+00:00"
)
SAMPLES = [1.0, 1.5, 2.0, 2.5, 9.0]
LATENCY = result(
    experiment="latency", value=2.0, unit="ms", low=1.0, high=None, samples=SAMPLES,
    environment=HERE, started_utc="2030-01-01T00:00:00+00:00", duration_s=3.5,
    counters={"latency_ms_p99": 9.0, "latency_ms_p99_low": 2.5, "latency_ms_p99_high": None,
              "messages_per_task": 5, "allocations": None, "idle_low": 3.0},
)  # fmt: skip
RATE = result(environment=HERE, samples=[1000.0, 1250.0, 2000.0], value=1250.0)
COST = result(
    environment=HERE, unit="reference loads", experiment="coordinator_cost", engine="in process",
    parameters={"load": "single"},
)  # fmt: skip


def exported(name: str, *results: Result) -> Any:
    return json.loads(FORMATS[name](results))


def test_names_are_stable_and_tell_results_apart() -> None:
    assert benchmark_name(LATENCY) == "latency[baseline-zmq-2]"
    assert benchmark_name(COST) == "coordinator_cost[baseline-in process-2-single]"
    model = result(parameters={"model": "digits"}, workers=None, spec="-", engine="dask")
    assert benchmark_name(model) == "throughput[dask-digits]"


def test_bmf_has_each_figure_with_the_ends_that_are_known() -> None:
    # https://bencher.dev/docs/reference/bencher-metric-format
    assert exported("bmf", LATENCY, RATE, COST) == {
        "latency[baseline-zmq-2]": {
            "latency": {"value": 2e6, "lower_value": 1e6},
            "latency_ms_p99": {"value": 9.0, "lower_value": 2.5},
            "messages_per_task": {"value": 5},
            "idle_low": {"value": 3.0},
        },
        "throughput[baseline-zmq-2]": {
            "throughput": {"value": 1250.0, "lower_value": 1200.0, "upper_value": 1300.0}
        },
        "coordinator_cost[baseline-in process-2-single]": {
            "reference loads": {"value": 1234.5, "lower_value": 1200.0, "upper_value": 1300.0}
        },
    }


def test_bmf_leaves_out_a_figure_that_is_unknown() -> None:
    unknown = result(value=None, low=None, high=None, samples=[])
    assert exported("bmf", unknown) == {"throughput[baseline-zmq-2]": {}}


def test_asv_has_a_row_for_each_result_in_the_order_of_its_columns() -> None:
    # https://asv.readthedocs.io/en/stable/dev.html
    found = exported("asv", LATENCY, RATE)
    assert found["version"] == 2
    assert found["commit_hash"] == "0123456789abcdef"
    assert found["result_columns"] == ASV_COLUMNS
    assert found.keys() == {
        "commit_hash", "env_name", "date", "params", "python", "requirements", "env_vars",
        "result_columns", "results", "durations", "version",
    }  # fmt: skip
    row = dict(
        zip(found["result_columns"], found["results"]["latency[baseline-zmq-2]"], strict=True)
    )
    new_year_ms = int(datetime(2030, 1, 1, tzinfo=UTC).timestamp() * 1000)
    assert (row["result"], row["params"], row["samples"]) == ([2.0], [], [SAMPLES])
    assert (row["started_at"], found["date"]) == (new_year_ms, new_year_ms)
    assert (row["stats_repeat"], row["stats_number"], row["duration"]) == ([5], [1], 3.5)
    (low,), (high,) = row["stats_ci_99_a"], row["stats_ci_99_b"]
    assert low <= row["stats_q_25"][0] < 2.0 < row["stats_q_75"][0] <= high
    assert all(isinstance(version, str) for version in found["requirements"].values())


def test_asv_needs_a_commit() -> None:
    nowhere = msgspec.structs.replace(HERE, git_commit=None)
    with pytest.raises(ResultError, match="asv files results under a commit"):
        FORMATS["asv"]([result(environment=nowhere)])


def test_pytest_benchmark_has_seconds_and_the_statistics_of_its_own() -> None:
    found = exported("pytest-benchmark", LATENCY)
    assert found.keys() == {"machine_info", "commit_info", "benchmarks", "datetime", "version"}
    assert found["commit_info"]["id"] == "0123456789abcdef"
    assert found["machine_info"]["python_version"] == HERE.python
    (row,) = found["benchmarks"]
    assert (row["group"], row["name"]) == ("latency", "latency[baseline-zmq-2]")
    assert row["extra_info"]["unit"] == "ms"
    stats, data = row["stats"], [sample / 1e3 for sample in SAMPLES]
    assert stats["data"] == pytest.approx(data)
    assert stats["rounds"] == 5
    expected = {
        "min": 1e-3, "max": 9e-3, "median": 2e-3, "mean": statistics.fmean(data),
        "stddev": statistics.stdev(data), "q1": 1.5e-3, "q3": 2.5e-3, "iqr": 1e-3,
        "ld15iqr": 1e-3, "hd15iqr": 2.5e-3, "total": sum(data), "ops": 1 / statistics.fmean(data),
    }  # fmt: skip
    assert {name: stats[name] for name in expected} == pytest.approx(expected)
    assert stats["outliers"] == "1;1"


def test_pytest_benchmark_turns_a_rate_into_the_time_of_a_task() -> None:
    (row,) = exported("pytest-benchmark", RATE)["benchmarks"]
    assert row["stats"]["data"] == [1e-3, 8e-4, 5e-4]
    assert row["stats"]["ops"] == pytest.approx(3 / 2.3e-3)


@pytest.mark.parametrize(
    ("unusable", "complaint"),
    [
        (COST, "is in reference loads: pytest-benchmark holds times only; export it as asv or bmf"),
        (result(samples=[]), "has no samples"),
        (result(samples=[0.0]), "is in tasks/s"),
    ],
)
def test_pytest_benchmark_refuses_what_it_cannot_hold(unusable: Result, complaint: str) -> None:
    with pytest.raises(ResultError, match=complaint):
        FORMATS["pytest-benchmark"]([unusable])


@pytest.mark.parametrize("name", FORMATS)
def test_nothing_is_no_export(name: str) -> None:
    with pytest.raises(ResultError, match="no result to export"):
        FORMATS[name]([])


@pytest.mark.parametrize(("name", "count"), [*product(FORMATS, (1, 3))])
def test_few_samples_are_exported_without_made_up_ends(name: str, count: int) -> None:
    found = FORMATS[name]([result(environment=HERE, samples=[1.0] * count, low=None, high=None)])
    assert "NaN" not in found
    assert "Infinity" not in found


def test_asv_itself_reads_the_file(tmp_path: Any) -> None:
    results = pytest.importorskip("asv.results", reason="asv is not installed")
    path = tmp_path / "machine" / "result.json"
    path.parent.mkdir()
    path.write_text(FORMATS["asv"]([LATENCY, RATE]))
    found = results.Results.load(str(path), machine_name="machine")
    assert found.get_result_value("latency[baseline-zmq-2]", []) == [2.0]


def test_pytest_benchmark_itself_compares_the_file(tmp_path: Any) -> None:
    pytest.importorskip("pytest_benchmark", reason="pytest-benchmark is not installed")
    storage = pytest.importorskip("pytest_benchmark.storage.file")
    folder = tmp_path / "Linux-CPython-3.11-64bit"
    folder.mkdir()
    (folder / "0001_first.json").write_text(FORMATS["pytest-benchmark"]([LATENCY]))
    found = [*storage.FileStorage(str(tmp_path), None, "x").load()]
    assert found[0][1]["benchmarks"][0]["stats"]["rounds"] == 5
