"""What a live view shows, for a notebook and a terminal alike: figures, and rows of workers.

Up to `ROWS_OF_WORKERS` workers have a row each, below their host and with their cards; of more,
each host has one row with the median of its workers and, in brackets, the smallest and the largest.
A value that is not known is a gap, never 0.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from cluster.vocabulary.printable import count_of
from cluster.vocabulary.status import Status, WorkerStatus
from cluster.vocabulary.task import Gpu, GpuLoad, State
from perfkit.evidence.text import UNKNOWN, duration, interval, measured, quantity
from perfkit.profile.activity.looks import Activity, Moment, waiting
from perfkit.profile.activity.sparklines import Series

ROWS_OF_WORKERS = 20
#: Of more cards than that, each worker has one row for all of its own.
ROWS_OF_CARDS = 40
HOSTS_SHOWN = 20
REMARKS_SHOWN = 8
NAMES_SHOWN = 3
GAP = "–"
CARD_COLUMNS = ("busy", "VRAM", "temperature", "power")
COLUMNS = (*CARD_COLUMNS, "in flight", "p50", "p99", "heartbeat", "runs on", "serves")
#: Units of figures that need no decimals.
WHOLE = ("%", "°C", "W")
#: An answer may be late by this much before a view says that there is none.
LATE_S = 2.0


@dataclass(frozen=True, slots=True)
class Gauge:
    """A value as text; `share` is how much of its limit that is, from 0 to 1, None if unknown."""

    text: str
    share: float | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """A row of the board: a host (`depth` 0), a worker (1) or a card (2), and its columns.

    A column that has no meaning for the row is missing. `is_bad` marks one that gets no work.
    """

    name: str
    depth: int
    gauges: Mapping[str, Gauge]
    is_bad: bool = False


@dataclass(frozen=True, slots=True)
class Curve:
    """A figure over the last minutes, and its newest value in words."""

    name: str
    text: str
    series: Series


@dataclass(frozen=True, slots=True)
class Board:
    """One frame of a live view: plain data, and every text from elsewhere still as it came.

    `state` says whether the figures are fresh, `is_fresh` the same for a colour. `heading` is that
    of the lines' names.
    """

    title: str
    state: str
    is_fresh: bool
    now_s: float
    span_s: float
    curves: tuple[Curve, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    heading: str = ""
    columns: tuple[str, ...] = ()
    lines: tuple[Line, ...] = ()
    remarks: tuple[str, ...] = ()


def board_of(activity: Activity, endpoint: str, now_s: float, ended: str = "") -> Board:
    """The board of what `activity` has seen by `now_s`; `ended` says when and how the view did."""
    status, silent_s = activity.status, now_s - activity.answered_s
    first_s = activity.moments[0].at_s if activity.moments else now_s
    is_late = activity.error is not None and silent_s > LATE_S
    state = ended or (f"no answer for {duration(silent_s)}" if is_late else "live")
    span_s = min(activity.span_s, max(60.0, now_s - first_s))
    if status is None:
        return Board(endpoint, state, False, now_s, span_s)
    queued, rate = activity.series("queued"), activity.series("done_per_s")
    known = (moment for moment in reversed([*activity.moments]) if moment.queued is not None)
    last = next(known, Moment(now_s))
    as_bands = len(status.workers) > ROWS_OF_WORKERS
    lines = tuple(_lines(status, as_bands))
    used = {name for line in lines for name in line.gauges}
    return Board(
        title=f"{endpoint}, policy {status.policy}",
        state=f"{state}, {time.strftime('%H:%M:%S')}" if state == "live" else state,
        is_fresh=state == "live",
        now_s=now_s,
        span_s=span_s,
        curves=(
            Curve("queued", _number(last.queued), queued),
            Curve("done per second", _rounded(last.done_per_s), rate),
        ),
        facts=tuple(_facts(status)),
        heading="host: median (ends)" if as_bands else "worker",
        columns=tuple(name for name in COLUMNS if name in used),
        lines=lines,
        remarks=_first(list(_remarks(status)), REMARKS_SHOWN, "remarks"),
    )


def _facts(status: Status) -> Iterator[tuple[str, str]]:
    """The stalest worker, and the tasks by state; a state in which no task was is left out."""
    if status.workers:
        stalest = max(status.workers, key=lambda worker: worker.silent_s)
        yield "stalest worker", f"{stalest.worker}, heard {duration(stalest.silent_s)} ago"
    else:
        yield "workers", "none"
    by_priority = [f"{count:,} {name}" for name, count in status.queued.items() if count]
    more = f" ({', '.join(by_priority)})" if by_priority else ""
    yield State.QUEUED, f"{waiting(status):,}{more}"
    yield State.ASSIGNED, f"{status.assigned:,}"
    if status.delayed:
        yield "waiting for a retry", f"{status.delayed:,}"
    yield State.DONE, f"{status.counters[State.DONE]:,}"
    for name in (State.FAILED, State.CANCELLED, State.DEAD_LETTERED, "worker_deaths"):
        if count := status.counters[name]:
            yield name.replace("_", " "), f"{count:,}"


def _lines(status: Status, as_bands: bool) -> Iterator[Line]:
    by_host: dict[str, list[WorkerStatus]] = {}
    for worker in sorted(status.workers, key=lambda worker: worker.worker):
        by_host.setdefault(worker.host, []).append(worker)
    with_cards = sum(len(_cards(worker)) for worker in status.workers) <= ROWS_OF_CARDS
    # The hosts that were not heard of for the longest time are those to look at.
    order = sorted(by_host, key=lambda host: (-_silent(by_host[host]), host))
    shown = sorted(order[:HOSTS_SHOWN])
    for host in shown:
        workers = by_host[host]
        yield _host_line(host, workers, as_bands)
        for worker in () if as_bands else workers:
            yield from _worker_lines(worker, with_cards)
    if hidden := len(order) - len(shown):
        yield Line(f"… and {count_of(hidden, 'more host')}, all heard of since", 0, {})


def _host_line(name: str, workers: Sequence[WorkerStatus], as_band: bool) -> Line:
    count = count_of(len(workers), "worker")
    held, credit = (sum(getattr(it, name) for it in workers) for name in ("held", "credit"))
    gauges = {"in flight": _flight(held, credit)}
    if as_band:
        cards = [card for worker in workers for card in _cards(worker)]
        gauges = {**_card_gauges(cards), **gauges, **_times(workers)}
    return Line(f"{name}, {count}", 0, gauges)


def _worker_lines(worker: WorkerStatus, with_cards: bool) -> Iterator[Line]:
    cards = _cards(worker)
    own = _card_gauges(cards) if len(cards) == 1 or not with_cards else {}
    family = {gpu.family for gpu, _ in cards if gpu.family} if own else set()
    kinds = [kind for kind in worker.kinds if kind not in worker.models]
    offers = _first([*worker.models, *kinds], NAMES_SHOWN)
    gauges = {
        **own,
        "in flight": _flight(worker.held, worker.credit),
        **_times([worker]),
        **({"runs on": Gauge(", ".join(places))} if (places := worker.load.runs_on) else {}),
        "serves": Gauge(", ".join(offers) or GAP),
    }
    words = [worker.worker, *sorted(family), *(["draining"] if worker.draining else [])]
    yield Line(" · ".join(words), 1, gauges, worker.load.gpu_trouble is not None)
    if not own:
        for number, card in enumerate(cards):
            gpu, load = card
            name = f"card {number}" + (f" · {gpu.family}" if gpu.family else "")
            yield Line(name, 2, _card_gauges([card]), load.trouble is not None)


def _cards(worker: WorkerStatus) -> list[tuple[Gpu, GpuLoad]]:
    pairs = zip_longest(worker.gpus, worker.load.gpus)
    return [(gpu or Gpu(), load or GpuLoad()) for gpu, load in pairs]


def _card_gauges(cards: Sequence[tuple[Gpu, GpuLoad]]) -> dict[str, Gauge]:
    """The figures of one card, or of several together; none for no card."""
    if not cards:
        return {}
    busy = [load.busy_pct for _, load in cards]
    used = [_used(gpu, load) for gpu, load in cards]
    asleep = all(load.asleep for _, load in cards)
    share = _median(busy)
    total = _median([gpu.memory_bytes for gpu, _ in cards])
    filled = _median(used)
    memory = _band(used, "GiB", 2**-30)
    if len(cards) == 1 and total is not None:
        memory += " of " + _band([total], "GiB", 2**-30)
    return {
        "busy": Gauge("asleep") if asleep else
                Gauge(_band(busy, "%"), None if share is None else share / 100),
        "VRAM": Gauge(memory, filled / total if total and filled is not None else None),
        "temperature": Gauge(_band([load.temperature_c for _, load in cards], "°C")),
        "power": Gauge(_band([load.power_w for _, load in cards], "W")),
    }  # fmt: skip


def _used(gpu: Gpu, load: GpuLoad) -> float | None:
    if gpu.memory_bytes is None or load.free_bytes is None:
        return None
    return max(0, gpu.memory_bytes - load.free_bytes)


def _times(workers: Sequence[WorkerStatus]) -> dict[str, Gauge]:
    return {
        "p50": Gauge(_band([worker.service_s_p50 for worker in workers], "s")),
        "p99": Gauge(_band([worker.service_s_p99 for worker in workers], "s")),
        "heartbeat": Gauge(duration(_silent(workers))),
    }


def _flight(held: int, credit: int) -> Gauge:
    return Gauge(f"{held:,} of {credit:,}", min(1.0, held / credit) if credit else None)


def _silent(workers: Iterable[WorkerStatus]) -> float:
    return max((worker.silent_s for worker in workers), default=0.0)


def _remarks(status: Status) -> Iterator[str]:
    """Why workers or cards get no work, and what supervisors gave up or did again."""
    for worker in status.workers:
        if worker.load.gpu_trouble is not None:
            yield f"{worker.worker} gets no work: {worker.load.gpu_trouble}"
        else:
            for load in worker.load.gpus:
                if load.trouble is not None:
                    yield f"{worker.worker} gets no work for one card: {load.trouble}"
        if worker.trouble:
            yield f"{worker.worker}: {worker.trouble}"
    for host in status.hosts:
        if host.restarts or host.trouble:
            times = "once" if host.restarts == 1 else f"{host.restarts:,} times"
            yield f"{host.host} started workers again {times}. {host.trouble}".rstrip()


def _first(words: Sequence[str], count: int, name: str = "") -> tuple[str, ...]:
    more = len(words) - count
    return (*words[:count], *([f"… and {more:,} more {name}".rstrip()] if more > 0 else []))


def _median(values: Iterable[float | None]) -> float | None:
    known = sorted(value for value in values if value is not None)
    return known[len(known) // 2] if known else None


def _band(values: Sequence[float | None], unit: str, factor: float = 1.0) -> str:
    """The median, and in brackets the ends where they differ; a gap if no value is known."""
    # Times are known within 6 %, the others change from look to look.
    digits = 0 if unit in WHOLE else 2
    known = [_short(value * factor, digits) for value in values if value is not None]
    middle = _median(known)
    if middle is None:
        return GAP
    low, high = min(known), max(known)
    if low == high:
        return quantity(middle, unit)
    # `measured` calls an interval from 0 a bound, which a smallest value of 0 is not.
    return (
        f"{quantity(middle, unit)} ({interval(low, high, unit)})"
        if low == 0
        else measured(middle, unit, low, high)
    )


def _short(value: float, digits: int) -> float:
    """The value with this many significant digits; to a whole number without."""
    return float(f"{value:.{digits}g}") if digits else float(round(value))


def _number(value: int | None) -> str:
    return UNKNOWN if value is None else f"{value:,}"


def _rounded(value: float | None) -> str:
    return UNKNOWN if value is None else quantity(_short(value, 3))
