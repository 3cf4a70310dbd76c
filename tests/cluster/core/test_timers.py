"""Timers against a dictionary that is searched for its minimum."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cluster.core.timers import Timers

KEYS = st.integers(0, 9)


class TimersAgainstADict(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.timers = Timers[int]()
        self.model: dict[int, float] = {}

    @rule(key=KEYS, due=st.integers(0, 20))
    def set(self, key: int, due: int) -> None:
        self.timers.set(key, due)
        self.model[key] = due

    @rule(key=KEYS)
    def clear(self, key: int) -> None:
        self.timers.clear(key)
        self.model.pop(key, None)

    @rule(now=st.integers(0, 20))
    def pop(self, now: int) -> None:
        earliest = min(self.model.values(), default=None)
        key = self.timers.pop(now)
        if earliest is None or earliest > now:
            assert key is None
        else:
            assert key is not None
            assert self.model.pop(key) == earliest

    @invariant()
    def agrees(self) -> None:
        assert all((key in self.timers) == (key in self.model) for key in range(10))
        assert self.timers.next_due() == min(self.model.values(), default=None)


TestTimersAgainstADict = TimersAgainstADict.TestCase


def test_equal_times_come_back_in_the_order_in_which_they_were_set() -> None:
    timers = Timers[str]()
    for key in ("b", "a", "c"):
        timers.set(key, 1.0)
    assert [timers.pop(1.0) for _ in range(4)] == ["b", "a", "c", None]


def test_keys_need_not_be_comparable() -> None:
    timers = Timers[object]()
    keys = [("run", 1), ("worker", "w"), None]
    for key in keys:
        timers.set(key, 0.0)
    assert [timers.pop(0.0) for _ in keys] == keys


def test_a_timer_that_is_moved_all_the_time_leaves_no_heap_behind() -> None:
    timers = Timers[str]()
    timers.set("kept", 5.0)
    for due in range(100_000):
        timers.set("moved", 10.0 + due)
        assert len(timers._heap) <= 2 * 2 + 64
    assert timers.pop(5.0) == "kept"
    assert timers.pop(1e9) == "moved"
    assert timers.pop(1e9) is None


def test_timers_that_are_cleared_leave_no_heap_behind() -> None:
    timers = Timers[int]()
    for key in range(10_000):
        timers.set(key, 1.0)
    for key in range(10_000):
        timers.clear(key)
    assert len(timers._heap) <= 64
    assert timers.next_due() is None
