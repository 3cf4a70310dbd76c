"""Torn inputs find a parser that guesses and an exception that escapes."""

import pytest

from perfkit.bench.goals import torn
from perfkit.bench.goals.torn import torn_inputs
from perfkit.gpu.rocprof import Kernel, KernelProfile
from perfkit.gpu.sources import sysfs


def test_torn_inputs_are_read_right() -> None:
    assert torn_inputs(1_000, seed=3) == []


def test_a_made_up_value_of_a_card_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    parse = sysfs.parse_number

    def guess(raw: bytes) -> int:
        try:
            return parse(raw)
        except ValueError:
            return 77

    monkeypatch.setattr(sysfs, "parse_number", guess)
    assert any(" gave " in wrong for wrong in torn_inputs(400))


def test_an_exception_that_escapes_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: object) -> KernelProfile:
        raise KeyError("Kind")

    monkeypatch.setattr(torn, "read", fail)
    wrong = torn_inputs(4)
    assert len(wrong) == 2
    assert "KeyError escaped: 'Kind'" in wrong[0]


@pytest.mark.parametrize(
    ("kernel", "words"), [(Kernel("k", 31_337), "31337"), (Kernel("k", None, -1), "gave -1 ns")]
)
def test_a_made_up_time_of_a_profile_is_found(
    monkeypatch: pytest.MonkeyPatch, kernel: Kernel, words: str
) -> None:
    made_up = KernelProfile((kernel,), (), "f", "x")
    monkeypatch.setattr(torn, "read", lambda path: made_up)
    assert any(words in wrong for wrong in torn_inputs(8))
