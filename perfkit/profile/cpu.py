"""Where a program's time goes, function by function, from the standard library's cProfile.

cProfile alone is awkward inside of a program: a second profiler silently ends the first one up to
Python 3.11 and is refused from 3.12 on, an exception loses the profile unless one thinks of it, and
its figures are a printout. Here

* a thread has one cProfile at most, and every profile that is open in it is the difference of two
  readings. So profiles nest, and may end in any order: **the outer one holds everything, its inner
  ones included**. The instrument's own work for an inner profile is listed in the outer one under
  this file, where nobody takes it for the program's.
* a profile covers the thread it was opened in. A decorated coroutine function or generator is
  profiled only while it runs, not while it is suspended. A `with` block that awaits also sees what
  other tasks do on the thread in the meantime.
* seconds are those of a wall clock, as cProfile's are: waiting in a poll or a lock counts.

A profile is one run of one program under an instrument that slows calls down. It says where to
look; how long something takes, with an interval, is for `perfkit.bench` to say.
"""

from __future__ import annotations

import cProfile
import functools
import inspect
import io
import os
import pstats
import re
import tempfile
import warnings
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, cast, overload

from perfkit.evidence.tables import data_frame, html_table
from perfkit.profile import short_path, switch
from perfkit.profile.calls import (
    Function,
    ProfilerBusy,
    Row,
    Session,
    Stepped,
    Table,
    is_open,
    steps,
)

if TYPE_CHECKING:
    import pandas as pd

Order: TypeAlias = Literal["tottime", "cumtime"]

F = TypeVar("F", bound=Callable[..., Any])

#: How many finished profiles `recent()` remembers.
RECENT_LIMIT = 32
COLUMNS = ("function", "file", "line", "calls", "total_s", "own_s", "own_share")
#: Where the built-in functions, which have no file, are said to be.
BUILT_IN = "(built-in)"


class ProfileUnreadable(ValueError):
    """A file is not a profile that cProfile or this module wrote."""


@dataclass(frozen=True, slots=True)
class HotSpot:
    """One function's part in a profile.

    `calls` counts recursive ones; `own_s` leaves out, `total_s` includes the functions it called;
    `own_share` is the part of the whole profile's time, in 0..1, None where the profile has none.
    `line` is None for a built-in function.
    """

    function: str
    file: str
    line: int | None
    calls: int
    total_s: float
    own_s: float
    own_share: float | None


@dataclass(frozen=True, eq=False)
class CpuProfile:
    """A finished profile: the table in pstats' form, and what is known about how it came to be.

    `wall_s` is the time it was open, None for a loaded one; `error` is the name of the exception
    that ended it; `path` is the `.prof` file, None when none was asked for or it failed.
    `unseen_steps` counts the steps of a coroutine or generator that ran unprofiled because another
    profiler had come up in the meantime.
    """

    name: str
    table: Table = field(repr=False)
    wall_s: float | None = None
    error: str | None = None
    path: Path | None = None
    unseen_steps: int = 0

    @property
    def calls(self) -> int:
        """How many calls the profile saw, of every function together."""
        return sum(row[1] for row in self.table.values())

    @property
    def own_s(self) -> float:
        """The time of all functions together, in seconds."""
        return sum(row[2] for row in self.table.values())

    def top(self, limit: int = 10, by: Order = "tottime") -> list[HotSpot]:
        """The functions that took the most own ("tottime") or total time ("cumtime"), most first.

        Raises ValueError for another order or a limit below 1.
        """
        if by not in ("tottime", "cumtime"):
            raise ValueError(f'by must be "tottime" or "cumtime", not {by!r}.')
        if limit < 1:
            raise ValueError(f"limit must be at least 1, not {limit}.")
        column: Literal[2, 3] = 2 if by == "tottime" else 3
        ranked = sorted(self.table.items(), key=lambda item: (-item[1][column], item[0]))
        whole_s = self.own_s
        return [_hot_spot(function, row, whole_s) for function, row in ranked[:limit]]

    def to_frame(self) -> pd.DataFrame:
        """Every function as a row, in the order of own time; the columns are HotSpot's fields."""
        spots = self.top(max(len(self.table), 1))
        rows = [{column: getattr(spot, column) for column in COLUMNS} for spot in spots]
        return data_frame(rows, COLUMNS)

    def to_pstats(self) -> pstats.Stats:
        """A copy for the standard library's tools; raises ValueError when nothing was profiled."""
        if not self.table:
            raise ValueError(f"The profile {self.name!r} is empty, which pstats cannot hold.")
        return pstats.Stats(cast(cProfile.Profile, _Loadable(self.table)))

    def _repr_html_(self) -> str:
        open_for = "" if self.wall_s is None else f", open for {self.wall_s * 1e3:.1f} ms"
        ended = "" if self.error is None else f", ended by {self.error}"
        rows = (
            (
                spot.function,
                spot.file if spot.line is None else f"{spot.file}:{spot.line}",
                str(spot.calls),
                f"{spot.total_s * 1e3:.3f}",
                f"{spot.own_s * 1e3:.3f}",
                "unknown" if spot.own_share is None else f"{spot.own_share:.1%}",
            )
            for spot in self.top(10)
        )
        return html_table(
            f"CPU profile {self.name}: {self.calls} calls{open_for}{ended}",
            ("function", "where", "calls", "total ms", "own ms", "own share"),
            rows,
            ["The ten functions with the most own time, in one run under the profiler."],
        )


@overload
def profile_cpu(name: F, /) -> F: ...
@overload
def profile_cpu(
    name: str | None = None, *, enabled: bool = True, out_dir: str | Path | None = None
) -> CpuProfiler: ...
def profile_cpu(
    name: F | str | None = None, *, enabled: bool = True, out_dir: str | Path | None = None
) -> F | CpuProfiler:
    """Profile a `with` block, or each call of a function it decorates (`@profile_cpu`, or called).

    The profile is the `result` of what this returns, and in `recent()`. With `out_dir` it is also
    written to `<out_dir>/<name>.prof`, for snakeviz and every other reader of cProfile's files; a
    name is one file, and the last profile under it wins. A file that cannot be written is a
    RuntimeWarning, never an error in the program. Without a name, a function's own is taken.

    When it is not `enabled`, a decorated function is returned as it is. A recursive call of a
    decorated function is part of the profile of the first.

    Raises TypeError for what cannot be decorated: a class, an asynchronous generator, anything that
    is not a function; and ProfilerBusy on entry when a profiler other than this module's is active.
    """
    if name is None or isinstance(name, str):
        return CpuProfiler(name, enabled, out_dir)
    return CpuProfiler(None, enabled, out_dir)(name)


class CpuProfiler:
    """What `profile_cpu` returns: a context manager, a decorator, and the last profile it made."""

    def __init__(self, name: str | None, enabled: bool, out_dir: str | Path | None) -> None:
        if name is not None and not name.strip():
            raise ValueError("A profile's name must not be empty: it names the file as well.")
        self.name = name
        self.enabled = enabled
        self.out_dir = None if out_dir is None else Path(out_dir)
        self.result: CpuProfile | None = None
        self._blocks: list[Session] = []

    def __enter__(self) -> CpuProfiler:
        if switch.on and self.enabled:
            session = Session(self, self.name or "profile")
            self._blocks.append(session)
            try:
                session.begin()
            except ProfilerBusy:
                self._blocks.remove(session)
                raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._blocks:
            return
        # Nothing but operators until the session has ended: a call would be in the profile.
        for session in self._blocks[::-1]:
            if session.is_here:
                break
        else:
            raise RuntimeError(
                f"The profile {self._blocks[-1].name!r} was opened in another thread and must be "
                "closed there: cProfile cannot be stopped from outside of its thread."
            )
        session.end()
        self._blocks.remove(session)
        _finish(self, session, error)

    def __call__(self, func: F) -> F:
        """Decorate a function, coroutine function or generator function; see `profile_cpu`."""
        if inspect.isclass(func) or not callable(func):
            raise TypeError(f"profile_cpu decorates functions, and {func!r} is not one.")
        if inspect.isasyncgenfunction(func):
            raise TypeError(
                f"profile_cpu cannot decorate the asynchronous generator {func.__qualname__}: "
                "use it as a `with` block inside of it."
            )
        if not self.enabled:
            return func
        name = self.name or str(getattr(func, "__qualname__", type(func).__name__))
        if inspect.iscoroutinefunction(func):
            return cast(F, _coroutine_wrapper(self, name, func))
        if inspect.isgeneratorfunction(func):
            return cast(F, _generator_wrapper(self, name, func))
        return cast(F, _function_wrapper(self, name, func))


def recent(name: str | None = None) -> tuple[CpuProfile, ...]:
    """The last profiles of this process, at most RECENT_LIMIT, oldest first; or those of a name."""
    return tuple(profile for profile in _recent if name is None or profile.name == name)


def load_profile(path: str | Path, name: str | None = None) -> CpuProfile:
    """Read a `.prof` file, such as another process wrote; the name is the file's unless given.

    The format is that of pstats: a marshalled dict of function to row. Raises FileNotFoundError
    when there is no such file and ProfileUnreadable when it holds something else, or nothing.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no profile at {path}.")
    try:
        # pstats prints what it makes of a bad file before it raises.
        table = pstats.Stats(str(path), stream=io.StringIO()).stats  # type: ignore[attr-defined]
    except (EOFError, TypeError, ValueError, AttributeError) as error:
        raise ProfileUnreadable(f"{path} is not a file that cProfile wrote: {error}.") from error
    except OSError as error:
        raise ProfileUnreadable(f"{path} cannot be read: {error.strerror}.") from error
    return CpuProfile(name=name or path.stem, table=table, path=path)


_recent: deque[CpuProfile] = deque(maxlen=RECENT_LIMIT)


def _finish(source: CpuProfiler, session: Session, error: BaseException | None) -> None:
    profile = CpuProfile(
        name=session.name,
        table=session.table(),
        wall_s=session.wall_s,
        error=None if error is None else type(error).__name__,
        unseen_steps=session.unseen_steps,
    )
    if source.out_dir is not None:
        profile = replace(profile, path=_save(profile, source.out_dir))
    source.result = profile
    _recent.append(profile)


def _save(profile: CpuProfile, folder: Path) -> Path | None:
    """Write the .prof file whole or not at all, so that a reader never sees half of one."""
    stem = re.sub(r"[^\w.-]+", "-", profile.name).strip("-.") or "profile"
    path = folder / f"{stem}.prof"
    temporary: str | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{stem}-", dir=folder)
        os.close(handle)
        profile.to_pstats().dump_stats(temporary)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        warnings.warn(
            f"The profile {profile.name!r} could not be written to {path}: {error.strerror}.",
            RuntimeWarning,
            stacklevel=4,
        )
        return None
    return path


def _function_wrapper(source: CpuProfiler, name: str, func: Callable[..., Any]) -> object:
    @functools.wraps(func)
    def profiled(*args: Any, **kwargs: Any) -> Any:
        if not switch.on or is_open(source):
            return func(*args, **kwargs)
        session = Session(source, name)
        session.begin()
        try:
            result = func(*args, **kwargs)
        except BaseException as error:
            session.end()
            _finish(source, session, error)
            raise
        session.end()
        _finish(source, session, None)
        return result

    return profiled


def _generator_wrapper(
    source: CpuProfiler, name: str, func: Callable[..., Generator[Any, Any, Any]]
) -> object:
    @functools.wraps(func)
    def profiled(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        if not switch.on or is_open(source):
            return (yield from func(*args, **kwargs))
        finish = functools.partial(_finish, source)
        return (yield from steps(Session(source, name), func(*args, **kwargs), finish))

    return profiled


def _coroutine_wrapper(
    source: CpuProfiler, name: str, func: Callable[..., Coroutine[Any, Any, Any]]
) -> object:
    @functools.wraps(func)
    async def profiled(*args: Any, **kwargs: Any) -> Any:
        if not switch.on or is_open(source):
            return await func(*args, **kwargs)
        finish = functools.partial(_finish, source)
        return await Stepped(Session(source, name), func(*args, **kwargs), finish)

    return profiled


class _Loadable:
    """A table in the shape that pstats.Stats takes for a profiler that has stopped."""

    def __init__(self, table: Table) -> None:
        self.stats = {function: (*row[:4], dict(row[4])) for function, row in table.items()}

    def create_stats(self) -> None:
        """Nothing is left to be read: the table is complete."""


def _hot_spot(function: Function, row: Row, whole_s: float) -> HotSpot:
    file, line, name = function
    built_in = file == "~"
    return HotSpot(
        function=name,
        file=BUILT_IN if built_in else short_path(file),
        line=None if built_in else line,
        calls=row[1],
        total_s=row[3],
        own_s=row[2],
        own_share=row[2] / whole_s if whole_s > 0 else None,
    )
