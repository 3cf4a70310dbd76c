"""Whether anything of what comes and goes is kept: the leak check, one kind of event at a time.

Each kind happens ten thousand times (tasks a million) to a coordinator of its own (churn.py). Now
and then everybody is sent home, and what the process holds then must be what it held before: not an
object, a descriptor, a thread or an entry of any container more. The first fifth does not count: it
fills what is bounded (the stories of the last runs, say), and what comes after finds it full.

That the check can fail is shown by a leak planted on purpose (planted.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from cluster.shells.dispatcher import SPARE_ADDRESSES
from cluster.spec import ClusterSpec
from perfkit.bench.leaks.churn import KINDS
from perfkit.bench.leaks.reading import Log, Reading, growing, only_what_is_new, take_reading
from perfkit.bench.leaks.world import ClockedCoordinator, World
from perfkit.bench.workloads.load import ExperimentError
from perfkit.evidence.samples import Interval
from perfkit.evidence.tables import data_frame, html_table
from perfkit.evidence.trend import MIN_READINGS, theil_sen

if TYPE_CHECKING:
    import pandas as pd

#: The goal: fewer objects per event than this.
OBJECTS_MOST = 0.001
#: Blocks are read off the whole process, whose interpreter keeps some of its own now and then.
BLOCKS_MOST = 0.01
#: A coordinator forgets addresses of who is gone so many at a time, each an entry of some blocks,
#: and a process has a few objects more at times: over few events that looks like growth.
LAZY_ITEMS, LAZY_BLOCKS, LAZY_OBJECTS = SPARE_ADDRESSES, 4 * SPARE_ADDRESSES, 8
WARM_SHARE = 0.2


class Leak(StrEnum):
    """What was found."""

    FOUND = "leak"
    NONE = "no leak found"
    UNCLEAR = "inconclusive"


@dataclass(frozen=True)
class CheckSizes:
    """How many events of each kind, and how often the process is read, warm-up included: without
    it, these are a million tasks and ten thousand of each churn.
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
    """What is left of one kind of event after warm-up, per event; what nobody knows is None.

    `growing` holds each container that never got back to its size, by path, and by how much;
    `fds_more` and `threads_more` are how many are left. `readings` are all, warm-up included.
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
class LeakTable:
    """A row for each kind of event, of the coordinator of one spec; `interrupted` if some lack."""

    spec: str
    rows: tuple[LeakRow, ...]
    interrupted: bool = False

    def __iter__(self) -> Iterator[LeakRow]:
        return iter(self.rows)

    def of(self, event: str) -> LeakRow:
        """The row of a kind of event; raises KeyError that names those there are."""
        for row in self.rows:
            if row.event == event:
                return row
        raise KeyError(f"no event {event!r}; there are {', '.join(row.event for row in self.rows)}")

    @property
    def verdict(self) -> Leak:
        """A leak if there is one anywhere, none only if there is none everywhere."""
        return worst(row.verdict for row in self.rows)

    def encode(self) -> str:
        """The rows as a JSON list, one to a line, every reading included."""
        rows = [msgspec.json.encode({"spec": self.spec, **asdict(row)}).decode() for row in self]
        return "[\n  " + ",\n  ".join(rows) + "\n]\n"

    def to_frame(self) -> pd.DataFrame:
        """A row for each kind of event, the bounds of each figure in columns of their own."""
        rows = []
        for row in self.rows:
            cells = {name: value for name, value in asdict(row).items() if name != "readings"}
            for name, figure in cells.copy().items():
                if isinstance(figure, Interval):
                    cells |= {name: figure.value, f"{name}_low": figure.low}
                    cells[f"{name}_high"] = figure.high
            rows.append({**cells, "verdict": str(row.verdict)})
        return data_frame(rows, list(rows[0]) if rows else [])

    def _repr_html_(self) -> str:
        return html_table(
            f"What is left of each event, {self.spec} (95 % intervals, after warm-up)",
            HEADER,
            [cells(row) for row in self.rows],
            [f"{row.event}: {row.reason}" for row in self.rows if row.verdict is not Leak.NONE],
        )


HEADER = ("event", "events", "gc objects", "blocks", "RSS bytes", "fds", "threads", "verdict")


def check_leaks(
    spec: ClusterSpec,
    sizes: CheckSizes = CheckSizes(),
    kinds: Sequence[str] = tuple(KINDS),
    *,
    make: Callable[[ClusterSpec], ClockedCoordinator] = ClockedCoordinator,
    progress: Callable[[str], None] | None = None,
) -> LeakTable:
    """Let each kind of event happen, and say what is left of it in this process; Ctrl-C ends it
    early, with the kinds it got through.

    `make` makes the coordinator under test. Raises ExperimentError for an unknown kind and when the
    coordinator did not see every event, WrongResult for a wrong result, AssertionError when a rest
    finds an invariant broken.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise ExperimentError(f"no event {unknown[0]!r}; there are {', '.join(KINDS)}")
    rows: list[LeakRow] = []
    with suppress(KeyboardInterrupt):
        for kind in kinds:
            rows.append(_check(spec, sizes, kind, make))
            if progress is not None:
                progress(f"leaks: {kind}: {rows[-1].verdict}, {rows[-1].reason}")
        return LeakTable(spec.name, tuple(rows))
    return LeakTable(spec.name, tuple(rows), interrupted=True)


def worst(verdicts: Iterable[Leak]) -> Leak:
    """One verdict for several."""
    found = set(verdicts)
    if Leak.FOUND in found:
        return Leak.FOUND
    return Leak.NONE if found == {Leak.NONE} else Leak.UNCLEAR


def cells(row: LeakRow) -> tuple[str, ...]:
    """A row under HEADER, as text."""
    figures = (row.gc_objects_per_event, row.blocks_per_event, row.rss_bytes_per_event)
    more = ("unknown" if n is None else f"{n:+}" for n in (row.fds_more, row.threads_more))
    return (row.event, f"{row.events:,}", *map(growth_text, figures), *more, str(row.verdict))


def growth_text(figure: Interval) -> str:
    """Growth per event with its interval."""
    if figure.value is None:
        return "unknown"
    if figure.low is None or figure.high is None:
        return f"{figure.value:+.2g}"
    if figure.low == figure.high:
        return f"{figure.value:+.2g} exactly"
    return f"{figure.value:+.2g} [{figure.low:+.2g} – {figure.high:+.2g}]"


def left_over(readings: Sequence[object], name: str) -> int | None:
    """How many more fds or threads there are at least in the later half than in the earlier."""
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
    log = Log()
    with only_what_is_new():
        world = World(spec, make)
        for _ in range(sizes.readings):
            world.open()
            KINDS[kind].run(world, each)
            world.rest()
            log.add(take_reading(world.coordinator))
    readings = log.readings()
    return judge(kind, [each * at for at in range(1, len(readings) + 1)], readings)


def judge(event: str, events: Sequence[int], readings: Sequence[Reading]) -> LeakRow:
    """What readings show that were taken at rest, each after so many events."""
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
    # Where Python's allocator is not used, what malloc has in use is judged, over time: soak.py.
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
    return [f"{figure.value:.3g} {what} are left of each event"]


def _is_below(figure: Interval, most: float) -> bool:
    return figure.high is not None and figure.high <= most
