"""Stacks as py-spy writes them, and those of a living process where the kernel lets us look."""

import os

import pytest

from perfkit.profile import flame
from perfkit.profile.flame import Flame, Frame, read_stacks, sample_stacks

RAW = """\
main (app.py:1);run (cluster/shells/coordinator.py:171);_turn (cluster/shells/coordinator.py:195) 3
main (app.py:1);run (cluster/shells/coordinator.py:171) 1
main (app.py:1);wait (threading.py:9) 6
main (app.py:2);run (cluster/shells/coordinator.py:180) 2
"""
RUN = Frame("run", "cluster/shells/coordinator.py")


def test_stacks_are_read_and_lines_of_one_function_are_one() -> None:
    stacks = dict(read_stacks(RAW))
    assert stacks == {
        (Frame("main", "app.py"), RUN, Frame("_turn", "cluster/shells/coordinator.py")): 3,
        (Frame("main", "app.py"), RUN): 3,
        (Frame("main", "app.py"), Frame("wait", "threading.py")): 6,
    }


def test_a_line_without_a_count_is_named() -> None:
    with pytest.raises(ValueError, match="'nonsense' is no stack"):
        read_stacks("nonsense")


def test_the_stacks_below_a_function_begin_with_it() -> None:
    found = Flame("x", read_stacks(RAW))
    below = found.below("run")
    assert (found.samples, below.samples) == (12, 6)
    assert all(stack[0] == RUN for stack, _ in below.stacks)
    assert found.below("nobody") is found


def test_without_py_spy_the_flame_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flame, "program", lambda name: None)
    found = sample_stacks(os.getpid(), "nobody", lambda: None)
    assert found.samples == 0
    assert found.reason is not None
    assert "pip install" in found._repr_html_()


def test_a_process_that_is_not_there_is_a_reason() -> None:
    found = sample_stacks(2**22 + 1, "nobody", lambda: None)
    assert found.stacks == ()
    assert found.reason
