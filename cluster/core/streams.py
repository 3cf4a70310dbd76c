"""Large results, which go past the coordinator in chunks: it keeps none of them, nor any bytes.

A worker keeps such a result and says so; its client is offered it and asks for chunk after chunk,
never for more at once than it has room for, and says when it has them all. Until then the task is
under its lease like any other: if the worker is lost it is queued again, and its client starts over
under another lease. It takes up no credit, though, so that a slow client does not keep its worker
from others. Asking is what bounds the bytes on the way: whoever does not read does not ask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.core.run import Lease, Run, Stream, Streamed
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from cluster.vocabulary.lifecycle import Cause

if TYPE_CHECKING:
    from cluster.core.scheduler import Scheduler


class Streams:
    """What the scheduler does about large results. What comes late or twice is counted and changes
    nothing.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._ledger = scheduler.ledger
        self._limits = scheduler.limits

    def kept(self, event: on.ResultStored, now: float) -> None:
        """Offer a result to its client, unless it is there already or nobody wants it."""
        lease, position = self._scheduler._live(event, now), event.position
        if lease is None:
            self._ledger.counters["late_results"] += 1
            return
        if not lease.pieces(max(position, lease.next), min(position + 1, lease.stop)):
            self._let_go(lease, position)
            return
        if position > lease.next:
            span = (lease.next, position)
            self._ledger.requeue(lease, span, Cause.RETURNED, "results lost on the way", now)
            gap, lease.next = position - lease.next, position
            self._scheduler._hold(lease.worker, lease.run.needs, 0 if lease.stream else -gap)
        stream = lease.stream_at(position)
        if stream is None:
            stream = self._begin(lease, event, now)
        if not stream.begun:
            place = position, lease.id, stream.size_bytes
            self._ledger.out.append(do.Offer(lease.run.client, lease.run.submission, *place))

    def requested(self, event: on.ChunkRequested, now: float) -> None:
        """Pass a request for a chunk on to the worker that keeps the result."""
        lease = self._fetched(event)
        stream = lease.stream_at(event.position) if lease is not None else None
        if lease is None or stream is None:
            self._late(event)
            return
        worker, stream.begun = lease.worker, True
        end = event.offset + event.size_bytes
        if end > stream.size_bytes or event.size_bytes > self._limits.most_chunk_bytes:
            self._ledger.counters["malformed"] += 1
            return
        place = event.position, event.offset, event.size_bytes
        self._ledger.out.append(do.Read(worker.id, worker.epoch, lease.id, *place))

    def read(self, event: on.ChunkRead, now: float) -> None:
        """Pass a chunk on to the client that asked for it."""
        lease = self._scheduler._live(event, now)
        if lease is None or lease.stream_at(event.position) is None:
            self._ledger.counters["late_chunks"] += 1
            return
        run = lease.run
        self._ledger.counters["streamed_bytes"] += len(event.chunk[0])
        place = event.position, lease.id, event.offset
        self._ledger.out.append(do.DeliverChunk(run.client, run.submission, *place, event.chunk))

    def received(self, event: on.StreamReceived, now: float) -> None:
        """A client has a result whole: that is its task's end."""
        lease = self._fetched(event)
        if lease is None or lease.stream_at(event.position) is None:
            self._late(event)
            return
        self._ledger.finish_streamed(lease, now)
        lease.worker.finished += 1
        lease.revoked = (lease.revoked or set()) | {event.position}
        self._let_go(lease, event.position)

    def let_go(self, lease: Lease, event: on.TasksFinished) -> int:
        """How many outcomes stand for results that were streamed before."""
        positions = range(event.start, event.start + len(event.outcomes))
        return sum(isinstance(lease.run.outcome(p), Streamed) for p in positions)

    def _begin(self, lease: Lease, event: on.ResultStored, now: float) -> Stream:
        worker, run = lease.worker, lease.run
        if run.stamps is not None and len(run.stamps) == 2:
            run.stamps += (event.started_at, event.ended_at, now)
        busy_s = event.ended_at - event.started_at
        if 0.0 < busy_s < 1e9:
            self._scheduler.policy.observe(worker, run.needs, 1, busy_s)
        self._ledger.counters["streams"] += 1
        first, lease.stream = lease.stream is None, Stream(event.position, event.size_bytes)
        if first:
            worker.keeping += 1
            self._scheduler._hold(worker, run.needs, lease.next - lease.stop)
        return lease.stream

    def _let_go(self, lease: Lease, position: int) -> None:
        """Tell a worker to drop a result: it is in its hands until it answers, and says again that
        it keeps it if this gets lost.
        """
        worker = lease.worker
        self._ledger.out.append(do.Cancel(worker.id, worker.epoch, lease.id, [position]))

    def _late(self, event: on.ChunkRequested | on.StreamReceived) -> None:
        """Say that a stream is over: its client may wait for it while others wait their turn."""
        run, place = self._run(event), (event.position, event.lease)
        if run is not None and run.outcome(event.position) == Streamed(event.lease):
            self._ledger.confirm(run, *place)
            return
        self._ledger.counters["late_requests"] += 1
        self._ledger.out.append(do.Withdraw(event.client, event.submission, *place))

    def _run(self, event: on.ChunkRequested | on.StreamReceived) -> Run | None:
        client = self._scheduler.clients.by_name.get(event.client)
        return client.submissions.get(event.submission) if client is not None else None

    def _fetched(self, event: on.ChunkRequested | on.StreamReceived) -> Lease | None:
        """The lease that a client fetches a result under, if it is still live."""
        run = self._run(event)
        return (run.leases or {}).get(event.lease) if run is not None else None
