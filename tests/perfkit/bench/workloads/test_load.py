"""Work that is proved done: distinct payloads, blocks that lose nothing, answers compared."""

from concurrent.futures import Future
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.bench.workloads import load
from perfkit.bench.workloads.load import ExperimentError, Work, WrongResult, echo_work, result_of


def test_payloads_all_differ_and_follow_from_the_seed() -> None:
    work = echo_work(500, seed=3)
    assert len(set(work.payloads)) == len(work) == 500
    assert {len(payload) for payload in work.payloads} == {work.facts["payload_bytes"]}
    assert work.expected == work.payloads == echo_work(500, seed=3).payloads
    assert work.payloads != echo_work(500, seed=4).payloads


def test_payloads_too_short_to_differ_are_refused() -> None:
    with pytest.raises(ExperimentError, match="payloads of 7 B cannot all differ; take 8 B"):
        echo_work(10, seed=0, payload_bytes=7)


@given(tasks=st.integers(1, 60), count=st.integers(1, 70))
def test_blocks_hold_every_task_once_and_are_of_about_one_size(tasks: int, count: int) -> None:
    work = echo_work(tasks, seed=0, payload_bytes=8)
    blocks = list(work.blocks(count))
    assert [payload for block in blocks for payload in block.payloads] == work.payloads
    assert [result for block in blocks for result in block.expected] == work.expected
    assert len(blocks) == min(tasks, count)
    sizes = [len(block) for block in blocks]
    assert min(sizes) >= 1
    assert max(sizes) - min(sizes) <= 1


@given(data=st.data())
def test_any_two_results_that_are_swapped_are_caught(data: st.DataObject) -> None:
    work = echo_work(20, seed=0)
    one, other = data.draw(st.lists(st.integers(0, 19), min_size=2, max_size=2, unique=True))
    results = list(work.payloads)
    work.check(results)
    results[one], results[other] = results[other], results[one]
    with pytest.raises(WrongResult, match=f"echo task {min(one, other)} of 20 gave"):
        work.check(results)


@pytest.mark.parametrize("change", [lambda r: r[:-1], lambda r: [*r, r[0]], lambda _: []])
def test_a_missing_or_superfluous_result_is_caught(change: Any) -> None:
    work = echo_work(3, seed=0)
    with pytest.raises(WrongResult, match=r"3 echo tasks gave \d results"):
        work.check(change(work.payloads))


def test_a_long_result_is_shortened_in_the_complaint() -> None:
    with pytest.raises(WrongResult, match=r"gave b'' instead of b'x+'… \(500 B\)"):
        Work("echo", [b""], [b"x" * 500]).check([b""])


def test_a_task_that_is_lost_ends_the_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "RESULT_TIMEOUT_S", 0.01)
    lost: Any = Future()
    with pytest.raises(ExperimentError, match="a task had no result within"):
        result_of(lost)
