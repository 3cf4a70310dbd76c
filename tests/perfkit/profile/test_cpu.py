"""Profiles of real code: what they hold, that they nest, and that they never get in the way."""

from __future__ import annotations

import asyncio
import cProfile
import marshal
import pstats
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
import snakeviz.stats

from perfkit.profile import short_path, switch
from perfkit.profile.calls import ProfilerBusy
from perfkit.profile.cpu import (
    RECENT_LIMIT,
    CpuProfile,
    CpuProfiler,
    ProfileUnreadable,
    load_profile,
    profile_cpu,
    recent,
)


def leaf(n: int) -> int:
    return sum(range(n))


def branch(n: int) -> int:
    return leaf(n) + leaf(n)


def calls(profile: CpuProfile | None) -> dict[str, int]:
    """Calls by function, of this file's functions only."""
    assert profile is not None
    spots = profile.top(10_000)
    return {spot.function: spot.calls for spot in spots if spot.file.endswith("test_cpu.py")}


@pytest.fixture
def busy() -> Iterator[Callable[[], None]]:
    """Turns on a profiler that this project knows nothing of; it is off again after the test."""
    other = cProfile.Profile()
    yield other.enable
    other.disable()


def test_a_block_is_profiled_function_by_function() -> None:
    with profile_cpu("block") as run:
        branch(100)
        branch(100)

    profile = run.result
    assert profile is not None
    assert (profile.name, profile.error, profile.path) == ("block", None, None)
    assert calls(profile)["branch"] == 2
    assert calls(profile)["leaf"] == 4
    spots = {spot.function: spot for spot in profile.top(100)}
    assert spots["branch"].total_s >= spots["leaf"].total_s >= spots["leaf"].own_s > 0
    assert spots["branch"].line == branch.__code__.co_firstlineno
    assert spots["<built-in method builtins.sum>"].file == "(built-in)"
    assert spots["<built-in method builtins.sum>"].line is None
    assert sum(spot.own_share or 0 for spot in spots.values()) == pytest.approx(1)
    assert profile.wall_s is not None
    assert profile.wall_s >= profile.own_s


def test_the_table_is_ordered_and_cut_as_asked() -> None:
    with profile_cpu("order") as run:
        branch(2000)
    profile = run.result
    assert profile is not None

    own = [spot.own_s for spot in profile.top(3)]
    total = [spot.total_s for spot in profile.top(3, by="cumtime")]
    assert own == sorted(own, reverse=True)
    assert total == sorted(total, reverse=True)
    assert profile.top(1, by="cumtime")[0].function == "branch"
    with pytest.raises(ValueError, match=r'"tottime" or "cumtime", not \'calls\''):
        profile.top(by="calls")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 1, not 0"):
        profile.top(0)


def test_a_frame_has_every_function_and_the_html_is_escaped() -> None:
    with profile_cpu("<script>") as run:
        branch(10)
    profile = run.result
    assert profile is not None

    frame = profile.to_frame()
    assert len(frame) == len(profile.table)
    assert list(frame.columns)[:4] == ["function", "file", "line", "calls"]
    html = profile._repr_html_()
    assert "&lt;script&gt;" in html
    assert "&lt;built-in method" in html
    assert "<script>" not in html
    assert "<built-in" not in html


def test_a_frame_without_pandas_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    with profile_cpu("frame") as run:
        leaf(1)
    assert run.result is not None
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ModuleNotFoundError, match=r"perfkit\[lab\]"):
        run.result.to_frame()


def test_a_saved_profile_opens_in_pstats_and_snakeviz(tmp_path: Path) -> None:
    with profile_cpu("co/ordinator: 1", out_dir=tmp_path / "new") as run:
        branch(100)

    assert run.result is not None
    assert run.result.path == tmp_path / "new" / "co-ordinator-1.prof"
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["co-ordinator-1.prof"]
    stats = pstats.Stats(str(run.result.path))
    rows = snakeviz.stats.table_rows(stats)
    tree = snakeviz.stats.json_stats(stats)
    assert any("test_cpu.py" in row[5] and "(leaf)" in row[5] for row in rows)
    (name,) = [name for name in tree if name.endswith("(branch)")]
    assert any(child.endswith("(leaf)") for child in tree[name]["children"])
    assert load_profile(run.result.path).top(50) == run.result.top(50)
    assert load_profile(run.result.path).name == "co-ordinator-1"
    assert load_profile(run.result.path, "mine").wall_s is None


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


@pytest.mark.parametrize(
    "content", [b"", b"not a profile", marshal.dumps({}), marshal.dumps({"a": 1})]
)
def test_a_file_that_is_no_profile_is_refused(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.prof"
    path.write_bytes(content)
    with pytest.raises(ProfileUnreadable, match="not a file that cProfile wrote"):
        load_profile(path)
    assert capsys.readouterr().out == ""


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no profile at .*missing\.prof"):
        load_profile(tmp_path / "missing.prof")


def test_a_file_that_cannot_be_read_is_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.prof"
    path.write_bytes(b"x")

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(pstats, "Stats", refuse)
    with pytest.raises(ProfileUnreadable, match="cannot be read: Permission denied"):
        load_profile(path)


def test_a_profile_that_cannot_be_written_warns_and_keeps_the_result(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")

    @profile_cpu(name="blocked", out_dir=blocked / "below")
    def work() -> int:
        return leaf(10)

    with pytest.warns(RuntimeWarning, match="'blocked' could not be written"):
        assert work() == leaf(10)
    assert recent("blocked")[-1].path is None


def test_a_disk_that_fills_leaves_no_half_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: pstats.Stats, filename: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pstats.Stats, "dump_stats", fail)
    with (
        pytest.warns(RuntimeWarning, match="No space left"),
        profile_cpu("full", out_dir=tmp_path) as run,
    ):
        leaf(1)
    assert run.result is not None
    assert list(tmp_path.iterdir()) == []


def test_an_exception_passes_through_and_its_profile_is_saved(tmp_path: Path) -> None:
    @profile_cpu(name="failing", out_dir=tmp_path)
    def work() -> None:
        leaf(10)
        raise KeyError("lost")

    with pytest.raises(KeyError, match="lost"):
        work()
    assert load_profile(tmp_path / "failing.prof").calls > 0
    assert recent("failing")[-1].error == "KeyError"
    with pytest.raises(ZeroDivisionError), profile_cpu("block", out_dir=tmp_path) as run:
        leaf(1 // 0)
    assert run.result is not None
    assert run.result.error == "ZeroDivisionError"
    assert "ended by ZeroDivisionError" in run.result._repr_html_()
    assert sys.getprofile() is None


def test_an_empty_block_still_gives_a_file_that_loads(tmp_path: Path) -> None:
    with profile_cpu("empty", out_dir=tmp_path):
        pass
    snakeviz.stats.json_stats(pstats.Stats(str(tmp_path / "empty.prof")))
    with pytest.raises(ValueError, match="'nothing' is empty"):
        CpuProfile("nothing", {}).to_pstats()
    assert CpuProfile("nothing", {}).top() == []


def test_time_that_the_clock_did_not_see_has_no_shares() -> None:
    profile = CpuProfile("instant", {("m.py", 1, "f"): (1, 1, 0.0, 0.0, {})})
    assert profile.top()[0].own_share is None
    assert "unknown" in profile._repr_html_()


def test_an_outer_profile_holds_its_inner_ones_and_goes_on_after_them(tmp_path: Path) -> None:
    def middle() -> CpuProfiler:
        leaf(10)
        with profile_cpu("inner", out_dir=tmp_path) as inner:
            branch(10)
            with profile_cpu("innermost", out_dir=tmp_path) as innermost:
                leaf(10)
        leaf(10)
        assert calls(innermost.result) == {"leaf": 1}
        return inner

    with profile_cpu("outer", out_dir=tmp_path) as outer:
        inner = middle()
        leaf(10)

    assert calls(inner.result)["leaf"] == 3
    assert calls(inner.result)["branch"] == 1
    assert calls(outer.result)["leaf"] == 6
    assert calls(outer.result)["branch"] == 1
    assert "perfkit/profile/cpu.py" in {spot.file for spot in outer.result.top(1000)}  # type: ignore[union-attr]
    for name in ("outer", "inner", "innermost"):
        tree = snakeviz.stats.json_stats(pstats.Stats(str(tmp_path / f"{name}.prof")))
        assert any(function.endswith("(leaf)") for function in tree)


def test_an_inner_profile_holds_nothing_but_its_block() -> None:
    with profile_cpu("outer"), profile_cpu("inner") as inner:
        branch(10)
    assert inner.result is not None
    functions = {spot.function for spot in inner.result.top(1000)}
    assert functions == {"branch", "leaf", "<built-in method builtins.sum>"}


def test_profiles_may_end_in_another_order_than_they_began() -> None:
    first, second = profile_cpu("first"), profile_cpu("second")
    first.__enter__()
    leaf(1)
    second.__enter__()
    leaf(1)
    first.__exit__(None, None, None)
    leaf(1)
    second.__exit__(None, None, None)

    assert calls(first.result)["leaf"] == 2
    assert calls(second.result)["leaf"] == 2
    assert sys.getprofile() is None


def test_one_profiler_object_may_be_nested_in_itself() -> None:
    profiler = profile_cpu("again")
    with profiler:
        leaf(1)
        with profiler:
            leaf(1)
        assert calls(profiler.result)["leaf"] == 1
    assert calls(profiler.result)["leaf"] == 2


def test_a_bare_decorator_keeps_the_function_and_takes_its_name() -> None:
    @profile_cpu
    def work(n: int, *, twice: bool = False) -> int:
        """Does it."""
        return leaf(n) * (2 if twice else 1)

    assert work(5, twice=True) == 2 * leaf(5)
    assert (work.__name__, work.__doc__) == ("work", "Does it.")
    name = "test_a_bare_decorator_keeps_the_function_and_takes_its_name.<locals>.work"
    assert calls(recent(name)[-1])["leaf"] == 1


def test_a_recursive_function_is_one_profile() -> None:
    @profile_cpu(name="recursive")
    def down(n: int) -> int:
        return 0 if n == 0 else 1 + down(n - 1)

    before = len(recent("recursive"))
    assert down(5) == 5
    assert len(recent("recursive")) == before + 1
    (spot,) = [s for s in recent("recursive")[-1].top(100) if s.function.endswith("down")]
    assert spot.calls == 6


def test_functions_of_one_name_and_line_are_added_up() -> None:
    made = [FunctionType(compile("sum([1])", "<string>", "eval"), {}) for _ in range(3)]
    with profile_cpu("made") as run:
        for function in made:
            function()
    assert run.result is not None
    spots = {spot.function: spot for spot in run.result.top(100)}
    assert (spots["<module>"].calls, spots["<module>"].file) == (3, "<string>")
    assert run.result.table["~", 0, "<built-in method builtins.sum>"][4] == {
        ("<string>", 1, "<module>"): (
            3,
            3,
            pytest.approx(spots["<built-in method builtins.sum>"].own_s),
            pytest.approx(spots["<built-in method builtins.sum>"].total_s),
        )
    }


def test_a_coroutine_is_profiled_only_while_it_runs() -> None:
    @profile_cpu(name="coroutine")
    async def work(go: asyncio.Event) -> int:
        leaf(1)
        try:
            await asyncio.wait_for(asyncio.Event().wait(), 0)
        except TimeoutError:
            await go.wait()
        return leaf(3)

    async def main() -> int:
        go = asyncio.Event()
        task = asyncio.create_task(work(go))
        await asyncio.sleep(0)
        branch(1)
        go.set()
        return await task

    assert asyncio.run(main()) == leaf(3)
    profile = recent("coroutine")[-1]
    assert calls(profile)["leaf"] == 2
    assert "branch" not in calls(profile)
    assert profile.error is None


def test_a_coroutine_that_is_cancelled_leaves_its_profile() -> None:
    @profile_cpu(name="cancelled")
    async def work() -> None:
        leaf(1)
        await asyncio.Event().wait()

    async def main() -> None:
        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())
    assert recent("cancelled")[-1].error == "CancelledError"
    assert calls(recent("cancelled")[-1])["leaf"] == 1


def test_a_generator_is_profiled_only_while_it_runs() -> None:
    @profile_cpu(name="generator")
    def numbers() -> Iterator[Any]:
        got = yield leaf(1)
        try:
            yield got
        except LookupError:
            yield leaf(2)
        return leaf(3)

    generator = numbers()
    assert next(generator) == leaf(1)
    branch(1)
    assert generator.send("sent") == "sent"  # type: ignore[attr-defined]
    assert generator.throw(LookupError()) == leaf(2)  # type: ignore[attr-defined]
    with pytest.raises(StopIteration) as stopped:
        next(generator)
    assert stopped.value.value == leaf(3)
    profile = recent("generator")[-1]
    assert calls(profile)["leaf"] == 3
    assert "branch" not in calls(profile)


def test_a_generator_inside_of_a_profile_counts_in_both() -> None:
    @profile_cpu(name="inside")
    def numbers() -> Iterator[int]:
        yield leaf(1)
        yield leaf(1)

    with profile_cpu("around") as run:
        assert len(list(numbers())) == 2
        leaf(1)
    assert calls(recent("inside")[-1])["leaf"] == 2
    assert calls(run.result)["leaf"] == 3


def test_a_generator_closed_early_did_nothing_wrong() -> None:
    closed = []

    @profile_cpu(name="closed")
    def numbers() -> Iterator[int]:
        try:
            yield leaf(1)
        finally:
            closed.append(True)

    generator = numbers()
    next(generator)
    generator.close()  # type: ignore[attr-defined]
    assert closed == [True]
    assert recent("closed")[-1].error is None


def test_a_recursive_generator_is_one_profile() -> None:
    @profile_cpu(name="walk")
    def walk(depth: int) -> Iterator[int]:
        yield depth
        if depth:
            yield from walk(depth - 1)

    before = len(recent("walk"))
    assert list(walk(3)) == [3, 2, 1, 0]
    assert len(recent("walk")) == before + 1


def test_another_profiler_is_refused_with_a_clear_error(busy: Callable[[], None]) -> None:
    @profile_cpu
    def work() -> int:
        return leaf(1)

    @profile_cpu
    def numbers() -> Iterator[int]:
        yield leaf(1)

    block = profile_cpu("late")
    busy()
    with pytest.raises(ProfilerBusy, match="'late' cannot start because another profiler"):
        block.__enter__()
    with pytest.raises(ProfilerBusy):
        work()
    with pytest.raises(ProfilerBusy):
        next(numbers())
    block.__exit__(None, None, None)
    assert block.result is None


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


def test_a_generator_goes_on_unseen_when_another_profiler_comes_up(
    busy: Callable[[], None],
) -> None:
    @profile_cpu(name="unseen")
    def numbers() -> Iterator[int]:
        yield leaf(1)
        yield leaf(2)

    generator = numbers()
    first = next(generator)
    busy()
    assert [first, *generator] == [leaf(1), leaf(2)]
    assert recent("unseen")[-1].unseen_steps == 2
    assert calls(recent("unseen")[-1])["leaf"] == 1


def test_a_block_cannot_be_closed_from_another_thread() -> None:
    block = profile_cpu("elsewhere")
    errors: list[BaseException] = []

    def close() -> None:
        try:
            block.__exit__(None, None, None)
        except RuntimeError as error:
            errors.append(error)

    with block:
        thread = threading.Thread(target=close)
        thread.start()
        thread.join()
        leaf(1)
    assert "'elsewhere' was opened in another thread" in str(errors[0])
    assert calls(block.result)["leaf"] == 1


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="one cProfile per process from 3.12 on")
def test_threads_are_profiled_apart() -> None:
    runs = [profile_cpu(f"thread {i}") for i in range(2)]
    both_open = threading.Barrier(2, timeout=30)

    def work(run: CpuProfiler) -> None:
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


def test_switched_off_a_decorator_costs_one_python_call_and_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def work() -> None: ...

    decorated = profile_cpu(name="off")(work)
    never = profile_cpu(name="never", enabled=False)(work)
    monkeypatch.setattr(switch, "on", False)
    events: list[str] = []

    def note(frame: object, event: str, argument: object) -> None:
        events.append(event)

    def count(function: Callable[[], None]) -> list[str]:
        events.clear()
        sys.setprofile(note)
        function()
        sys.setprofile(None)
        return events[:-1]

    assert never is work
    assert count(work) == ["call", "return"]
    assert count(decorated) == ["call", "call", "return", "return"]
    assert recent("off") == ()


def test_switched_off_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    @profile_cpu(name="off")
    def numbers() -> Iterator[int]:
        yield 1

    @profile_cpu(name="off")
    async def coroutine() -> int:
        return 2

    monkeypatch.setattr(switch, "on", False)
    with profile_cpu("off") as run:
        assert list(numbers()) == [1]
        assert asyncio.run(coroutine()) == 2
    assert run.result is None
    assert recent("off") == ()
    with profile_cpu("off", enabled=False) as run:
        monkeypatch.setattr(switch, "on", True)
    assert run.result is None


def test_only_the_last_profiles_are_remembered() -> None:
    for i in range(RECENT_LIMIT + 5):
        with profile_cpu(f"number {i}"):
            leaf(1)
    names = [profile.name for profile in recent()]
    assert names == [f"number {i}" for i in range(5, RECENT_LIMIT + 5)]
    assert recent("number 0") == ()


async def ticks() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize("thing", [int, 3, classmethod(leaf), ticks])
def test_what_cannot_be_decorated_is_refused(thing: Any) -> None:
    with pytest.raises(TypeError, match=r"profile_cpu (decorates functions|cannot decorate)"):
        profile_cpu(name="refused")(thing)


def test_a_name_is_not_empty() -> None:
    with pytest.raises(ValueError, match="must not be empty"):
        profile_cpu(" ")


@pytest.mark.parametrize(
    ("path", "short"),
    [
        ("<string>", "<string>"),
        ("/tmp/ipykernel_42/123.py", "<notebook cell>"),
        ("package/module.py", "package/module.py"),
        ("../home/module.py", "module.py"),
        ("/home/me/.venv/lib/python3.13/site-packages/zmq/poll.py", "zmq/poll.py"),
        ("/elsewhere/lib/python3.13t/asyncio/events.py", "asyncio/events.py"),
        ("/home/me/secret/module.py", "module.py"),
        (asyncio.__file__, "asyncio/__init__.py"),
    ],
)
def test_a_path_is_shown_as_its_package_sees_it(path: str, short: str) -> None:
    assert short_path(path) == short
