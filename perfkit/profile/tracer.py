"""Tools that watch a living process from outside: attach, do the work, let go.

They need the kernel's permission to trace (ptrace), which containers often refuse, and may not be
installed. Neither is an error: the picture is missing then, and a sentence says why.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from cluster.scratch import ScratchFolder

STOP_TIMEOUT_S = 20.0
#: Length of the end of a tool's output that is quoted as its reason.
REASON_CHARACTERS = 200


def program(name: str) -> str | None:
    """The path of a program, beside this interpreter or in the search path; None without one."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.is_file() else shutil.which(name)


def trace(argv: Sequence[str], ready: str, work: Callable[[], object]) -> str | None:
    """Start a tool, wait until it prints `ready`, do the work, and interrupt it as Ctrl-C does.

    Returns None when the tool watched all of the work, else the reason in one sentence. The work is
    done only when the tool is ready, and its exceptions pass.
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
    # The interrupt itself is a normal end.
    if tool.returncode not in (0, -signal.SIGINT, 128 + signal.SIGINT):
        return f"{Path(argv[0]).name} failed: {reason_of([*said, *rest.splitlines()])}"
    return None


def trace_to_file(
    argv: Sequence[str], option: str, ready: str, work: Callable[[], object]
) -> tuple[str, str | None]:
    """`trace` a tool that writes a file, named after `option`: its text, or "" and the reason."""
    name = Path(argv[0]).name
    with ScratchFolder(f"perfkit-{name}-") as folder:
        file = Path(folder) / "written.txt"
        reason = trace([*argv, option, str(file)], ready, work)
        if reason is None and not file.is_file():
            reason = f"{name} wrote nothing"
        return ("", reason) if reason else (file.read_text(), None)


def reason_of(said: Sequence[str]) -> str:
    """The end of a tool's output, on one line."""
    lines = [line.strip() for line in said if line.strip()]
    return " ".join(lines)[-REASON_CHARACTERS:] or "it said nothing"
