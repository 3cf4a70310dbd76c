"""The magics in a real IPython shell in this process, and all of them under papermill."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import nbformat
import psutil
import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import ExecutionResult, InteractiveShell

from perfkit.bench.calls.latency import LatencyReport
from perfkit.bench.calls.lines import LinesReport
from perfkit.bench.calls.versus import CallComparison
from perfkit.gpu.device.made_up import plant
from perfkit.gpu.readings import CardReadings
from perfkit.jupyter.forms import FORMS
from perfkit.profile.cpu import CpuProfile, load_profile
from perfkit.profile.memory import MemoryUse

TIMEOUT_S = 20
Run = Callable[[str], ExecutionResult]
FUNCTIONS = """
def fill(size=1_000):
    kept = bytearray(b"x") * size
    return len(kept)

def need(size):
    return size

def half(size=1_000):
    return fill(size // 2)

async def later():
    return 1

def steps():
    yield 1
"""


@pytest.fixture(scope="module")
def shell() -> Iterator[InteractiveShell]:
    shell = InteractiveShell()
    shell.run_cell("%load_ext perfkit")
    shell.run_cell(FUNCTIONS)
    yield shell
    shell.run_line_magic("cluster", "down") if "cluster" in shell.user_ns else None
    shell.history_manager.end_session()


@pytest.fixture
def run(shell: InteractiveShell) -> Run:
    def run(cell: str) -> ExecutionResult:
        return shell.run_cell(cell, store_history=True)

    return run


def test_a_cell_is_profiled_and_its_value_is_shown_too(
    run: Run, shell: InteractiveShell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "filling.prof"
    found = run(f"%%profile_cpu filling --save {saved}\nsizes = [fill() for _ in range(40)]\n41")
    assert isinstance(found.result, CpuProfile)
    calls = {spot.function: spot.calls for spot in found.result.top(99)}
    assert calls["fill"] == 40
    assert shell.user_ns["cpu_profile"] is found.result
    assert len(shell.user_ns["sizes"]) == 40
    assert load_profile(saved).own_s == found.result.own_s
    shown = capsys.readouterr().out
    assert "41" in shown
    assert "CPU profile filling" in shown


def test_showing_the_value_of_a_cell_is_no_part_of_its_profile(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run("%%profile_cpu\nfill()").result
    assert "fill" in {spot.function for spot in found.top(99)}
    assert sum(spot.calls for spot in found.top(99)) < 9
    assert "1000" in capsys.readouterr().out
    run("%%track_memory --as m\nfill();")
    assert "1000" not in capsys.readouterr().out


@pytest.mark.parametrize(("magic", "kept"), [("profile_cpu", "p"), ("track_memory", "p")])
def test_a_failing_cell_shows_its_own_error_and_the_result_is_kept(
    run: Run, shell: InteractiveShell, capsys: pytest.CaptureFixture[str], magic: str, kept: str
) -> None:
    ended = run(f"%%{magic} --as {kept} --save no/where.txt\nbefore = fill()\n1 / 0")
    assert isinstance(ended.error_in_exec, ZeroDivisionError)
    assert shell.user_ns[kept].error == "ZeroDivisionError"
    shown = capsys.readouterr().out
    assert "ended by ZeroDivisionError" in shown
    assert f"there is no folder no. The result is kept: {kept}.save(…)" in shown
    assert isinstance(run(f"%%{magic} --as {kept}\nfill()").result, CpuProfile | MemoryUse)


def test_a_statement_is_profiled_and_its_memory_tracked(run: Run) -> None:
    found = run("%profile_cpu --as p half(9)").result
    assert isinstance(found, CpuProfile)
    assert {spot.function: spot.calls for spot in found.top(9)}["fill"] == 1
    assert found.name == "half(9)"
    found = run("%track_memory --lines half").result
    assert (found.name, type(found), found.allocations is None) == ("half", MemoryUse, False)


def test_memory_is_tracked_by_line(run: Run) -> None:
    found = run("%%track_memory --lines\nheld = [bytes(1_000) for _ in range(1_000)]").result
    assert isinstance(found, MemoryUse)
    assert found.traced_growth_bytes > 900_000
    assert found.allocations[0].file == "<notebook cell>"


@pytest.mark.parametrize(
    ("cell", "name"),
    [
        ("%latency --calls 20 fill", "fill"),
        ("%latency --calls 20 fill(10)", "fill(10)"),
        ("%latency --calls=20 'a b'.split()", "'a b'.split()"),
        ("%%latency --calls 20\nn = fill()\nn + 1", None),
        ("%%latency --calls 20 filled\nfill()", "filled"),
    ],
)
def test_a_statement_a_function_and_a_cell_have_a_latency(
    run: Run, cell: str, name: str | None
) -> None:
    found = run(cell).result
    assert isinstance(found, LatencyReport)
    assert len(found.samples_s) * found.loops == 20
    assert found.name == name or found.name.startswith("In[")


def test_lines_of_a_cells_functions_have_times_and_memory(run: Run) -> None:
    size = 64 << 20
    found = run(f"%lines fill half -- half({size})").result
    assert isinstance(found, LinesReport)
    assert found.reasons == ()
    frame = found.to_frame().set_index("code")
    assert frame.loc['kept = bytearray(b"x") * size', "growth_bytes"] > size * 0.45
    assert frame.loc["return fill(size // 2)", "runs"] == 1
    assert run("def bare(): return fill(9)").success
    assert "def bare(): return fill(9)" in str(run("%lines bare --no-memory").result)
    failed = run("%lines fill -- fill('x')")
    assert isinstance(failed.error_in_exec, TypeError)


def test_without_a_statement_the_cell_or_the_first_function_runs(run: Run) -> None:
    for cell in ("%lines half fill --no-memory", "%%lines half fill --no-memory\nn = 8\nhalf(n)"):
        frame = run(cell).result.to_frame().set_index("code")
        assert frame.loc["return fill(size // 2)", "runs"] == 1
        assert frame.loc["return len(kept)", "runs"] == 1


def test_two_are_compared(run: Run) -> None:
    found = run("%compare fill 'sum(range(9_000))' --blocks 8 --block-s 0.002").result
    assert isinstance(found, CallComparison)
    assert (found.a, found.b, found.comparison.verdict) == ("fill", "sum(range(9_000))", "slower")


def test_cards_are_shown_or_the_reason(run: Run, tmp_path: Path) -> None:
    found = run(f"%gpu --drm-root {tmp_path}").result
    assert isinstance(found, CardReadings)
    assert f"No AMD card was found: no AMD card below {tmp_path}" in str(found)
    plant(tmp_path)
    found = str(run(f"%gpu --processes --drm-root {tmp_path}").result)
    assert "37 %" in found
    assert "No process is seen to use a card." in found


def test_each_magic_has_help_and_a_row_in_the_table(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(run("%perfkit").result.to_frame()) == len(FORMS) == 7
    capsys.readouterr()
    measuring = ("%profile_cpu", "%track_memory", "%latency", "%lines", "%compare")
    for cell in (*measuring, "%gpu", "%cluster", "%cluster up"):
        assert run(f"{cell} --help").success
        assert cell in capsys.readouterr().out.splitlines()[0]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("%latency", "give it a statement"),
        ("%latency --calls 0 fill", "'0' is no whole number from 1"),
        ("%%latency fill 2\n1", "unrecognized arguments: 2"),
        ("%profile_cpu", "or write %%profile_cpu above a cell"),
        ("%latency nothing_here", "there is no 'nothing_here' in this notebook"),
        ("%latency need", "need takes arguments (size): write its call, need(…)"),
        ("%compare fill need", "need takes arguments (size)"),
        ("%lines need", "write its call, after --: -- need(…)"),
        ("%%lines fill -- fill()\nfill()", "what is 'fill()' for"),
        ("%lines -- fill()", "required: FUNCTION"),
        ("%lines len -- len([])", "not written in Python"),
        ("%lines nothing_here -- 1", "there is no 'nothing_here'"),
        ("%compare fill", "required: B"),
        ("%compare fill half --blocks 3", "no whole number from 4"),
        ("%compare fill half --block-s x", "no number of seconds"),
        ("%compare 'fill half", "no closing quotation"),
        ("%gpu --drm-root /dev/null", "is not a folder"),
        ("%gpu --what", "unrecognized arguments: --what"),
        ("%gpu --save here.exe", "The result is kept: card_readings.save(…)"),
        ("%cluster", "required: up|status|top|down"),
        ("%cluster down", "no cluster is up"),
        ("%cluster up --workers 0", "no whole number from 1 to 64"),
        ("%cluster up --spec optimised", "did you mean"),
        ("%perfkit x", "takes nothing"),
        ("%%profile_cpu a b\n1", "unrecognized arguments: b"),
        ("%%profile_cpu --as 1x\n1", "not the name of a variable"),
        ("%%profile_cpu\n", "body is empty"),
        ("%latency later", "later returns before its work, which runs when"),
        ("%compare fill steps", "steps returns before its work"),
        ("%lines steps", "steps returns before its work"),
        ("%%track_memory\nawait nothing", "`await` at the top of a cell"),
        ("%%profile_cpu\nx = (1 +", "SyntaxError in line 1: incomplete input: x = (1 +"),
        ("%%latency\n1\n return 5", "IndentationError in line 2"),
        ("%%latency\nreturn 5", "'return' outside function"),
        ("%compare 'a b' fill", "SyntaxError in line 1: invalid syntax: a b"),
        ("%cluster up --set credits=3", "there is no knob 'credits'; did you mean 'credit'?"),
        ("%cluster up --set credit", "--set: 'credit' is not NAME=VALUE"),
    ],
)
def test_a_wrong_argument_is_one_clear_line(
    run: Run, capsys: pytest.CaptureFixture[str], cell: str, message: str
) -> None:
    ended = run(cell).error_in_exec
    assert isinstance(ended, UsageError)
    assert message in str(ended)
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err


def test_a_profile_inside_a_profile_is_refused(run: Run) -> None:
    ended = run("%%profile_cpu\nget_ipython().run_cell_magic('profile_cpu', '', '1')")
    assert isinstance(ended.error_in_exec, UsageError)
    assert "another profiler is active" in str(ended.error_in_exec)


def test_a_cluster_is_replaced_shown_and_leaves_no_process(
    run: Run, shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("%cluster up --workers 1").success
    first = shell.user_ns["cluster"]
    pids = {first.coordinator_pid, *(worker.pid for worker in first.workers)}
    assert run("assert client.submit('echo', b'x').result(10) == b'x'").success
    assert not run("%cluster up --workers 1 --model nosuch").success
    assert shell.user_ns["cluster"] is first
    assert run("%cluster up --workers 1 --spec optimized --set credit=5").success
    assert "The cluster before is down." in capsys.readouterr().out
    second = shell.user_ns["cluster"]
    assert second is not first
    assert second.spec.credit == 5
    assert len(run("%cluster status").result.workers) == 1
    pids |= {second.coordinator_pid, *(worker.pid for worker in second.workers)}
    assert run("%cluster down").success
    assert not {"cluster", "client"} & shell.user_ns.keys()
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_loading_again_keeps_the_cluster_of_the_shell(run: Run, shell: InteractiveShell) -> None:
    before = shell.magics_manager.registry["PerfkitMagics"]
    assert run("%reload_ext perfkit").success
    assert shell.magics_manager.registry["PerfkitMagics"] is before


def test_a_notebook_with_every_magic_runs_under_papermill(tmp_path: Path) -> None:
    import papermill

    cells = [
        *("%load_ext perfkit", FUNCTIONS, "%perfkit", "%gpu"),
        *("%%profile_cpu\nfill()", "%%track_memory\nfill()", "%latency --calls 5 fill"),
        *("%lines fill half", "%compare fill half --blocks 4 --block-s 0.001"),
        *("%cluster up --workers 1", "print('pids', cluster.coordinator_pid)", "%cluster top"),
    ]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbformat.write(book, tmp_path / "in.ipynb")
    papermill.execute_notebook(
        str(tmp_path / "in.ipynb"), str(tmp_path / "out.ipynb"),
        kernel_name="python3", cwd=str(tmp_path), progress_bar=False,
    )  # fmt: skip
    shown = [cell.outputs for cell in nbformat.read(tmp_path / "out.ipynb", 4).cells]
    tables = [outputs[-1].data for outputs in shown[2:9]]
    assert all("<table>" in data["text/html"] for data in tables)
    assert "bytearray" in tables[5]["text/html"]
    assert "worker-0" in shown[11][-1].data["text/html"]
    (pid,) = [int(outputs[0].text.split()[1]) for outputs in shown[10:11]]
    with suppress(psutil.NoSuchProcess):
        psutil.Process(pid).wait(TIMEOUT_S)  # the cluster ends with the kernel
