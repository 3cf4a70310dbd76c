"""Lines and their times: counted for the work alone, shown where they tell something."""

import sys
from collections.abc import Callable, Generator, Iterator

import pytest

from perfkit.profile import line_times as module
from perfkit.profile.line_times import FunctionLines, LineTime, line_times


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


# A clock that only `spend` moves makes seconds exact ---------------------------------------------

now_s = 0


def spend(seconds: int) -> int:
    global now_s
    now_s += seconds
    return seconds


@pytest.fixture
def spent(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, dict[str, tuple[int, int]]]]:
    """Runs the work: by function and line of code its seconds and its runs."""
    monkeypatch.setattr(module, "perf_counter_ns", lambda: now_s * 10**9)

    def run(functions, work):
        found = line_times(functions, work, "it", tasks=1).functions
        for function in found:
            assert function.total_s == pytest.approx(sum(line.total_s for line in function.lines))
        return {
            it.function: {line.code: (round(line.total_s), line.runs) for line in it.lines}
            for it in found
        }

    return run


def down(level: int) -> None:
    spend(1)
    if level:
        spend(10), down(level - 1), spend(100)
    spend(1_000)


def fibonacci(n: int) -> int:
    return n if spend(1) and n < 2 else fibonacci(n - 1) + fibonacci(n - 2) + spend(10) - 10


def even(n: int) -> bool:
    spend(1)
    return n == 0 or odd(n - 1) + spend(10) > 10


def odd(n: int) -> bool:
    spend(100)
    return n != 0 and even(n - 1) + spend(1_000) > 1_000


def fail(level: int) -> None:
    try:
        spend(1)
        if level == 0:
            raise KeyError(level)
        fail(level - 1)
    finally:
        spend(10)


def walk(level: int) -> Generator[int, int, None]:
    spend(1)
    spend((yield level))
    if level:
        yield from walk(level - 1)
    spend(100)


def patient() -> Iterator[int]:
    try:
        yield spend(1)
    finally:
        spend(10)


def test_a_recursive_call_counts_once_and_the_rest_of_its_line_too(spent) -> None:
    assert spent([down], lambda: down(2)) == {
        "down": {
            "spend(1)": (3, 3),
            "if level:": (0, 3),
            "spend(10), down(level - 1), spend(100)": (220, 2),
            "spend(1_000)": (3_000, 3),
        }
    }
    calls, forks = 15, 7
    (lines,) = spent([fibonacci], lambda: fibonacci(5)).values()
    assert list(lines.values()) == [(calls + 10 * forks, calls)]


def test_of_functions_that_call_each_other_each_has_all_of_its_time_once(spent) -> None:
    found = spent([even, odd], lambda: even(4))
    whole_s = 3 * 1 + 2 * 10 + 2 * 100 + 2 * 1_000
    assert [list(found[name].values()) for name in ("even", "odd")] == [
        [(3, 3), (whole_s - 3, 3)],
        [(200, 2), (whole_s - 200 - 1 - 10, 2)],
    ]


def test_an_exception_that_passes_through_a_recursion_ends_its_calls(spent) -> None:
    def work() -> None:
        spend(5)
        with pytest.raises(KeyError):
            fail(2)
        spend(5)

    lines = spent([fail], work)["fail"]
    assert (lines["spend(1)"], lines["fail(level - 1)"], lines["spend(10)"]) == (
        (3, 3),
        (0, 2),
        (30, 3),
    )


def test_a_generator_has_no_time_while_it_waits_and_all_of_it_afterwards(spent) -> None:
    def work() -> None:
        steps = walk(1)
        for wanted, value in ((1, None), (0, 10), (None, 20)):
            spend(7_000)
            assert (steps.send(value) if wanted is not None else next_of(steps, value)) == wanted

    def next_of(steps: Generator[int, int, None], value: int) -> int | None:
        with pytest.raises(StopIteration):
            steps.send(value)
        return None

    assert spent([walk], work)["walk"] == {
        "spend(1)": (2, 2),
        "spend((yield level))": (30, 2),
        "if level:": (0, 2),
        "yield from walk(level - 1)": (0, 1),
        "spend(100)": (200, 2),
    }


@pytest.mark.parametrize("end", ["close", "throw"])
def test_a_generator_that_is_ended_from_outside_is_not_taken_for_running(spent, end: str) -> None:
    def work() -> None:
        steps = patient()
        next(steps)
        spend(1_000)
        if end == "close":
            steps.close()  # type: ignore[attr-defined]
        else:
            with pytest.raises(KeyError):
                steps.throw(KeyError)  # type: ignore[attr-defined]
        spend(1_000)
        next(patient())

    lines = spent([patient], work)["patient"]
    assert lines["yield spend(1)"] == (2, 2)
    assert lines["spend(10)"][0] in (10, 20)  # the last is collected during the work or after it


def test_the_tracer_that_was_there_is_there_again() -> None:
    before = sys.gettrace()
    line_times([loop], lambda: loop(2), "loop", tasks=1)
    assert sys.gettrace() is before
