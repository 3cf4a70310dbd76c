"""Stamps from several clocks, and how far these are apart.

Each party of the cluster stamps a traced task with its own monotonic clock, which counts from an
arbitrary moment (usually the host's start). Two hosts' clocks can therefore only be compared after
their offset has been estimated, and the only evidence for it are the messages that went both ways.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

STAMPS = 7
NS = 1_000_000_000
#: Thirty thousand years. What lies beyond, or is no number, is no monotonic clock's.
_LATEST_S = 1e12


class Trace(NamedTuple):
    """The seven stamps of one task, in seconds of each party's own monotonic clock.

    The client's: `client_send`, `client_receive`. The coordinator's: `coordinator_receive`,
    `assigned` (handed to the worker's socket), `result_receive`. The worker's: `worker_start` and
    `worker_end` of the handler. A stamp that was never made is None. `worker` tells the clocks of
    several workers apart.
    """

    client_send: float | None
    coordinator_receive: float | None
    assigned: float | None
    worker_start: float | None
    worker_end: float | None
    result_receive: float | None
    client_receive: float | None
    worker: str | None = None


#: A Trace, or its stamps as they came over the wire.
Stamps: TypeAlias = Trace | Sequence[float | None]


class ClockOffset(NamedTuple):
    """What to add to a party's stamps to read the coordinator's clock, and its possible error."""

    offset_s: float
    uncertainty_s: float


@dataclass(frozen=True)
class Offsets:
    """How far the clocks of client and workers are from the coordinator's, in seconds.

    Add `client_s` to a client's stamp, and a worker's to a worker's, to read the coordinator's
    clock; the truth lies within ± the uncertainty. `worker_s` is for traces that do not name their
    worker, None when all do; those of named workers are in `by_worker`. `traces` is how many the
    estimate rests on.
    """

    client_s: float
    worker_s: float | None
    client_uncertainty_s: float
    worker_uncertainty_s: float | None
    by_worker: Mapping[str, ClockOffset] = field(default_factory=dict)
    traces: int = 0

    def of_worker(self, worker: str | None) -> ClockOffset | None:
        """The offset for a trace with this worker's name, or None; None when it is not known."""
        if worker is not None and worker in self.by_worker:
            return self.by_worker[worker]
        if self.worker_s is None or self.worker_uncertainty_s is None:
            return None
        return ClockOffset(self.worker_s, self.worker_uncertainty_s)

    def describe(self) -> str:
        """Say the offsets in one line, with their uncertainty."""
        parts = [_offset_text("client", ClockOffset(self.client_s, self.client_uncertainty_s))]
        unnamed = self.of_worker(None)
        if unnamed is not None:
            parts.append(_offset_text("workers", unnamed))
        parts += [_offset_text(f"worker {name}", o) for name, o in sorted(self.by_worker.items())]
        return f"To the coordinator's clock, estimated from {self.traces} traces: " + ", ".join(
            parts
        )


def estimate_offsets(traces: Iterable[Stamps]) -> Offsets:
    """The offsets of client and worker clocks to the coordinator's, from the traces themselves.

    A stamp difference across a hop is the hop's time plus (towards the coordinator) or minus (away
    from it) the offset. With d1 the least difference towards it and d2 the least away from it, the
    offset lies in [−d2, d1], because no hop takes less than nothing: (d1 − d2) / 2 is its middle
    and (d1 + d2) / 2 how far off it may be. This is NTP's on-wire estimate (RFC 5905, section 8)
    with the least delay of many exchanges, as in its clock filter (section 10), taken for each
    direction on its own. Waiting at a worker lengthens every hop to it but the least.

    Traces with missing or impossible stamps are ignored. Raises ValueError when no other is left,
    and when the differences contradict each other: then a clock drifted by more than a hop takes
    while the traces were made.
    """
    towards: defaultdict[tuple[str, str | None], list[float]] = defaultdict(list)
    away: defaultdict[tuple[str, str | None], list[float]] = defaultdict(list)
    usable = 0
    for stamps in traces:
        ns, _ = checked(stamps)
        if ns is None:
            continue
        usable += 1
        worker = ("worker", worker_of(stamps))
        towards["client", None].append(ns[1] - ns[0])
        away["client", None].append(ns[6] - ns[5])
        towards[worker].append(ns[5] - ns[4])
        away[worker].append(ns[3] - ns[2])
    if not usable:
        raise ValueError("No trace has all its stamps in order, so no clock offset can be found.")
    offsets: dict[tuple[str, str | None], ClockOffset] = {}
    for party, differences in towards.items():
        least_towards, least_away = min(differences), min(away[party])
        uncertainty_s = (least_towards + least_away) / 2 / NS
        if uncertainty_s < 0:
            raise ValueError(
                f"The clock of {party[1] or 'the ' + party[0]} moved by at least "
                f"{-2e3 * uncertainty_s:.3f} ms against the coordinator's while these traces were "
                "made: estimate from traces of less time."
            )
        offsets[party] = ClockOffset((least_towards - least_away) / 2 / NS, uncertainty_s)
    client, unnamed = offsets["client", None], offsets.get(("worker", None))
    return Offsets(
        client_s=client.offset_s,
        worker_s=None if unnamed is None else unnamed.offset_s,
        client_uncertainty_s=client.uncertainty_s,
        worker_uncertainty_s=None if unnamed is None else unnamed.uncertainty_s,
        by_worker={
            name: offset
            for (role, name), offset in offsets.items()
            if role == "worker" and name is not None
        },
        traces=usable,
    )


def checked(stamps: Stamps) -> tuple[list[int] | None, str]:
    """The stamps in whole nanoseconds, so that sums are exact; or None and what is wrong.

    Only stamps of the same clock are compared here: no offset can mend those.
    """
    seven = stamps[:STAMPS]
    if len(seven) < STAMPS:
        return None, "incomplete: a stamp is missing"
    ns: list[int] = []
    for stamp in seven:
        if stamp is None:
            return None, "incomplete: a stamp is missing"
        if not isinstance(stamp, (int, float)) or not abs(stamp) <= _LATEST_S:
            return None, "a stamp is not a possible time"
        ns.append(round(stamp * NS))
    for name, first, second in (
        ("client", 0, 6),
        ("coordinator", 1, 2),
        ("coordinator", 2, 5),
        ("worker", 3, 4),
    ):
        if ns[second] < ns[first]:
            return None, f"the {name}'s own clock runs backwards"
    return ns, ""


def worker_of(stamps: Stamps) -> str | None:
    """The name of the worker, when the stamps come with one."""
    named = stamps[STAMPS] if len(stamps) > STAMPS else None
    return named if isinstance(named, str) else None


def _offset_text(party: str, offset: ClockOffset) -> str:
    return f"{party} {offset.offset_s * 1e3:+.3f} ± {offset.uncertainty_s * 1e3:.3f} ms"
