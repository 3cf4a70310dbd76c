"""A few slow tasks among many that take no time: who waits behind whom, and who idles meanwhile.

A cluster that hands out many tasks at once is fast until one of them is slow and the others sit
behind it. Two loads show it: tasks that arrive by themselves, whatever the cluster does, with
latencies from the moment each was meant to be sent; and a burst, whose end shows whether a worker
idled while work waited.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Semaphore

from cluster.shells.client import Client
from perfkit.bench.workloads.load import Work, result_of

SLOW_S = 0.1
SLOW_SHARE = 0.01
#: With a hundredth of them slow, 0.4 of a worker is busy on average.
RATE_PER_S = 400.0


@dataclass(frozen=True)
class MixedLoad:
    """Tasks of one kind; `slow` holds the positions of those that take SLOW_S.

    `at_s` says when each is meant to be sent, counted from the start.
    """

    work: Work
    slow: frozenset[int]
    at_s: tuple[float, ...]

    def conserving_s(self, workers: int) -> float:
        """By when any schedule is through that never lets a worker idle while work waits.

        Total / m + (1 − 1/m) × longest: R. L. Graham, "Bounds for Certain Multiprocessing
        Anomalies" (Bell System Technical Journal 45, 1966). Tasks that only sleep no time at all
        count as none.
        """
        longest_s = SLOW_S if self.slow else 0.0
        return len(self.slow) * SLOW_S / workers + (1 - 1 / workers) * longest_s


def mixed_load(tasks: int, seed: int) -> MixedLoad:
    """So many tasks, a hundredth of them slow (rounded up), in Poisson arrivals at RATE_PER_S.

    Every payload differs, and still says either no time or SLOW_S.
    """
    rng = random.Random(seed)
    slow = frozenset(rng.sample(range(tasks), -(-tasks // round(1 / SLOW_SHARE))))
    payloads = [
        b"%g%030d" % (SLOW_S, number) if number in slow else b"0e%d" % number
        for number in range(tasks)
    ]
    at_s, now_s = [], 0.0
    for _ in range(tasks):
        now_s += rng.expovariate(RATE_PER_S)
        at_s.append(now_s)
    return MixedLoad(Work("sleep", payloads, payloads), slow, tuple(at_s))


def open_loop_ms(client: Client, load: MixedLoad, workers: int, free: int) -> list[float]:
    """Latencies in ms of the quick tasks that were sent while at least `free` workers were.

    Each counts from when it was meant to be sent. A worker counts as taken from when a slow task
    was meant to be sent until its result was there.
    """
    ended_s = _run(client, load)
    taken = [(load.at_s[position], ended_s[position]) for position in load.slow]
    return [
        (ended_s[position] - sent_s) * 1e3
        for position, sent_s in enumerate(load.at_s)
        if position not in load.slow and free_workers(workers, taken, sent_s) >= free
    ]


def free_workers(workers: int, taken: Sequence[tuple[float, float]], at_s: float) -> int:
    """How many of the workers no slow task has at a moment; `taken` holds their times."""
    return max(0, workers - sum(from_s <= at_s < until_s for from_s, until_s in taken))


def _run(client: Client, load: MixedLoad) -> list[float]:
    """Send each task at its time; when each result was there, from the start. All are checked."""
    work = load.work
    ended_s = [0.0] * len(work)
    noted = Semaphore(0)

    def note_end(position: int) -> Callable[[Future[bytes]], None]:
        def note(_: Future[bytes]) -> None:
            ended_s[position] = time.perf_counter() - began_s
            noted.release()

        return note

    futures = []
    began_s = time.perf_counter()
    for position, (payload, at_s) in enumerate(zip(work.payloads, load.at_s, strict=True)):
        early_s = began_s + at_s - time.perf_counter()
        if early_s > 0:
            time.sleep(early_s)
        future = client.submit(work.kind, payload)
        future.add_done_callback(note_end(position))
        futures.append(future)
    results = [result_of(future) for future in futures]
    for _ in futures:
        noted.acquire()
    work.check(results)
    return ended_s
