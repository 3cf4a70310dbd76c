"""Finds and ends what a kernel or a whole lab has started and left behind.

A cell may start programs that leave its kernel's process group or forget their parent, so neither
finds them all. A variable in the environment does: every process inherits it from the one that
started it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress

import psutil


def offspring(pid: int) -> list[psutil.Process]:
    """All processes that descend from one; none if that is gone."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


def marked(variable: str, value: str) -> list[psutil.Process]:
    """This user's processes that were started with this variable in their environment."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(variable) == value:
                found.append(process)
    return found


def kill(processes: Iterable[psutil.Process]) -> None:
    """SIGKILL those that still run; a process id that was given away since is left alone."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
