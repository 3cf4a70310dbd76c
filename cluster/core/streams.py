"""Large results, which pass the coordinator in chunks: it keeps none of their bytes.

A worker stores such a result and announces it; its client is offered it, requests chunk after
chunk within a window, and confirms the last one. Until then the task is under its lease like any
other: if the worker is lost it is queued again, and its client starts over under another lease. It
takes no credit, though, so a slow client does not block its worker for others. Requests bound the
bytes under way: a client that does not read does not request.
"""

from __future__ import annotations

from cluster.core.clients import Clients
from cluster.core.ledger import Ledger
from cluster.core.roster import Roster
from cluster.core.run import Run, Streamed
from cluster.core.worker import Lease, Stream
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on


class Streams:
    """What the scheduler does about large results. Late and repeated events change nothing."""

    def __init__(self, ledger: Ledger, roster: Roster, clients: Clients) -> None:
        self._ledger = ledger
        self._roster = roster
        self._clients = clients

    def stored(self, event: on.ResultStored, now: float) -> None:
        """Offer a result to its client, unless it has been fetched or revoked."""
        lease = self._roster.live(event, now)
        if lease is None:
            self._ledger.counters["late_results"] += 1
        else:
            self.take(lease, event, now)

    def take(self, lease: Lease, event: on.ResultStored, now: float) -> None:
        """Offer a result of a live lease."""
        position = event.position
        if not lease.pieces(max(position, lease.next), min(position + 1, lease.stop)):
            self._discard(lease, position)
            return
        if position > lease.next:
            self._roster.keep(lease, position, event, now)
            return
        stream = lease.stream_at(position)
        if stream is None:
            stream = self._begin(lease, event, now)
        if not stream.begun:
            place = position, lease.id, stream.size_bytes
            self._ledger.out.append(do.Offer(lease.run.client, lease.run.submission, *place))

    def requested(self, event: on.ChunkRequested, now: float) -> None:
        """Pass a request for a chunk on to the worker that stores the result."""
        lease = self._fetched(event)
        stream = lease.stream_at(event.position) if lease is not None else None
        if lease is None or stream is None:
            self._late(event)
            return
        worker, stream.begun = lease.worker, True
        end, most = event.offset + event.size_bytes, self._ledger.limits.most_chunk_bytes
        if end > stream.size_bytes or event.size_bytes > most:
            self._ledger.counters["malformed"] += 1
            return
        place = event.position, event.offset, event.size_bytes
        self._ledger.out.append(do.Read(worker.id, worker.epoch, lease.id, *place))

    def read(self, event: on.ChunkRead, now: float) -> None:
        """Pass a chunk on to the client that requested it."""
        lease = self._roster.live(event, now)
        if lease is None or lease.stream_at(event.position) is None:
            self._ledger.counters["late_chunks"] += 1
            return
        run = lease.run
        self._ledger.counters["streamed_bytes"] += len(event.chunk[0])
        place = event.position, lease.id, event.offset
        self._ledger.out.append(do.DeliverChunk(run.client, run.submission, *place, event.chunk))

    def received(self, event: on.StreamReceived, now: float) -> None:
        """Finish a task whose client has the whole result."""
        lease = self._fetched(event)
        if lease is None or lease.stream_at(event.position) is None:
            self._late(event)
            return
        self._ledger.finish_streamed(lease, now)
        lease.worker.finished += 1
        lease.revoked = (lease.revoked or set()) | {event.position}
        self._discard(lease, event.position)

    def _begin(self, lease: Lease, event: on.ResultStored, now: float) -> Stream:
        self._roster.measured(lease, event, 1, now)
        self._ledger.counters["streams"] += 1
        first, lease.stream = lease.stream is None, Stream(event.position, event.size_bytes)
        if first:
            lease.worker.streaming += 1
            self._roster.hold(lease.worker, lease.run.needs, lease.next - lease.stop)
        return lease.stream

    def _discard(self, lease: Lease, position: int) -> None:
        """Tell a worker to discard a result; it announces the result again if this gets lost."""
        worker = lease.worker
        self._ledger.out.append(do.Cancel(worker.id, worker.epoch, lease.id, [position]))

    def _late(self, event: on.ChunkRequested | on.StreamReceived) -> None:
        """Confirm or withdraw a result that is over, so that its client goes on to the next."""
        run, place = self._run(event), (event.position, event.lease)
        if run is not None and run.outcome(event.position) == Streamed(event.lease):
            self._ledger.confirm(run, *place)
            return
        self._ledger.counters["late_requests"] += 1
        self._ledger.out.append(do.Withdraw(event.client, event.submission, *place))

    def _run(self, event: on.ChunkRequested | on.StreamReceived) -> Run | None:
        client = self._clients.by_name.get(event.client)
        return client.submissions.get(event.submission) if client is not None else None

    def _fetched(self, event: on.ChunkRequested | on.StreamReceived) -> Lease | None:
        """The live lease that a client fetches a result under."""
        run = self._run(event)
        live = run is not None and run.leases is not None and event.lease in run.leases
        return self._ledger.leases[event.lease] if live else None
