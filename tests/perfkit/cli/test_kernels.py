"""`perfkit kernels`: the table, the JSON and the errors of profiles."""

import json
from collections.abc import Callable
from pathlib import Path

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
