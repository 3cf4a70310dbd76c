"""Work for a cluster, ways to put it under load, and the check that every result was right.

A fast wrong answer is the easiest way to a good figure, so nothing here returns a time before
every result behind it was compared with the expected one. Payloads differ from each other, so that
a swapped or repeated result is seen, and follow from a seed, so that a run can be repeated byte for
byte.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotInTime
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from operator import eq
from threading import Semaphore
from typing import Any, Protocol

import msgspec
import psutil

from cluster.local import LocalCluster
from cluster.shells.client import Client
from cluster.spec import ClusterSpec
from cluster.vocabulary.errors import ClusterError
from cluster.vocabulary.printable import count_of

#: Small, so that the cluster's own cost per task dominates.
PAYLOAD_BYTES = 200
#: A lost task must end an experiment, not hang it.
RESULT_TIMEOUT_S = 60.0
#: Between two heartbeats while messages are counted: longer than a round takes.
COUNTING_BEAT_S = 30.0
COUNTED_ROUNDS = 3
#: Futures that a submitting client keeps open, and how many it waits for at a time.
IN_FLIGHT, REFILL = 1_000, 100
TRAFFIC = ("messages_in", "messages_out", "bytes_in", "bytes_out")
_NUMBER_BYTES = 8


class Submitter(Protocol):
    """An engine, or a client of a cluster."""

    def submit(self, kind: str, payload: bytes = b"") -> Future[bytes]:
        """Hand in one task."""

    def map(self, kind: str, payloads: Iterable[bytes]) -> Iterator[bytes]:
        """The results of many like tasks, in order."""


class ExperimentError(ClusterError):
    """An experiment that cannot run as asked, or that failed; the message is one sentence."""


class WrongResult(ExperimentError):
    """A task came back with a wrong result, so no time of it counts."""


@dataclass(frozen=True)
class Work:
    """Tasks of one kind, each with its expected result.

    A worker has to serve `models`. `same(result, expected)` decides whether a result is right.
    A saved result quotes `facts` and, as counters, `figures` such as a model's accuracy.
    """

    kind: str
    payloads: list[bytes] = field(repr=False)
    expected: list[bytes] = field(repr=False)
    models: tuple[str, ...] = ()
    same: Callable[[bytes, bytes], bool] = eq
    facts: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, float | int | None] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.payloads)

    def part(self, start: int, stop: int) -> Work:
        """The tasks from `start` up to `stop`."""
        return replace(self, payloads=self.payloads[start:stop], expected=self.expected[start:stop])

    @property
    def warm_up(self) -> Work:
        """The first tenth of the tasks, at least one."""
        return self.part(0, max(1, len(self) // 10))

    def blocks(self, count: int) -> Iterator[Work]:
        """The tasks in `count` parts of about equal size; in fewer if there are fewer tasks."""
        count = min(count, len(self))
        for start, stop in pairwise(len(self) * i // count for i in range(count + 1)):
            yield self.part(start, stop)

    def check(self, results: Sequence[bytes]) -> None:
        """Raise WrongResult if a result is missing, superfluous or wrong."""
        if len(results) != len(self):
            raise WrongResult(
                f"{len(self):,} {self.kind} tasks gave {count_of(len(results), 'result')}"
            )
        for position, (result, expected) in enumerate(zip(results, self.expected, strict=True)):
            if not self.same(result, expected):
                raise WrongResult(
                    f"{self.kind} task {position:,} of {len(self):,} gave {_shown(result)} instead "
                    f"of {_shown(expected)}: the run counts for nothing"
                )


def echo_work(tasks: int, seed: int, payload_bytes: int = PAYLOAD_BYTES) -> Work:
    """Distinct payloads to echo: a number, then bytes that follow from the seed.

    Raises ExperimentError for payloads too short to hold the number.
    """
    if payload_bytes < _NUMBER_BYTES:
        raise ExperimentError(
            f"payloads of {payload_bytes} B cannot all differ; take {_NUMBER_BYTES} B or more"
        )
    rng = random.Random(seed)
    payloads = [
        number.to_bytes(_NUMBER_BYTES, "big") + rng.randbytes(payload_bytes - _NUMBER_BYTES)
        for number in range(tasks)
    ]
    return Work("echo", payloads, payloads, facts={"payload_bytes": payload_bytes})


def map_s(client: Submitter, work: Work) -> float:
    """Seconds that one map over the work takes; results are checked after the clock has stopped."""
    began_s = time.perf_counter()
    results = list(client.map(work.kind, work.payloads))
    took_s = time.perf_counter() - began_s
    work.check(results)
    return took_s


def one_by_one_ms(client: Submitter, work: Work) -> list[float]:
    """The latency of each task in ms, with one task in flight."""
    took_ms: list[float] = []
    results: list[bytes] = []
    for payload in work.payloads:
        began_s = time.perf_counter()
        results.append(result_of(client.submit(work.kind, payload)))
        took_ms.append((time.perf_counter() - began_s) * 1e3)
    work.check(results)
    return took_ms


def submit_s(client: Submitter, work: Work, took_s: list[float] | None = None) -> float:
    """Seconds that a future for each task takes, IN_FLIGHT at a time; all results are checked.

    The window is refilled whenever a tenth of it is done, as clients do. `took_s` gets the seconds
    of each call of submit.
    """
    submit = client.submit if took_s is None else partial(_timed_submit, client, took_s)
    results: list[bytes] = []
    open_ones: deque[Future[bytes]] = deque()
    began_s = time.perf_counter()
    for payload in work.payloads:
        if len(open_ones) == IN_FLIGHT:
            result_of(open_ones[REFILL - 1])
            results += [result_of(open_ones.popleft()) for _ in range(REFILL)]
        open_ones.append(submit(work.kind, payload))
    results += [result_of(future) for future in open_ones]
    whole_s = time.perf_counter() - began_s
    work.check(results)
    return whole_s


def _timed_submit(
    client: Submitter, took_s: list[float], kind: str, payload: bytes
) -> Future[bytes]:
    began_s = time.perf_counter()
    future = client.submit(kind, payload)
    took_s.append(time.perf_counter() - began_s)
    return future


def burst_ms(client: Submitter, work: Work) -> list[float]:
    """Milliseconds from the first submission to each task's result; all are submitted at once."""
    return [end_s * 1e3 for end_s in ends_s(client, work)]


def ends_s(client: Submitter, work: Work, at_s: Sequence[float] = ()) -> list[float]:
    """Seconds from the start to each task's result, a future each; all results are checked.

    A task is submitted at its time in `at_s`; without `at_s`, all are submitted at once.
    """
    sending = send(client, work, at_s)
    work.check([result_of(future) for future in sending.futures])
    return sending.ended_s


@dataclass(frozen=True)
class Sending:
    """Tasks that were submitted and have ended; times are in seconds from the start.

    `sent_s` is when submit was called, `ended_s` when the future's callbacks ran.
    """

    sent_s: list[float]
    ended_s: list[float]
    futures: list[Future[bytes]]

    def lags_s(self, at_s: Sequence[float]) -> list[float]:
        """How late each task was sent; a sender that falls behind measures itself."""
        return [sent_s - due_s for sent_s, due_s in zip(self.sent_s, at_s, strict=True)]

    def latencies_s(self, at_s: Sequence[float]) -> list[float]:
        """From the *intended* send time: a late sender must not hide what users would wait.

        Gil Tene calls the mistake "coordinated omission".
        """
        return [end_s - due_s for end_s, due_s in zip(self.ended_s, at_s, strict=True)]


def send(client: Submitter, work: Work, at_s: Sequence[float] = ()) -> Sending:
    """Submit each task at its time in `at_s`, or all at once, and wait until each has ended.

    Nothing is checked: a future may hold a refusal. Raises ExperimentError for a task that does not
    end.
    """
    ended_s = [0.0] * len(work)
    noted = Semaphore(0)

    def note(position: int, _: Future[bytes]) -> None:
        ended_s[position] = time.perf_counter() - began_s
        noted.release()

    sent_s: list[float] = []
    futures = []
    began_s = time.perf_counter()
    for position, payload in enumerate(work.payloads):
        if at_s and (early_s := began_s + at_s[position] - time.perf_counter()) > 0:
            time.sleep(early_s)
        sent_s.append(time.perf_counter() - began_s)
        future = client.submit(work.kind, payload)
        future.add_done_callback(partial(note, position))
        futures.append(future)
    for future in futures:
        await_end(future)
    # A future wakes its waiter before it runs its callbacks.
    for _ in futures:
        noted.acquire()
    return Sending(sent_s, ended_s, futures)


def cpu_s(process: psutil.Process) -> float:
    """Processor time in seconds that a process has used so far."""
    times = process.cpu_times()
    return times.user + times.system


def rate_and_cpu_us(
    drive: Callable[[Work], float], work: Work, process: psutil.Process
) -> tuple[float, float]:
    """Tasks per second of `drive(work)`, and µs of the process's processor time for each task."""
    before_s = cpu_s(process)
    took_s = drive(work)
    return len(work) / took_s, (cpu_s(process) - before_s) * 1e6 / len(work)


def result_of(future: Future[bytes]) -> bytes:
    """A task's result; raises ExperimentError without one after RESULT_TIMEOUT_S."""
    try:
        return future.result(RESULT_TIMEOUT_S)
    except NotInTime:
        raise _never_ended() from None


def await_end(future: Future[bytes]) -> None:
    """Wait until a task has ended, however; ExperimentError after RESULT_TIMEOUT_S."""
    try:
        future.exception(RESULT_TIMEOUT_S)
    except NotInTime:
        raise _never_ended() from None


def _never_ended() -> ExperimentError:
    return ExperimentError(
        f"a task had no result within {RESULT_TIMEOUT_S:.0f} s; are the workers still alive?"
    )


def traffic_per_task(
    spec: ClusterSpec, workers: int, work: Work, drive: Callable[[Client, Work], object]
) -> dict[str, float | int | None]:
    """`traffic_of` the work on a separate cluster after a warm-up round, as `<name>_per_task`."""
    with counting_cluster(spec, workers, work.models) as client:
        drive(client, work)
        counts = traffic_of(client, work, drive)
    return {f"{name}_per_task": count for name, count in counts.items()}


@contextmanager
def counting_cluster(
    spec: ClusterSpec, workers: int, models: Sequence[str] = ()
) -> Iterator[Client]:
    """The client of a fresh cluster whose heartbeats are postponed: only tasks are to count."""
    beat = {"heartbeat_s": COUNTING_BEAT_S, "liveness_s": 3 * COUNTING_BEAT_S}
    slow = msgspec.structs.replace(spec, limits=msgspec.structs.replace(spec.limits, **beat))
    with (
        LocalCluster(workers, slow, models=models) as local,
        # The default name holds the host's name, whose length would count in the bytes.
        Client(local.endpoint, spec=slow, name="traffic") as client,
    ):
        yield client


def traffic_of(
    client: Client, work: Work, drive: Callable[[Client, Work], object]
) -> dict[str, float]:
    """Messages and bytes through the coordinator for each task of `drive(client, work)`.

    The cost of asking for the counts is taken off. A busy machine only adds messages, so the
    smallest of several rounds is the work's own count; it is the same on every machine for parts
    that send a message per task.
    """
    asking = [_growth(client, lambda: None) for _ in range(COUNTED_ROUNDS)]
    working = [_growth(client, lambda: drive(client, work)) for _ in range(COUNTED_ROUNDS)]
    least, most = ({n: min(c[n] for c in counts) for n in TRAFFIC} for counts in (asking, working))
    return {name: (most[name] - least[name]) / len(work) for name in TRAFFIC}


def _growth(client: Client, drive: Callable[[], object]) -> dict[str, int]:
    """Growth of the coordinator's counts, its first answer included."""
    before = client.status().counters
    drive()
    after = client.status().counters
    return {name: after[name] - before[name] for name in TRAFFIC}


def _shown(value: object) -> str:
    if not isinstance(value, bytes) or len(value) <= 24:
        return f"{value!r:.60}"
    return f"{value[:24]!r}… ({len(value):,} B)"
