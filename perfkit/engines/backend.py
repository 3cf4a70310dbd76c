"""An engine behind the HTTP API: what comes in while its workers are busy goes out together.

`python -m cluster.serve --engine perfkit.engines.backend:make_backend` makes it; see
`cluster.serve.backends.protocol`. Each worker has at most `AHEAD` columns, and the next column of a
kind takes its share of what waits: so nothing waits for company while a worker is free, and under
load columns grow by themselves.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

from cluster.shells.futures import TaskFuture, set_exception, settle_column
from cluster.vocabulary.errors import ClusterError, TaskTimedOut
from cluster.vocabulary.task import Priority
from perfkit.engines import make_engine
from perfkit.engines.base import Column, ColumnEngine, Engine

#: columns that a worker has, the one that it computes included
AHEAD = 2
COLUMN_TASKS_MAX = 64


class Waiting(NamedTuple):
    """A task that is not sent yet; ``due_s`` is on the monotonic clock."""

    payload: bytes
    future: TaskFuture
    due_s: float | None


class EngineBackend:
    """A `cluster.serve.backends.protocol.Backend` over an engine that is running, which it ends."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.name = engine.name
        self._lock = threading.Lock()
        self._waiting: dict[tuple[Priority, str], deque[Waiting]] = {}
        self._columns = 0

    def submit_batch(
        self,
        kind: str,
        payloads: Sequence[bytes],
        *,
        priority: Priority = Priority.NORMAL,
        timeout_s: float | None = None,
    ) -> Sequence[Future[bytes]]:
        """Futures of the tasks, in order. A priority decides what is sent first, and what is not
        sent within ``timeout_s`` fails with TaskTimedOut. Raises as `Engine.submit` does.
        """
        engine = self._engine
        if not isinstance(engine, ColumnEngine):
            return [engine.submit(kind, payload) for payload in payloads]
        due_s = None if timeout_s is None else time.monotonic() + timeout_s
        futures = [TaskFuture(_forget, lambda *_: None) for _ in payloads]
        with self._lock:
            queue = self._waiting.setdefault((priority, kind), deque())
            queue.extend(Waiting(*one, due_s) for one in zip(payloads, futures, strict=True))
        self._send(engine)
        return futures

    def kinds(self) -> frozenset[str]:
        """What every worker offers."""
        return self._engine.kinds

    def models(self) -> tuple[str, ...]:
        """The models among it."""
        return self._engine.models

    def lacks(self, model: str) -> bool:
        """Never, as far as it knows: engines do not tell."""
        return False

    def generation(self) -> int:
        """Never grows: an engine's workers offer the same all the time."""
        return 1

    def batches(self) -> None:
        """Unknown: engines do not tell."""

    def ready(self) -> bool:
        """Whether the engine runs."""
        return True

    def close(self) -> None:
        """End the engine."""
        self._engine.close()

    def _send(self, engine: ColumnEngine) -> None:
        """Send columns while a worker has room for one."""
        while True:
            with self._lock:
                room = AHEAD * engine.workers - self._columns
                key = min((key for key, queue in self._waiting.items() if queue), default=None)
                if key is None or room < 1:
                    return
                queue = self._waiting[key]
                share = min(COLUMN_TASKS_MAX, -(-len(queue) // room))
                column = [queue.popleft() for _ in range(share)]
                self._columns += 1
            self._send_column(engine, key[1], column)

    def _send_column(self, engine: ColumnEngine, kind: str, column: list[Waiting]) -> None:
        now_s = time.monotonic()
        for one in column:
            if one.due_s is not None and one.due_s <= now_s:
                set_exception(one.future, TaskTimedOut("the task waited for a worker too long"))
        live = [one for one in column if not one.future.done()]

        def settle(outcome: Column | Exception) -> None:
            settle_futures([one.future for one in live], outcome)
            with self._lock:
                self._columns -= 1
            self._send(engine)

        try:
            if live:
                engine.submit_column(kind, [one.payload for one in live], settle)
                return
        except ClusterError as error:
            settle_futures([one.future for one in live], error)
        with self._lock:
            self._columns -= 1


def settle_futures(futures: Sequence[TaskFuture], outcome: Column | Exception) -> None:
    """Give tasks of one column their outcomes."""
    if isinstance(outcome, Exception):
        for future in futures:
            set_exception(future, outcome)
        return
    settle_column(futures, 0, *outcome)


def _forget(_: TaskFuture) -> None:
    """A cancelled task is not sent, or its result is dropped."""


def make_backend(
    engine: str, workers: int = 2, models: Sequence[str] = (), address: str | None = None
) -> EngineBackend:
    """A backend over an engine by name, started here or found at ``address``.

    Raises:
        ClusterError: there is no such engine, or it does not come up.
    """
    options: dict[str, Any] = {} if address is None else {"address": address}
    return EngineBackend(make_engine(engine, workers=workers, models=models, **options).start())
