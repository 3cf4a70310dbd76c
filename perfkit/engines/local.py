"""The embedded default: the standard library's pool of processes, with nothing to install.

Workers are spawned: a fork would copy the locks and sockets of this process's other threads. As
always with spawn, a script that uses it needs ``if __name__ == "__main__"``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from typing import ClassVar

from perfkit.engines import base
from perfkit.engines.base import Column, ColumnEngine, answer, load

#: Set in a worker process while its pool starts.
_ALL_HERE: Barrier | None = None


class LocalEngine(ColumnEngine):
    """A ``ProcessPoolExecutor``. When one worker dies all do; enter the engine again."""

    name: ClassVar[str] = "local"
    _pool: ProcessPoolExecutor | None = None
    _lifeline: Connection | None = None

    def _start(self) -> None:
        context = get_context("spawn")
        held, self._lifeline = context.Pipe(duplex=False)
        with held:
            self._pool = ProcessPoolExecutor(
                self.workers,
                context,
                initializer=_begin,
                initargs=(held, context.Barrier(self.workers), base.STOP_TIMEOUT_S),
            )
            ready = [self._pool.submit(_load, self.models) for _ in range(self.workers)]
            for one in ready:
                one.result(base.READY_TIMEOUT_S)

    def _stop(self) -> None:
        if self._lifeline is not None:
            self._lifeline.close()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _send(self, kind: str, payloads: list[bytes]) -> Future[Column]:
        assert self._pool is not None
        return self._pool.submit(answer, self.models, kind, payloads)


def _begin(lifeline: Connection, all_here: Barrier, stop_timeout_s: float) -> None:
    """In a new worker: ignore Ctrl-C, which the parent handles, and end with the parent."""
    global _ALL_HERE
    _ALL_HERE = all_here
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def end_with_parent() -> None:
        with contextlib.suppress(EOFError, OSError):
            lifeline.recv_bytes()
        # The parent closed it or died; a running task has this long to end.
        time.sleep(stop_timeout_s)
        os._exit(1)

    threading.Thread(target=end_with_parent, name="parent", daemon=True).start()


def _load(models: tuple[str, ...]) -> None:
    """In a new worker: load, and wait for the others, so that each worker loads."""
    assert _ALL_HERE is not None
    try:
        load(models)
    finally:
        _ALL_HERE.wait(base.READY_TIMEOUT_S)
