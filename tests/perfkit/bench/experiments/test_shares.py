"""Shares of a profile: entered from outside, counted once, of the turns alone."""

import pytest

from perfkit.bench.experiments.shares import CHOICE, CODEC, TURN, Part, part, share
from perfkit.profile.cpu import CpuProfile, Function, Table

TURNED: Function = ("cluster/shells/dispatcher.py", 10, "turn")
PACK: Function = ("cluster/protocol/codec.py", 20, "_pack")
ENCODE: Function = ("cluster/protocol/codec.py", 30, "encode")
LEN: Function = ("~", 0, "<built-in method builtins.len>")
TABLE: Table = {
    TURNED: (1, 1, 4.0, 10.0, {("cluster/shells/coordinator.py", 1, "run"): (1, 1, 4.0, 10.0)}),
    ENCODE: (2, 2, 1.0, 3.0, {TURNED: (2, 2, 1.0, 3.0)}),
    PACK: (2, 2, 2.0, 2.5, {ENCODE: (2, 2, 1.0, 2.0), TURNED: (1, 1, 1.0, 0.5)}),
    LEN: (1, 1, 0.5, 0.5, {PACK: (1, 1, 0.5, 0.5)}),
}
PROFILE = CpuProfile("made up", TABLE)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (TURN, 1.0),
        (CODEC, 0.35),
        (CHOICE, 0.0),
        (part("packing", "cluster/protocol/codec.py", "_pack"), 0.25),
    ],
)
def test_the_time_of_a_part_is_below_the_calls_that_enter_it(wanted: Part, expected: float) -> None:
    assert share(PROFILE, wanted) == pytest.approx(expected)


def test_a_profile_without_a_turn_has_no_shares() -> None:
    assert share(CpuProfile("empty", {}), CODEC) is None
