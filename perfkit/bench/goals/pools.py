"""What a pool is worth, held against doing without: the allocator, or a new connection each time.

Both arms do the same work with what they get, a message filled in, a buffer read into, a task
answered, and what they did is checked. They take turns with a second arm that does without, whose
distance from the first is what the machine does to identical code.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from resource import RUSAGE_SELF, getrusage
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import msgspec

from cluster.local import LocalCluster
from cluster.shells.client import Client
from perfkit.bench.goals.table import ends, number
from perfkit.bench.workloads.load import ExperimentError, WrongResult, result_of
from perfkit.bench.workloads.rounds import Arm, take_turns
from perfkit.evidence.environment import Environment, fingerprint
from perfkit.evidence.results import encode_fields
from perfkit.evidence.stats import (
    MIN_BLOCKS,
    Comparison,
    Interval,
    Verdict,
    bootstrap_interval,
    compare_blocks,
    ratio_text,
)
from perfkit.evidence.tables import data_frame, html_table
from perfkit.pool import BufferPool, ConnectionPool, Message, MessagePool, PoolStats

if TYPE_CHECKING:
    import pandas as pd

PLAIN, POOLED, AGAIN = "plain", "pooled", "plain again"
US, FAULTS = "us", "minor_faults"

#: So many operations; what they have to add up to is told by the case.
Run: TypeAlias = Callable[[int], int]


class Arms(NamedTuple):
    """One kind of work both ways, what `n` operations of it add up to, and the pool's counts."""

    plain: Run
    pooled: Run
    expected: Callable[[int], int]
    stats: Callable[[], PoolStats | None]


@dataclass(frozen=True)
class Case:
    """Something that can be pooled; so many `operations` of it make a block of 10 ms or more."""

    name: str
    what: str
    operations: int
    open: Callable[[], AbstractContextManager[Arms]]


@dataclass(frozen=True)
class PoolRow:
    """One case: microseconds per operation without and with the pool, and the verdict.

    `comparison.ratio` is pooled over plain time, so below 1 the pool is faster. Faults are minor
    page faults per operation, the median of an arm's blocks. `stats` are the pool's own counts over
    all blocks, None for what keeps none. `samples` holds each arm's blocks in µs.
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
        """About the pool, seen from doing without."""
        return self.comparison.verdict


@dataclass(frozen=True)
class PoolTable:
    """Every case, on the machine it was measured on."""

    rows: tuple[PoolRow, ...]
    environment: Environment
    rounds: int
    seed: int
    duration_s: float

    def __iter__(self) -> Iterator[PoolRow]:
        return iter(self.rows)

    def of(self, name: str) -> PoolRow:
        """The row of a case; raises KeyError that names those there are."""
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"no case {name!r}; there are {', '.join(row.name for row in self.rows)}")

    def encode(self) -> str:
        """All of it as JSON, the blocks included."""
        return encode_fields(
            {
                "seed": self.seed,
                "rounds": self.rounds,
                "duration_s": self.duration_s,
                "unit": "µs",
                "environment": self.environment,
                "rows": [msgspec.to_builtins(row) for row in self.rows],
            }
        )

    def to_frame(self) -> pd.DataFrame:
        """A row for each case, without the samples."""
        rows = [_flat(row) for row in self.rows]
        return data_frame(rows, list(rows[0]) if rows else [])

    def _repr_html_(self) -> str:
        return html_table(
            "Pooled against plain, in turns: µs per operation (95 % intervals)",
            ("what", "plain", "pooled", "pooled / plain", "plain / plain", "faults", "the pool is"),
            [
                (
                    row.what,
                    _figure(row.plain),
                    _figure(row.pooled),
                    ratio_text(found.ratio, found.low, found.high),
                    ratio_text(found.aa_ratio, found.aa_low, found.aa_high),
                    f"{number(row.plain_faults)} → {number(row.pooled_faults)}",
                    str(row.verdict),
                )
                for row in self.rows
                for found in [row.comparison]
            ],
            [
                f"{self.rounds} rounds, seed {self.seed}. Below 1 the pool is faster. Faults are "
                "minor page faults per operation, plain → pooled: memory the kernel had to map."
            ],
        )


def measure_pools(
    cases: Sequence[Case] | None = None,
    *,
    rounds: int = 12,
    effort: float = 1.0,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> PoolTable:
    """Measure what pooling is worth, case by case, all of CASES if none are given.

    Each of the rounds holds a block of each arm, in an order drawn from the seed; `effort` makes
    blocks longer or shorter. Takes some ten seconds as it is. Raises ExperimentError for numbers
    that give no verdict, WrongResult when an arm did not do its work.
    """
    if rounds < MIN_BLOCKS or effort <= 0:
        raise ExperimentError(
            f"pools need {MIN_BLOCKS} rounds or more and an effort above 0, not {rounds} and "
            f"{effort:g}"
        )
    environment, began_s = fingerprint(), time.perf_counter()
    tell = progress or (lambda line: None)
    rows = tuple(
        _measure(case, rounds, max(1, round(case.operations * effort)), seed, tell)
        for case in (CASES if cases is None else cases)
    )
    return PoolTable(rows, environment, rounds, seed, time.perf_counter() - began_s)


def _measure(
    case: Case, rounds: int, operations: int, seed: int, tell: Callable[[str], None]
) -> PoolRow:
    with case.open() as arms:
        plain = _block(case, arms.plain, operations, arms.expected)
        pooled = _block(case, arms.pooled, operations, arms.expected)
        readings = take_turns(
            {PLAIN: plain, POOLED: pooled, AGAIN: plain},
            rounds,
            seed,
            "µs",
            lambda line: tell(f"pools: {case.name}: {line}"),
        )
        stats = arms.stats()
    us, faults = readings[US], readings[FAULTS]
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
    """The least a pool of messages can cost: it never looks at anything."""
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
    """Bytes read into a buffer, as from a file or a socket."""
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
    """A task for a cluster, by a client of its own or by one that is kept."""

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


# For people


def _flat(row: PoolRow) -> dict[str, Any]:
    found = row.comparison
    return {
        "name": row.name,
        "what": row.what,
        "operations": row.operations,
        **_columns("plain_us", row.plain),
        **_columns("pooled_us", row.pooled),
        "ratio": found.ratio,
        "ratio_low": found.low,
        "ratio_high": found.high,
        "aa_ratio": found.aa_ratio,
        "aa_low": found.aa_low,
        "aa_high": found.aa_high,
        "verdict": str(row.verdict),
        "reason": found.reason,
        "plain_faults": row.plain_faults,
        "pooled_faults": row.pooled_faults,
        "hit_rate": row.stats.hit_rate if row.stats else None,
    }


def _columns(name: str, figure: Interval) -> dict[str, float | None]:
    return {name: figure.value, f"{name}_low": figure.low, f"{name}_high": figure.high}


def _figure(figure: Interval) -> str:
    return f"{number(figure.value)} {ends(figure.low, figure.high)}"
