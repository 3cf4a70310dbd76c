"""An idle card is left alone for longer than it needs to fall asleep; one that works never is."""

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import pytest

from perfkit.gpu.device.made_up import POLARIS, plant
from perfkit.gpu.rest import DELAYS, IDLE_AFTER_S, LOOK_S, PAUSE_MAX_S, Rest

CAN_SLEEP = {"power/control": "auto\n", "power/autosuspend_delay_ms": "5000\n"}
STEP_S = 0.1


def asked_at(
    device: Path, seconds: float, works: Callable[[float], bool] = lambda now_s: False
) -> list[float]:
    """When a card was asked that is to be asked ten times a second."""
    rest, asked = Rest(device), []
    for step in range(round(seconds / STEP_S)):
        now_s = step * STEP_S
        if rest.may_ask(now_s):
            asked.append(now_s)
            rest.note(now_s, works(now_s))
    return asked


def say(device: Path, files: Mapping[str, str]) -> None:
    """Change what the kernel shows, in files that may be held open."""
    for name, text in files.items():
        (device / name).write_text(text)


def pauses(asked_s: list[float]) -> Iterator[float]:
    return (after - before for before, after in pairwise(asked_s) if after - before > 2 * STEP_S)


def test_pauses_are_longer_than_the_card_needs_to_fall_asleep_and_grow(tmp_path: Path) -> None:
    device = plant(tmp_path, {**POLARIS, **CAN_SLEEP})
    asked_s = asked_at(device, 200.0)
    assert [*pauses(asked_s)] == pytest.approx([7.5, 15.0, 30.0, 60.0, 60.0], abs=2 * STEP_S)
    before = [at for at in asked_s if at <= IDLE_AFTER_S]
    assert len(before) >= IDLE_AFTER_S / STEP_S - 1, "at the full rate until it is idle"
    assert len(asked_s) - len(before) <= 6 * (LOOK_S / STEP_S + 1)


@pytest.mark.parametrize(
    ("delay_ms", "pause_s"), [("100", 0.15), ("20000", 30.0), ("120000", 180.0)]
)
def test_pauses_follow_the_cards_own_delay(tmp_path: Path, delay_ms: str, pause_s: float) -> None:
    device = plant(tmp_path, {**POLARIS, **CAN_SLEEP, "power/autosuspend_delay_ms": delay_ms})
    rest = Rest(device)
    for now_s in (0.0, IDLE_AFTER_S):
        assert rest.may_ask(now_s)
        rest.note(now_s, works=False)
    assert not rest.may_ask(IDLE_AFTER_S + pause_s - 0.01)
    assert rest.may_ask(IDLE_AFTER_S + pause_s + 0.01)
    assert pause_s == DELAYS * int(delay_ms) / 1_000
    assert min(pause_s, PAUSE_MAX_S) <= PAUSE_MAX_S


@pytest.mark.parametrize(
    "files",
    [
        {"power/control": "on\n"},
        {"power/control": None},
        {"power/autosuspend_delay_ms": "-1\n"},
        {"power/autosuspend_delay_ms": None},
        {"power/autosuspend_delay_ms": "soon\n"},
        {"power/autosuspend_delay_ms": "600001\n"},
        {"power/autosuspend_delay_ms": "9" * 40},
        {"power/runtime_status": "unsupported\n"},
        {"power/runtime_usage": "1\n"},
    ],
    ids=str,
)
def test_a_card_that_cannot_sleep_has_no_pauses(
    tmp_path: Path, files: Mapping[str, str | None]
) -> None:
    device = plant(tmp_path, {**POLARIS, **CAN_SLEEP, **files})
    assert [*pauses(asked_at(device, 100.0))] == []


def test_a_card_that_works_has_no_pauses(tmp_path: Path) -> None:
    device = plant(tmp_path, {**POLARIS, **CAN_SLEEP})
    now_and_then = asked_at(device, 100.0, lambda now_s: round(now_s / STEP_S) % 40 == 0)
    assert [*pauses(now_and_then)] == []


@pytest.mark.parametrize(
    "sign",
    [
        {"power/runtime_usage": "2\n"},
        {"mem_info_vram_used": "4096\n"},
        {"mem_info_gtt_used": "4096\n"},
        {"power/runtime_status": "suspended\n"},
    ],
    ids=str,
)
def test_a_sign_of_work_ends_a_pause_at_once_and_the_next_is_short_again(
    tmp_path: Path, sign: Mapping[str, str]
) -> None:
    device = plant(tmp_path, {**POLARIS, **CAN_SLEEP, "power/runtime_usage": "0\n"})
    rest, now_s = Rest(device), 0.0
    while now_s < 70.0:
        if rest.may_ask(now_s):
            rest.note(now_s, works=False)
        now_s += STEP_S
    assert not rest.may_ask(now_s)
    say(device, sign)
    assert rest.may_ask(now_s)
    say(device, {"power/runtime_usage": "0\n", "power/runtime_status": "active\n"})
    rest.note(now_s, works=False)
    assert rest.may_ask(now_s + IDLE_AFTER_S - STEP_S)
    rest.note(now_s + IDLE_AFTER_S, works=False)
    assert not rest.may_ask(now_s + IDLE_AFTER_S + 7.4)
    assert rest.may_ask(now_s + IDLE_AFTER_S + 7.6)
    rest.close()
