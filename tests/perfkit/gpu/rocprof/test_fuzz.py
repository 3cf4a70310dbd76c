"""Any bytes give a profile with possible figures, or RocprofError, and nothing else."""

import json
import math
import os
import random
import re
import sqlite3
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.gpu.rocprof import KernelProfile, RocprofError, parse
from perfkit.gpu.rocprof.cells import LostDigits, NotANumber, exact, rounded
from tests.perfkit.gpu.profiles import MADE_UP, ROCPD_TABLES, ROCPD_VIEWS

#: Files of the long fuzz; more can be asked for.
FILES = int(os.environ.get("PERFKIT_FUZZ_FILES", "100000"))


def database(*scripts: str) -> bytes:
    """The bytes of a database in small pages, so that a few bytes hit all parts of it."""
    with closing(sqlite3.connect(":memory:")) as written:
        written.executescript("PRAGMA page_size = 512; VACUUM;" + "".join(scripts))
        return written.serialize()


DATABASES = [database(ROCPD_VIEWS), database(ROCPD_TABLES), database(ROCPD_VIEWS, ROCPD_TABLES)]
TEXTS = [text.encode() for text in MADE_UP.values()]
SEEDS = [*TEXTS, *(text.replace(b"\n", b"\r\n") for text in TEXTS), *DATABASES]
#: What tears such files in practice, and what numbers and names may be mistaken for.
SPLICES = [
    b"", b",", b'"', b"\n", b"\r\n", b"(", b")", b"[0]", b"{", b"}", b"\\ud800", b"\x00", b"\xff",
    b"1.62068E+14", b"1e999", b"-1", b"NaN", b"Infinity", b"9" * 5000, b"0x7f", b"\xef\xbb\xbf",
    b"null", b"true", b"[]", b"Dispatch_ID(1", b"dispatch[1], ", b"Domain(HIP_OPS_DOMAIN), ",
    b"\r", b"A" * 140_000, b'"' + b"f," * 70_000 + b'"', b"Record [1], ", b"XCC_ID",
    b"SQLite format 3\0", b"\x1f\x8b", b"traceEvents", b"kernels", b"guid",
    b"KernelName", b"Counter_Name", b"FETCH_SIZE", b"TCC_MC_RDREQ[9]", "é\u2028".encode(),
]  # fmt: skip


def mutated(seed: bytes, random: random.Random) -> bytes:
    """A file with a few places cut out, doubled or replaced."""
    content = bytearray(seed)
    for _ in range(random.randint(1, 6)):
        start = random.randint(0, len(content))
        end = min(len(content), start + random.choice((0, 1, 5, 40)))
        kind = random.randint(0, 3)
        if kind == 0:
            content[start:end] = content[start:end] * 2
        elif kind == 1 and start < len(content):
            content[start] = random.randint(0, 255)
        else:
            content[start:end] = random.choice(SPLICES)
    return bytes(content)


def overwritten(seed: bytes, random: random.Random) -> bytes:
    """A database with a few bytes changed in place, and perhaps cut."""
    content = bytearray(seed)
    for _ in range(random.randint(1, 12)):
        place = random.randrange(len(content))
        content[place] = random.choice((0, 1, 127, 255, random.randint(0, 255)))
    return bytes(content[: random.choice((len(content), len(content), random.randint(0, 4096)))])


def torn(random: random.Random) -> bytes:
    """Any seed, torn as files of its kind are."""
    seed = random.choice(SEEDS)
    is_database = seed.startswith(b"SQLite") and random.random() < 0.9
    return overwritten(seed, random) if is_database else mutated(seed, random)


def check(content: bytes) -> KernelProfile | None:
    """Read it; every figure is known and possible, or None. None if it is refused."""
    try:
        found = parse(content, "fuzz")
    except RocprofError as error:
        if re.match(r"fuzz(, line \d+)?: .+; .+", str(error)):
            return None
        raise
    for record in (*found.kernels, *found.transfers):
        for time in (record.start_ns, record.duration_ns):
            assert time is None or (isinstance(time, int) and time >= 0)
    for kernel in found.kernels:
        assert kernel.name.isprintable()
        assert all(size > 0 for size in (*(kernel.grid or ()), *(kernel.workgroup or ())))
        for size in (kernel.fetched_bytes, kernel.written_bytes):
            assert size is None or (size >= 0 and kernel.counters)
    json.dumps(found.to_json(found.top_kernels()), allow_nan=False).encode()
    found._repr_html_().encode()
    return found


@given(st.randoms(use_true_random=False))
def test_a_torn_file_gives_a_profile_or_the_error(random: random.Random) -> None:
    check(torn(random))


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(), st.binary(max_size=9),
    st.text(max_size=9), st.sampled_from(["1", "1.5", "1e9", "N/A", "0", "a\x1b[2J"]),
)  # fmt: skip
COLUMNS = "guid name start end grid_x agent_abs_index dispatch_id counter_name value".split()


@given(st.lists(st.lists(VALUES, min_size=9, max_size=9), max_size=4), st.sets(st.integers(0, 8)))
def test_values_of_any_type_in_columns_of_any_choice(
    rows: list[list[object]], chosen: set[int]
) -> None:
    columns = [name for at, name in enumerate(COLUMNS) if at in chosen] or ["name"]
    with closing(sqlite3.connect(":memory:")) as written:
        for table in ("kernels", "counters_collection", "memory_copies", "rocpd_pmc_event_1"):
            quoted = ", ".join(f'"{name}"' for name in columns)
            written.execute(f"CREATE TABLE {table} ({quoted})")
            for row in rows:
                values = row[: len(columns)]
                marks = ", ".join("?" * len(columns))
                written.execute(f"INSERT INTO {table} VALUES ({marks})", values)
        found = check(written.serialize())
    written_ns = {round(number) for row in rows for number in map(_number, row) if number}
    for record in (*found.kernels, *found.transfers) if found else ():
        assert record.start_ns is None or record.start_ns in written_ns


def _number(value: object) -> int | float | None:
    """The value as a number, if it is one."""
    if isinstance(value, int):
        return int(value)
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


@given(st.integers(1, 2**53), st.integers(0, 2**40), st.text("ab", min_size=1, max_size=5))
def test_a_database_is_read_as_it_was_written(start: int, duration: int, guid: str) -> None:
    script = f"""CREATE TABLE kernels (guid, name, start, end, dispatch_id);
    INSERT INTO kernels VALUES ('{guid}', 'f', {start}, {start + duration}, 1);
    INSERT INTO kernels VALUES ('{guid}x', 'f', {start}, {start + duration}, 1);"""
    kernels = parse(database(script)).kernels
    assert [(k.start_ns, k.duration_ns) for k in kernels] == [(start, duration)] * 2


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_random_bytes_give_the_error_or_nothing(content: bytes) -> None:
    found = check(content)
    assert found is None or not found.kernels


@given(st.integers(0, 2**53 - 1), st.integers(0, 2**53 - 1))
def test_times_are_read_as_they_were_written(begin: int, duration: int) -> None:
    text = f"Index,KernelName,BeginNs,EndNs\n0,f,{begin + 1},{begin + 1 + duration}\n"
    (kernel,) = parse(text.encode()).kernels
    assert (kernel.start_ns, kernel.duration_ns) == (begin + 1, duration)


@given(st.floats(min_value=0, allow_nan=False, allow_infinity=False))
def test_a_number_is_read_as_it_is_or_not_at_all(value: float) -> None:
    for text in (repr(value), f"{value:g}", f"{value:.3f}"):
        try:
            assert rounded(exact(text)) == float(text)
        except (LostDigits, NotANumber):
            assert value >= 1e6, "nothing is lost of a small number"


@pytest.mark.slow
@pytest.mark.timeout(3_600)
def test_a_hundred_thousand_torn_files() -> None:
    source = random.Random(5)
    outcomes = [check(torn(source)) is None for _ in range(FILES)]
    assert 0.05 < sum(outcomes) / len(outcomes) < 0.95, "both outcomes have to be tried"
