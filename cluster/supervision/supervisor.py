"""The supervisor of a host: starts its workers, starts one again that has died, and ends with its
parent. ``python -m cluster.process host`` runs it.

It is on no task's way: workers have connections of their own. By its own it vouches for workers
that are silent because a handler holds the interpreter, reports those that died, and hears which to
kill because a task of theirs does not end. One thread does all of it and never waits for a worker.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from cluster.spec import ClusterSpec, encode_spec
from cluster.supervision.member import (
    BACKOFF_MAX_S,
    READ_BYTES,
    RESTARTS_PER_MINUTE,
    Member,
    Stream,
)
from cluster.supervision.output import CrewLog, Lines
from cluster.vocabulary import actions as do
from cluster.vocabulary.task import ProcessState

if TYPE_CHECKING:
    from cluster.supervision.link import HostLink

#: how long a process that has ended is reported
REPORTED_S = 10.0
STOP_TIMEOUT_S = 5.0
ENDED_MAX = 64
#: the processes whose last words the parent can still have
WORDS_MAX = 8
TROUBLES_MAX = 16
#: the exit code of a worker whose arguments are wrong: it would never start
CANNOT_START = 2


class Ended(NamedTuple):
    """A process that has ended, and until when the coordinator is told."""

    name: str
    pid: int
    code: int
    state: ProcessState
    words: str
    until: float


class Supervisor:
    """Look after workers, each started with ``options``. The parent writes commands to standard
    input, see ``obey``, and reads ``news`` from standard output, each a line of JSON.
    """

    def __init__(self, spec: ClusterSpec, options: Sequence[str], log: CrewLog) -> None:
        self._spec = spec
        self._options = ["--spec", encode_spec(spec), *options]
        self._log = log
        self._host = f"{socket.gethostname()[:100]}-{os.getpid()}"
        self._endpoint = ""
        self._crew: dict[str, Member] = {}
        self._ended: deque[Ended] = deque(maxlen=ENDED_MAX)
        self._restarts = 0
        #: the newest order about functions, which workers get that are started later
        self._order = b""
        self._link: HostLink | None = None
        self._beat_at = 0.0
        self._stop_at: float | None = None
        self._has_news = False
        self._unwritten = b""
        self._commands = Lines()
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        """Look after the workers until told to stop."""
        self._hear_signals()
        os.set_blocking(1, False)
        self._selector.register(0, selectors.EVENT_READ, self._hear_parent)
        while self._stop_at is None or any(member.runs for member in self._crew.values()):
            for key, _ in self._selector.select(self._patience_s()):
                key.data()
            now = time.monotonic()
            for member in self._crew.values():
                self._keep(member, now)
            if self._endpoint and now >= self._beat_at:
                self._beat(now)
            self._hear_coordinator()
            self._log.flush()
            self._tell_parent()
        if self._link is not None:
            self._link.leave()

    def obey(self, command: dict[str, Any]) -> None:
        """Carry out a command: ``endpoint``, of the coordinator; ``start``, the names of new
        workers, and ``environments``, variables for some of them; ``restart`` and ``pid``, a worker
        unless that process has been replaced; ``functions``, an order to every worker, see
        `cluster.work.pack_folder`; ``stop``, the seconds until SIGKILL.
        """
        now = time.monotonic()
        self._endpoint = command.get("endpoint", self._endpoint)
        for name in command.get("start", ()):
            environment = command.get("environments", {}).get(name, {})
            self._crew[name] = Member(name, self._log, environment)
            self._start(self._crew[name])
        member = self._crew.get(command.get("restart", ""))
        if member is not None and member.pid == command["pid"]:
            member.is_wanted = True
            if member.runs:
                member.end(now + STOP_TIMEOUT_S)
            else:
                member.start_at = now
        if "functions" in command:
            self._order = json.dumps(command["functions"]).encode() + b"\n"
            for member in self._crew.values():
                if member.runs:
                    member.tell(self._order)
        if "stop" in command:
            self.stop(float(command["stop"]))

    def stop(self, within_s: float) -> None:
        """End every worker: by SIGTERM, and by SIGKILL when the time is up."""
        self._stop_at = time.monotonic() + within_s
        for member in self._crew.values():
            member.is_wanted, member.start_at = False, None
            if member.runs:
                member.end(self._stop_at)

    def news(self) -> dict[str, Any]:
        """What the parent is told at each change."""
        workers = {
            m.name: {
                "pid": m.pid,
                "state": m.state,
                "code": m.code,
                "words": "" if m.state == "ready" else m.tail,
                "functions": m.functions,
            }
            for m in self._crew.values()
        }
        newest = {ended.pid for ended in list(self._ended)[-WORDS_MAX:]}
        ended = {
            str(e.pid): {"code": e.code, "words": e.words if e.pid in newest else ""}
            for e in self._ended
        }
        facts = {"restarts": self._restarts, "trouble": self._trouble()}
        return {"workers": workers, "ended": ended, **facts}

    def _trouble(self) -> str:
        return "; ".join([m.trouble for m in self._crew.values() if m.trouble][:TROUBLES_MAX])

    # Workers

    def _start(self, member: Member) -> None:
        # What was loaded once may be broken now, and the rest of it still has its tasks.
        again = ["--again"] if member.has_worked else []
        member.start(["--endpoint", self._endpoint, *self._options, *again])
        member.tell(self._order)
        for stream in member.streams:
            self._selector.register(stream.fd, selectors.EVENT_READ, self._reader(member, stream))
        self._changed()

    def _reader(self, member: Member, stream: Stream) -> Callable[[], None]:
        def read() -> None:
            before = member.state, member.functions
            if stream.read() == 0:
                self._selector.unregister(stream.fd)
            if (member.state, member.functions) != before:
                self._changed()

        return read

    def _keep(self, member: Member, now: float) -> None:
        """Do what is due for a worker."""
        if member.kill_at is not None and now >= member.kill_at:
            member.kill_at = None
            member.signal(signal.SIGKILL)
        fds = [stream.fd for stream in member.streams]
        if member.reap():
            for fd in fds:
                with contextlib.suppress(KeyError):
                    self._selector.unregister(fd)
            self._bury(member, now)
        if member.start_at is not None and now >= member.start_at:
            self._restarts += 1
            self._start(member)

    def _bury(self, member: Member, now: float) -> None:
        """Take note of the end of a worker's process, and decide whether to start another."""
        member.state = "ended"
        in_order = member.is_asked or member.code == 0
        state = ProcessState.KILLED if in_order else ProcessState.GONE
        facts = member.name, member.pid, member.code, state, member.tail
        self._ended.append(Ended(*facts, now + REPORTED_S))
        self._changed()
        if self._stop_at is not None:
            return
        if member.is_wanted:
            member.start_at = now
        elif not member.has_worked and member.code == CANNOT_START:
            member.trouble = f"{member.name} can't start"
        elif not in_order:
            wait_s = member.restart_after_s(now)
            member.start_at = now + wait_s
            self._log.note(f"{member.name} (pid {member.pid}) has died with code {member.code}; "
                           f"it is started again in {wait_s:.1f} s")  # fmt: skip
            if wait_s > BACKOFF_MAX_S:
                member.trouble = f"{member.name} has died {RESTARTS_PER_MINUTE} times in a minute"

    # The coordinator

    def _beat(self, now: float) -> None:
        """Report the workers' processes."""
        if self._link is None:
            from cluster.supervision.link import HostLink  # the first workers start meanwhile

            self._link = HostLink(self._endpoint, self._spec, self._host)
            self._selector.register(self._link.fileno(), selectors.EVENT_READ, lambda: None)
        self._beat_at = now + self._spec.limits.heartbeat_s
        seen = [(m.name, m.pid, m.seen_state()) for m in self._crew.values() if m.runs]
        seen += [(e.name, e.pid, e.state) for e in self._ended if now < e.until]
        self._link.report(seen, self._restarts, self._trouble())

    def _hear_coordinator(self) -> None:
        for order in self._link.orders() if self._link is not None else ():
            member = self._crew.get(order.worker)
            if member is None or not member.runs or member.pid != order.pid:
                continue
            if isinstance(order, do.Restart):
                if not member.is_wanted:  # else it is repeated
                    self._log.note(f"{member.name} (pid {member.pid}) is to drain and restart")
                    member.end(None)
                    member.is_wanted = True
            else:
                member.tail += f"killed: {order.reason}\n"
                self._log.note(f"{member.name} (pid {member.pid}) is killed: {order.reason}")
                member.is_asked = member.is_wanted = True
                member.signal(signal.SIGKILL)

    # The parent

    def _hear_parent(self) -> None:
        chunk = os.read(0, READ_BYTES)
        if not chunk:
            self._selector.unregister(0)
            self.stop(STOP_TIMEOUT_S)
        for line in self._commands.split(chunk):
            self.obey(json.loads(line))

    def _tell_parent(self) -> None:
        """Write the news. Only the newest waits for a parent that does not read."""
        if self._has_news and not self._unwritten:
            self._unwritten = json.dumps(self.news()).encode() + b"\n"
            self._has_news = False
        with contextlib.suppress(OSError):
            if self._unwritten:
                self._unwritten = self._unwritten[os.write(1, self._unwritten) :]

    def _changed(self) -> None:
        """Tell the parent and the coordinator at once."""
        self._has_news = True
        self._beat_at = 0.0

    # Waiting

    def _patience_s(self) -> float | None:
        times = [self._beat_at] if self._endpoint else []
        times += [t for m in self._crew.values() for t in (m.start_at, m.kill_at) if t is not None]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _hear_signals(self) -> None:
        """Wake up for each signal; SIGTERM and SIGINT stop the crew."""
        self._wakers = socket.socketpair()
        for end in self._wakers:
            end.setblocking(False)
        signal.set_wakeup_fd(self._wakers[1].fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop(STOP_TIMEOUT_S))
        self._selector.register(
            self._wakers[0], selectors.EVENT_READ, lambda: self._wakers[0].recv(4096)
        )
