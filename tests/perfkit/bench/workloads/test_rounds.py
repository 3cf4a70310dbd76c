"""Arms in turns: every arm once a round, one block first that does not count."""

from collections.abc import Mapping
from itertools import count

from perfkit.bench.workloads.rounds import Arm, take_turns


def test_every_arm_has_one_block_in_each_round() -> None:
    order: list[str] = []
    lines: list[str] = []
    ticks = count()

    def arm(name: str) -> Arm:
        def block() -> Mapping[str, float]:
            order.append(name)
            return {"speed": 1_000.0 * next(ticks), "cost": 0.5}

        return block

    names = ["optimized", "baseline", "bare"]
    found = take_turns({name: arm(name) for name in names}, 4, 7, "tasks/s", lines.append)
    warm_up, rounds = order[:3], [order[start : start + 3] for start in range(3, 15, 3)]
    assert warm_up == names
    assert len(order) == 15
    assert [sorted(one) for one in rounds] == [sorted(names)] * 4
    assert rounds[0] == rounds[1][::-1]
    assert rounds[2] == rounds[3][::-1]
    assert found["cost"] == {name: [0.5] * 4 for name in names}
    for name in names:
        places = [place for place, one in enumerate(order) if one == name][1:]
        assert found["speed"][name] == [1_000.0 * place for place in places]
    assert lines[0] == f"round 1 of 4, {rounds[0][0]} 3,000 tasks/s"
    assert len(lines) == 12
