"""`perfkit kernels`: the table, the JSON and the errors of profiles."""

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from sqlite3 import connect

from typer.testing import Result

from tests.perfkit.gpu.profiles import MADE_UP, V1

Call = Callable[..., Result]


def written(folder: Path, text: str) -> Path:
    path = folder / "results.csv"
    path.write_text(text)
    return path


def test_the_top_kernels_are_a_table(perfkit: Call, tmp_path: Path) -> None:
    shown = perfkit("kernels", written(tmp_path, V1), "--peak", "256", "--top", "1")
    assert shown.exit_code == 0
    header, row, counts = shown.stdout.splitlines()
    assert header.split("  ")[-1].strip() == "of 256 GB/s"
    assert row.split("  ")[0] == "saxpy(int, float, float*, float*) [clone .kd]"
    assert row.split()[-3:] == ["GB/s", "61.44", "%"]
    assert counts == "  3 dispatches of 2 kernels, 0 transfers, CSV of rocprof v1"
    assert "32·TCC_MC_RDREQ (gfx8)" in shown.stderr


def test_without_a_peak_there_is_no_column_for_it(perfkit: Call, tmp_path: Path) -> None:
    shown = perfkit("kernels", written(tmp_path, V1))
    assert "of 256" not in shown.stdout
    assert len(shown.stdout.splitlines()) == 4


def test_a_file_of_transfers_has_no_table(perfkit: Call, tmp_path: Path) -> None:
    shown = perfkit("kernels", written(tmp_path, MADE_UP["v3 copies"]))
    assert shown.stdout == "  0 dispatches of 0 kernels, 2 transfers, memory copies of rocprofv3\n"


def test_a_program_gets_every_dispatch(perfkit: Call, tmp_path: Path) -> None:
    shown = perfkit("kernels", written(tmp_path, V1), "--json", "--top", "1")
    found = json.loads(shown.stdout)
    assert [kernel["duration_ns"] for kernel in found["kernels"]] == [4000, 500, 6000]
    assert found["kernels"][0]["counters"] == {"TCC_MC_RDREQ_sum": 16384, "TCC_MC_WRREQ_sum": 8192}
    assert [total["calls"] for total in found["top"]] == [2]
    assert (found["peak_bytes_per_s"], found["transfers"]) == (None, [])


def test_no_profile_gives_a_line_and_exit_code_1(perfkit: Call, tmp_path: Path) -> None:
    ended = perfkit("kernels", written(tmp_path, "hello"))
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert ended.stderr.startswith("perfkit: ")
    assert "line 1: not written by rocprof" in ended.stderr


def test_a_peak_of_nothing_is_a_wrong_argument(perfkit: Call, tmp_path: Path) -> None:
    assert perfkit("kernels", written(tmp_path, V1), "--peak", "0").exit_code == 2


def test_a_file_that_is_not_there_is_a_wrong_argument(perfkit: Call, tmp_path: Path) -> None:
    ended = perfkit("kernels", tmp_path / "none.csv")
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "there is no file" in ended.stderr


def test_several_files_are_one_profile(perfkit: Call, tmp_path: Path) -> None:
    other = tmp_path / "copies.csv"
    other.write_text(MADE_UP["v3 copies"])
    shown = perfkit("kernels", written(tmp_path, V1), other, "--json")
    found = json.loads(shown.stdout)
    assert (len(found["kernels"]), len(found["transfers"])) == (3, 2)
    missing = perfkit("kernels", written(tmp_path, V1), tmp_path / "none.csv")
    assert (missing.exit_code, missing.stdout) == (2, "")


def test_a_database_without_kernels_says_so_and_is_no_failure(
    perfkit: Call, tmp_path: Path
) -> None:
    path = tmp_path / "results.db"
    with closing(connect(path)) as database:
        database.execute("CREATE TABLE rocpd_kernel_dispatch_x (id, start, end, kernel_id)")
    shown = perfkit("kernels", path)
    assert shown.exit_code == 0
    assert "0 dispatches of 0 kernels, 0 transfers, database of rocprofv3" in shown.stdout
    assert "there is no kernel in it" in shown.stderr


def test_dispatches_that_nothing_tells_apart_are_not_counted(perfkit: Call, tmp_path: Path) -> None:
    text = "Kernel_Name,Counter_Name,Counter_Value\nf,SQ_WAVES,1\nf,SQ_WAVES,2\n"
    shown = perfkit("kernels", written(tmp_path, text))
    assert "an unknown number of dispatches of 1 kernel" in " ".join(shown.stdout.split())
    assert "all totals are unknown" in " ".join(shown.stderr.split())


def test_a_name_as_long_as_a_book_is_cut_in_the_table_alone(perfkit: Call, tmp_path: Path) -> None:
    name = f"f<{'A' * 200_000}>"
    path = written(tmp_path, f"Index,KernelName,BeginNs,EndNs\n0,{name},10,30\n")
    assert len(perfkit("kernels", path).stdout) < 2_000
    assert json.loads(perfkit("kernels", path, "--json").stdout)["kernels"][0]["name"] == name


def test_usage_says_that_there_may_be_several_files(perfkit: Call) -> None:
    assert "perfkit kernels [OPTIONS] FILES..." in perfkit("kernels", "--help").stdout
