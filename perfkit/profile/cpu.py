"""Where a program's time goes, function by function, from the standard library's cProfile.

* A profile covers the thread it was opened in. A `with` block that awaits also sees what other
  tasks do on that thread.
* A thread holds one profile at a time. A second one would silently end the first up to Python 3.11
  and is refused from 3.12 on, so it is refused here on both. A decorated function that is called
  inside an open profile is part of that profile and gets none of its own.
* Seconds are those of a wall clock, as cProfile's are: waiting in a poll or for a lock counts.

A profile is one run under an instrument that slows calls down. It says where to look; how long
something takes, with an interval, is measured by `perfkit.bench`.
"""

from __future__ import annotations

import cProfile
import io
import marshal
import pstats
import re
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

from cluster.vocabulary.printable import count_of
from perfkit.evidence.files import write_whole
from perfkit.evidence.showing import Sheet, Showable
from perfkit.evidence.tables import data_frame, encode_rows
from perfkit.evidence.text import quantity
from perfkit.profile import instrument
from perfkit.profile.instrument import Finish, Instrument
from perfkit.profile.paths import short_path

if TYPE_CHECKING:
    import pandas as pd

#: A function as pstats knows it: file, first line, name. Built-in ones are in "~" at line 0.
Function: TypeAlias = tuple[str, int, str]
#: Two counts of calls, own seconds and total seconds. A function has the calls that were not
#: recursive before all calls, an edge the other way round: that is how cProfile writes them.
Counts: TypeAlias = tuple[int, int, float, float]
#: What one function did, and which part of it on behalf of which caller.
FunctionCounts: TypeAlias = tuple[int, int, float, float, dict[Function, Counts]]
Table: TypeAlias = dict[Function, FunctionCounts]

#: Shown in place of a file for built-in functions.
BUILT_IN = "(built-in)"
#: The steps that close a profile; they say nothing about the program.
_OWN_FILES = frozenset({__file__, instrument.__file__})
_OWN_CALL: Function = ("~", 0, "<method 'disable' of '_lsprof.Profiler' objects>")


class ProfileUnreadable(ValueError):
    """A file is not a profile that cProfile or this module wrote."""


class ProfilerBusy(RuntimeError):
    """Another profiler is active in this thread (from Python 3.12 on, in this process)."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"The profile {name!r} cannot start because another profiler is active: end that one "
            "first, or switch this one off with PERFKIT_PROFILE=0."
        )


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
class CpuProfile(Showable):
    """A finished profile: the table in pstats' form, and how it came to be.

    `wall_s` is the time it was open, None for a loaded one; `error` is the name of the exception
    that ended it; `path` is the `.prof` file, None when none was asked for or it failed.
    """

    name: str
    table: Table = field(repr=False)
    wall_s: float | None = None
    error: str | None = None
    path: Path | None = None

    @property
    def own_s(self) -> float:
        """The time of all functions together, in seconds."""
        return sum(counts[2] for counts in self.table.values())

    def top(self, limit: int = 10) -> list[HotSpot]:
        """The functions with the most own time, most first."""
        ranked = sorted(self.table.items(), key=lambda item: (-item[1][2], item[0]))
        whole_s = self.own_s
        return [_hot_spot(function, counts, whole_s) for function, counts in ranked[:limit]]

    def to_frame(self) -> pd.DataFrame:
        """Every function as a row, most own time first; the columns are HotSpot's fields."""
        return data_frame(self.top(len(self.table)), HotSpot.__slots__)

    def encode(self) -> str:
        """A JSON list with every function to a line, most own time first."""
        rows = [asdict(spot) for spot in self.top(len(self.table))]
        return encode_rows(rows)

    def _formats(self) -> dict[str, Callable[[], str | bytes]]:
        return {**super()._formats(), ".prof": lambda: marshal.dumps(self.table)}

    def _sheets(self) -> Iterator[Sheet]:
        open_for = "" if self.wall_s is None else f", open for {quantity(self.wall_s * 1e3, 'ms')}"
        ended = "" if self.error is None else f", ended by {self.error}"
        calls = count_of(sum(counts[1] for counts in self.table.values()), "call")
        rows = (
            (
                spot.function,
                spot.file if spot.line is None else f"{spot.file}:{spot.line}",
                quantity(spot.calls),
                quantity(spot.total_s * 1e3),
                quantity(spot.own_s * 1e3),
                quantity(None if spot.own_share is None else spot.own_share * 100),
            )
            for spot in self.top(10)
        )
        yield Sheet(
            f"CPU profile {self.name}: {calls}{open_for}{ended}",
            ("function", "where", "calls", "total ms", "own ms", "own %"),
            rows,
            ["The ten functions with the most own time, in one run under the profiler."],
        )


class profile_cpu(Instrument[CpuProfile]):  # noqa: N801 -- a context manager, named as those are
    """Profile a `with` block, or each call of a function it decorates; see `result`.

    With `out_dir` the profile is also written to `<out_dir>/<name>.prof`, for snakeviz and other
    readers of cProfile's files; the last profile under a name wins. A file that cannot be written
    is a RuntimeWarning. Without a name, a function's own is taken.

    Raises ProfilerBusy when it has to begin while another profiler is active.
    """

    def __init__(self, name: str | None = None, *, out_dir: str | Path | None = None) -> None:
        super().__init__(name)
        self.out_dir = None if out_dir is None else Path(out_dir)

    def _is_covered(self) -> bool:
        return _this_thread.is_profiled

    def _begin(self, name: str) -> Finish:
        profiler = cProfile.Profile()
        silent = sys.version_info < (3, 12) and sys.getprofile() is not None
        if silent or _this_thread.is_profiled:
            raise ProfilerBusy(name)
        _this_thread.is_profiled = True
        since_s = time.perf_counter()

        def finish(error: BaseException | None) -> None:
            profiler.disable()
            wall_s = time.perf_counter() - since_s
            _this_thread.is_profiled = False
            table = _table(profiler)
            path = None if self.out_dir is None else _save(table, name, self.out_dir)
            ended_by = None if error is None else type(error).__name__
            self.result = CpuProfile(name, table, wall_s, ended_by, path)

        try:
            # Nothing is called from here on until the program goes on.
            profiler.enable()
        except ValueError as error:
            _this_thread.is_profiled = False
            raise ProfilerBusy(name) from error
        return finish


class _ThisThread(threading.local):
    is_profiled = False


_this_thread = _ThisThread()


def load_profile(path: str | Path, name: str | None = None) -> CpuProfile:
    """Read a `.prof` file, such as another process wrote; the name is the file's unless given.

    The format is that of pstats: a marshalled dict of function to counts. Raises FileNotFoundError
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


def _table(profiler: cProfile.Profile) -> Table:
    """What a profiler counted, without the steps that closed it."""
    profiler.create_stats()
    table = cast(Table, profiler.stats)
    kept = {
        function: counts
        for function, counts in table.items()
        if function[0] not in _OWN_FILES and function != _OWN_CALL
    }
    # A block that calls nothing keeps those steps, because pstats cannot read an empty file.
    return kept or table


def _save(table: Table, name: str, folder: Path) -> Path | None:
    """Write the .prof file whole or not at all, so that a reader never sees half of one."""
    stem = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "profile"
    path = folder / f"{stem}.prof"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, marshal.dumps(table))
    except OSError as error:
        warnings.warn(
            f"The profile {name!r} could not be written to {path}: {error.strerror}.",
            RuntimeWarning,
            stacklevel=4,
        )
        return None
    return path


def _hot_spot(function: Function, counts: FunctionCounts, whole_s: float) -> HotSpot:
    file, line, name = function
    built_in = file == "~"
    return HotSpot(
        function=name,
        file=BUILT_IN if built_in else short_path(file),
        line=None if built_in else line,
        calls=counts[1],
        total_s=counts[3],
        own_s=counts[2],
        own_share=counts[2] / whole_s if whole_s > 0 else None,
    )
