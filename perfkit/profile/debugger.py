"""memray's commands on a living process, and the rehearsal that goes before them.

memray gets into a process by gdb or lldb, which interrupts the system call that its main thread
waits in. On some kernels that call then fails with an error number of the kernel's own (512, 514),
which no program expects, and the process dies. So the same is tried first on a process of our own.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from cluster.scratch import ScratchFolder
from perfkit.profile import stand_in
from perfkit.profile.tracer import STOP_TIMEOUT_S, reason_of

#: A debugger gets in when the process runs some Python; an idle one is given up on after this.
ATTACH_TIMEOUT_S = 20.0
ANSWER_TIMEOUT_S = 10.0
#: The main thread is looked at so often, because a busy process waits in more than one call.
LOOKS, LOOK_EVERY_S = 20, 0.01
#: Part of the kernel function that a thread sleeps in, and the waits that sleep there.
_CHANNELS = {
    "pipe_read": ("read",),
    "poll_schedule": ("poll", "select"),
    "ep_poll": ("epoll",),
    "epoll": ("epoll",),
    "futex": ("futex",),
    "nanosleep": ("nanosleep",),
}


def refusal(pid: int) -> str | None:
    """Why a process must not be attached to, in one sentence; None if the rehearsals went well.

    The process itself is only looked at, in /proc.
    """
    with ThreadPoolExecutor() as pool:
        reasons = list(pool.map(rehearse, waits_of(pid)))
    return next((f"not attached: {reason}" for reason in reasons if reason), None)


def rehearse(wait: str, program: Sequence[str] = ("-m", stand_in.__name__)) -> str | None:
    """Attach to a process of our own in this wait, and detach; why it failed, or None.

    `program` are the arguments of its Python; see `perfkit.profile.stand_in`.
    """
    argv = [sys.executable, *program, wait]
    pipe = subprocess.PIPE
    with (
        ScratchFolder("perfkit-rehearsal-") as folder,
        subprocess.Popen(
            argv, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True
        ) as child,
    ):
        assert child.stdout is not None
        child.stdout.readline()
        try:
            refused = memray("attach", attach_options(Path(folder) / "capture.bin", child.pid))
            refused = refused or memray("detach", [str(child.pid)])
            said, _ = child.communicate("\n", ANSWER_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return f"a process of our own, waiting in {wait}, does not answer since"
        finally:
            child.kill()
    if child.returncode:
        last = reason_of(said.splitlines()[-1:])
        return (
            f"a process of our own, waiting in {wait}, did not survive it "
            f"(exit code {child.returncode}: {last})"
        )
    return refused


def waits_of(pid: int) -> Collection[str]:
    """The waits in which the main thread of a process is seen; all of them if that is unknown."""
    seen: set[str] = set()
    for _ in range(LOOKS):
        channel = _channel(pid)
        found = {wait for part in _CHANNELS if part in channel for wait in _CHANNELS[part]}
        if channel not in ("", "0") and not found:
            return tuple(stand_in.WAITS)
        seen |= found
        time.sleep(LOOK_EVERY_S)
    return seen or tuple(stand_in.WAITS)


def _channel(pid: int) -> str:
    """The kernel function that the main thread sleeps in; empty or "0" if it runs or is hidden."""
    try:
        return Path(f"/proc/{pid}/wchan").read_text()
    except OSError:
        return ""


def attach_options(capture: Path, pid: int) -> list[str]:
    """The arguments of `memray attach` for a recording into a file."""
    return ["--output", str(capture), "--no-compress", str(pid)]


def memray(command: str, arguments: Sequence[str], timeout_s: float | None = None) -> str | None:
    """Run a command of memray to its end; None when it did its work, else the reason."""
    timeout_s = ATTACH_TIMEOUT_S if timeout_s is None else timeout_s
    tool = subprocess.Popen(
        [sys.executable, "-m", "memray", command, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Ctrl-C must not end the debugger before it has let go.
        start_new_session=True,
        env={**os.environ, "NO_COLOR": "1"},
    )
    try:
        said, _ = tool.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return (
            f"memray {command} did not end within {timeout_s:g} s"
            "; a debugger gets into a process only when it runs some Python: give it work"
            * (command in {"attach", "detach"})
        )
    finally:
        _let_go(tool)
    return f"memray {command}: {reason_of(said.splitlines())}" if tool.returncode else None


def _let_go(tool: subprocess.Popen[str]) -> None:
    """End a command that still runs, after its debugger has detached.

    A killed debugger leaves its breakpoints behind, and the process dies of the next one;
    interrupted, it removes them.
    """
    if tool.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.TimeoutExpired):
            for debugger in psutil.Process(tool.pid).children():
                debugger.send_signal(signal.SIGINT)
                debugger.wait(STOP_TIMEOUT_S)
        tool.kill()
    tool.communicate()
