"""The coordinator's cost is measured on checked work, and its counts repeat exactly."""

import gc
import time

import pytest

from perfkit.bench.regression import cost
from perfkit.bench.regression.bytecodes import count_bytecodes
from perfkit.bench.regression.cost import CASES, Replay, sample_costs
from perfkit.bench.regression.reference import PIECES, ReferenceLoad
from perfkit.bench.workloads.load import WrongResult


def test_the_reference_load_does_the_same_in_every_piece_and_round() -> None:
    load = ReferenceLoad()
    first = [load.run(piece) for piece in range(PIECES)]
    assert (
        first
        == [load.run(piece) for piece in range(PIECES)]
        == [ReferenceLoad().run(piece) for piece in range(PIECES)]
    )
    assert max(first) < 1.05 * min(first)
    executed = {count_bytecodes(lambda n=piece: load.run(n)) for piece in range(PIECES)}
    assert max(executed) < 1.05 * min(executed)


def test_bytecodes_are_counted_in_frames_that_the_work_enters() -> None:
    def loop(rounds: int) -> None:
        for _ in range(rounds):
            pass

    few, many = (count_bytecodes(lambda n=n: loop(n)) for n in (10, 110))
    assert many - few == 100 * ((many - few) // 100) > 0
    assert count_bytecodes(lambda: loop(10)) == few


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_replay_takes_the_recorded_steps_and_repeats_exactly(case: cost.CostCase) -> None:
    replay = Replay(case)
    steps = len(replay.run())
    assert steps == len(replay.run()) >= 2
    assert replay.bytecodes() == replay.bytecodes() > 0


def test_a_replay_that_answers_in_another_way_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    replay = Replay(CASES[0])
    monkeypatch.setattr(cost.SteppedCoordinator, "step", lambda self, letters: [])
    with pytest.raises(WrongResult, match="answered the same messages in another way"):
        replay.run()


def test_a_sample_is_the_sum_of_the_fastest_steps_over_the_unit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rounds = iter([[30, 10], [20, 20]] * len(CASES))
    monkeypatch.setattr(Replay, "run", lambda self: next(rounds))
    monkeypatch.setattr(cost, "_reference_ns", lambda load: [100, 100])
    monkeypatch.setattr(cost, "CASES", CASES[:1])
    (sample,) = sample_costs(rounds=2).values()
    assert sample.cost == 30 / 16 / 200
    assert sample.us_per_task == 30 / 16 / 1e3


def test_a_sample_leaves_the_collector_as_it_was() -> None:
    assert gc.isenabled()
    began = time.perf_counter()
    found = sample_costs(rounds=2)
    assert gc.isenabled()
    assert [*found] == [case.name for case in CASES]
    took_us = (time.perf_counter() - began) * 1e6
    assert all(0 < sample.us_per_task < took_us for sample in found.values())
