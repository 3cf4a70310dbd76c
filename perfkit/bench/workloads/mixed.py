"""A few slow tasks among many that take no time: which tasks wait behind a slow one.

A cluster that hands out many tasks at once is fast until a slow one holds up the others. Two loads
show it: an open loop, with latencies from the intended send time, and a burst, whose end shows
whether a worker idled while work waited.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from cluster.shells.client import Client
from perfkit.bench.workloads.load import Work, ends_s

SLOW_S = 0.1
SLOW_SHARE = 0.01
#: With a hundredth of the tasks slow, 0.4 of a worker is busy on average.
RATE_PER_S = 400.0


@dataclass(frozen=True)
class MixedLoad:
    """Tasks of one kind; those at the positions `slow` take SLOW_S.

    `at_s` holds the intended send time of each, from the start.
    """

    work: Work
    slow: frozenset[int]
    at_s: tuple[float, ...]

    def conserving_s(self, workers: int) -> float:
        """The longest a schedule takes that never lets a worker idle while work waits.

        Total / m + (1 − 1/m) × longest: R. L. Graham, "Bounds for Certain Multiprocessing
        Anomalies" (Bell System Technical Journal 45, 1966). The quick tasks count as nothing.
        """
        longest_s = SLOW_S if self.slow else 0.0
        return len(self.slow) * SLOW_S / workers + (1 - 1 / workers) * longest_s


def mixed_load(tasks: int, seed: int) -> MixedLoad:
    """Tasks of which a hundredth (rounded up) are slow, in Poisson arrivals at RATE_PER_S.

    Every payload differs, and says either no time or SLOW_S.
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
    """Latencies in ms of the quick tasks that were sent while at least `free` workers were free.

    Each counts from its intended send time. A slow task occupies a worker from its intended send
    time to its result.
    """
    ended_s = ends_s(client, load.work, load.at_s)
    taken = [(load.at_s[position], ended_s[position]) for position in load.slow]
    return [
        (ended_s[position] - sent_s) * 1e3
        for position, sent_s in enumerate(load.at_s)
        if position not in load.slow and free_workers(workers, taken, sent_s) >= free
    ]


def free_workers(workers: int, taken: Sequence[tuple[float, float]], at_s: float) -> int:
    """Workers without a slow task at a moment; `taken` holds the slow tasks' times."""
    return max(0, workers - sum(from_s <= at_s < until_s for from_s, until_s in taken))
