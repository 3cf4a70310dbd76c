"""Child processes: how each is started, and what its parent sees of it.

A child has a pipe as its standard input and stops when it closes. A guarded child also gets the
read end of a pipe as ``--parent``, by which it and its children die at once with their parent (see
process.py). Each child is a fresh interpreter, because a process with a ZeroMQ context must not
fork, and ``-P`` keeps the modules of the working folder from shadowing installed ones.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path

from cluster.vocabulary.errors import ClusterError

LOG_TAIL_BYTES = 4_000
#: far more than a poll takes
LOCK_S = 1.0
EMPTY: Mapping[str, str] = {}


def python_command(module: str, arguments: Sequence[str]) -> list[str]:
    """The command that runs a module in this interpreter."""
    return [sys.executable, "-P", "-m", module, *arguments]


def child_environment() -> dict[str, str]:
    """This environment, in which a child finds this package even if it is not installed."""
    root = Path(__file__).parents[2]
    if root.name in ("site-packages", "dist-packages"):
        return dict(os.environ)
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*paths, str(root)])}


class ParentPipe:
    """A pipe whose write end only this process holds, so that it closes when this process dies."""

    def __init__(self) -> None:
        self.read_fd, write_fd = os.pipe()
        self._write = os.fdopen(write_fd, "wb", 0)
        _PIPES.add(self)

    def started(self) -> None:
        """Leave the read end to the child, which has been started."""
        os.close(self.read_fd)

    def close(self) -> None:
        """Close the write end, which kills a child that still runs."""
        self._write.close()


_PIPES: weakref.WeakSet[ParentPipe] = weakref.WeakSet()


def _close_copies() -> None:
    for pipe in list(_PIPES):  # a forked child would keep it open
        pipe.close()


os.register_at_fork(after_in_child=_close_copies)


class Process(subprocess.Popen[bytes]):
    """One child process, and the signals that a fault test sends it. ``output`` is a descriptor for
    its standard error instead of a file in ``folder``, ``variables`` are added to the environment.
    """

    #: of `subprocess.Popen`
    _waitpid_lock: threading.Lock

    def __init__(
        self,
        role: str,
        module: str,
        arguments: Sequence[str],
        folder: Path,
        *,
        guarded: bool = False,
        output: int | None = None,
        variables: Mapping[str, str] = EMPTY,
    ) -> None:
        self.role = role
        self._log = folder / f"{role}.log"
        self._pipe = ParentPipe() if guarded else None
        fds = [self._pipe.read_fd] if self._pipe else []
        guard = [option for fd in fds for option in ("--parent", str(fd))]
        with self._log.open("wb") as log:
            super().__init__(
                python_command(module, [*arguments, *guard]),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                stderr=log if output is None else output,
                start_new_session=True,
                env={**child_environment(), **variables},
                pass_fds=fds,
            )
        if self._pipe:
            self._pipe.started()

    def alive(self) -> bool:
        """Whether it still runs."""
        return self.poll() is None

    def kill(self) -> None:
        """SIGKILL: no goodbye, no clean-up. Returns when it is gone."""
        super().kill()
        self.wait()

    def suspend(self) -> None:
        """SIGSTOP: silent, but not dead."""
        self.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self.send_signal(signal.SIGCONT)

    def announcement(self, until_s: float) -> dict[str, str]:
        """The line that a child prints when it is ready; other output of a handler's module is
        skipped. Raises ClusterError with the child's last words.
        """
        assert self.stdout is not None
        while select.select([self.stdout], [], [], max(0.0, until_s - time.monotonic()))[0]:
            line = self.stdout.readline()
            if not line:
                code = self.wait()
                raise ClusterError(
                    f"{self.role} ended with code {code} before it was ready{self.last_words()}"
                )
            announced = read_announcement(line, self.pid)
            if announced is not None:
                return announced
        raise ClusterError(f"{self.role} was not ready in time{self.last_words()}")

    def _free_lock(self) -> None:
        """Free the lock of `subprocess.Popen` that an interrupt within ``poll`` has left taken, or
        this would wait for ever.
        """
        if self._waitpid_lock.acquire(timeout=LOCK_S):
            self._waitpid_lock.release()
        else:
            self._waitpid_lock = threading.Lock()

    def last_words(self) -> str:
        """The end of what it wrote to standard error, for an error message."""
        with contextlib.suppress(OSError):
            return as_last_words(self._log.read_bytes()[-LOG_TAIL_BYTES:])
        return ""

    def stop(self, until_s: float) -> None:
        """Ask it to end by closing its input; SIGKILL if it has not by then."""
        assert self.stdin is not None
        assert self.stdout is not None
        with contextlib.suppress(OSError):
            self.stdin.close()
        self._free_lock()
        with contextlib.suppress(ProcessLookupError):
            self.send_signal(signal.SIGCONT)
        try:
            self.wait(max(0.01, until_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.kill()
        if self._pipe:
            self._pipe.close()
        self.stdout.close()


def read_announcement(line: bytes, pid: int) -> dict[str, str] | None:
    """What a process announces by a line of its output, or None if it is any other output."""
    with contextlib.suppress(ValueError):
        announced = json.loads(line)
        if isinstance(announced, dict) and announced.get("pid") == pid:
            return announced
    return None


def as_last_words(output: bytes) -> str:
    """The output to end an error message with."""
    text = output.decode(errors="replace").strip()
    return f":\n{text}" if text else ""
