"""Pools compared with doing without: planted differences with a fake clock, then real ones."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from perfkit.bench.goals import pools
from perfkit.bench.goals.pools import CASES, Arms, Case, measure_pools
from perfkit.bench.workloads.load import ExperimentError, WrongResult
from perfkit.evidence.verdicts import Verdict

Cost = Callable[[], float]


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Callable[[Cost, Cost], Case]:
    """A case whose operations take the given µs on a fake clock."""
    clock = SimpleNamespace(now_s=0.0)
    monkeypatch.setattr(pools, "time", SimpleNamespace(perf_counter=lambda: clock.now_s))

    def case(plain_us: Cost, pooled_us: Cost) -> Case:
        def run(cost_us: Cost, operations: int) -> int:
            clock.now_s += operations * cost_us() / 1e6
            return operations

        @contextmanager
        def opened() -> Iterator[Arms]:
            yield Arms(
                lambda n: run(plain_us, n), lambda n: run(pooled_us, n), lambda n: n, lambda: None
            )

        return Case("planted", "a planted difference", 10, opened)

    return case


@pytest.mark.parametrize(
    ("pooled_us", "verdict"), [(1.0, Verdict.FASTER), (4.0, Verdict.SLOWER), (2.01, Verdict.SAME)]
)
def test_a_planted_difference_is_found(
    planted: Callable[[Cost, Cost], Case], pooled_us: float, verdict: Verdict
) -> None:
    noise = random.Random(1)
    case = planted(lambda: 2.0 * noise.uniform(0.999, 1.001), lambda: pooled_us)
    (row,) = measure_pools([case], rounds=8)
    assert row.verdict is verdict
    assert row.comparison.ratio == pytest.approx(pooled_us / 2, rel=0.01)
    assert row.pooled.value == pytest.approx(pooled_us)
    counts = {arm: len(found) for arm, found in row.samples.items()}
    assert counts == {"plain": 8, "pooled": 8, "plain again": 8}


def test_a_machine_that_drifts_gives_no_verdict(planted: Callable[[Cost, Cost], Case]) -> None:
    noise = random.Random(2)
    moody = planted(lambda: 2.0 * noise.uniform(0.5, 2.0), lambda: 2.2 * noise.uniform(0.5, 2.0))
    (row,) = measure_pools([moody], rounds=8)
    assert row.verdict is Verdict.INCONCLUSIVE


def test_an_arm_that_does_not_do_its_work_is_not_timed() -> None:
    @contextmanager
    def opened() -> Iterator[Arms]:
        yield Arms(lambda n: n, lambda n: n - 1, lambda n: n, lambda: None)

    with pytest.raises(WrongResult, match="lazy: 50 operations gave 49, not 50"):
        measure_pools([Case("lazy", "lazy", 100, opened)], rounds=4, effort=0.5)


@pytest.mark.parametrize("numbers", [{"rounds": 3}, {"effort": 0.0}])
def test_numbers_that_give_no_verdict_are_refused(numbers: dict[str, int]) -> None:
    with pytest.raises(ExperimentError, match="pools need 4 rounds or more and an effort above 0"):
        measure_pools(**numbers)


def test_every_case_does_its_work_and_is_shown_in_all_forms() -> None:
    lines: list[str] = []
    table = measure_pools(rounds=4, effort=0.005, progress=lines.append)
    assert [row.name for row in table] == [case.name for case in CASES]
    assert len(lines) == len(CASES) * 4 * 3
    assert all(line.startswith("pools: ") for line in lines)
    for row in table:
        operations = 5 * row.operations  # four rounds and one that does not count
        if row.stats is not None:
            assert row.stats.hits + row.stats.misses >= operations
            assert (row.stats.misses, row.stats.in_use, row.stats.high_water) == (1, 0, 1)
        assert row.plain.value > 0
    assert table.of("free_list").stats is None
    frame = table.to_frame()
    assert list(frame["name"]) == [case.name for case in CASES]
    assert {"plain_us", "pooled_us", "ratio_low", "aa_ratio", "hit_rate"} <= {*frame.columns}
    html = table._repr_html_()
    assert "4 rounds, seed 0" in html
    assert all(case.what in html for case in CASES)
