"""How a process of the cluster ends: with its parent, with its group, and without waiting for the
threads of handlers.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import signal
import stat
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

CLEAN_UP_S = 2.0

#: this process has left its parent's group
_made_group = threading.Event()


def die_with_parent(fd: int) -> None:
    """SIGKILL this process group when the pipe at ``fd`` closes, which its writer's death does.

    The kernel sends the signal (https://man7.org/linux/man-pages/man2/fcntl.2.html, F_SETSIG), so
    even a handler that holds the interpreter dies; elsewhere, and if the parent has died already, a
    thread does.
    """
    with suppress(OSError, AttributeError):
        fcntl.fcntl(fd, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)

    def wait() -> None:
        os.read(fd, 1)
        os.killpg(0, signal.SIGKILL)

    os.set_inheritable(fd, False)
    threading.Thread(target=wait, name="parent", daemon=True).start()


def stop_with_parent(stop: Callable[[], None]) -> None:
    """Call ``stop`` when standard input ends because the parent has closed it; die at once if it
    ends because the parent has died.

    From now on standard input is empty, and this process leads a group that ends with it.
    """
    parent, fd = os.getppid(), os.dup(0)
    if stat.S_ISFIFO(os.fstat(fd).st_mode) and os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
        _made_group.set()
    empty_input()

    def wait() -> None:
        while os.read(fd, 4096):
            pass
        if os.getppid() != parent and _owns_group():
            os.killpg(0, signal.SIGKILL)
        stop()

    threading.Thread(target=wait, name="parent", daemon=True).start()


def take_input() -> int:
    """A descriptor for standard input, which is empty for everybody else from now on."""
    fd = os.dup(0)
    empty_input()
    return fd


def empty_input() -> None:
    """Make standard input /dev/null, so that no handler reads what is its worker's."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)


def end_process(code: int) -> NoReturn:
    """End this process now, after its clean-up functions but without waiting for threads; and its
    group, unless that is a shell's.
    """
    cleaner = threading.Thread(target=atexit._run_exitfuncs, daemon=True)
    cleaner.start()
    cleaner.join(CLEAN_UP_S)
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    if _owns_group():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.killpg(0, signal.SIGTERM)
    os._exit(code)


def _owns_group() -> bool:
    return _made_group.is_set() or os.getsid(0) == os.getpid()
