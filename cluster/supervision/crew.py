"""A supervisor and its workers, as their parent sees them."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from cluster.spec import ClusterSpec, encode_spec
from cluster.supervision.children import Process, as_last_words
from cluster.vocabulary.errors import ClusterError

END_TIMEOUT_S = 5.0


def worker_options(
    capacity: int,
    handlers: str,
    models: Sequence[str],
    probe: str | None,
    threads: int | None = None,
) -> list[str]:
    """What each worker of a crew is told on its command line."""
    options = ["--capacity", str(capacity), "--handlers", handlers]
    options += [option for model in models for option in ("--model", model)]
    options += [] if threads is None else ["--threads", str(threads)]
    return options + ([] if probe is None else ["--probe", probe])


def host_options(
    spec: ClusterSpec, workers: Sequence[str], log: Path | None, show: str
) -> list[str]:
    """What a supervisor is told on its command line, with the options of its workers."""
    options = ["--spec", encode_spec(spec), "--options", json.dumps(list(workers)), "--show", show]
    return options + ([] if log is None else ["--log", str(log)])


class WorkerProcess:
    """A worker's process, which a supervisor has started. When it dies, the supervisor starts
    another one of its name.
    """

    def __init__(self, crew: Crew, role: str, pid: int) -> None:
        self.role = role
        self.pid = pid
        self._crew = crew

    def __repr__(self) -> str:
        state = "alive" if self.alive() else "ended"
        return f"<WorkerProcess {self.role}, pid {self.pid}: {state}>"

    def alive(self) -> bool:
        """Whether it still runs."""
        return self._crew.exit_code(self) is None

    def wait(self, timeout_s: float = END_TIMEOUT_S) -> int:
        """The exit code once it has ended, negative for a signal; raises TimeoutError."""
        code: int | None = self._crew.wait_for(lambda: self._crew.exit_code(self), timeout_s)
        if code is None:
            raise TimeoutError(f"{self.role} (pid {self.pid}) still runs after {timeout_s} s")
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal; nothing if it has ended."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL: no goodbye, no clean-up. Returns when it is gone."""
        self.send_signal(signal.SIGKILL)
        self.wait()

    def terminate(self) -> None:
        """SIGTERM: it finishes what it has started, leaves, and is not started again."""
        self.send_signal(signal.SIGTERM)

    def suspend(self) -> None:
        """SIGSTOP: silent, but not dead."""
        self.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self.send_signal(signal.SIGCONT)

    def last_words(self) -> str:
        """The end of what it has printed, if it has ended lately, for an error message."""
        return self._crew.last_words_of(self.role, self.pid)


class Crew(Process):
    """A supervisor's process and, through it, the workers that it looks after.

    ``options`` are those of ``python -m cluster.process host``. The supervisor writes a line of
    JSON at each change, see `Supervisor.news`; it is read here whenever something is asked.
    """

    def __init__(self, options: Sequence[str], folder: Path, *, shows_output: bool = False) -> None:
        self._processes: dict[str, WorkerProcess] = {}
        self._news: dict[str, Any] = {"workers": {}, "ended": {}, "restarts": 0, "trouble": ""}
        self._unread = b""
        #: the workers' output as lines of text
        self.output: BinaryIO | None = None
        inside = None
        if shows_output:
            outside, inside = os.pipe()
            self.output = os.fdopen(outside, "rb")
        arguments = ["host", *options]
        try:
            super().__init__(
                "host", "cluster.process", arguments, folder, guarded=True, output=inside
            )
        finally:
            if inside is not None:
                os.close(inside)
        assert self.stdout is not None
        os.set_blocking(self.stdout.fileno(), False)

    def tell(self, **command: object) -> None:
        """Send a command, see `Supervisor.obey`."""
        assert self.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.stdin.write(json.dumps(command).encode() + b"\n")

    def workers(self) -> list[WorkerProcess]:
        """The newest process of each worker, in the order of their start."""
        self._read()
        return list(self._processes.values())

    @property
    def restarts(self) -> int:
        """How often a worker that had died was started again."""
        self._read()
        return int(self._news["restarts"])

    @property
    def trouble(self) -> str:
        """What keeps the supervisor from starting a worker again, or ""."""
        self._read()
        return str(self._news["trouble"])

    def ready(self, name: str, until_s: float, instead_of: int = 0) -> WorkerProcess:
        """The process of a worker, not ``instead_of``, once the coordinator has welcomed it; raises
        ClusterError with its last words if it ends before.
        """

        def outcome() -> tuple[str, int] | None:
            told = self._news["workers"].get(name)
            if told is None or told["pid"] in (0, instead_of):
                return None
            return (told["state"], told["code"]) if told["state"] != "starting" else None

        found = self.wait_for(outcome, until_s - time.monotonic())
        if found is None:
            raise ClusterError(f"{name} was not ready in time{self.last_words_of(name)}")
        state, code = found
        if state == "ended":
            words = self.last_words_of(name)
            raise ClusterError(f"{name} ended with code {code} before it was ready{words}")
        return self._processes[name]

    def agree(self, order: str, number: int, until_s: float) -> None:
        """Have every worker carry out an order about functions, see `Supervisor.obey`; raises
        ClusterError with the words of one that could not, or that dies of it twice.
        """
        self._read()
        gone = {it["pid"] for it in self._news["workers"].values() if it["state"] == "ended"}
        self.tell(functions=[order, number])
        left: list[str] = []
        #: the processes of each worker that have not answered
        seen: dict[str, set[int]] = {}

        def outcome() -> str | None:
            left.clear()
            for name, told in self._news["workers"].items():
                pid, answer, has_ended = told["pid"], told["functions"], told["state"] == "ended"
                if answer and answer[:2] == [order, number]:
                    if answer[2]:
                        return str(answer[2])
                elif not has_ended or (told["code"] and pid not in gone):  # it is started again
                    left.append(name)
                    seen.setdefault(name, set()).add(pid)
                    if has_ended and len(seen[name]) > 1:
                        words = self.last_words_of(name, pid)
                        return f"{name} dies when it loads them, with code {told['code']}{words}"
            return None if left else ""

        found = self.wait_for(outcome, until_s - time.monotonic())
        if found is None:
            raise ClusterError(f"no answer in time from {', '.join(sorted(left))}; is it stuck?")
        if found:
            raise ClusterError(found)

    def exit_code(self, worker: WorkerProcess) -> int | None:
        """The exit code of a worker's process; None while it runs."""
        self._read()
        ended = self._news["ended"].get(str(worker.pid))
        if ended is not None:
            return int(ended["code"])
        # One that was replaced long ago, or whose supervisor has died, is gone too.
        is_newest = self._processes.get(worker.role) is worker
        return None if is_newest and self.alive() else -signal.SIGKILL

    def last_words_of(self, name: str, pid: int = 0) -> str:
        """The end of what a worker's process has printed, for an error message; without ``pid`` of
        its newest process.
        """
        told = self._news["ended"].get(str(pid)) or self._news["workers"].get(name, {})
        return as_last_words(str(told.get("words", "")).encode()) or self.last_words()

    def wait_for(self, condition: Callable[[], Any], timeout_s: float) -> Any:
        """What a condition gives once it is not None, tried at each change; None without it."""
        until_s = time.monotonic() + timeout_s
        assert self.stdout is not None
        while (found := condition()) is None:
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                return None
            select.select([self.stdout], [], [], min(left_s, 60.0))
            if not self._read() and not self.alive():
                return condition()
        return found

    def stop(self, until_s: float) -> None:
        """End the workers and the supervisor: gracefully, by SIGKILL when the time is up."""
        if self.alive():
            self.tell(stop=max(0.0, until_s - time.monotonic()))
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(max(0.01, until_s - time.monotonic()) + 1.0)
        super().stop(time.monotonic())
        if self.output is not None:
            self.output.close()

    def _read(self) -> bool:
        """Take in what the supervisor has written; returns whether there was something."""
        assert self.stdout is not None
        chunks = []
        while not self.stdout.closed and (chunk := self.stdout.read(65_536)):
            chunks.append(chunk)
        *lines, self._unread = (self._unread + b"".join(chunks)).split(b"\n")
        if lines:
            self._news = json.loads(lines[-1])
            for name, told in self._news["workers"].items():
                known = self._processes.get(name)
                if told["pid"] and (known is None or known.pid != told["pid"]):
                    self._processes[name] = WorkerProcess(self, name, told["pid"])
        return bool(chunks)
