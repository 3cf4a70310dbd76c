"""One worker of a crew: its newest process, what that prints, and when to start another."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from cluster.supervision.children import (
    LOG_TAIL_BYTES,
    ParentPipe,
    child_environment,
    python_command,
    read_announcement,
)
from cluster.supervision.output import CrewLog, Lines
from cluster.vocabulary.task import ProcessState

BACKOFF_S = 0.1
BACKOFF_MAX_S = 5.0
RESTARTS_PER_MINUTE = 10
#: a worker that lived longer starts again without a longer wait
HEALTHY_AFTER_S = 10.0
READ_BYTES = 65_536
#: the most that is read of the output that a process leaves behind
REST_BYTES_MAX = 1 << 20


class Stream:
    """One output of a process, as lines for the log."""

    def __init__(self, member: Member, fd: int, level: str) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self._member = member
        self._level = level
        self._lines = Lines()

    def read(self) -> int | None:
        """Take in what has been written, at most READ_BYTES; returns how much, 0 at the end, None
        if there is nothing yet.
        """
        try:
            chunk = os.read(self.fd, READ_BYTES)
        except BlockingIOError:
            return None
        for line in self._lines.split(chunk) if chunk else self._lines.end():
            self._member.hear(self._level, line)
        return len(chunk)

    def close(self) -> None:
        """Take in what is left."""
        left = REST_BYTES_MAX
        while left > 0 and (size := self.read()):
            left -= size
        for line in self._lines.end():
            self._member.hear(self._level, line)
        os.close(self.fd)


class Member:
    """A worker's process and its past; ``environment`` is added to that of each process."""

    def __init__(
        self, name: str, log: CrewLog, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.pid = 0
        #: waiting, starting, ready or ended
        self.state = "waiting"
        self.code = 0
        #: whether any process of it has been ready
        self.has_worked = False
        #: the end of what the process has printed
        self.tail = ""
        #: why it is not started again, or not soon
        self.trouble = ""
        self.start_at: float | None = None
        self.kill_at: float | None = None
        #: whether the end of the process was asked for, and another is wanted then
        self.is_asked = self.is_wanted = False
        self.streams: list[Stream] = []
        #: its last answer about functions: the order, its number, and the trouble with it or ""
        self.functions: tuple[object, object, object] | None = None
        self._log = log
        self._environment = environment or {}
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: ParentPipe | None = None
        self._started_at = 0.0
        self._restarted_at: deque[float] = deque(maxlen=RESTARTS_PER_MINUTE)
        self._backoff_s = BACKOFF_S

    @property
    def runs(self) -> bool:
        """Whether it has a process that has not ended."""
        return self.state in ("starting", "ready")

    def start(self, options: Sequence[str]) -> None:
        """Start a process with these options of a worker."""
        self._pipe = ParentPipe()
        pipes = [os.pipe(), os.pipe()]
        guard = ["--name", self.name, "--parent", str(self._pipe.read_fd)]
        try:
            self._process = subprocess.Popen(
                python_command("cluster.process", ["worker", *options, *guard]),
                stdin=subprocess.PIPE,
                stdout=pipes[0][1],
                stderr=pipes[1][1],
                start_new_session=True,
                env={**child_environment(), **self._environment},
                pass_fds=[self._pipe.read_fd],
            )
        finally:
            for _, write in pipes:
                os.close(write)
        self._pipe.started()
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)
        out, err = (read for read, _ in pipes)
        self.streams = [Stream(self, out, "info"), Stream(self, err, "warning")]
        self.pid, self.state, self.tail = self._process.pid, "starting", ""
        self.functions = None
        self.is_asked = self.is_wanted = False
        self.start_at = self.kill_at = None
        self._started_at = time.monotonic()

    def hear(self, level: str, line: bytes) -> None:
        """Take in a line of output: it is ready, answers an order, or has printed something."""
        announced = read_announcement(line, self.pid) if line.startswith(b'{"pid": ') else None
        if announced is not None and announced.keys() >= {"order", "number", "trouble"}:
            self.functions = announced["order"], announced["number"], announced["trouble"]
            return
        if self.state == "starting" and announced is not None:
            self.state, self.trouble, self.has_worked = "ready", "", True
            return
        if not line:  # it stands before an answer; a task's own empty line names the task
            return
        text = line.decode(errors="replace")
        self.tail = f"{self.tail}{text}\n"[-LOG_TAIL_BYTES:]
        self._log.write(level, self.name, text)

    def tell(self, line: bytes) -> None:
        """Write a line to the process's input; one that does not read is not waited for."""
        assert self._process is not None
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            os.write(self._process.stdin.fileno(), line)

    def signal(self, number: int) -> None:
        """Send a signal to the process and its whole group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def end(self, kill_at: float | None) -> None:
        """Ask the process to end; SIGKILL follows at ``kill_at``, if that is not None."""
        self.is_asked, self.kill_at = True, kill_at
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)
            os.kill(self.pid, signal.SIGTERM)

    def reap(self) -> bool:
        """Whether the process has just ended; its group ends with it."""
        if not self.runs:
            return False
        # The group first: once the process is waited for, its number may be another's.
        if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
            return False
        self.signal(signal.SIGKILL)
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        self.code = self._process.wait()
        for stream in self.streams:
            stream.close()
        assert self._pipe is not None
        self._pipe.close()
        self.streams, self.kill_at = [], None
        return True

    def seen_state(self) -> ProcessState:
        """What proc(5) says of the process."""
        with contextlib.suppress(OSError, IndexError):
            stat = Path(f"/proc/{self.pid}/stat").read_text()
            if stat.rpartition(")")[2].split()[0] in "tT":
                return ProcessState.STOPPED
        return ProcessState.RUNNING

    def restart_after_s(self, now: float) -> float:
        """How long to wait before another start: longer each time, and until a minute has passed
        since the start before the last RESTARTS_PER_MINUTE.
        """
        if now - self._started_at > HEALTHY_AFTER_S:
            self._backoff_s = BACKOFF_S
        wait_s, self._backoff_s = self._backoff_s, min(2 * self._backoff_s, BACKOFF_MAX_S)
        if len(self._restarted_at) == RESTARTS_PER_MINUTE:
            wait_s = max(wait_s, self._restarted_at[0] + 60.0 - now)
        self._restarted_at.append(now + wait_s)
        return wait_s
