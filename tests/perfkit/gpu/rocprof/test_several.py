"""Several files as one profile, in which what is in two of them counts once."""

from pathlib import Path

import pytest

from perfkit.gpu.rocprof import RocprofError, read
from tests.perfkit.gpu.profiles import (
    MADE_UP,
    V1,
    V3_COPIES,
    V3_COUNTERS,
    V3_TRACE,
    database,
)
from tests.perfkit.gpu.profiles import ROCPD_VIEWS as VIEWS


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_files_are_put_together_in_their_order_and_notes_name_theirs(tmp_path: Path) -> None:
    v1, copies = written(tmp_path, "a.csv", V1), written(tmp_path, "b.csv", V3_COPIES)
    found = read(v1, copies)
    assert [k.duration_ns for k in found.kernels] == [4000, 500, 6000]
    assert len(found.transfers) == 2
    assert (found.file, found.format) == (
        f"{v1}, {copies}",
        "CSV of rocprof v1, memory copies of rocprofv3",
    )
    assert all(note.startswith(f"{v1}: ") for note in found.notes)


def test_a_dispatch_in_the_trace_and_the_counters_of_a_run_counts_once(tmp_path: Path) -> None:
    counters = V3_COUNTERS.replace("Agent 1", "Agent 4")
    found = read(written(tmp_path, "t.csv", V3_TRACE), written(tmp_path, "c.csv", counters))
    first, second = found.kernels
    assert (first.grid, first.dispatch, first.fetched_bytes) == ((1024, 8, 1), "1", 524_800)
    assert (second.duration_ns, second.counters) == (500, {"FETCH_SIZE": 8, "WRITE_SIZE": 4})
    assert "2 dispatches are in several files and count once" in found.notes


def test_the_same_database_twice_is_one_and_that_of_another_process_is_another(
    tmp_path: Path,
) -> None:
    one = database(tmp_path, VIEWS, "a.db")
    other = database(tmp_path, VIEWS.replace("'a'", "'c'").replace("'b'", "'d'"), "b.db")
    assert len(read(one, one).kernels) == 3
    assert len(read(one, one).transfers) == 1
    assert len(read(one, other).kernels) == 6
    assert len(read(one, other).transfers) == 2
    assert {k.place for k in read(one, other).kernels} == {
        f"guid={guid} pid={pid}" for guid, pid in ("a7", "b8", "c7", "d8")
    }


def test_a_dispatch_without_times_may_count_twice_and_a_note_says_so(tmp_path: Path) -> None:
    untimed = written(tmp_path, "a.csv", "Index,KernelName,SQ_WAVES\n0,f,4\n")
    found = read(untimed, untimed)
    assert len(found.kernels) == 2
    assert "a dispatch without times counts twice if it is in several files" in found.notes


def test_a_file_that_is_no_profile_among_several_is_named(tmp_path: Path) -> None:
    good = written(tmp_path, "a.csv", MADE_UP["v2"])
    with pytest.raises(RocprofError, match=r"b\.txt, line 1: not written by rocprof"):
        read(good, written(tmp_path, "b.txt", "hello"))
