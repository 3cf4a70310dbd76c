"""More than a cluster can do: three times its capacity, a hundred workers at once, a full queue.

Offered too much, a cluster must go on doing what it can, hold no more than its bounds say, and tell
each client what it refused. Here every task ends in a checked result or in a refusal that names the
bound, and both counts agree with the coordinator's own.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from statistics import median

from msgspec.structs import replace

from cluster.local import LocalCluster
from cluster.shells.client import Client
from cluster.spec import ClusterSpec
from cluster.vocabulary.errors import Busy
from cluster.vocabulary.printable import count_of
from perfkit.bench.experiments.open_loop import CAPACITY_TASKS, SERVICE_S, capacity_rates
from perfkit.bench.experiments.setting import Experiment, Measurement, Profile, Setting, exact
from perfkit.bench.goals.memory_runs import await_status, settled
from perfkit.bench.workloads.arrivals import poisson, waiting_work
from perfkit.bench.workloads.crowd import Crowd
from perfkit.bench.workloads.load import (
    ExperimentError,
    Sending,
    Work,
    WrongResult,
    await_end,
    echo_work,
    map_s,
    result_of,
    send,
)
from perfkit.bench.workloads.rounds import Say
from perfkit.bench.workloads.watching import watch_status
from perfkit.evidence.samples import Interval, bootstrap_interval
from perfkit.evidence.text import duration, quantity
from perfkit.evidence.trend import theil_sen
from perfkit.evidence.verdicts import FigureGoal
from perfkit.profile.watch import MemorySeries, watch_memory

OFFERED = 3.0
#: Goodput is counted in this many parts of the time, after a warm-up of one more part.
PARTS = 10
#: A waiting task of 28 B may take this much of the coordinator, and everything else the slack.
BYTES_PER_TASK, SLACK_BYTES = 2_048, 16 << 20
#: Of a crowd: tasks that each worker gets once all are back.
TASKS_PER_WORKER = 20
REJOIN_S, REJOIN_READ_S = 30.0, 0.02
#: A spec that sends every task in a message of its own gets this share of the queued tasks.
ALONE_SHARE = 10


@dataclass(frozen=True)
class StressSizes:
    """Seconds of overload, the bound of the queue, workers that reconnect, and how often."""

    seconds: float
    queue_bound: int
    crowd: int
    reconnects: int


SIZES: Mapping[Profile, StressSizes] = {
    "quick": StressSizes(4.0, 1_000, 100, 1),
    "full": StressSizes(60.0, 10_000, 100, 5),
}


@dataclass(frozen=True)
class Overload:
    """What a cluster did while it was offered OFFERED times its capacity.

    `rates_per_s` is goodput part by part; `done + refused` is every task that was submitted.
    """

    capacity: Interval
    offered_per_s: float
    rates_per_s: list[float]
    done: int
    refused: int
    sender_lag_ms_max: float
    memory: MemorySeries
    status: watch_status

    @property
    def goodput_share(self) -> Interval:
        """Goodput over capacity; the interval takes the worst ends of both."""
        goodput = bootstrap_interval(self.rates_per_s)
        return Interval(
            _over(goodput.value, self.capacity.value),
            _over(goodput.low, self.capacity.high),
            _over(goodput.high, self.capacity.low),
            0.95,
            "ends of both bootstraps",
        )

    @property
    def growth_bytes(self) -> int | None:
        """From the first reading of the coordinator's RSS to the highest."""
        first, peak = self.memory.first, self.memory.peak
        return None if first is None or peak is None else peak.rss_bytes - first.rss_bytes

    @property
    def growth_mib_per_min(self) -> Interval:
        """The trend of RSS over the second half, when the queue has long been full."""
        half = len(self.memory.at_s) // 2
        mib = [sample.rss_bytes / (1 << 20) for sample in self.memory.samples[half:]]
        return theil_sen([at_s / 60 for at_s in self.memory.at_s[half:]], mib)


def stress(setting: Setting) -> Measurement:
    """Tasks per second done at three times the capacity; then reconnecting, and a full queue."""
    sizes = SIZES[setting.profile]
    found = overload(setting, sizes.seconds, sizes.queue_bound)
    rejoined = [
        reconnect_s(setting.spec, sizes.crowd, setting.say) for _ in range(sizes.reconnects)
    ]
    queued = queue_up(setting.spec, setting.tasks, setting.seed, setting.say)
    bound_bytes = BYTES_PER_TASK * sizes.queue_bound + SLACK_BYTES
    growth = found.growth_bytes
    of_bound = None if growth is None else growth / bound_bytes
    return Measurement(
        found.rates_per_s,
        bootstrap_interval(found.rates_per_s, seed=setting.seed),
        counters={
            **found.capacity.columns("capacity_per_s"),
            **found.goodput_share.columns("goodput_share"),
            "offered_per_s": found.offered_per_s,
            "sender_lag_ms_max": found.sender_lag_ms_max,
            "submitted": found.done + found.refused,
            "done": found.done,
            "refused": found.refused,
            "rss_growth_bytes": growth,
            **exact("rss_growth_of_bound", of_bound),
            **found.growth_mib_per_min.columns("rss_mib_per_min"),
            **bootstrap_interval(rejoined).columns("reconnect_s"),
            **queued,
        },
        series={
            "rss_at_s": list(found.memory.at_s),
            "rss_bytes": [sample.rss_bytes for sample in found.memory.samples],
            "at_s": found.status.at_s,
            **found.status.depths(),
            "done_per_s": found.status.rates_per_s("done"),
            "refused_per_s": found.status.rates_per_s("refused"),
            "reconnect_s": list(rejoined),
        },
        parameters={
            "profile": setting.profile,
            "offered_times_capacity": OFFERED,
            "seconds": sizes.seconds,
            "service_s": SERVICE_S,
            "limits.tasks": sizes.queue_bound,
            "rss_growth_bound_bytes": bound_bytes,
            "reconnecting_workers": sizes.crowd,
            "reconnecting": "real worker shells, 25 to a process; the coordinator is killed and "
            "a new one started at its endpoint",
        },
    )


def overload(setting: Setting, seconds: float, queue_bound: int) -> Overload:
    """Offer OFFERED times the capacity for some seconds to a cluster with a bounded queue.

    Raises WrongResult if a result is wrong or the counts do not add up, ExperimentError for a task
    that ended otherwise.
    """
    limits = replace(setting.spec.limits, tasks=queue_bound)
    spec = replace(setting.spec, limits=limits)
    with (
        LocalCluster(setting.workers, spec) as local,
        local.client() as client,
        local.client() as asking,
    ):
        rates = capacity_rates(client, _warm(queue_bound), setting.say)
        offered_per_s = OFFERED * median(rates)
        work = waiting_work(max(PARTS, round(offered_per_s * seconds)), SERVICE_S)
        at_s = poisson(len(work), offered_per_s, random.Random(setting.seed))
        setting.say(f"{quantity(offered_per_s, 'tasks/s')} for {duration(seconds)}")
        before = asking.status().counters
        with (
            watch_memory(local.coordinator_pid, role="coordinator") as memory,
            watch_status(asking) as status,
        ):
            sending = send(client, work, at_s)
        after = asking.status().counters
        # A machine drifts, so the capacity is that of before and after.
        rates += capacity_rates(client, _warm(queue_bound), setting.say)
    done = sort_out(work, sending.futures, queue_bound)
    refused = len(work) - len(done)
    for name, count in (("done", len(done)), ("refused", refused)):
        if (said := after.get(name, 0) - before.get(name, 0)) != count:
            raise WrongResult(
                f"{name} were {count_of(count, 'task')}; the coordinator counted {said:,}"
            )
    setting.say(f"{len(done):,} done, {refused:,} refused")
    return Overload(
        bootstrap_interval(rates, seed=setting.seed),
        len(work) / sending.sent_s[-1],
        _goodput(sending, done, at_s[-1]),
        len(done),
        refused,
        max(sending.lags_s(at_s)) * 1e3,
        memory.series,
        status,
    )


def sort_out(work: Work, futures: Sequence[Future[bytes]], queue_bound: int) -> list[int]:
    """The positions of the tasks that were done, with checked results; the rest were refused.

    Raises WrongResult for a wrong result, ExperimentError for a task that ended otherwise or a
    refusal that does not name the bound.
    """
    done = []
    for position, future in enumerate(futures):
        error = future.exception()
        if error is None:
            done.append(position)
        elif not isinstance(error, Busy) or f"of at most {queue_bound}" not in str(error):
            raise ExperimentError(
                f"task {position:,} of {len(work):,} should be done or refused with the bound "
                f"as the reason, not end with {error!r}"
            )
    part = Work(
        work.kind,
        [work.payloads[position] for position in done],
        [work.expected[position] for position in done],
    )
    part.check([futures[position].result() for position in done])
    return done


def reconnect_s(spec: ClusterSpec, workers: int, say: Say) -> float:
    """Seconds from a new coordinator at a killed one's endpoint until every worker is back.

    The workers are real shells in few processes (`Crowd`). Raises ExperimentError if some stay
    away, WrongResult if one that is back answers wrongly.
    """
    with LocalCluster(0, spec, bind="tcp://127.0.0.1:*") as first:
        endpoint = first.endpoint
        with Crowd(endpoint, spec, workers):
            with first.client() as client:
                _await_workers(client, workers)
            say(f"{count_of(workers, 'worker')} joined; the coordinator is killed")
            first.coordinator.kill()
            with LocalCluster(0, spec, bind=endpoint) as second, second.client() as client:
                began_s = time.perf_counter()
                _await_workers(client, workers)
                took_s = time.perf_counter() - began_s
                map_s(client, echo_work(TASKS_PER_WORKER * workers, seed=0))
    say(f"{count_of(workers, 'worker')} reconnected in {quantity(took_s, 's')}")
    return took_s


def queue_up(spec: ClusterSpec, tasks: int, seed: int, say: Say) -> dict[str, float | int | None]:
    """Queue many tasks without a worker, then have two workers do them; results are checked.

    Returns how many were queued, bytes of the coordinator for each, and tasks per second in and
    out. At the spec's bound one more has to be refused. A spec that sends each task alone gets a
    tenth of them.
    """
    tasks = tasks if spec.burst > 1 else max(1, tasks // ALONE_SHARE)
    work = echo_work(tasks, seed)
    with LocalCluster(0, spec) as local, local.client() as client:
        client.status()
        idle = settled(local.coordinator_pid)
        say(f"queueing {count_of(tasks, 'task')}")
        began_s = time.perf_counter()
        futures = client.submit_batch(work.kind, work.payloads)
        await_status(client, lambda status: sum(status.queued.values()) == tasks)
        in_s = time.perf_counter() - began_s
        if tasks == spec.limits.tasks:
            one_more = client.submit(work.kind, work.payloads[0])
            await_end(one_more)
            sort_out(work.part(0, 1), [one_more], tasks)
        full = settled(local.coordinator_pid)
        began_s = time.perf_counter()
        for _ in range(2):
            local.add_worker()
        work.check([result_of(future) for future in futures])
        out_s = time.perf_counter() - began_s
    say(f"{tasks:,} queued tasks done in {duration(out_s)}")
    return {
        "queued_tasks": tasks,
        "queued_bytes_per_task": (full.rss_bytes - idle.rss_bytes) / tasks,
        "queued_in_per_s": tasks / in_s,
        "queued_out_per_s": tasks / out_s,
    }


def _await_workers(client: Client, workers: int) -> None:
    until_s = time.monotonic() + REJOIN_S
    while (there := len(client.status().workers)) < workers:
        if time.monotonic() > until_s:
            raise ExperimentError(
                f"{there} of {count_of(workers, 'worker')} joined within {REJOIN_S:.0f} s"
            )
        time.sleep(REJOIN_READ_S)


def _goodput(sending: Sending, done: Sequence[int], length_s: float) -> list[float]:
    """Tasks done per second in each part of the time of sending, without the first part."""
    part_s = length_s / (PARTS + 1)
    counts = [0] * PARTS
    for position in done:
        part = int(sending.ended_s[position] / part_s) - 1
        if 0 <= part < PARTS:
            counts[part] += 1
    return [count / part_s for count in counts]


def _warm(queue_bound: int) -> Work:
    """Tasks to measure the capacity with, few enough for the queue."""
    return waiting_work(min(CAPACITY_TASKS, queue_bound), SERVICE_S)


def _over(above: float | None, below: float | None) -> float | None:
    return None if above is None or not below else above / below


EXPERIMENTS = (
    Experiment(
        "stress", "goodput at three times the capacity; reconnecting; TASKS queued", "tasks/s",
        {"quick": 50_000, "full": 1_000_000}, 1_000_000, "higher", stress,
        goals=(
            FigureGoal(
                "goodput_share", "goodput over capacity when three times that is offered", "",
                "higher", 0.9,
            ),
            FigureGoal(
                "rss_growth_of_bound", "growth of the coordinator's memory over its bound", "",
                "lower", 1.0,
            ),
        ),
        cluster_only=True,
    ),
)  # fmt: skip
