"""The plan's own figures, on a real cluster: run them with `make test-performance`.

They are judged by whole intervals: a goal that is missed fails, and one that the interval leaves
open is skipped with the figure, so it never passes in silence. They are left out of `make test` and
`make test-slow`, because a busy machine misses a goal of times without any fault of the code.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from cluster.local import LocalCluster
from cluster.shells.client import Client
from cluster.spec import BASELINE, ClusterSpec
from perfkit.bench.regression.check import check
from perfkit.bench.workloads.load import echo_work, map_s, result_of
from perfkit.evidence.baselines import baseline_path, load_baseline
from perfkit.evidence.samples import Interval, bootstrap_interval, percentile_interval
from perfkit.evidence.verdicts import Direction, Verdict, judge
from perfkit.optimized.specs import OPTIMIZED

pytestmark = [pytest.mark.performance, pytest.mark.slow, pytest.mark.timeout(300)]

WORKERS, TASKS, BLOCKS = 2, 2_000, 10
SUBMISSION_MS = {50: 2.0, 95: 5.0, 99: 10.0}
THROUGHPUT_PER_S = 500.0


@pytest.fixture(scope="module", params=[BASELINE, OPTIMIZED], ids=lambda spec: spec.name)
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    spec: ClusterSpec = request.param
    with LocalCluster(WORKERS, spec) as local, local.client() as client:
        map_s(client, echo_work(TASKS, seed=1))
        yield client


def expect(figure: Interval, goal: float, better: Direction, unit: str) -> None:
    """Fail if the goal is missed, skip if the interval holds both sides of it."""
    verdict = judge(figure, goal, better)
    told = f"{verdict}: {figure.text(unit)}, and the goal is {goal:g} {unit} or {better}"
    if verdict is Verdict.INCONCLUSIVE:
        pytest.skip(told)
    assert verdict is Verdict.MET, told


@pytest.fixture(scope="module")
def submitted_ms(client: Client) -> list[float]:
    """The time of each call of submit, one task in flight; every result was checked."""
    work = echo_work(TASKS, seed=2)
    took_ms, results = [], []
    for payload in work.payloads:
        began_s = time.perf_counter()
        future = client.submit(work.kind, payload)
        took_ms.append((time.perf_counter() - began_s) * 1e3)
        results.append(result_of(future))
    work.check(results)
    return took_ms


@pytest.mark.parametrize("q", SUBMISSION_MS)
def test_submission_is_as_quick_as_the_plan_asks(submitted_ms: list[float], q: int) -> None:
    expect(percentile_interval(submitted_ms, q), SUBMISSION_MS[q], "lower", "ms")


def test_throughput_is_as_high_as_the_plan_asks(client: Client) -> None:
    work = echo_work(BLOCKS * TASKS, seed=3)
    rates = [len(block) / map_s(client, block) for block in work.blocks(BLOCKS)]
    expect(bootstrap_interval(rates), THROUGHPUT_PER_S, "higher", "tasks/s")


def test_the_coordinator_is_not_5_percent_slower_than_its_baseline() -> None:
    path = baseline_path()
    if not path.exists():
        pytest.skip(f"there is no baseline at {path}; `perfkit baseline save` makes one")
    table = check(load_baseline(path)).table
    if table.verdict is Verdict.INCONCLUSIVE:
        pytest.skip(table.sentence)
    assert table.verdict is Verdict.SAME, table.sentence
