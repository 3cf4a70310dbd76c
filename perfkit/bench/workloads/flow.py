"""A steady flow of tasks from a thread of its own, while something happens to the cluster.

The loop is open: each task has an intended send time, whatever became of those before it, and its
latency counts from then.
"""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import Future
from functools import partial
from typing import NamedTuple, Self

from cluster.shells.client import Client
from perfkit.bench.workloads.arrivals import waiting_payload
from perfkit.bench.workloads.load import RESULT_TIMEOUT_S, ExperimentError, WrongResult, result_of


class Passage(NamedTuple):
    """When a task was to be sent and when its result was there, by time.perf_counter."""

    sent_s: float
    ended_s: float

    @property
    def latency_s(self) -> float:
        """From the one to the other."""
        return self.ended_s - self.sent_s


class Flow:
    """Tasks that wait for `service_s` on a worker, in Poisson arrivals during a with block.

    With `idempotent` the client hands in again what a restarted coordinator has lost.
    """

    def __init__(
        self,
        client: Client,
        rate_per_s: float,
        service_s: float,
        seed: int,
        *,
        idempotent: bool = False,
    ) -> None:
        self._client = client
        self.rate_per_s = rate_per_s
        self._rng = random.Random(seed)
        self._service_s = service_s
        self._is_idempotent = idempotent
        self._futures: list[Future[bytes]] = []
        self._sent_s: list[float] = []
        #: the number of each task that has ended, and when
        self._ends: list[tuple[int, float]] = []
        self._changed = threading.Condition()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._send, name="flow", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over.set()
        self._thread.join()

    @property
    def sent(self) -> int:
        """How many tasks have been sent."""
        return len(self._sent_s)

    def await_results(self, count: int) -> None:
        """Wait until this many tasks have a result; raises ExperimentError once no result has come
        for a long time.
        """
        with self._changed:
            while (seen := len(self._ends)) < count:
                if not self._changed.wait_for(lambda: len(self._ends) > seen, RESULT_TIMEOUT_S):
                    raise ExperimentError(
                        f"{seen} of {self.sent} tasks had a result, and no other came for "
                        f"{RESULT_TIMEOUT_S:.0f} s; is the cluster alive?"
                    )

    def end(self) -> list[Passage]:
        """Send no more, wait for every result, and return when each task was sent and ended.

        Raises WrongResult unless each task has had its own result exactly once.
        """
        self._is_over.set()
        self._thread.join()
        for number, future in enumerate(self._futures):
            if result_of(future) != waiting_payload(self._service_s, number):
                raise WrongResult(f"task {number} of a steady flow came back as another one")
        self.await_results(self.sent)
        ended_s = dict(self._ends)
        if len(ended_s) != len(self._ends):
            raise WrongResult("a task of a steady flow ended twice")
        return [Passage(sent_s, ended_s[n]) for n, sent_s in enumerate(self._sent_s)]

    def _send(self) -> None:
        due_s = time.perf_counter()
        while not self._is_over.wait(due_s - time.perf_counter()):
            number = self.sent
            payload = waiting_payload(self._service_s, number)
            future = self._client.submit("sleep", payload, idempotent=self._is_idempotent)
            self._futures.append(future)
            self._sent_s.append(due_s)
            future.add_done_callback(partial(self._note, number))
            due_s += self._rng.expovariate(self.rate_per_s)

    def _note(self, number: int, _: Future[bytes]) -> None:
        with self._changed:
            self._ends.append((number, time.perf_counter()))
            self._changed.notify_all()
