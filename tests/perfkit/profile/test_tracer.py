"""Tools that watch from outside: the work is done once, and a refusal is a sentence."""

import sys
from pathlib import Path

import pytest

from perfkit.profile.tracer import program, trace

#: Ends by the signal itself: KeyboardInterrupt could come anywhere between the two calls.
READY = (
    "import signal; signal.signal(signal.SIGINT, signal.SIG_DFL); "
    "print('ready', flush=True); signal.pause()"
)


def test_the_work_is_done_while_the_tool_watches() -> None:
    done: list[int] = []
    assert trace([sys.executable, "-c", READY], "ready", lambda: done.append(1)) is None
    assert done == [1]


def test_a_tool_that_cannot_attach_says_why_and_no_work_is_done() -> None:
    done: list[int] = []
    refused = [sys.executable, "-c", "print('Operation not permitted'); raise SystemExit(1)"]
    reason = trace(refused, "ready", lambda: done.append(1))
    assert reason.endswith("could not attach: Operation not permitted")
    assert done == []


def test_a_tool_that_fails_after_it_was_ready_says_why() -> None:
    late = (
        "import signal, sys; signal.signal(signal.SIGINT, lambda *_: sys.exit('disk full')); "
        "print('ready', flush=True); signal.pause()"
    )
    reason = trace([sys.executable, "-c", late], "ready", lambda: None)
    assert "failed" in reason
    assert "disk full" in reason


def test_an_exception_of_the_work_passes_and_ends_the_tool() -> None:
    def work() -> None:
        raise KeyError("lost")

    with pytest.raises(KeyError, match="lost"):
        trace([sys.executable, "-c", READY], "ready", work)


def test_a_program_is_found_beside_the_interpreter_or_not_at_all() -> None:
    assert program(Path(sys.executable).name) == sys.executable
    assert program("no-such-program-anywhere") is None
