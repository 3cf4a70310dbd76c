"""Results in the formats that people's dashboards read.

Pure functions from results to JSON text, one for each format of FORMATS. A figure is exported as it
was measured; what a format can't hold is left out, never made up.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from statistics import fmean, median
from typing import Any

from perfkit.evidence.environment import Environment
from perfkit.evidence.results import Result, ResultError
from perfkit.evidence.samples import bootstrap_interval, percentile, stdev

#: Seconds in a unit of time. Tools that only know seconds get these, and no other unit.
SECONDS: Mapping[str, float] = {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}
#: The version of pytest-benchmark whose files these are like.
PYTEST_BENCHMARK = "5.1.0"
ASV_VERSION = 2
ASV_COLUMNS = (
    "result params version started_at duration stats_ci_99_a stats_ci_99_b stats_q_25 stats_q_75 "
    "stats_number stats_repeat samples profile"
).split()


def benchmark_name(result: Result) -> str:
    """A result's name in a dashboard: `throughput[optimized-zmq-2]`, stable from run to run."""
    parts = [result.spec, result.engine, result.workers, result.parameters.get("load")]
    parts.append(result.parameters.get("model"))
    return f"{result.experiment}[{'-'.join(str(it) for it in parts if it not in (None, '-'))}]"


def pytest_benchmark(results: Sequence[Result]) -> str:
    """The JSON file of pytest-benchmark (`--benchmark-json`), for those who compare or plot it.

    Its times are seconds: a result in a unit of time is converted, and a rate of tasks becomes the
    seconds of one task. Each sample is a round of one iteration. The result's own unit, interval
    and counters are its `extra_info`. Raises ResultError for no results, and for one that is
    neither a time nor a rate.

    Format: https://pytest-benchmark.readthedocs.io/en/latest/usage.html (--benchmark-json), and
    the files in tests/test_storage of its repository.
    """
    _some(results)
    environment = results[0].environment
    return _json(
        {
            "machine_info": _machine_info(environment),
            "commit_info": {
                "id": environment.git_commit,
                "dirty": environment.git_dirty,
                "project": "perfkit",
                "branch": None,
                "time": None,
                "author_time": None,
            },
            "benchmarks": [_pytest_row(result) for result in results],
            "datetime": environment.utc,
            "version": PYTEST_BENCHMARK,
        }
    )


def _pytest_row(result: Result) -> dict[str, Any]:
    name = benchmark_name(result)
    return {
        "group": result.experiment,
        "name": name,
        "fullname": f"perfkit/{name}",
        "params": None,
        "param": None,
        "extra_info": {
            "value": result.value,
            "low": result.low,
            "high": result.high,
            "unit": result.unit,
            **result.counters,
        },
        "options": {
            "disable_gc": False,
            "timer": "perf_counter",
            "min_rounds": len(result.samples),
            "max_time": None,
            "min_time": None,
            "warmup": True,
        },
        "stats": _pytest_stats(_seconds(result)),
    }


def _pytest_stats(data: Sequence[float]) -> dict[str, Any]:
    """The statistics as pytest-benchmark's `Stats` defines them."""
    ordered = sorted(data)
    mean, middle = fmean(ordered), median(ordered)
    deviation = stdev(ordered) if len(ordered) > 1 else 0.0
    low, high = (_quartile(ordered, q) for q in (25, 75))
    fence = 1.5 * (high - low)
    inside = [it for it in ordered if low - fence <= it <= high + fence]
    by_deviation = sum(not mean - deviation <= it <= mean + deviation for it in ordered)
    by_quartiles = len(ordered) - len(inside)
    return {
        "min": ordered[0],
        "max": ordered[-1],
        "mean": mean,
        "stddev": deviation,
        "rounds": len(ordered),
        "median": middle,
        "iqr": high - low,
        "q1": low,
        "q3": high,
        "iqr_outliers": by_quartiles,
        "stddev_outliers": by_deviation,
        "outliers": f"{by_deviation};{by_quartiles}",
        "ld15iqr": inside[0],
        "hd15iqr": inside[-1],
        "ops": 1 / mean if mean else None,
        "total": sum(ordered),
        "data": [*data],
        "iterations": 1,
    }


def asv(results: Sequence[Result]) -> str:
    """A results file of airspeed velocity, version 2: RESULTS_DIR/MACHINE/COMMIT-ENV.json.

    Units are the results' own, because asv takes them from its benchmarks.json. Raises ResultError
    for no results, and outside a checkout: asv files results under a commit.

    Format: https://asv.readthedocs.io/en/stable/dev.html, "Benchmark suite layout and file
    formats".
    """
    _some(results)
    environment = results[0].environment
    if environment.git_commit is None:
        raise ResultError("asv files results under a commit, and this code is in no checkout.")
    python = ".".join(environment.python.split(".")[:2])
    rows = {benchmark_name(result): _asv_row(result) for result in results}
    return _json(
        {
            "commit_hash": environment.git_commit,
            "env_name": f"existing-py{python}",
            "date": _javascript_ms(environment.utc),
            "params": {
                "arch": environment.architecture,
                "cpu": environment.cpu_model or "",
                "machine": environment.machine_id,
                "num_cpu": str(environment.cores_logical or ""),
                "os": f"{environment.platform} {environment.kernel}",
                "python": python,
                "ram": str(environment.memory_total_bytes or ""),
            },
            "python": python,
            "requirements": {k: v for k, v in environment.packages.items() if v is not None},
            "env_vars": {},
            "result_columns": ASV_COLUMNS,
            "results": rows,
            "durations": {},
            "version": ASV_VERSION,
        }
    )


def _asv_row(result: Result) -> list[Any]:
    wide = bootstrap_interval(result.samples, confidence=0.99) if result.samples else None
    row = {
        "result": [result.value],
        "params": [],
        "version": f"{result.schema}",
        "started_at": None if result.started_utc is None else _javascript_ms(result.started_utc),
        "duration": result.duration_s,
        "stats_ci_99_a": [None if wide is None else wide.low],
        "stats_ci_99_b": [None if wide is None else wide.high],
        "stats_q_25": [percentile(result.samples, 25)],
        "stats_q_75": [percentile(result.samples, 75)],
        "stats_number": [1],
        "stats_repeat": [len(result.samples)],
        "samples": [result.samples],
        "profile": None,
    }
    return [row[column] for column in ASV_COLUMNS]


def bmf(results: Sequence[Result]) -> str:
    """The Bencher Metric Format: for each result its figure and counters, with their intervals.

    A time in ns is the measure `latency` and a rate per second `throughput`, Bencher's own measures
    in its own units; other figures are measures named by their unit, counters by their name.
    Unknown figures are left out. Raises ResultError for no results.

    Format: https://bencher.dev/docs/reference/bencher-metric-format
    """
    _some(results)
    return _json({benchmark_name(result): dict(_bmf_measures(result)) for result in results})


def _bmf_measures(result: Result) -> Iterator[tuple[str, dict[str, float]]]:
    if result.unit in SECONDS:
        name, factor = "latency", SECONDS[result.unit] * 1e9
    elif result.unit.endswith("/s"):
        name, factor = "throughput", 1.0
    else:
        name, factor = result.unit.replace("/", " per "), 1.0
    yield from _bmf_measure(name, factor, result.value, result.low, result.high)
    counters = result.counters
    for counter, value in counters.items():
        base = counter.removesuffix("_low").removesuffix("_high")
        if base == counter or base not in counters:
            ends = counters.get(f"{counter}_low"), counters.get(f"{counter}_high")
            yield from _bmf_measure(counter, 1.0, value, *ends)


def _bmf_measure(
    name: str, factor: float, value: float | None, low: float | None, high: float | None
) -> Iterator[tuple[str, dict[str, float]]]:
    if value is not None:
        ends = {"value": value, "lower_value": low, "upper_value": high}
        yield name, {key: end * factor for key, end in ends.items() if end is not None}


#: What `--export` writes, by the name of the format.
FORMATS: Mapping[str, Callable[[Sequence[Result]], str]] = {
    "pytest-benchmark": pytest_benchmark,
    "asv": asv,
    "bmf": bmf,
}


def _some(results: Sequence[Result]) -> None:
    if not results:
        raise ResultError("There is no result to export.")


def _seconds(result: Result) -> list[float]:
    if not result.samples:
        raise ResultError(f"{benchmark_name(result)} has no samples, and a benchmark has rounds.")
    if result.unit in SECONDS:
        return [sample * SECONDS[result.unit] for sample in result.samples]
    if result.unit.endswith("/s") and min(result.samples) > 0:
        return [1 / sample for sample in result.samples]
    raise ResultError(
        f"{benchmark_name(result)} is in {result.unit}: pytest-benchmark holds times only; "
        "export it as asv or bmf."
    )


def _machine_info(environment: Environment) -> dict[str, Any]:
    """As pytest-benchmark has it; `node`, its host name, is our machine's number instead."""
    return {
        "node": environment.machine_id,
        "processor": environment.architecture,
        "machine": environment.architecture,
        "python_implementation": environment.implementation,
        "python_version": environment.python,
        "release": environment.kernel,
        "system": environment.platform,
        "cpu": {"brand_raw": environment.cpu_model, "count": environment.cores_logical},
    }


def _quartile(ordered: Sequence[float], q: float) -> float:
    found = percentile(ordered, q)
    assert found is not None
    return found


def _javascript_ms(utc: str) -> int:
    return round(datetime.fromisoformat(utc).timestamp() * 1000)


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
