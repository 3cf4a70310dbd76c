"""What both instruments owe a program: it runs as without them, measured or not."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any, TypeAlias

import pytest

from perfkit.profile.cpu import profile_cpu
from perfkit.profile.instrument import Instrument, Switch, switch
from perfkit.profile.memory import track_memory

Make: TypeAlias = Callable[..., Instrument[Any]]


@pytest.fixture(params=[profile_cpu, track_memory])
def make(request: pytest.FixtureRequest) -> Make:
    return request.param  # type: ignore[no-any-return]


def test_a_decorated_function_stays_what_it_was_and_names_its_result(make: Make) -> None:
    run = make()

    @run
    def work(n: int, *, twice: bool = False) -> int:
        """Adds one."""
        return (n + 1) * (2 if twice else 1)

    assert work(5, twice=True) == 12
    assert (work.__name__, work.__doc__) == ("work", "Adds one.")
    assert run.result.name == work.__qualname__


def test_an_exception_passes_through_and_is_noted(make: Make) -> None:
    run = make("failing")

    @run
    def work() -> None:
        raise KeyError("lost")

    with pytest.raises(KeyError, match="lost"):
        work()
    assert run.result.error == "KeyError"
    with pytest.raises(ZeroDivisionError), make("block") as block:
        raise ZeroDivisionError
    assert block.result.error == "ZeroDivisionError"
    assert "ended by ZeroDivisionError" in block.result._repr_html_()


def test_switched_off_nothing_is_measured(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> int:
        return 1

    run = make("off")
    decorated = run(work)
    monkeypatch.setattr(switch, "on", False)
    with make("block") as block:
        assert decorated() == 1
        monkeypatch.setattr(switch, "on", True)
    assert (run.result, block.result) == (None, None)


def test_switched_off_it_costs_one_python_call(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    decorated = make("off")(lambda: None)
    monkeypatch.setattr(switch, "on", False)
    events: list[str] = []
    sys.setprofile(lambda frame, event, argument: events.append(event))
    decorated()
    sys.setprofile(None)
    assert events[:-1] == ["call", "call", "return", "return"]


async def ticks() -> AsyncIterator[int]:
    yield 1


async def sleeper() -> None: ...


def numbers() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize("thing", [int, 3, classmethod(numbers), ticks, sleeper, numbers])
def test_what_cannot_be_decorated_is_refused(make: Make, thing: Any) -> None:
    with pytest.raises(TypeError, match=r"(decorates functions|cannot decorate)"):
        make("refused")(thing)


def test_a_name_is_a_text_that_is_not_empty(make: Make) -> None:
    with pytest.raises(ValueError, match="must not be empty"):
        make(" ")
    with pytest.raises(TypeError, match=rf"write @{make.__name__}\(\)"):
        make(numbers)


@pytest.mark.parametrize(
    ("value", "on"), [("0", False), (" OFF ", False), ("no", False), ("1", True), ("", True)]
)
def test_the_environment_switches_the_instruments_off(value: str, on: bool) -> None:
    assert Switch({"PERFKIT_PROFILE": value}).on is on
    assert Switch({}).on is True


def test_no_instrument_is_loaded_by_the_package_or_by_another() -> None:
    code = "import perfkit.profile.latency, sys; print(*sys.modules)"
    path = os.pathsep.join(entry for entry in sys.path if entry)
    loaded = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": path},
    ).stdout.split()
    assert "perfkit.profile.latency" in loaded
    assert {"cProfile", "memray", "memory_profiler", "psutil", "zmq", "pandas"}.isdisjoint(loaded)


def test_an_instrument_shows_its_result_and_never_an_address(make: Make) -> None:
    run = make("walk")
    assert repr(run) == f"{type(run).__name__}: nothing is measured yet"
    assert run._repr_html_() is None
    with run:
        sum(range(9))
    assert (repr(run), run._repr_html_()) == (str(run.result), run.result._repr_html_())
    with pytest.raises(TypeError, match=f"{type(run).__name__} takes a name, not partial\\(sum\\)"):
        make(partial(sum))
