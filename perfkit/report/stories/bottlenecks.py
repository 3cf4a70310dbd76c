"""Where a coordinator's time goes: its busiest functions, over several profiles."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.vocabulary.printable import count_of
from perfkit.evidence.samples import Interval, bootstrap_interval
from perfkit.evidence.showing import Figures, Sheet, Showable
from perfkit.evidence.tables import data_frame
from perfkit.evidence.text import estimate, percent, quantity
from perfkit.report.figures.charts import Bar

if TYPE_CHECKING:
    import pandas as pd

    from perfkit.profile.cpu import CpuProfile, HotSpot

#: Built-in functions in which a thread waits, as cProfile names them.
_BUILT_IN_WAITS = re.compile(
    r"<method '(poll|control)' of 'select\.\w+' objects>"
    r"|<built-in method select\.\w+>"
    r"|<built-in method time\.sleep>"
    r"|<method '(acquire|acquire_lock|__enter__|join)' of '_thread\.\w+' objects>"
    r"|<method 'get' of '_queue\.SimpleQueue' objects>"
    r"|<method '(_?accept|connect|recv\w*)' of '_socket\.socket' objects>"
    r"|<built-in method (posix|nt)\.wait\w*>"
    r"|<built-in method _signal\.(pause|sig\w*wait\w*)>"
)
#: pyzmq's calls into libzmq have no entry of their own: the time is that of these functions.
_ZMQ_WAITS = {
    "zmq/sugar/poll.py": {"poll", "select"},
    "zmq/sugar/context.py": {"term", "destroy"},
}


@dataclass(frozen=True)
class HotFunction:
    """One function of the coordinator: calls and own time per task, and its share of busy time.

    `line` is None for a built-in function; `share` is in 0..1.
    """

    function: str
    file: str
    line: int | None
    calls_per_task: float
    own_us: Interval
    share: Interval

    @property
    def place(self) -> str:
        """The function with its module."""
        module = self.file.rpartition(".py")[0] or self.file
        return f"{module.replace('/', '.')}: {self.function}"


@dataclass(frozen=True)
class Bottlenecks(Showable):
    """The busiest functions of a coordinator at work; time spent waiting is kept apart.

    Times are in µs per task, with their intervals over `runs` profiles of `tasks` tasks each.
    """

    functions: tuple[HotFunction, ...]
    busy_us: Interval
    waiting_us: Interval
    runs: int
    tasks: int

    def bars(self) -> list[Bar]:
        """Own time per task in µs, by function."""
        return [Bar.of(function.place, function.own_us) for function in self.functions]

    def to_frame(self) -> pd.DataFrame:
        """A row for each function; a figure and its bounds in columns."""
        return data_frame(self.functions)

    def _sheets(self) -> Iterator[Sheet]:
        yield Sheet(
            f"The coordinator's {len(self.functions)} most expensive functions",
            ("function", "where", "calls per task", "own time per task", "share of busy time"),
            [
                (
                    hot.function,
                    hot.file if hot.line is None else f"{hot.file}:{hot.line}",
                    quantity(hot.calls_per_task),
                    estimate(hot.own_us, "µs"),
                    percent(hot.share),
                )
                for hot in self.functions
            ],
            [
                f"Medians of {count_of(self.runs, 'run')} of {count_of(self.tasks, 'task')} each "
                "under cProfile, "
                f"with 95 % intervals. Busy: {estimate(self.busy_us, 'µs')} per task. Left out: "
                f"{estimate(self.waiting_us, 'µs')} of waiting for messages, which includes start "
                "and end of the process. The profiler makes every call slower and counts time off "
                "the processor too, so this ranks functions but does not price them."
            ],
        )

    def _figures(self) -> Figures:
        return "µs per task", [(hot.place, hot.own_us) for hot in self.functions]


def bottlenecks(profiles: Sequence[CpuProfile], tasks: int, limit: int = 10) -> Bottlenecks:
    """The `limit` functions with the most own time, from profiles of `tasks` tasks each.

    Raises ValueError without a profile.
    """
    if not profiles:
        raise ValueError("bottlenecks need at least one profile")
    per_run = [
        {(spot.file, spot.line, spot.function): spot for spot in profile.top(len(profile.table))}
        for profile in profiles
        if profile.table
    ]
    waiting_s = [sum(s.own_s for s in run.values() if _waits(s)) for run in per_run]
    busy_s = [sum(s.own_s for s in run.values() if not _waits(s)) for run in per_run]
    found = []
    for key, spot in {key: spot for run in per_run for key, spot in run.items()}.items():
        if _waits(spot):
            continue
        # A function that a run never called took no time in it.
        own_s = [run[key].own_s if key in run else 0.0 for run in per_run]
        shares = [own / busy for own, busy in zip(own_s, busy_s, strict=True) if busy > 0]
        calls = sum(run[key].calls for run in per_run if key in run) / len(per_run)
        own_us = bootstrap_interval([own * 1e6 / tasks for own in own_s])
        share = bootstrap_interval(shares)
        found.append(HotFunction(spot.function, spot.file, spot.line, calls / tasks, own_us, share))
    found.sort(key=lambda hot: -(hot.own_us.value or 0.0))
    return Bottlenecks(
        tuple(found[:limit]),
        bootstrap_interval([busy * 1e6 / tasks for busy in busy_s]),
        bootstrap_interval([waiting * 1e6 / tasks for waiting in waiting_s]),
        len(per_run),
        tasks,
    )


def _waits(spot: HotSpot) -> bool:
    """Whether a function's own time is waiting for something else to happen.

    A lock taken by `with`, or a blocking `recv` of pyzmq, has no entry of its own in cProfile up to
    Python 3.11; that time stays with the function that waits.
    """
    if spot.line is None:
        return _BUILT_IN_WAITS.fullmatch(spot.function) is not None
    return any(
        spot.file.endswith(file) and spot.function in functions
        for file, functions in _ZMQ_WAITS.items()
    )
