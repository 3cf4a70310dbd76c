"""Results of tasks that were submitted without waiting, kept for a while and within bounds."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from cluster.shells.futures import TaskFuture
from cluster.vocabulary.task import TaskId

TASKS_MAX = 256
BYTES_MAX = 16 << 20


class Kept:
    """The newest TASKS_MAX tasks, whose results have BYTES_MAX bytes at most. For one loop."""

    def __init__(self) -> None:
        self._futures: OrderedDict[TaskId, TaskFuture] = OrderedDict()

    def get(self, id: TaskId) -> TaskFuture | None:
        """The task's future; None if it is not kept, or no more."""
        return self._futures.get(id)

    def add(self, id: TaskId, future: TaskFuture) -> None:
        """Keep a task, which ends later."""
        self._futures[id] = future
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._forget))

    def _forget(self) -> None:
        """Let the oldest go that are over a bound."""
        held_bytes = 0
        for tasks, (id, future) in enumerate(reversed([*self._futures.items()]), 1):
            has_result = future.done() and not future.cancelled() and future.exception() is None
            held_bytes += len(future.result()) if has_result else 0
            if tasks > TASKS_MAX or held_bytes > BYTES_MAX:
                del self._futures[id]
