"""Text of other machines cannot steer a terminal."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.shells.futures import as_exception
from cluster.vocabulary.errors import Busy, TaskTimedOut
from cluster.vocabulary.printable import count_of, printable
from cluster.vocabulary.task import Failure, State

RED = "\x1b[31mred"


@pytest.mark.parametrize(
    "text",
    [
        *(RED, "\x1b]0;title\x07", "\x9b31m", "a\rb", "\x08", "\x00", "\x7f"),
        *("\u202eevil", "\u2066x", "\u200f", "\u061c", "\u2028"),
    ],
)
def test_what_a_terminal_would_obey_is_shown_as_its_escape(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert json.loads(f'"{shown}"') == text


def test_ordinary_text_stays_as_it_is() -> None:
    text = "\udc80Ünïcode 漢字 🎉 naïve\ttab\nline \\x1b ≤ 2 ×"
    assert printable(text) == text


@given(st.text())
def test_nothing_that_is_left_is_a_control_or_turns_the_text(text: str) -> None:
    assert all(it in "\n\t" or ord(it) >= 0xA0 or " " <= it <= "~" for it in printable(text))


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELLED, State.DEAD_LETTERED])
def test_an_error_that_came_from_a_worker_is_fit_for_a_terminal(state: State) -> None:
    assert "\\u001b[31mred" in str(as_exception(Failure(0, f"Error{RED}", RED, state)))
    assert "\x1b" not in str(as_exception(Failure(0, f"Error{RED}", RED, state)))


def test_an_error_keeps_the_text_it_was_made_of() -> None:
    for kind in (Busy, TaskTimedOut):
        assert (str(kind(RED)), kind(RED).args) == ("\\u001b[31mred", (RED,))


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 tasks"),
        (1, "1 task"),
        (2, "2 tasks"),
        (65_536, "65,536 tasks"),
        (None, "unknown tasks"),
    ],
)
def test_one_of_a_thing_is_no_plural(count, text):
    assert count_of(count, "task") == text
