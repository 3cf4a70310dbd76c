"""Lines and their times: counted for the work alone, shown where they tell something."""

from collections.abc import Iterator
from time import perf_counter
from unittest.mock import Mock

import pytest

from perfkit.profile import line_times as module
from perfkit.profile.line_times import FunctionLines, LineProfilerMissing, LineTime, line_times


def loop(times: int) -> int:
    total = 0
    for number in range(times):
        total += number
    return total


def test_runs_are_counted_during_the_work_and_not_before() -> None:
    loop(1_000)
    found = line_times([loop], lambda: loop(5), "loop", tasks=5)
    (function,) = found.functions
    runs = {line.code: line.runs for line in function.lines}
    assert runs["total += number"] == 5
    assert runs["return total"] == 1
    assert function.function == "loop"
    assert sum(line.share for line in function.lines) == pytest.approx(1.0)


def test_what_the_work_raises_passes_and_nothing_is_timed_any_more() -> None:
    with pytest.raises(TypeError):
        line_times([loop], lambda: loop("x"), "loop", tasks=1)  # type: ignore[arg-type]
    assert line_times([loop], lambda: None, "loop", tasks=1).functions[0].lines == ()


def test_a_built_in_function_has_no_lines() -> None:
    with pytest.raises(ValueError, match="not written in Python"):
        line_times([len], lambda: None, "len", tasks=1)


def test_a_function_that_only_passes_on_is_not_shown() -> None:
    def lines(*shares: float) -> FunctionLines:
        found = tuple(LineTime(n, "x < y", 1, share, share) for n, share in enumerate(shares))
        return FunctionLines("f", "f.py", 1.0, found)

    assert lines(0.99, 0.01).passes_on
    assert lines().passes_on
    assert not lines(0.6, 0.4).passes_on
    shown = module.LineTimes((lines(0.6, 0.39, 0.01), lines(1.0)), "core", 10)._repr_html_()
    assert shown.count("<table>") == 1
    assert "x &lt; y" in shown
    assert "Left out: 1 below 2%" in shown


def spin(seconds: float) -> None:
    end_s = perf_counter() + seconds
    while perf_counter() < end_s:
        pass


def down(level: int) -> None:
    spin(0.012)
    if level:
        down(level - 1)
    spin(0.004)


def even(n: int) -> bool:
    spin(0.004)
    return n == 0 or odd(n - 1)


def odd(n: int) -> bool:
    spin(0.004)
    return n != 0 and even(n - 1)


def climb(level: int) -> Iterator[int]:
    spin(0.004)
    yield level
    if level:
        yield from climb(level - 1)


def test_a_recursive_call_counts_once() -> None:
    began = perf_counter()
    (found,) = line_times([down], lambda: down(4), "down", tasks=1).functions
    assert 5 * 0.016 <= found.total_s <= perf_counter() - began
    shares = {line.code: line.share for line in found.lines}
    assert shares["down(level - 1)"] < 0.1
    assert shares["spin(0.012)"] > shares["spin(0.004)"] > 0.1


def test_of_functions_that_call_each_other_each_has_its_time_once() -> None:
    began = perf_counter()
    table = line_times([even, odd], lambda: even(4), "even", tasks=1)
    wall_s = perf_counter() - began
    times_s = {found.function: found.total_s for found in table.functions}
    assert 4 * 0.004 <= times_s["odd"] <= times_s["even"] <= wall_s


def test_a_generator_that_calls_itself_is_refused() -> None:
    line_times([climb], lambda: list(climb(0)), "climb", tasks=1)
    with pytest.raises(ValueError, match="climb: a generator that calls itself"):
        line_times([climb], lambda: list(climb(3)), "climb", tasks=1)


def test_without_line_profiler_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.importlib, "import_module", Mock(side_effect=ImportError))
    with pytest.raises(LineProfilerMissing, match="perfkit\\[lab\\]"):
        line_times([loop], lambda: None, "loop", tasks=1)
