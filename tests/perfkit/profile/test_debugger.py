"""The rehearsal: it catches a process that dies of a debugger, before another one does."""

import subprocess
import sys

import pytest

from perfkit.profile import debugger, stand_in
from perfkit.profile.debugger import rehearse, waits_of

pytest.importorskip("memray")

#: Takes a stop by a debugger as a bad kernel's system call would: it fails with the kernel's code.
DIES = """
import time
print("ready", flush=True)
while True:
    before = time.monotonic()
    time.sleep(0.001)
    if time.monotonic() - before > 0.1:
        {death}
"""
STAYS_SILENT = "import time; print('ready', flush=True); time.sleep(1000)"


@pytest.mark.parametrize(
    "death",
    ["raise OSError(512, 'Unknown error 512')", "import os; os.abort()"],
    ids=["wrong errno", "signal"],
)
def test_a_process_that_dies_of_the_debugger_is_a_reason(death: str) -> None:
    reason = rehearse("read", ["-c", DIES.format(death=death)])
    if reason.startswith("memray attach: "):
        pytest.skip(f"no debugger gets into a process here: {reason}")
    assert reason.startswith("a process of our own, waiting in read, did not survive it (exit")


def test_a_process_that_answers_no_more_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debugger, "ATTACH_TIMEOUT_S", 0.1)
    monkeypatch.setattr(debugger, "ANSWER_TIMEOUT_S", 0.1)
    reason = rehearse("read", ["-c", STAYS_SILENT])
    assert reason == "a process of our own, waiting in read, does not answer since"


def test_one_wait_that_fails_refuses_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debugger, "waits_of", lambda pid: ["poll", "select"])
    monkeypatch.setattr(debugger, "rehearse", {"poll": None, "select": "it died"}.get)
    assert debugger.refusal(1) == "not attached: it died"


@pytest.mark.parametrize("wait", stand_in.WAITS)
def test_a_stand_in_is_seen_in_its_wait_and_ends_at_a_line(wait: str) -> None:
    argv = [sys.executable, "-m", stand_in.__name__, wait]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "ready\n"
        assert wait in waits_of(child.pid)
        child.communicate("\n", 30)
    assert child.returncode == 0


def test_an_unknown_wait_is_rehearsed_in_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debugger, "LOOK_EVERY_S", 0.0)
    every = set(stand_in.WAITS)
    assert set(waits_of(2**22 + 1)) == every, "there is no such process"
    for channel, waits in (("0", every), ("do_wait", every), ("futex_do_wait", {"futex"})):
        monkeypatch.setattr(debugger, "_channel", lambda pid, channel=channel: channel)
        assert set(waits_of(1)) == waits
