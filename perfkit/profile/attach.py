"""Instruments that watch a living process from outside: attach, let it work, let go.

A sampler or a tracer of another process needs the kernel's leave (ptrace), which containers often
refuse, and its program may not be there at all. Neither is an error of whoever wanted to look: the
picture is missing then, and a sentence says why.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

STOP_TIMEOUT_S = 20.0
#: Of what a tool says when it gives up, the reason fits into so much.
REASON_CHARACTERS = 200


def program(name: str) -> str | None:
    """The path of a program, beside this interpreter or in the search path; None without one."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.is_file() else shutil.which(name)


def watch(argv: Sequence[str], ready: str, work: Callable[[], object]) -> str | None:
    """Start a tool, wait until it says `ready`, do the work, and let the tool finish.

    The tool is asked to end as Ctrl-C would. Returns None when it watched all of the work, else why
    it did not, in one sentence; the work is done only when the tool is ready, and its exceptions
    pass.
    """
    tool = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    said: list[str] = []
    assert tool.stdout is not None
    try:
        for line in tool.stdout:
            said.append(line)
            if ready in line:
                work()
                break
        else:
            return f"{Path(argv[0]).name} could not attach: {reason_of(said)}"
        with contextlib.suppress(ProcessLookupError):
            tool.send_signal(signal.SIGINT)
        rest, _ = tool.communicate(timeout=STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return f"{Path(argv[0]).name} did not end within {STOP_TIMEOUT_S:g} s"
    finally:
        if tool.poll() is None:
            tool.kill()
        tool.wait()
        tool.stdout.close()
    # A tool that ends by the very signal it was sent did as it was told.
    if tool.returncode not in (0, -signal.SIGINT, 128 + signal.SIGINT):
        return f"{Path(argv[0]).name} failed: {reason_of([*said, *rest.splitlines()])}"
    return None


def reason_of(said: Sequence[str]) -> str:
    """The end of what a tool said, on one line."""
    lines = [line.strip() for line in said if line.strip()]
    return " ".join(lines)[-REASON_CHARACTERS:] or "it said nothing"
