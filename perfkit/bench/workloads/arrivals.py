"""When the tasks of an open loop arrive, and the tasks that a given number of workers can bear.

An open loop sends at times that do not depend on the answers, as many independent users do. Each
process draws its times from a seed. They are scaled to their rate: a share of the capacity must not
drift with the luck of a short draw.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import TypeAlias

from perfkit.bench.workloads.load import ExperimentError, Work

#: Mean length of a burst, and of the silence after it.
BURST_S = 0.025

#: Times in seconds from the start for a number of tasks at a rate per second.
Arrivals: TypeAlias = Callable[[int, float, random.Random], list[float]]


def poisson(tasks: int, rate_per_s: float, rng: random.Random) -> list[float]:
    """Arrivals that do not know of each other: exponential gaps."""
    at_s, now_s = [], 0.0
    for _ in range(tasks):
        now_s += rng.expovariate(rate_per_s)
        at_s.append(now_s)
    return _scaled(at_s, tasks / rate_per_s)


def bursty(tasks: int, rate_per_s: float, rng: random.Random) -> list[float]:
    """Poisson arrivals of twice the rate for BURST_S on average, then none for as long.

    Both lengths are exponential: the interrupted Poisson process of A. Kuczura, "The Interrupted
    Poisson Process as an Overflow Process" (Bell System Technical Journal 52, 1973).
    """
    at_s: list[float] = []
    now_s, until_s = 0.0, rng.expovariate(1 / BURST_S)
    while len(at_s) < tasks:
        now_s += rng.expovariate(2 * rate_per_s)
        if now_s < until_s:
            at_s.append(now_s)
        else:  # exponential gaps have no memory, so the next burst begins afresh
            now_s = until_s + rng.expovariate(1 / BURST_S)
            until_s = now_s + rng.expovariate(1 / BURST_S)
    return _scaled(at_s, tasks / rate_per_s)


PROCESSES: Mapping[str, Arrivals] = {"poisson": poisson, "bursty": bursty}


def waiting_work(tasks: int, service_s: float) -> Work:
    """Tasks that hold a worker for `service_s` without computing, as a GPU's batch would.

    Raises ExperimentError below a microsecond.
    """
    if service_s < 1e-6:
        raise ExperimentError(f"a service time of {service_s:g} s is none; take 0.000001 or more")
    payloads = [waiting_payload(service_s, number) for number in range(tasks)]
    return Work("sleep", payloads, payloads, facts={"service_s": service_s})


def waiting_payload(service_s: float, number: int) -> bytes:
    """A payload of the kind `sleep` that no other number has; it adds less than a nanosecond."""
    return b"%.6f%020d" % (service_s, number)


def _scaled(at_s: list[float], length_s: float) -> list[float]:
    """The same times, the last of them at `length_s`."""
    factor = length_s / at_s[-1] if at_s else 1.0
    return [moment_s * factor for moment_s in at_s]
