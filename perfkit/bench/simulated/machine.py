"""A machine under a virtual clock: its cores, and the threads that compete for them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush


class Thread:
    """One of the machine's threads: jobs one at a time, each when a core is free. One that slept
    takes `wake_s` longer.
    """

    def __init__(self, machine: Machine, wake_s: float) -> None:
        self._machine = machine
        self.wake_s = wake_s
        self.jobs: deque[Callable[[], float]] = deque()
        self.is_busy = False
        self.busy_s = 0.0

    def put(self, job: Callable[[], float]) -> None:
        """Do a job, which returns how long it takes, after those before it."""
        self.jobs.append(job)
        if not self.is_busy:
            self.is_busy = True
            self._machine.want(self, self.wake_s)


class Machine:
    """A virtual clock, and `cores` for its threads, first come first served; None is no limit."""

    def __init__(self, cores: int | None) -> None:
        self.now = 0.0
        self.cores = self._free = cores
        self._waiting: deque[tuple[Thread, float]] = deque()
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0

    def after(self, wait_s: float, happen: Callable[[], None]) -> None:
        """Let something happen later."""
        self._sequence += 1
        heappush(self._heap, (self.now + wait_s, self._sequence, happen))

    def run(self, until_s: float) -> None:
        """Let everything happen up to a time."""
        while self._heap and self._heap[0][0] <= until_s:
            self.now, _, happen = heappop(self._heap)
            happen()
        self.now = until_s

    def want(self, thread: Thread, wake_s: float = 0.0) -> None:
        """Let a thread do its next job as soon as a core is free."""
        if self._free == 0:
            self._waiting.append((thread, wake_s))
            return
        if self._free is not None:
            self._free -= 1
        took_s = wake_s + thread.jobs.popleft()()
        thread.busy_s += took_s
        self.after(took_s, partial(self._done, thread))

    def _done(self, thread: Thread) -> None:
        if self._free is not None:
            self._free += 1
        if thread.jobs:
            self._waiting.append((thread, 0.0))
        else:
            thread.is_busy = False
        if self._waiting:
            self.want(*self._waiting.popleft())
