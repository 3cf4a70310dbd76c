"""The leak check: whether anything is kept of what comes and goes, one kind of event at a time.

Each kind happens ten thousand times (tasks a million times) to its own coordinator (churn.py). Now
and then every peer leaves, and then the process must hold what it held before: no additional
object, descriptor, thread or container entry. The first fifth is warm-up, which fills bounded
caches such as the stories of the last runs.

A leak planted on purpose (planted.py) shows that the check can fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import ClassVar

import msgspec

from cluster.shells.dispatcher import SPARE_ADDRESSES
from cluster.spec import ClusterSpec
from perfkit.bench.leaks.churn import KINDS
from perfkit.bench.leaks.reading import Reading, growing, only_what_is_new, take_reading
from perfkit.bench.leaks.world import ClockedCoordinator, World
from perfkit.bench.workloads.load import ExperimentError
from perfkit.bench.workloads.rounds import Say, prefixed
from perfkit.evidence.samples import Interval
from perfkit.evidence.showing import Figures, ResultTable, Sheet
from perfkit.evidence.tables import encode_rows
from perfkit.evidence.text import UNKNOWN, quantity
from perfkit.evidence.trend import MIN_READINGS, theil_sen

#: The goal: fewer objects per event than this.
OBJECTS_MOST = 0.001
#: Blocks are read off the whole process, whose interpreter now and then keeps some.
BLOCKS_MOST = 0.01
#: A coordinator forgets gone peers' addresses in batches, each an entry of some blocks, and a
#: process sometimes has a few more objects: over few events that looks like growth.
LAZY_ITEMS, LAZY_BLOCKS, LAZY_OBJECTS = SPARE_ADDRESSES, 4 * SPARE_ADDRESSES, 8
WARM_SHARE = 0.2


class Leak(StrEnum):
    """The verdict of a leak check."""

    FOUND = "leak"
    NONE = "no leak found"
    UNCLEAR = "inconclusive"


@dataclass(frozen=True)
class CheckSizes:
    """Events of each kind and readings of the process, warm-up included.

    Without warm-up the defaults are a million tasks and ten thousand of each other kind.
    """

    tasks: int = 1_300_000
    churn: int = 13_000
    readings: int = 26

    def __post_init__(self) -> None:
        if self.readings < 2 * MIN_READINGS or min(self.tasks, self.churn) < self.readings:
            raise ExperimentError(
                f"a leak check takes at least {2 * MIN_READINGS} readings and an event for each"
            )


@dataclass(frozen=True)
class LeakRow:
    """What is left of one kind of event after warm-up, per event; unknown values are None.

    `growing` holds the growth of each container that never returned to its size, by path;
    `fds_more` and `threads_more` count those that are left. `readings` include warm-up.
    """

    event: str
    events: int
    warm_events: int
    gc_objects_per_event: Interval
    blocks_per_event: Interval
    rss_bytes_per_event: Interval
    fds_more: int | None
    threads_more: int | None
    growing: Mapping[str, int]
    verdict: Leak
    reason: str
    readings: Sequence[Reading] = field(repr=False)


@dataclass(frozen=True)
class LeakTable(ResultTable[LeakRow]):
    """A row for each kind of event at the coordinator of one spec; `interrupted` if some lack."""

    key: ClassVar[str] = "event"

    spec: str
    interrupted: bool = False

    @property
    def verdict(self) -> Leak:
        """The verdict on all kinds of events together."""
        return worst(row.verdict for row in self.rows)

    def encode(self) -> str:
        """The rows as a JSON list, one to a line, every reading included."""
        return encode_rows({"spec": self.spec, **asdict(row)} for row in self)

    def _sheets(self) -> Iterator[Sheet]:
        yield Sheet(
            f"What is left of each event, {self.spec} (95 % intervals, after warm-up)",
            HEADER,
            [cells(row) for row in self.rows],
            [f"{row.event}: {row.reason}" for row in self.rows if row.verdict is not Leak.NONE],
        )

    def _figures(self) -> Figures:
        return "objects per event", [(row.event, row.gc_objects_per_event) for row in self.rows]


HEADER = ("event", "events", "gc objects", "blocks", "RSS bytes", "fds", "threads", "verdict")


def check_leaks(
    spec: ClusterSpec,
    sizes: CheckSizes = CheckSizes(),
    kinds: Sequence[str] = tuple(KINDS),
    *,
    make: Callable[[ClusterSpec], ClockedCoordinator] = ClockedCoordinator,
    progress: Say | None = None,
) -> LeakTable:
    """Let each kind of event happen and judge what is left of it in this process.

    Ctrl-C ends it early, with the kinds that are done. `make` makes the coordinator under test.
    Raises ExperimentError for an unknown kind and if the coordinator did not see every event,
    WrongResult for a wrong result, AssertionError for a broken invariant.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise ExperimentError(f"no event {unknown[0]!r}; there are {', '.join(KINDS)}")
    rows: list[LeakRow] = []
    say, interrupted = prefixed(progress, "leaks"), True
    with suppress(KeyboardInterrupt):
        for at, kind in enumerate(kinds, 1):
            say(f"{kind}, {at} of {len(kinds)} kinds of events")
            rows.append(_check(spec, sizes, kind, make))
            say(f"{kind}: {rows[-1].verdict}, {rows[-1].reason}")
        interrupted = False
    return LeakTable(tuple(rows), spec.name, interrupted)


def worst(verdicts: Iterable[Leak]) -> Leak:
    """One verdict for several: a leak if there is any, no leak only if all say so."""
    found = set(verdicts)
    if Leak.FOUND in found:
        return Leak.FOUND
    return Leak.NONE if found == {Leak.NONE} else Leak.UNCLEAR


def cells(row: LeakRow) -> tuple[str, ...]:
    """The texts of a row under HEADER."""
    figures = (row.gc_objects_per_event, row.blocks_per_event, row.rss_bytes_per_event)
    growth = (figure.text() for figure in figures)
    more = (UNKNOWN if n is None else f"{n:+}" for n in (row.fds_more, row.threads_more))
    return (row.event, f"{row.events:,}", *growth, *more, str(row.verdict))


def left_over(readings: Sequence[object], name: str) -> int | None:
    """Growth of the least number of fds or threads from the earlier half to the later."""
    counts = [getattr(reading, name) for reading in readings]
    half = len(counts) // 2
    return None if None in counts or not half else min(counts[half:]) - min(counts[:half])


def _check(
    spec: ClusterSpec,
    sizes: CheckSizes,
    kind: str,
    make: Callable[[ClusterSpec], ClockedCoordinator],
) -> LeakRow:
    each = (sizes.tasks if kind == "task" else sizes.churn) // sizes.readings
    # As text, because readings that are objects would themselves grow.
    lines = bytearray()
    with only_what_is_new():
        world = World(spec, make)
        for _ in range(sizes.readings):
            world.open()
            KINDS[kind].run(world, each)
            world.rest()
            lines += msgspec.json.encode(take_reading(world.coordinator)) + b"\n"
    readings = msgspec.json.Decoder(Reading).decode_lines(bytes(lines))
    return judge(kind, [each * at for at in range(1, len(readings) + 1)], readings)


def judge(event: str, events: Sequence[int], readings: Sequence[Reading]) -> LeakRow:
    """Judge readings that were taken at rest, each after this many events."""
    warm = round(WARM_SHARE * len(readings))
    kept, x = readings[warm:], events[warm:]
    count = x[-1] - x[0] if x else 0
    objects = theil_sen(x, [reading.gc_objects for reading in kept])
    counted = [(at, r.blocks) for at, r in zip(x, kept, strict=True) if r.blocks is not None]
    blocks = theil_sen([at for at, _ in counted], [count for _, count in counted])
    objects_most = max(OBJECTS_MOST, LAZY_OBJECTS / max(count, 1))
    blocks_most = max(BLOCKS_MOST, LAZY_BLOCKS / max(count, 1))
    fds, threads = left_over(kept, "fds"), left_over(kept, "threads")
    grown = growing([reading.containers for reading in kept], LAZY_ITEMS)
    signs = [
        *(f"{name} grew by {items:,}" for name, items in grown.items()),
        *_above(objects, objects_most, "gc objects"),
        *_above(blocks, blocks_most, "blocks of memory"),
        *(f"{more} {name} are left" for name, more in (("fds", fds), ("threads", threads)) if more
          and more > 0),
    ]  # fmt: skip
    # Without Python's allocator, memory in use of malloc is judged instead, over time: soak.py.
    in_bounds = _is_below(blocks, blocks_most) or bool(kept and not counted)
    bounded = _is_below(objects, objects_most) and in_bounds
    verdict = Leak.FOUND if signs else Leak.NONE if bounded else Leak.UNCLEAR
    reasons = {
        Leak.NONE: "everything is back to what it was",
        Leak.UNCLEAR: "too few readings, or they move too much; let more events happen",
        Leak.FOUND: "; ".join(signs),
    }
    return LeakRow(
        event=event,
        events=count,
        warm_events=x[0] if x else 0,
        gc_objects_per_event=objects,
        blocks_per_event=blocks,
        rss_bytes_per_event=theil_sen(x, [reading.rss_bytes for reading in kept]),
        fds_more=fds,
        threads_more=threads,
        growing=grown,
        verdict=verdict,
        reason=reasons[verdict],
        readings=tuple(readings),
    )


def _above(figure: Interval, most: float, what: str) -> list[str]:
    if figure.low is None or figure.low <= most:
        return []
    return [f"{quantity(figure.value)} {what} are left of each event"]


def _is_below(figure: Interval, most: float) -> bool:
    return figure.high is not None and figure.high <= most
