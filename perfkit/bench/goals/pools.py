"""What a pool is worth compared with the allocator, or with a new connection each time.

Both arms do the same checked work: fill a message, read into a buffer, answer a task. They take
turns with a second plain arm, the A/A control.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from resource import RUSAGE_SELF, getrusage
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from cluster.local import LocalCluster
from cluster.shells.client import Client
from cluster.vocabulary.printable import count_of
from perfkit.bench.workloads.load import ExperimentError, WrongResult, result_of
from perfkit.bench.workloads.rounds import Arm, Say, prefixed, take_turns
from perfkit.evidence.environment import Environment, fingerprint
from perfkit.evidence.samples import Interval, bootstrap_interval
from perfkit.evidence.showing import Figures, ResultTable, Sheet
from perfkit.evidence.stats import MIN_BLOCKS, Comparison, compare_blocks
from perfkit.evidence.tables import data_frame
from perfkit.evidence.text import quantity
from perfkit.evidence.verdicts import Verdict
from perfkit.pool import BufferPool, ConnectionPool, Message, MessagePool, PoolStats

if TYPE_CHECKING:
    import pandas as pd

PLAIN, POOLED, AGAIN = "plain", "pooled", "plain again"
US, FAULTS = "us", "minor_faults"

#: Runs this many operations and returns their sum, which the case knows.
Run: TypeAlias = Callable[[int], int]


class Arms(NamedTuple):
    """One kind of work plain and pooled, the sum of `n` operations, and the pool's counts."""

    plain: Run
    pooled: Run
    expected: Callable[[int], int]
    stats: Callable[[], PoolStats | None]


@dataclass(frozen=True)
class Case:
    """Something that can be pooled; `operations` of it make a block of 10 ms or more."""

    name: str
    what: str
    operations: int
    open: Callable[[], AbstractContextManager[Arms]]


@dataclass(frozen=True)
class PoolRow:
    """One case: microseconds per operation without and with the pool, and the verdict.

    `comparison.ratio` is pooled over plain time, so below 1 the pool is faster. Faults are minor
    page faults per operation, the median of an arm's blocks. `stats` are the pool's own counts over
    all blocks, if it keeps any. `samples` holds each arm's blocks in µs.
    """

    name: str
    what: str
    operations: int
    plain: Interval
    pooled: Interval
    comparison: Comparison
    plain_faults: float | None
    pooled_faults: float | None
    stats: PoolStats | None
    samples: dict[str, list[float]] = field(repr=False)

    @property
    def verdict(self) -> Verdict:
        """Whether the pool is faster or slower than doing without."""
        return self.comparison.verdict


@dataclass(frozen=True)
class PoolTable(ResultTable[PoolRow]):
    """Every case, on the machine it was measured on."""

    environment: Environment
    rounds: int
    seed: int
    duration_s: float

    def to_frame(self) -> pd.DataFrame:
        """A row for each case, without the samples; `ratio` is pooled over plain time."""
        return data_frame(
            {
                "name": row.name,
                "what": row.what,
                "operations": row.operations,
                "plain_us": row.plain,
                "pooled_us": row.pooled,
                "ratio": found.factor,
                "aa_ratio": found.aa_ratio,
                "aa_low": found.aa_low,
                "aa_high": found.aa_high,
                "verdict": str(row.verdict),
                "reason": found.reason,
                "plain_faults": row.plain_faults,
                "pooled_faults": row.pooled_faults,
                "hit_rate": row.stats.hit_rate if row.stats else None,
            }
            for row in self.rows
            for found in [row.comparison]
        )

    def _sheets(self) -> Iterator[Sheet]:
        yield Sheet(
            "Pooled against plain, in turns: µs per operation (95 % intervals)",
            ("what", "plain", "pooled", "pooled / plain", "plain / plain", "faults", "the pool is"),
            [
                (
                    row.what,
                    row.plain.text(),
                    row.pooled.text(),
                    row.comparison.ratio_text,
                    row.comparison.control_text,
                    f"{quantity(row.plain_faults)} → {quantity(row.pooled_faults)}",
                    str(row.verdict),
                )
                for row in self.rows
            ],
            [
                f"{count_of(self.rounds, 'round')}, seed {self.seed}. Below 1 the pool is faster. "
                "Faults are "
                "minor page faults per operation, plain → pooled: memory the kernel had to map."
            ],
        )

    def _figures(self) -> Figures:
        return "×", [(row.what, row.comparison.factor) for row in self.rows]


def measure_pools(
    cases: Sequence[Case] | None = None,
    *,
    rounds: int = 12,
    effort: float = 1.0,
    seed: int = 0,
    progress: Say | None = None,
) -> PoolTable:
    """Measure what pooling is worth, case by case; by default all of CASES.

    Each round holds a block of each arm, in an order drawn from the seed; `effort` scales the
    blocks. Takes some ten seconds by default. Raises ExperimentError for numbers that give no
    verdict, WrongResult if an arm did not do its work.
    """
    if rounds < MIN_BLOCKS or effort <= 0:
        raise ExperimentError(
            f"pools need {MIN_BLOCKS} rounds or more and an effort above 0, not {rounds} and "
            f"{effort:g}"
        )
    environment, began_s = fingerprint(), time.perf_counter()
    rows = tuple(
        _measure(case, rounds, max(1, round(case.operations * effort)), seed, progress)
        for case in (CASES if cases is None else cases)
    )
    return PoolTable(rows, environment, rounds, seed, time.perf_counter() - began_s)


def _measure(case: Case, rounds: int, operations: int, seed: int, progress: Say | None) -> PoolRow:
    with case.open() as arms:
        plain = _block(case, arms.plain, operations, arms.expected)
        pooled = _block(case, arms.pooled, operations, arms.expected)
        arms_by_name = {PLAIN: plain, POOLED: pooled, AGAIN: plain}
        say = prefixed(progress, f"pools: {case.name}")
        samples = take_turns(arms_by_name, rounds, seed, "µs", say)
        stats = arms.stats()
    us, faults = samples[US], samples[FAULTS]
    return PoolRow(
        name=case.name,
        what=case.what,
        operations=operations,
        plain=bootstrap_interval(us[PLAIN], seed=seed),
        pooled=bootstrap_interval(us[POOLED], seed=seed),
        comparison=compare_blocks(us[PLAIN], us[POOLED], us[AGAIN], direction="lower", seed=seed),
        plain_faults=bootstrap_interval(faults[PLAIN]).value,
        pooled_faults=bootstrap_interval(faults[POOLED]).value,
        stats=stats,
        samples=us,
    )


def _block(case: Case, run: Run, operations: int, expected: Callable[[int], int]) -> Arm:
    wanted = expected(operations)

    def block() -> dict[str, float]:
        faults = getrusage(RUSAGE_SELF).ru_minflt
        began_s = time.perf_counter()
        found = run(operations)
        took_s = time.perf_counter() - began_s
        faults = getrusage(RUSAGE_SELF).ru_minflt - faults
        if found != wanted:
            raise WrongResult(f"{case.name}: {operations:,} operations gave {found}, not {wanted}")
        return {US: took_s * 1e6 / operations, FAULTS: faults / operations}

    return block


# The cases


KIND, PAYLOAD = "echo", b"x" * 200


@contextmanager
def _messages() -> Iterator[Arms]:
    with MessagePool(size=16) as pool:
        pooled = partial(_fill_pooled, pool.acquire, pool.release)
        yield Arms(_fill_plain, pooled, _triangle, lambda: pool.stats)


@contextmanager
def _free_list() -> Iterator[Arms]:
    """The cheapest possible pool of messages: it checks nothing."""
    idle = [Message()]

    def release(message: Message) -> None:
        message.clear()
        idle.append(message)

    yield Arms(_fill_plain, partial(_fill_pooled, idle.pop, release), _triangle, lambda: None)


def _fill_plain(operations: int) -> int:
    total = 0
    for index in range(operations):
        message = Message(KIND, PAYLOAD, {"index": index})
        total += message.headers["index"]
    return total


def _fill_pooled(
    acquire: Callable[[], Message], release: Callable[[Message], object], operations: int
) -> int:
    total = 0
    for index in range(operations):
        message = acquire()
        message.kind, message.payload = KIND, PAYLOAD
        message.headers["index"] = index
        total += message.headers["index"]
        release(message)
    return total


def _triangle(operations: int) -> int:
    return operations * (operations - 1) // 2


@contextmanager
def _buffers(size_bytes: int) -> Iterator[Arms]:
    """Bytes are read into a buffer, as from a file or a socket."""
    content = (bytes(range(1, 256)) * (size_bytes // 255 + 1))[:size_bytes]
    source = BytesIO(content)

    def fill(buffer: bytearray | memoryview) -> int:
        source.seek(0)
        return source.readinto(buffer) + buffer[-1]

    def plain(operations: int) -> int:
        total = 0
        for _ in range(operations):
            total += fill(bytearray(size_bytes))
        return total

    def pooled(operations: int) -> int:
        total = 0
        for _ in range(operations):
            buffer = pool.acquire(size_bytes)
            total += fill(buffer)
            pool.release(buffer)
        return total

    with BufferPool(max_bytes=4 * size_bytes) as pool:
        with pool.borrow(size_bytes) as buffer:
            fill(buffer)
            if bytes(buffer) != content:
                raise WrongResult(f"a buffer of {size_bytes:,} B does not hold what was read")
        each = size_bytes + content[-1]
        yield Arms(plain, pooled, lambda operations: operations * each, lambda: pool.stats)


@contextmanager
def _connections() -> Iterator[Arms]:
    """A task for a cluster, by a new client or by a pooled one."""

    def answered(client: Client, index: int) -> bool:
        payload = b"%d" % index
        return result_of(client.submit(KIND, payload)) == payload

    def plain(operations: int) -> int:
        right = 0
        for index in range(operations):
            with Client(local.endpoint) as client:
                right += answered(client, index)
        return right

    def pooled(operations: int) -> int:
        right = 0
        for index in range(operations):
            with pool.borrow(local.endpoint) as client:
                right += answered(client, index)
        return right

    with LocalCluster(1) as local, ConnectionPool(Client) as pool:
        yield Arms(plain, pooled, lambda operations: operations, lambda: pool.stats)


CASES: Sequence[Case] = (
    Case("messages", "a message object", 150_000, _messages),
    Case("free_list", "a message object, kept in a bare list", 150_000, _free_list),
    Case("buffers_256", "a buffer of 256 B", 80_000, partial(_buffers, 256)),
    Case("buffers_64k", "a buffer of 64 KiB", 10_000, partial(_buffers, 64 << 10)),
    Case("buffers_1m", "a buffer of 1 MiB", 500, partial(_buffers, 1 << 20)),
    Case("connections", "a client of a cluster, for one task", 12, _connections),
)
