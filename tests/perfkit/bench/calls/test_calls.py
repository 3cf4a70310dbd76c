"""Calls timed again and again, two against each other, and line by line: counts and structure."""

from collections.abc import Callable, Iterator
from functools import lru_cache, partial, wraps
from statistics import median

import pytest

from perfkit.bench.calls.arguments import missing_arguments
from perfkit.bench.calls.latency import LatencyReport, measure_latency, track_latency
from perfkit.bench.calls.lines import profile_lines, track_lines
from perfkit.bench.calls.versus import compare_calls, compare_turns
from perfkit.evidence import progress


class Counter:
    """A call that counts itself, and takes as many steps as it is told."""

    def __init__(self, steps: int) -> None:
        self.steps, self.calls = steps, 0

    def __call__(self) -> int:
        self.calls += 1
        return sum(range(self.steps))


def test_a_long_call_is_timed_by_itself() -> None:
    call = Counter(20_000)
    found = measure_latency(call, "sum", calls=12)
    assert (len(found.samples_s), found.loops) == (12, 1)
    assert call.calls == 12 + 4, "the first one and three to find out are not counted"
    assert found.percentiles_s["p50"].value in sorted(found.samples_s)[5:7] or found.samples_s
    assert "12 calls" in str(found)
    assert "is not counted" in str(found)


def test_a_short_call_is_timed_in_loops_and_says_so() -> None:
    call = Counter(0)
    found = measure_latency(call, calls=1_000)
    assert found.loops > 1
    assert len(found.samples_s) * found.loops >= 1_000
    assert "too short to be timed alone" in str(found)
    assert found.unit[0] in ("ns", "µs")


def test_each_run_of_a_block_and_each_call_of_a_function_is_timed() -> None:
    timer = track_latency("step")
    for _ in range(4):
        with timer:
            pass
    with pytest.raises(KeyError), timer:
        raise KeyError
    assert timer.result is not None
    assert len(timer.result.samples_s) == 5
    assert "Latency of step: 5 calls" in str(timer.result)
    assert "is not counted" not in str(timer.result)

    @(calls := track_latency())
    def work(size: int) -> int:
        return sum(range(size))

    assert [work(9), work(10)] == [36, 45]
    assert calls.result is not None
    assert len(calls.result.to_frame()) == 2
    assert calls.result.name.endswith("work")
    calls.result = None
    assert calls.result is None


def test_what_a_call_raises_passes() -> None:
    with pytest.raises(ZeroDivisionError):
        measure_latency(lambda: 1 / 0)
    with pytest.raises(ValueError, match="at least one call"):
        measure_latency(Counter(1), calls=0)


def test_the_one_with_a_tenth_of_the_work_is_faster() -> None:
    found = compare_calls(Counter(20_000), Counter(2_000), ("all", "tenth"), block_s=0.004)
    assert found.comparison.verdict == "faster"
    assert {arm: len(times) for arm, times in found.samples_s.items()} == dict.fromkeys("ABC", 12)
    assert found.same_result is False
    assert "They returned different values" in str(found)
    assert "tenth (B) against all (A)" in str(found)
    assert list(found.to_frame().columns) == ["a_s", "b_s", "a_again_s"]


def test_two_pieces_of_a_loop_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(progress, "_listeners", [told.append])
    seen = []
    with compare_turns("all", "tenth", blocks=8, block_s=0.002) as turns:
        for arm in turns:
            seen.append(arm)
            sum(range(20_000 if arm == "all" else 2_000))
    assert turns.result is not None
    times = turns.result.samples_s
    assert median(times["B"]) < median(times["A"]) / 2
    assert {arm: len(its) for arm, its in times.items()} == dict.fromkeys("ABC", 8)
    assert seen[:2] == ["all", "tenth"]
    assert seen.count("all") > 2 * 8
    assert told == [f"block {number} of 8" for number in range(1, 9)]
    assert "can't be told" in str(turns.result)
    with pytest.raises(ValueError, match="the loop over the turns did not end"), turns:
        next(iter(turns))
    with pytest.raises(KeyError), turns:
        raise KeyError


def test_a_comparison_of_too_little_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 4 blocks"):
        compare_calls(Counter(1), Counter(1), blocks=3)
    with pytest.raises(ValueError, match="more than 0 seconds"):
        compare_calls(Counter(1), Counter(1), block_s=0)
    with pytest.raises(ValueError, match="different names, not twice 'a'"):
        compare_turns("a", "a")


def outer(size: int) -> int:
    kept = bytearray(b"x") * size
    return inner(kept)


def inner(kept: bytearray) -> int:
    copy = bytes(kept)
    return len(copy)


def test_lines_have_times_and_memory_of_both_functions() -> None:
    size = 32 << 20
    found = profile_lines([outer, inner], lambda: outer(size))
    assert found.error is None
    frame = found.to_frame().set_index("code")
    assert frame.loc['kept = bytearray(b"x") * size', "growth_bytes"] > size * 0.9
    assert frame.loc["copy = bytes(kept)", "growth_bytes"] > size * 0.9
    assert set(frame["runs"]) == {1}


def test_the_lines_up_to_an_error_are_kept_and_the_work_is_not_repeated() -> None:
    runs = []

    def fails() -> None:
        runs.append(1)
        raise KeyError("no")

    found = profile_lines([fails], fails)
    assert isinstance(found.error, KeyError)
    assert [line.runs for line in found.times.functions[0].lines] == [1, 1]  # type: ignore[union-attr]
    assert runs == [1]


def test_a_block_and_a_decorated_function_have_lines() -> None:
    with track_lines(inner, outer) as block:
        outer(1_000)
    assert block.result is not None
    assert {it.function for it in block.result.times.functions} == {"inner", "outer"}  # type: ignore[union-attr]
    with track_lines(inner, memory=True) as read:
        inner(bytearray(9))
    assert [use.code.strip() for use in read.result.memory[0].lines][1:] == [  # type: ignore[union-attr]
        "copy = bytes(kept)",
        "return len(copy)",
    ]
    assert "copy = bytes(kept)" in read.result.plot().alt  # type: ignore[union-attr]

    @(lines := track_lines())
    def down(n: int) -> int:
        return n and down(n - 1)

    assert down(3) == 0
    assert lines.result.times.functions[0].lines[0].runs == 4  # type: ignore[union-attr]
    with pytest.raises(TypeError), lines:
        down("x")  # type: ignore[arg-type]
    assert isinstance(lines.result.error, TypeError)  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="of which functions"), track_lines():
        pass


def test_the_arguments_that_a_call_would_lack_are_named() -> None:
    assert missing_arguments(outer) == "size"
    assert missing_arguments(lambda a, *b, c, d=1, **e: a) == "a, c"
    assert missing_arguments(Counter(1)) == missing_arguments(dict) == ""


def test_a_function_without_lines_is_refused_and_a_generator_has_a_reason() -> None:
    def numbers():  # type: ignore[no-untyped-def]
        yield 1

    with pytest.raises(ValueError, match="not written in Python"):
        profile_lines([len], list)
    found = profile_lines([numbers], lambda: list(numbers()))
    assert found.times is not None
    assert "No memory of" in str(found)


async def later() -> int:
    return 1


def one_by_one() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize("call", [later, one_by_one, partial(later)])
def test_a_call_that_is_over_before_its_work_is_not_timed(call: Callable[[], object]) -> None:
    for measure in (
        lambda: measure_latency(call, calls=5),
        lambda: compare_calls(call, Counter(1), blocks=4, block_s=0.001),
        lambda: compare_calls(Counter(1), call, blocks=4, block_s=0.001),
    ):
        with pytest.raises(TypeError, match="returns before its work, which runs when"):
            measure()


def test_the_names_of_two_calls_are_looked_at_before_the_calls_are_made() -> None:
    call = Counter(1)
    with pytest.raises(ValueError, match="a and b have a name each"):
        compare_calls(call, call, ("a",))  # type: ignore[arg-type]
    assert call.calls == 0


def test_what_is_called_has_a_name_without_an_address() -> None:
    found = measure_latency(partial(sum, ()), calls=5)
    assert "Latency of partial(sum): 5 calls" in str(found)
    assert "Latency of Counter: 5 calls" in str(measure_latency(Counter(1), calls=5))
    assert "Latency of x: 1 call, one after" in str(LatencyReport("x", (1.0,), 1, None, 0.0))


@lru_cache
def cached(size: int = 3) -> int:
    kept = [size] * size
    return len(kept)


@wraps(cached)
def around(*sizes: int) -> int:
    return cached(*sizes)


def test_lines_are_those_that_were_written_below_decorators_caches_and_partials() -> None:
    for size, function in enumerate((cached, around, partial(cached, 5))):
        found = profile_lines([function], partial(cached, 100 + size), memory=False)
        assert found.to_frame()["code"].tolist() == ["kept = [size] * size", "return len(kept)"]
    found = profile_lines([cached], partial(cached, 7))
    assert "Memory by line of cached in " in str(found)
    assert "no line of it ran" in str(found), "the second run found the result in the cache"
    with pytest.raises(ValueError, match=r"^Counter has no lines: it is a class"):
        profile_lines([Counter], Counter(1))
