"""Is b faster than a? Two calls in turns, with a second a beside them as a control.

A block is many calls in a row of one arm. In each group a, b and a again have a block, in an order
drawn by lot whose reverse follows (ABBA), so drift cancels. `perfkit.evidence.stats` judges.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeAlias

from perfkit.bench.calls.arguments import check_works
from perfkit.evidence.progress import tell
from perfkit.evidence.showing import Figures, Sheet, Showable
from perfkit.evidence.stats import MIN_BLOCKS, Comparison, abba, compare_blocks
from perfkit.evidence.tables import data_frame
from perfkit.evidence.text import quantity
from perfkit.profile.instrument import name_of

if TYPE_CHECKING:
    import pandas as pd

BLOCKS, BLOCK_S = 12, 0.02
ARMS = "ABC"
#: How often a call is made to find out how many fill a block.
LOOPS_MAX = 10_000_000

#: Asks for a number of runs of an arm in a row, and takes their seconds; ends with the figures.
Plan: TypeAlias = Generator[tuple[str, int], float, "_Blocks"]


@dataclass(frozen=True)
class CallComparison(Showable):
    """Call `b` against call `a`: the `comparison`, and the seconds of a call in each block.

    `samples_s` is by arm: "A", "B" and "C", the second a. `loops` are the calls in a block of A
    (and C) and of B. `same_result` says whether both returned equal values, None if that can't be
    told.
    """

    a: str
    b: str
    comparison: Comparison
    samples_s: Mapping[str, tuple[float, ...]] = field(repr=False)
    loops: tuple[int, int]
    same_result: bool | None

    def to_frame(self) -> pd.DataFrame:
        """A row for each group of blocks: the seconds of a call of a, b and a again."""
        names = dict(zip(ARMS, ("a_s", "b_s", "a_again_s"), strict=True))
        columns = {names[arm]: samples for arm, samples in self.samples_s.items()}
        rows = zip(*columns.values(), strict=True)
        return data_frame([dict(zip(columns, row, strict=True)) for row in rows])

    def _sheets(self) -> Iterator[Sheet]:
        yield from self.comparison.sheets(f"{self.b} (B) against {self.a} (A)")
        equal = {
            True: "Both returned equal values.",
            False: "They returned different values: is the faster one right?",
            None: "Whether both returned the same can't be told.",
        }
        yield Sheet(
            "",
            ("", "time of one call", "calls in a block"),
            [
                (f"{arm} {name}", quantity(median(self.samples_s[arm]) * 1e6, "µs"), f"{loops:,}")
                for arm, name, loops in zip(ARMS, (self.a, self.b), self.loops, strict=False)
            ],
            [equal[self.same_result]],
        )

    def _figures(self) -> Figures:
        return self.comparison._figures()


def compare_calls(
    a: Callable[[], object],
    b: Callable[[], object],
    names: tuple[str, str] | None = None,
    *,
    blocks: int = BLOCKS,
    block_s: float = BLOCK_S,
    seed: int = 0,
) -> CallComparison:
    """Time two functions without arguments in turns and judge b against a.

    A block has as many calls as fit into `block_s` seconds, at least one. What the calls raise
    passes. Raises ValueError for fewer blocks than a verdict needs and for a time that is not above
    0, TypeError for a coroutine function or a generator function.
    """
    __tracebackhide__ = True  # IPython leaves such frames out of what it shows
    _check(blocks, block_s)
    if names is not None and len(names) != 2:
        raise ValueError(f"a and b have a name each, which are not {names!r}")
    check_works(a)
    check_works(b)
    same = _equal(a(), b())
    arms = {"A": a, "B": b, "C": a}
    plan = _plan(blocks, block_s, seed)
    arm, loops = next(plan)
    while True:
        try:
            arm, loops = plan.send(_block_s(arms[arm], loops))
        except StopIteration as ended:
            return _judged(names or (name_of(a), name_of(b)), ended.value, seed, same)


class compare_turns:  # noqa: N801 -- a context manager, named as those are
    """Time two pieces of a loop's body in turns and judge b against a; see `result`.

        with compare_turns("list", "set") as turns:
            for arm in turns:
                number in (ours if arm == "list" else others)
        turns.result

    The loop decides how often each arm runs, as in `compare_calls`; its body is timed from start to
    end, so it should hold nothing else. An error of the body passes, and then there is no result.
    Raises ValueError as `compare_calls` does, for equal names, and for a loop that was left early.
    """

    def __init__(
        self, a: str, b: str, *, blocks: int = BLOCKS, block_s: float = BLOCK_S, seed: int = 0
    ) -> None:
        if a == b:
            raise ValueError(f"the two need different names, not twice {a!r}")
        _check(blocks, block_s)
        self.names, self._settings = (a, b), (blocks, block_s, seed)
        self.result: CallComparison | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        if kind is None and self.result is None:
            a, b = self.names
            raise ValueError(f"{a} and {b} are not compared: the loop over the turns did not end")

    def __iter__(self) -> Iterator[str]:
        """The name of the arm that the body is to run now, again and again."""
        self.result = None
        names = dict(zip(ARMS, (*self.names, self.names[0]), strict=True))
        yield from self.names  # what is done once, such as filling a cache, does not count
        plan = _plan(*self._settings)
        ask = next(plan)
        while True:
            name, turns = names[ask[0]], range(ask[1])
            since_s = perf_counter()
            for _ in turns:
                yield name
            took_s = perf_counter() - since_s
            try:
                ask = plan.send(took_s)
            except StopIteration as ended:
                self.result = _judged(self.names, ended.value, self._settings[2], None)
                return


@dataclass
class _Blocks:
    """The seconds of a run in each block by arm, and how many runs a block of each arm has."""

    samples_s: dict[str, list[float]]
    loops: dict[str, int]


def _check(blocks: int, block_s: float) -> None:
    if blocks < MIN_BLOCKS:
        raise ValueError(f"a verdict needs at least {MIN_BLOCKS} blocks, not {blocks}")
    if not 0 < block_s < math.inf:
        raise ValueError(f"a block takes more than 0 seconds, not {block_s:g}")


def _plan(blocks: int, block_s: float, seed: int) -> Plan:
    """The blocks of a comparison in the order in which they run, those that find out their length
    first.
    """
    found = _Blocks({arm: [] for arm in ARMS}, {})
    for arm in "AB":
        found.loops[arm] = yield from _loops(arm, block_s)
    found.loops["C"] = found.loops["A"]
    for number, group in enumerate(abba(blocks, seed, ARMS), 1):
        tell(f"block {number} of {blocks}")
        for arm in group:
            took_s = yield arm, found.loops[arm]
            found.samples_s[arm].append(took_s / found.loops[arm])
    return found


def _loops(arm: str, block_s: float) -> Generator[tuple[str, int], float, int]:
    """How many runs fill a block, at least one; the runs that find out warm up as well."""
    loops = 1
    while loops < LOOPS_MAX:
        first_s = yield arm, loops
        took_s = min(first_s, (yield arm, loops))
        if took_s >= block_s / 4:
            return max(1, round(loops * block_s / took_s))
        loops *= 4
    return loops


def _judged(names: tuple[str, str], found: _Blocks, seed: int, same: bool | None) -> CallComparison:
    samples, loops = found.samples_s, found.loops
    comparison = compare_blocks(
        samples["A"], samples["B"], samples["C"], direction="lower", seed=seed
    )
    times = {arm: tuple(of_arm) for arm, of_arm in samples.items()}
    return CallComparison(*names, comparison, times, (loops["A"], loops["B"]), same)


def _equal(one: object, other: object) -> bool | None:
    """Whether two values are equal; None for values that don't say (arrays, for one)."""
    try:
        return bool(one == other)
    except Exception:  # a comparison is the user's code and may raise anything
        return None


def _block_s(call: Callable[[], object], loops: int) -> float:
    __tracebackhide__ = True  # IPython leaves such frames out of what it shows
    turns = range(loops)
    since_s = perf_counter()
    for _ in turns:
        call()
    return perf_counter() - since_s
