"""Databases of rocprofv3 (rocpd), its default output since ROCm 7: SQLite.

Every table is there once per profiled process, with the process's guid in its name, and views
without it put them together. Three views have all that is read here: `kernels`, `memory_copies` and
`counters_collection`, whose value is the sum over a counter's instances. A database without a view,
or whose view leaves rows out, is read from the tables below. Ids begin again in each process, so
rows belong together only if their guids are alike.

Schema: ROCm/rocprofiler-sdk, source/share/rocprofiler-sdk-rocpd/{rocpd_tables,rocpd_views,
data_views}.sql.

A database is a program: its views run when they are read. So it is opened for reading only, without
trust in its schema, and every query has a bound on steps and rows.
"""

from __future__ import annotations

import math
import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from perfkit.gpu.rocprof.cells import RocprofError, SourceFile, clean
from perfkit.gpu.rocprof.dispatches import Dispatches
from perfkit.gpu.rocprof.records import ProfileRecord, transfer_of
from perfkit.gpu.rocprof.tables import Kernel, Transfer

_Fields: TypeAlias = dict[str, Any]
_Key: TypeAlias = tuple[Any, ...]
_Counters: TypeAlias = dict[str, int | float | None]

#: Rows that are read of one table or view.
ROWS_MAX = 4_000_000
#: Steps of SQLite's virtual machine for all queries: a view takes some hundred for a row, which has
#: about as many bytes. They are counted in portions.
STEPS_MAX, STEPS_PER_BYTE, STEPS_EACH = 200_000_000, 20, 100_000
#: A text or blob is no longer than this; the longest are the names of kernels.
VALUE_BYTES_MAX = 2**24
#: Text of all rows together.
TEXT_BYTES_MAX = 2**28

#: For each view: the columns that are read, by the names that records have.
_KERNELS = {
    "guid": "guid", "nid": "nid", "pid": "pid", "device": "agent_abs_index", "queue": "queue_id",
    "dispatch": "dispatch_id", "kernelname": "name", "start": "start", "end": "end",
    "gridx": "grid_x", "gridy": "grid_y", "gridz": "grid_z", "workgroupx": "workgroup_x",
    "workgroupy": "workgroup_y", "workgroupz": "workgroup_z", "event": "event_id",
}  # fmt: skip
_COPIES = {
    "guid": "guid", "nid": "nid", "pid": "pid", "direction": "name", "start": "start",
    "end": "end", "size": "size",
    "srcagentabsindex": "src_agent_abs_index", "dstagentabsindex": "dst_agent_abs_index",
}  # fmt: skip
_COUNTERS = {
    "guid": "guid", "nid": "nid", "pid": "pid", "device": "agent_abs_index",
    "dispatch": "dispatch_id", "start": "start", "end": "end", "event": "event_id",
    "counter": "counter_name", "value": "value",
}  # fmt: skip
#: The same from the tables.
_KERNEL_TABLE = _KERNELS | {
    "device": "agent_id", "kernelname": "kernel_id", "gridx": "grid_size_x",
    "gridy": "grid_size_y", "gridz": "grid_size_z", "workgroupx": "workgroup_size_x",
    "workgroupy": "workgroup_size_y", "workgroupz": "workgroup_size_z",
}  # fmt: skip
_COPY_TABLE = _COPIES | {
    "direction": "name_id", "srcagentabsindex": "src_agent_id",
    "dstagentabsindex": "dst_agent_id",
}  # fmt: skip
_COUNTER_TABLE = {"guid": "guid", "event": "event_id", "counter": "pmc_id", "value": "value"}
#: The table that says what ids stand for, and the columns that do, the best first.
_AGENTS = ("rocpd_info_agent", "absolute_index")
_RESOLVED = {
    "device": _AGENTS, "srcagentabsindex": _AGENTS, "dstagentabsindex": _AGENTS,
    "direction": ("rocpd_string", "string"), "counter": ("rocpd_info_pmc", "name"),
    "kernelname": ("rocpd_info_kernel_symbol", "display_name", "kernel_name"),
}  # fmt: skip
#: What tells dispatches apart; only those count that both kernels and counters have.
_KEY = ("guid", "nid", "pid", "device", "dispatch", "start", "end", "event")
#: Other databases by one of their tables, and what to do.
_OTHERS = {
    "rocpd_op": (
        "a trace of rocmProfileData (rpd)", "turn it into a trace with its rpd2tracing.py",
    ),
    "CUPTI_ACTIVITY_KIND_KERNEL": (
        "a report of Nsight Systems, of an NVIDIA card", "give a profile of an AMD card",
    ),
    "metric_value": (
        "results that rocprof-compute worked out", "give the pmc_perf.csv of that workload",
    ),
}  # fmt: skip
_DAMAGED = "copy the file again if it was cut, or profile again"


def read_database(
    database: Path | bytes, source: SourceFile
) -> tuple[tuple[Kernel, ...], tuple[Transfer, ...]]:
    """The kernels, with their counters, and the copies of a rocpd database, in its order.

    Raises RocprofError for another or a damaged database, and for one with too much to read.
    """
    with _errors(source), closing(_opened(database)) as connection:
        reader = _Reader(connection, source)
        is_ours = any(name.startswith(("rocpd_", "kernels")) for name in reader.names)
        if not is_ours or "rocpd_op" in reader.names:
            raise _other(reader, source)
        copies = reader.part("memory_copies", _COPIES, "rocpd_memory_copy", _COPY_TABLE)
        return _kernels(reader, source), tuple(
            transfer_of(ProfileRecord(_texts(row), source), _text(row.get("direction")))
            for row in reader.rows(copies)
        )


def _kernels(reader: _Reader, source: SourceFile) -> tuple[Kernel, ...]:
    """Every dispatch, with the counters that agree with it in all that identifies."""
    kernels = reader.part("kernels", _KERNELS, "rocpd_kernel_dispatch", _KERNEL_TABLE)
    counted = reader.part("counters_collection", _COUNTERS, "rocpd_pmc_event", _COUNTER_TABLE)
    common = [name for name in _KEY if name in reader.fields(kernels) & reader.fields(counted)]
    if "guid" in common:  # a view has the process's own number, the table below it a row's
        common = [name for name in common if name not in ("nid", "pid")]
    counters: dict[_Key, _Counters] = {}
    if {"dispatch", "start", "event"} & set(common):
        for row in reader.rows(counted):
            _add_counter(counters.setdefault(_key(row, common), {}), row, source)
    elif counted.names:
        source.note("counters that belong to no dispatch; left out")
    dispatches = Dispatches(source)
    for row in reader.rows(kernels):
        known = counters.pop(_key(row, common), {})
        dispatches.add(ProfileRecord(_texts(row), source), known)
    return dispatches.kernels()


def _add_counter(known: _Counters, row: _Fields, source: SourceFile) -> None:
    """Add a value to the others of the same counter, which are its other instances."""
    name, value = _text(row.get("counter")), row.get("value")
    if name is None:
        source.note("no name of a counter; left out")
        return
    name = clean(name, source, None)
    before = known.get(name, 0)
    known[name] = None
    if not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        source.note(f"{name} is no number of 0 or more, and unknown")
    elif before is not None:
        total = before + value
        known[name] = int(total) if float(total).is_integer() else total


@contextmanager
def _errors(source: SourceFile) -> Iterator[None]:
    """Turn what SQLite says about a file into the error that names it."""
    try:
        yield
    except RocprofError:
        raise
    except sqlite3.OperationalError as error:
        if "interrupted" in str(error):
            raise source.error(
                "a database whose views do not come to an end",
                "give it as the profiler wrote it",
            ) from None
        if "locked" in str(error):
            raise source.error("a database in use", "wait until the profiler has ended") from None
        raise source.error(f"a database that cannot be read: {error}", _DAMAGED) from None
    except UnicodeDecodeError:  # sqlite3 takes names and its own messages for UTF-8
        raise source.error("a damaged database: its names are no text", _DAMAGED) from None
    except (sqlite3.Error, OverflowError, MemoryError) as error:
        raise source.error(f"a damaged database: {error}", _DAMAGED) from None


def _opened(database: Path | bytes) -> sqlite3.Connection:
    if isinstance(database, bytes):
        connection = sqlite3.connect(":memory:")
        connection.deserialize(database)
        size_bytes = len(database)
    else:
        connection = sqlite3.connect(_uri(database), uri=True, timeout=1)
        size_bytes = database.stat().st_size
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, VALUE_BYTES_MAX)
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    steps = iter(range((STEPS_MAX + STEPS_PER_BYTE * size_bytes) // STEPS_EACH))
    connection.set_progress_handler(lambda: next(steps, None) is None, STEPS_EACH)
    return connection


def _uri(path: Path) -> str:
    """The database for reading only.

    SQLite puts files beside one whose journal is a write-ahead log, and leaves them there. If there
    is no log, nobody writes, and it may take the file as it is.
    """
    uri = f"{path.resolve().as_uri()}?mode=ro"
    with path.open("rb") as file:
        has_log_mode = file.read(20)[18:20] == b"\x02\x02"
    has_log = path.resolve().with_name(f"{path.resolve().name}-wal").exists()
    return f"{uri}&immutable=1" if has_log_mode and not has_log else uri


class _Part(NamedTuple):
    """Views or tables to read as one, and the columns to read by the names of fields."""

    names: list[str]
    columns: Mapping[str, str]
    #: The name of the tables without a process's suffix; empty for views.
    table: str = ""


class _Reader:
    """Reads the rows of views, or of the tables below them."""

    def __init__(self, connection: sqlite3.Connection, source: SourceFile) -> None:
        self.connection = connection
        self.source = source
        found = connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")
        self.names = [name for (name,) in found if isinstance(name, str)]
        self._text_bytes = 0
        self._known: dict[str, str] = {}

    def part(
        self, view: str, columns: Mapping[str, str], table: str, table_columns: Mapping[str, str]
    ) -> _Part:
        """The view; the tables below if it is not there, does not work or leaves rows out."""
        below = _Part(self._named(table, r"_\w+"), table_columns, table)
        views = self._named(view, r"_[0-9a-f]{8}\w*")
        if not views:
            return below
        try:
            rows = sum(self._count(name) for name in views)
        except sqlite3.OperationalError as error:
            if "interrupted" in str(error) or not below.names:
                raise
            self.source.note(f"the view {view} does not work; its tables were read")
            return below
        is_sum = table == "rocpd_pmc_event"
        rows_below = sum(self._count(name) for name in below.names)
        if rows >= rows_below or (is_sum and rows):
            return _Part(views, columns)
        self.source.note(f"the view {view} leaves rows out; its tables were read")
        return below

    def fields(self, part: _Part) -> set[str]:
        """The fields that the rows of a part have."""
        return {field for name in part.names for field in self._there(name, part.columns)}

    def rows(self, part: _Part) -> Iterator[_Fields]:
        """The rows, with ids replaced by what they stand for, or None if that is not told.

        Raises RocprofError beyond ROWS_MAX.
        """
        read = 0
        for name in part.names:
            meanings = self._meanings(name, part) if part.table else {}
            for row in self._select(name, part.columns):
                read += 1
                if read > ROWS_MAX:
                    raise self.source.error(
                        f"{name} has more than {ROWS_MAX:,} rows", "profile fewer kernels"
                    )
                for field, known in meanings.items():
                    row[field] = known.get((row.get("guid"), row[field]))
                yield row

    def columns(self, name: str) -> set[str]:
        """The columns of a table or view."""
        found = self.connection.execute(f"SELECT * FROM {_quoted(name)} LIMIT 0").description
        return {str(column[0]) for column in found or ()}

    def _named(self, base: str, suffix: str) -> list[str]:
        """The one of this name, else those with a suffix: it would hold their rows again."""
        if base in self.names:
            return [base]
        return [name for name in self.names if re.fullmatch(base + suffix, name, re.ASCII)]

    def _count(self, name: str) -> int:
        (count,) = self.connection.execute(f"SELECT count(*) FROM {_quoted(name)}").fetchone()
        return int(count)

    def _there(self, name: str, columns: Mapping[str, str]) -> dict[str, str]:
        there = self.columns(name)
        return {field: column for field, column in columns.items() if column in there}

    def _select(self, name: str, columns: Mapping[str, str]) -> Iterator[_Fields]:
        wanted = self._there(name, columns)
        if not wanted:
            return
        chosen = ", ".join(map(_quoted, wanted.values()))
        for values in self.connection.execute(f"SELECT {chosen} FROM {_quoted(name)}"):
            yield dict(zip(wanted, map(self._shared, values), strict=True))

    def _shared(self, value: object) -> object:
        """The value, texts once each: names and guids are in every row."""
        if not isinstance(value, str):
            return None if isinstance(value, bytes) else value
        if value not in self._known:
            self._text_bytes += len(value)
            if self._text_bytes > TEXT_BYTES_MAX:
                raise self.source.error(
                    f"more than {TEXT_BYTES_MAX // 2**20} MiB of text", "profile fewer kernels"
                )
            self._known[value] = value
        return self._known[value]

    def _meanings(self, name: str, part: _Part) -> dict[str, dict[_Key, object]]:
        """For each field that is an id: what the ids of each process stand for."""
        suffix = name[len(part.table) :]
        found = {}
        for field in _RESOLVED.keys() & self._there(name, part.columns).keys():
            table, *columns = _RESOLVED[field]
            wanted = {"guid": "guid", "id": "id"} | {column: column for column in columns}
            same = table + suffix
            found[field] = {
                (row.get("guid"), row.get("id")): next(
                    (row[column] for column in columns if row.get(column) is not None), None
                )
                for place in ([same] if same in self.names else self._named(table, r"_\w+"))
                for row in self._select(place, wanted)
            }
        return found


def _other(reader: _Reader, source: SourceFile) -> RocprofError:
    for table, (what, to_do) in _OTHERS.items():
        if table in reader.names:
            return source.error(what, to_do)
    for name in reader.names:
        if {"BeginNs", "EndNs"} <= reader.columns(name):
            return source.error(
                "the database of rocprof v1", "give the .csv or .json that has the same name"
            )
    shown = ", ".join(reader.names[:5])
    return source.error(
        f"a database that is no profile (tables: {shown or 'none'})",
        "give the database that rocprofv3 wrote",
    )


def _texts(row: Mapping[str, object]) -> dict[str, str | None]:
    return {name: _text(value) for name, value in row.items()}


def _text(value: object) -> str | None:
    """A value as a record has it; a double is whole if it holds every whole number so large."""
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    return str(value) if isinstance(value, int | str) else None


def _key(row: _Fields, names: list[str]) -> _Key:
    return tuple(row[name] for name in names)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
