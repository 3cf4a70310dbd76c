"""Which rows are about one dispatch, in files that have some of the columns that tell."""

import pytest

from perfkit.gpu.rocprof import KernelProfile, parse


def profile(text: str) -> KernelProfile:
    return parse(text.encode(), "a.csv")


def counters_of(text: str) -> list[dict[str, object]]:
    return [dict(kernel.counters) for kernel in profile(text).kernels]


@pytest.mark.parametrize(
    "column", ["GPU_ID", "Agent_Id", "Guid", "GUID", "Node", "Host", "Rank", "PID", "Process_Id"]
)
def test_ids_begin_again_in_every_place_that_has_a_column(column: str) -> None:
    header = f"{column},Dispatch_Id,Kernel_Name,Counter_Name,Counter_Value\n"
    rows = [f"{at},1,f,{name},4\n" for at in "ab" for name in ("SQ_WAVES", "SQ_BUSY_CYCLES")]
    assert counters_of(header + "".join(rows)) == [{"SQ_WAVES": 4, "SQ_BUSY_CYCLES": 4}] * 2


def test_without_ids_the_times_tell_dispatches_apart() -> None:
    rows = "".join(
        f"f,{name},{at},{at + 5},{at}\n" for at in range(10, 370, 10) for name in ("SQ_A", "SQ_B")
    )
    found = profile("Kernel_Name,Counter_Name,Start_Timestamp,End_Timestamp,Counter_Value\n" + rows)
    assert len(found.kernels) == 36
    assert found.top_kernels().kernels[0].total_ns == 36 * 5
    assert found.is_countable


def test_a_counter_again_at_another_time_is_another_dispatch() -> None:
    """Two processes, and no column for them."""
    header = "Dispatch_ID,Kernel_Name,Start_Timestamp,End_Timestamp,Counter_Name,Counter_Value\n"
    rows = "1,f,10,30,SQ_A,1\n1,f,10,30,SQ_B,2\n1,f,90,99,SQ_A,3\n1,f,90,99,SQ_B,4\n"
    assert counters_of(header + rows) == [{"SQ_A": 1, "SQ_B": 2}, {"SQ_A": 3, "SQ_B": 4}]


def test_other_counters_at_another_time_are_from_another_pass_over_the_dispatch() -> None:
    header = "Dispatch_ID,Kernel_Name,Start_Timestamp,End_Timestamp,Counter_Name,Counter_Value\n"
    found = profile(header + "1,f,10,30,SQ_A,1\n2,f,40,60,SQ_A,2\n1,f,110,131,SQ_B,3\n")
    first, second = found.kernels
    assert (first.counters, first.duration_ns) == ({"SQ_A": 1, "SQ_B": 3}, 20)
    assert second.counters == {"SQ_A": 2}
    assert any("once for each group of counters" in note for note in found.notes)


def test_no_total_is_told_if_the_file_does_not_tell_how_many_there_were() -> None:
    rows = "".join(f"f,SQ_A,{value}\n" for value in range(36))
    found = profile("Kernel_Name,Counter_Name,Counter_Value\n" + rows)
    assert not found.is_countable
    (total,) = found.top_kernels().kernels
    assert (total.calls, total.timed_calls, total.total_ns, total.time_share) == (None,) * 4
    _, ((_, calls, *_),) = found.top_kernels().texts()
    assert calls == "unknown"
    assert "an unknown number of dispatches" in found._repr_html_()
    assert any("the number of dispatches and all totals are unknown" in n for n in found.notes)
    assert found.kernels[0].counters == {"SQ_A": None}


XCC = "Dispatch_ID,GPU_ID,Kernel_Name,Start_Timestamp,End_Timestamp,XCC_ID,SQ_WAVES,L2CacheHit\n"


@pytest.mark.parametrize("offset", [0, 3], ids=["same times", "times of its own"])
def test_a_dispatch_that_is_written_once_for_each_xcc_counts_once(offset: int) -> None:
    rows = "".join(
        f"{dispatch},1,f,{100 * dispatch + offset * xcc},{100 * dispatch + 50},{xcc},{xcc},50\n"
        for dispatch in (1, 2)
        for xcc in range(8)
    )
    found = profile(XCC + rows)
    assert [k.duration_ns for k in found.kernels] == [50, 50]
    assert [dict(k.counters) for k in found.kernels] == [{"SQ_WAVES": 28, "L2CacheHit": None}] * 2
    assert any("L2CacheHit of a whole dispatch does not follow" in note for note in found.notes)


def test_xccs_in_rows_of_one_counter_each_are_summed() -> None:
    header = "Dispatch_ID,GPU_ID,Kernel_Name,Start_Timestamp,End_Timestamp,XCC_ID,"
    rows = "".join(
        f"1,1,f,10,30,{xcc},{name},{xcc}\n" for xcc in range(8) for name in ("SQ_A", "SQ_B")
    )
    text = header + "Counter_Name,Counter_Value\n" + rows
    assert counters_of(text) == [{"SQ_A": 28, "SQ_B": 28}]


def test_the_same_dispatch_without_a_column_of_xccs_has_unknown_counters() -> None:
    header = "Dispatch_ID,GPU_ID,Kernel_Name,Start_Timestamp,End_Timestamp,SQ_A,SQ_B\n"
    found = profile(header + "1,1,f,10,30,5,6\n1,1,f,10,30,5,7\n2,1,f,40,60,5,6\n")
    assert [dict(k.counters) for k in found.kernels] == [
        {"SQ_A": 5, "SQ_B": None},
        {"SQ_A": 5, "SQ_B": 6},
    ]
    assert any("counted once" in note for note in found.notes)


def test_rows_without_ids_that_have_all_counters_are_a_dispatch_each() -> None:
    assert len(counters_of("KernelName,SQ_WAVES\nf,1\nf,1\nf,2\n")) == 3
    assert (
        len(counters_of("Kind,Kernel_Name,Start_Timestamp\n" + "KERNEL_DISPATCH,f,10\n" * 3)) == 3
    )


def test_two_kernels_with_one_id_and_without_times_are_two() -> None:
    header = "Dispatch_Id,Kernel_Name,Counter_Name,Counter_Value\n"
    assert counters_of(header + "1,f,SQ_A,1\n1,g,SQ_A,2\n") == [{"SQ_A": 1}, {"SQ_A": 2}]


def test_one_id_for_all_dispatches_keeps_them_apart_by_their_times() -> None:
    header = "Dispatch_Id,Kernel_Name,Start_Timestamp,End_Timestamp,Counter_Name,Counter_Value\n"
    rows = "".join(f"0,f,{at},{at + 5},SQ_A,1\n" for at in range(10, 3_010, 10))
    assert len(profile(header + rows).kernels) == 300


def test_the_id_of_the_launch_tells_rows_of_counters_apart_if_there_is_no_other() -> None:
    header = "Process_Id,Correlation_Id,Kernel_Name,Counter_Name,Counter_Value\n"
    rows = "".join(f"7,{at},f,{name},{at}\n" for name in ("SQ_A", "SQ_B") for at in range(3))
    assert counters_of(header + rows) == [{"SQ_A": at, "SQ_B": at} for at in range(3)]


def test_the_file_that_a_row_came_from_makes_no_other_dispatch() -> None:
    header = "File,PID,Dispatch_ID,Kernel_Name,Start_Timestamp,End_Timestamp,Counter_Name,"
    rows = "pmc_1.csv,7,1,f,10,30,SQ_A,4\npmc_2.csv,7,1,f,110,130,SQ_B,5\n"
    assert counters_of(f"{header}Counter_Value\n{rows}") == [{"SQ_A": 4, "SQ_B": 5}]
