"""Profiles of real code: what they hold, what is saved, and what is refused."""

import cProfile
import marshal
import pstats
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import snakeviz.stats

from perfkit.profile.cpu import (
    CpuProfile,
    ProfilerBusy,
    ProfileUnreadable,
    load_profile,
    profile_cpu,
)


def leaf(n: int) -> int:
    return sum(range(n))


def branch(n: int) -> int:
    return leaf(n) + leaf(n)


def calls(profile: CpuProfile) -> dict[str, int]:
    """Calls by function, of this file's functions only."""
    spots = profile.top(10_000)
    return {spot.function: spot.calls for spot in spots if spot.file.endswith("test_cpu.py")}


@pytest.fixture
def busy() -> Iterator[Callable[[], None]]:
    """Turns on a profiler that this project did not start; it is off again after the test."""
    other = cProfile.Profile()
    yield other.enable
    other.disable()


def test_a_block_is_profiled_function_by_function_and_holds_nothing_else() -> None:
    with profile_cpu("block") as run:
        branch(100)
        branch(100)
    profile = run.result
    assert (profile.name, profile.error, profile.path) == ("block", None, None)
    spots = {spot.function: spot for spot in profile.top(100)}
    assert {name: spot.calls for name, spot in spots.items()} == {
        "branch": 2, "leaf": 4, "<built-in method builtins.sum>": 4
    }  # fmt: skip
    assert spots["branch"].total_s >= spots["leaf"].total_s >= spots["leaf"].own_s > 0
    assert spots["branch"].line == branch.__code__.co_firstlineno
    built_in = spots["<built-in method builtins.sum>"]
    assert (built_in.file, built_in.line) == ("(built-in)", None)
    assert sum(spot.own_share or 0 for spot in spots.values()) == pytest.approx(1)
    assert profile.wall_s >= profile.own_s
    own_s = [spot.own_s for spot in spots.values()]
    assert [spot.own_s for spot in profile.top(2)] == sorted(own_s, reverse=True)[:2]
    assert len(profile.to_frame()) == len(spots)
    assert "&lt;built-in method" in profile._repr_html_()


def test_a_saved_profile_opens_in_pstats_and_snakeviz(tmp_path: Path) -> None:
    with profile_cpu("co/ordinator: 1", out_dir=tmp_path / "new") as run:
        branch(100)

    assert run.result.path == tmp_path / "new" / "co-ordinator-1.prof"
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["co-ordinator-1.prof"]
    stats = pstats.Stats(str(run.result.path))
    rows = snakeviz.stats.table_rows(stats)
    tree = snakeviz.stats.json_stats(stats)
    assert any("test_cpu.py" in row[5] and "(leaf)" in row[5] for row in rows)
    (name,) = [name for name in tree if name.endswith("(branch)")]
    assert any(child.endswith("(leaf)") for child in tree[name]["children"])
    loaded = load_profile(run.result.path)
    assert loaded.top(50) == run.result.top(50)
    assert (loaded.name, loaded.wall_s) == ("co-ordinator-1", None)


def test_a_profile_of_another_process_can_be_shown(tmp_path: Path) -> None:
    path = tmp_path / "process.prof"
    work = "import json\nfor i in range(50): json.dumps([i])"
    (tmp_path / "work.py").write_text(work)
    command = [sys.executable, "-m", "cProfile", "-o", str(path), str(tmp_path / "work.py")]
    subprocess.run(command, check=True, timeout=60)
    profile = load_profile(path)
    dumps = next(spot for spot in profile.top(10_000) if spot.function == "dumps")
    assert (dumps.file, dumps.calls) == ("json/__init__.py", 50)
    assert not [spot for spot in profile.top(10_000) if spot.file.startswith("/")]
    assert "CPU profile process" in profile._repr_html_()


@pytest.mark.parametrize("content", [b"", b"not a profile", marshal.dumps({"a": 1})])
def test_a_file_that_is_no_profile_is_refused(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.prof"
    with pytest.raises(FileNotFoundError, match=r"no profile at .*bad\.prof"):
        load_profile(path)
    path.write_bytes(content)
    with pytest.raises(ProfileUnreadable, match="not a file that cProfile wrote"):
        load_profile(path)
    assert capsys.readouterr().out == ""


def test_an_unreadable_file_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pstats, "Stats", Mock(side_effect=PermissionError(13, "Permission denied")))
    (tmp_path / "x.prof").touch()
    with pytest.raises(ProfileUnreadable, match="cannot be read: Permission denied"):
        load_profile(tmp_path / "x.prof")


def test_a_full_disk_warns_keeps_the_result_and_leaves_no_half_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "replace", Mock(side_effect=OSError(28, "No space left on device")))
    run = profile_cpu("full", out_dir=tmp_path)
    with pytest.warns(RuntimeWarning, match="'full' could not be written to .*: No space left"):
        assert run(leaf)(10) == leaf(10)
    assert run.result.path is None
    assert list(tmp_path.iterdir()) == []


def test_an_empty_block_still_gives_a_file_that_loads(tmp_path: Path) -> None:
    with profile_cpu("empty", out_dir=tmp_path):
        pass
    snakeviz.stats.json_stats(pstats.Stats(str(tmp_path / "empty.prof")))


def test_a_decorated_call_inside_a_profile_is_part_of_it() -> None:
    inner = profile_cpu("inner")

    @inner
    def down(n: int) -> int:
        return leaf(n) if n == 0 else down(n - 1)

    down(5)
    assert calls(inner.result)["down"] == 6, "a recursive function is one profile"
    inner.result = None
    with profile_cpu("outer") as outer:
        down(5)
    assert calls(outer.result)["leaf"] == 1
    assert inner.result is None


def test_another_profiler_is_refused_with_a_clear_error(busy: Callable[[], None]) -> None:
    with profile_cpu("outer") as outer:
        with pytest.raises(ProfilerBusy, match="'inner' cannot start because another profiler"):
            profile_cpu("inner").__enter__()
        leaf(1)
    assert calls(outer.result)["leaf"] == 1
    run = profile_cpu("late")
    busy()
    with pytest.raises(ProfilerBusy, match="'late' cannot start"):
        run(leaf)(1)
    assert run.result is None


def test_a_refusal_by_the_interpreter_is_the_same_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(cProfile.Profile):
        def enable(self, *args: Any, **kwargs: Any) -> None:
            raise ValueError("Another profiling tool is already active")

    with monkeypatch.context() as patch:
        patch.setattr(cProfile, "Profile", Refusing)
        with pytest.raises(ProfilerBusy, match="another profiler is active"):
            profile_cpu("refused").__enter__()
    with profile_cpu("after") as run:
        leaf(1)
    assert calls(run.result)["leaf"] == 1


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="one cProfile per process from 3.12 on")
def test_threads_are_profiled_apart() -> None:
    runs = [profile_cpu(f"thread {i}") for i in range(2)]
    both_open = threading.Barrier(2, timeout=30)

    def work(run: profile_cpu) -> None:
        with run:
            both_open.wait()
            leaf(1)
            both_open.wait()

    threads = [threading.Thread(target=work, args=(run,)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [calls(run.result)["leaf"] for run in runs] == [1, 1]
