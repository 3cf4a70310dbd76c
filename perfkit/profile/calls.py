"""What cProfile has counted, as tables that can be added and subtracted.

A thread can have one cProfile at most: a second one silently ends the first up to Python 3.11 and
is refused from 3.12 on, where the limit is one per process. Several profiles at a time are possible
all the same, because the counters of a running profiler can be read and only ever grow: what
happened in between is the difference of two readings. `perfkit.profile.cpu` is built on that.

Nothing here knows what a finished profile looks like or where it goes.
"""

from __future__ import annotations

import cProfile
import functools
import re
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, TypeAlias, cast

#: A function as pstats knows it: file, first line, name. Built-in ones are in "~" at line 0.
Function: TypeAlias = tuple[str, int, str]
#: Two counts of calls, own seconds and total seconds. A row has the calls that were not recursive
#: before all calls, an edge the other way round: that is how cProfile writes them.
Counts: TypeAlias = tuple[int, int, float, float]
#: What one function did, and which part of it on behalf of which caller.
Row: TypeAlias = tuple[int, int, float, float, dict[Function, Counts]]
Table: TypeAlias = dict[Function, Row]

#: What cProfile's `getstats` returns; converting it later keeps the conversion out of a profile.
Reading: TypeAlias = list[Any]

NOTHING: Counts = (0, 0, 0.0, 0.0)

#: The steps that open and close a profile. They are seen half, and say nothing about the program.
_PLUMBING = re.compile(r"CpuProfiler\.__(enter|exit)__|Session\.(begin|end|is_here)|_step")
_PLUMBING_FILES = (__file__, __file__.replace("calls.py", "cpu.py"))
_PROFILER_METHOD = re.compile(r"<method '\w+' of '_lsprof\.Profiler' objects>")


class ProfilerBusy(RuntimeError):
    """Another profiler is active where this one would have to be, and both at once cannot work."""


class _Running(threading.local):
    """The one cProfile of this thread, the session whose own it is, and all that are open."""

    profiler: cProfile.Profile | None = None
    owner: Session | None = None

    def __init__(self) -> None:
        self.sessions: list[Session] = []


_running = _Running()


class Session:
    """One profile in the making. It is open once, or once per step of a coroutine or generator.

    Alone in its thread, it turns a profiler of its own on and off, which is cheap however often it
    happens, and reads it at the end. Inside of another session it reads that one's profiler before
    and after, and adds up the differences. `source` is whoever made it, for `is_open`.
    """

    def __init__(self, source: object, name: str) -> None:
        self.source = source
        self.name = name
        self.wall_s = 0.0
        self.unseen_steps = 0
        self._profiler: cProfile.Profile | None = None
        self._table: Table = {}
        self._before: Reading = []
        self._since = 0.0

    @property
    def is_here(self) -> bool:
        """Whether it is open in this thread."""
        return self in _running.sessions

    def begin(self) -> None:
        """Open in this thread; raises ProfilerBusy when a profiler of somebody else is active."""
        self._since = time.perf_counter()
        if _running.profiler is not None:
            _running.sessions.append(self)
            self._before = _running.profiler.getstats()
            return
        if sys.version_info < (3, 12) and sys.getprofile() is not None:
            raise ProfilerBusy(_busy(self.name))
        profiler = self._profiler = self._profiler or cProfile.Profile()
        _running.profiler, _running.owner = profiler, self
        _running.sessions.append(self)
        try:
            profiler.enable()
        except ValueError as error:
            _running.profiler = _running.owner = None
            _running.sessions.remove(self)
            raise ProfilerBusy(_busy(self.name)) from error

    def end(self) -> None:
        """Close, in the thread that it was opened in."""
        profiler = _running.profiler
        assert profiler is not None, "a session ends where it began"
        last = _running.sessions == [self]
        if last:
            profiler.disable()
        owned = _running.owner is self
        # Its own profiler is read once, at the very end, however often it is turned on and off.
        now = [] if last and owned else profiler.getstats()
        self.wall_s += time.perf_counter() - self._since
        _running.sessions.remove(self)
        if not (last and owned):
            merge(self._table, difference(tabulate(now), tabulate([] if owned else self._before)))
        if owned and not last:
            # Those that are still open go on with this profiler: it is no longer this session's.
            self._profiler = _running.owner = None
        if last:
            _running.profiler = _running.owner = None

    def table(self) -> Table:
        """Everything between begin and end, without the instrument's own steps."""
        if self._profiler is not None:
            merge(self._table, tabulate(self._profiler.getstats()))
            self._profiler = None
        # A block that calls nothing keeps those steps, because an empty file is none to pstats.
        return closed(_without_plumbing(self._table) or self._table)


#: What to do with a session that has ended, and with the exception that ended it.
Finish: TypeAlias = Callable[[Session, BaseException | None], None]


class Stepped(Awaitable[Any]):
    """A coroutine whose steps are profiled when it is awaited; see `steps`."""

    def __init__(self, session: Session, inner: Coroutine[Any, Any, Any], finish: Finish) -> None:
        self._session = session
        self._inner = inner
        self._finish = finish

    def __await__(self) -> Generator[Any, Any, Any]:
        # A coroutine has a generator's send, throw and close.
        inner = cast("Generator[Any, Any, Any]", self._inner)
        return steps(self._session, inner, self._finish)


def steps(
    session: Session, inner: Generator[Any, Any, Any], finish: Finish
) -> Generator[Any, Any, Any]:
    """Run inner as `yield from` would (PEP 380), with the session open only inside its steps.

    `finish` is called once with the session and the exception that ended it, or None: a generator
    that is closed before its end did nothing wrong.
    """
    failure: BaseException | None = None
    step: Callable[[], Any] = functools.partial(inner.send, None)
    try:
        while True:
            try:
                item = _step(session, step)
            except StopIteration as done:
                return done.value
            try:
                sent = yield item
            except GeneratorExit:
                raise
            except BaseException as thrown:
                step = functools.partial(inner.throw, thrown)
            else:
                step = functools.partial(inner.send, sent)
    except BaseException as error:
        failure = error
        inner.close()
        raise
    finally:
        if session.wall_s:
            finish(session, None if isinstance(failure, GeneratorExit) else failure)


def _step(session: Session, step: Callable[[], Any]) -> Any:
    """One step, profiled. When another profiler has come up since the first, it runs unseen."""
    try:
        session.begin()
    except ProfilerBusy:
        if not session.wall_s:
            raise
        session.unseen_steps += 1
        return step()
    try:
        return step()
    finally:
        session.end()


def is_open(source: object) -> bool:
    """Whether a session of this source is open in this thread."""
    return any(session.source is source for session in _running.sessions)


def tabulate(entries: Reading) -> Table:
    """What `getstats` returned, as a table; functions that had not returned are not in it.

    cProfile's own conversion keeps one of several functions that share a file, line and name
    (lambdas, functions made in a loop); here they are added up.
    """
    table: Table = {}
    for entry in entries:
        simple = entry.callcount - entry.reccallcount
        row: Row = (simple, entry.callcount, entry.inlinetime, entry.totaltime, {})
        _add_row(table, _function(entry.code), row)
    for entry in entries:
        caller = _function(entry.code)
        for call in entry.calls or ():
            callee = table.get(_function(call.code))
            if callee is not None:
                simple = call.callcount - call.reccallcount
                edge = (call.callcount, simple, call.inlinetime, call.totaltime)
                callee[4][caller] = _plus(callee[4].get(caller, NOTHING), edge)
    return table


def merge(table: Table, more: Table) -> None:
    """Add the calls in `more` to `table`, in place."""
    for function, row in more.items():
        _add_row(table, function, row)


def difference(now: Table, before: Table) -> Table:
    """What happened between two readings of one profiler, which only ever counts up.

    Callers that had not returned are named by those they called, but not in the table themselves.
    """
    table: Table = {}
    for function, row in now.items():
        old = before.get(function, (*NOTHING, {}))
        counts = _minus(row[:4], old[:4])
        if counts[1]:
            edges = {c: _minus(edge, old[4].get(c, NOTHING)) for c, edge in row[4].items()}
            table[function] = (*counts, {c: edge for c, edge in edges.items() if edge[0]})
    return table


def closed(table: Table) -> Table:
    """The table without callers that are not in it themselves: readers look each of them up."""
    return {
        function: (*row[:4], {caller: edge for caller, edge in row[4].items() if caller in table})
        for function, row in table.items()
    }


def _add_row(table: Table, function: Function, row: Row) -> None:
    have = table.get(function)
    if have is None:
        table[function] = (*row[:4], dict(row[4]))
        return
    callers = have[4]
    for caller, edge in row[4].items():
        callers[caller] = _plus(callers.get(caller, NOTHING), edge)
    table[function] = (*_plus(have[:4], row[:4]), callers)


def _plus(one: Counts, other: Counts) -> Counts:
    return (one[0] + other[0], one[1] + other[1], one[2] + other[2], one[3] + other[3])


def _minus(one: Counts, other: Counts) -> Counts:
    return (one[0] - other[0], one[1] - other[1], one[2] - other[2], one[3] - other[3])


def _function(code: Any) -> Function:
    """The key of a code object; for built-in functions there is only their description."""
    if isinstance(code, str):
        return ("~", 0, code)
    return (code.co_filename, code.co_firstlineno, code.co_qualname)


def _without_plumbing(table: Table) -> Table:
    """The table without the instrument's own steps and the built-in functions that these called."""
    kept: Table = {}
    for function, row in table.items():
        if _is_plumbing(function):
            continue
        if function[0] == "~":
            for caller, (calls, simple, own_s, total_s) in row[4].items():
                if _is_plumbing(caller):
                    row = (*_minus(row[:4], (simple, calls, own_s, total_s)), row[4])
        if row[1]:
            kept[function] = row
    return kept


def _is_plumbing(function: Function) -> bool:
    file, _, name = function
    if file in _PLUMBING_FILES:
        return _PLUMBING.fullmatch(name) is not None
    return file == "~" and _PROFILER_METHOD.fullmatch(name) is not None


def _busy(name: str) -> str:
    reach = "thread" if sys.version_info < (3, 12) else "process"
    return (
        f"The profile {name!r} cannot start because another profiler is active in this {reach}: "
        "end that one first, or switch this one off with PERFKIT_PROFILE=0."
    )
