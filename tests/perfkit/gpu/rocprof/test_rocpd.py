"""Databases of rocprofv3: with views and without, of several processes, odd, hostile and cut."""

import stat
from contextlib import closing
from pathlib import Path
from sqlite3 import connect

import pytest

from perfkit.gpu.rocprof import KernelProfile, RocprofError, parse, read, rocpd
from tests.perfkit.gpu.profiles import ROCPD_TABLES as TABLES
from tests.perfkit.gpu.profiles import ROCPD_VIEWS as VIEWS
from tests.perfkit.gpu.profiles import database


def refused(path: Path) -> str:
    with pytest.raises(RocprofError) as caught:
        read(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def figures(found: KernelProfile) -> list[tuple[object, ...]]:
    return [(k.name, k.start_ns, k.duration_ns, k.device, dict(k.counters)) for k in found.kernels]


def test_views_give_kernels_counters_and_copies_told_apart_by_guid_and_agent(
    tmp_path: Path,
) -> None:
    found = read(database(tmp_path, VIEWS))
    assert found.format == "database of rocprofv3"
    assert figures(found) == [
        ("add(int)", 1000, 2000, "4", {"FETCH_SIZE": 2}),
        ("add(int)", 4000, 1000, "5", {"FETCH_SIZE": 3.5}),
        ("add(int)", 1000, 2000, "4", {"FETCH_SIZE": 4}),
    ]
    assert [k.fetched_bytes for k in found.kernels] == [2048, 3584, 4096]
    assert (found.kernels[0].grid, found.kernels[0].workgroup) == ((256, 2, 1), (64, 1, 1))
    (copy,) = found.transfers
    assert (copy.direction, copy.size_bytes, copy.duration_ns) == ("host_to_device", 4096, 50)
    assert (copy.source, copy.destination) == ("0", "4")


RIGHT_TABLES = [
    ("f(int)", 10, 20, "4", {"SQ_WAVES": 7}),
    ("_Z1gi", 40, 30, "4", {"SQ_WAVES": 9}),
]


@pytest.mark.parametrize(
    ("views", "note"),
    [
        ("", None),
        ("CREATE VIEW kernels AS SELECT * FROM missing;", "the view kernels does not work"),
        (
            "CREATE VIEW kernels AS SELECT guid, start, end, 'f' AS name, dispatch_id "
            "FROM rocpd_kernel_dispatch_x WHERE id = 1;",
            "the view kernels leaves rows out",
        ),
    ],
    ids=["no view", "broken view", "view with too few rows"],
)
def test_the_tables_are_read_where_a_view_does_not_have_their_rows(
    tmp_path: Path, views: str, note: str | None
) -> None:
    found = read(database(tmp_path, TABLES + views))
    assert figures(found) == RIGHT_TABLES
    assert [n for n in found.notes if "view" in n] == ([] if note is None else [found.notes[0]])
    assert note is None or note in found.notes[0]
    (copy,) = found.transfers
    assert (copy.direction, copy.source, copy.destination, copy.size_bytes) == (
        "device_to_host", "4", "0", 16,
    )  # fmt: skip


def test_the_tables_of_several_processes_are_read_with_the_names_of_each(tmp_path: Path) -> None:
    other = TABLES.replace("_x ", "_y ").replace("'x'", "'y'").replace("f(int)", "other(int)")
    assert [name for name, *_ in figures(read(database(tmp_path, TABLES + other)))] == [
        "f(int)", "_Z1gi", "other(int)", "_Z1gi",
    ]  # fmt: skip


def test_a_table_over_all_processes_is_read_in_place_of_theirs(tmp_path: Path) -> None:
    view = "CREATE VIEW rocpd_kernel_dispatch AS SELECT * FROM rocpd_kernel_dispatch_x;"
    assert len(read(database(tmp_path, TABLES + view)).kernels) == 2


@pytest.mark.parametrize(
    ("script", "transfers"),
    [("CREATE TABLE rocpd_kernel_dispatch_x (id, start, end, kernel_id)", 0),
     (VIEWS + "DELETE FROM kernels; DELETE FROM counters_collection", 1)],
)  # fmt: skip
def test_a_database_without_kernels_says_so(tmp_path: Path, script: str, transfers: int) -> None:
    found = read(database(tmp_path, script))
    assert (found.kernels, len(found.transfers)) == ((), transfers)
    assert any("there is no kernel in it" in note for note in found.notes)


@pytest.mark.parametrize(
    ("row", "start_ns", "duration_ns", "note"),
    [
        ("'f', 10.5, 30.0", 10, 20, "fraction of a ns"),
        ("'f', 1700000000000000000.0, 3", None, None, "lost its last digits"),
        ("'f', -1, 30", None, None, "start is below 0"),
        ("'f', NULL, x'00ff'", None, None, None),
        ("'f', 9e999, 30", None, None, None),
        ("x'66', 10, 30", "no kernel", None, "no kernel name"),
        ("NULL, 10, 30", "no kernel", None, "no kernel name"),
    ],
)
def test_values_of_odd_types_are_unknown(
    tmp_path: Path, row: str, start_ns: object, duration_ns: int | None, note: str | None
) -> None:
    script = f"CREATE TABLE kernels (name, start, end); INSERT INTO kernels VALUES ({row})"
    found = read(database(tmp_path, script))
    if start_ns == "no kernel":
        assert found.kernels == ()
    else:
        (kernel,) = found.kernels
        assert (kernel.start_ns, kernel.duration_ns) == (start_ns, duration_ns)
    assert note is None or any(note in said for said in found.notes)


@pytest.mark.parametrize("value", ["-1", "'many'", "NULL", "9e999", "x'01'"])
def test_a_counter_that_is_no_number_is_unknown(tmp_path: Path, value: str) -> None:
    script = f"{VIEWS} UPDATE counters_collection SET value = {value} WHERE guid = 'a'"
    kernels = read(database(tmp_path, script)).kernels
    assert [k.counters["FETCH_SIZE"] for k in kernels] == [None, None, 4]
    assert [k.fetched_bytes for k in kernels] == [None, None, 4096]


def test_text_in_place_of_a_time_is_the_error(tmp_path: Path) -> None:
    script = "CREATE TABLE kernels (name, start, end); INSERT INTO kernels VALUES ('f', 'abc', 3)"
    assert "start is 'abc', which is no number" in refused(database(tmp_path, script))


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ('CREATE TABLE A ("Index", KernelName, BeginNs, EndNs)',
         "the database of rocprof v1; give the .csv or .json that has the same name"),
        ("CREATE TABLE rocpd_op (id); CREATE TABLE rocpd_api (id)", "rocmProfileData"),
        ("CREATE TABLE CUPTI_ACTIVITY_KIND_KERNEL (id)", "Nsight Systems"),
        ("CREATE TABLE moz_places (id)", "a database that is no profile (tables: moz_places)"),
        ("CREATE TABLE a (id); DROP TABLE a", "tables: none"),
    ],
)  # fmt: skip
def test_another_database_is_named_for_what_it_is(tmp_path: Path, script: str, words: str) -> None:
    assert words in refused(database(tmp_path, script))


ENDLESS = (
    "CREATE VIEW kernels AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c{limit}) "
    "SELECT {name} AS name, x AS start, x + 1 AS end FROM c"
)


def test_a_view_that_does_not_come_to_an_end_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rocpd, "STEPS_MAX", 2_000_000)
    path = database(tmp_path, ENDLESS.format(limit="", name="'f'"))
    assert "whose views do not come to an end" in refused(path)


def test_a_view_with_too_many_rows_or_letters_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rocpd, "ROWS_MAX", 99)
    path = database(tmp_path, ENDLESS.format(limit=" LIMIT 100", name="'f'"))
    assert "kernels has more than 99 rows" in refused(path)
    monkeypatch.setattr(rocpd, "TEXT_BYTES_MAX", 2**20)
    path = database(
        tmp_path, ENDLESS.format(limit=" LIMIT 9", name="printf('%.*c', 200000, 'x')||x")
    )
    assert "more than 1 MiB of text" in refused(path)
    path = database(tmp_path, ENDLESS.format(limit=" LIMIT 2", name="zeroblob(100000000)"))
    assert "too big" in refused(path)


def test_a_database_that_was_cut_or_overwritten_is_refused(tmp_path: Path) -> None:
    whole = database(tmp_path, VIEWS + TABLES).read_bytes()
    for size in (20, 100, 4096, len(whole) // 2, len(whole) - 4096):
        path = tmp_path / "cut.db"
        path.write_bytes(whole[:size])
        assert "database" in refused(path)
    path.write_bytes(whole[:100] + bytes(len(whole) - 100))
    assert "database" in refused(path)


def test_reading_changes_nothing_and_needs_no_right_to_write(tmp_path: Path) -> None:
    path = database(tmp_path, "PRAGMA journal_mode = WAL;" + VIEWS, "odd name?#%.db")
    path.chmod(stat.S_IRUSR)
    before = path.read_bytes()
    assert len(read(path).kernels) == 3
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_rows_that_are_in_the_log_alone_are_read(tmp_path: Path) -> None:
    path = database(tmp_path, "PRAGMA journal_mode = WAL;" + VIEWS)
    with closing(connect(path)) as writer:
        writer.execute("INSERT INTO kernels (name, start, end) VALUES ('late', 1, 2)")
        writer.commit()
        assert [k.name for k in read(path).kernels][-1] == "late"


def test_the_bytes_of_a_database_are_read_as_the_file_is(tmp_path: Path) -> None:
    path = database(tmp_path, VIEWS)
    assert figures(parse(path.read_bytes())) == figures(read(path))
