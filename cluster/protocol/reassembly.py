"""Large results on their way to a client: requested in chunks, reassembled in one buffer.

A client requests a few chunks ahead, of a few results at a time, and the next one when one arrives.
That bounds the bytes on their way, and it holds one copy of each result.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from itertools import islice

from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from cluster.vocabulary.task import Failure

WINDOW_CHUNKS = 4
MAX_STREAMS = 2
REPEAT_AFTER_S = 1.0


class Reassembly:
    """One large result; ``result`` is None until every chunk is in.

    Chunks are written into one BytesIO: its value is not copied if it fills its buffer exactly.
    """

    def __init__(self, offer: do.Offer, chunk_bytes: int, now: float) -> None:
        self.offer = offer
        self.heard_at = now
        self.result: bytes | None = None
        self.failure: Failure | None = None
        self._chunk_bytes = chunk_bytes
        self._buffer: BytesIO | None = None
        self._missing = -(-offer.size_bytes // chunk_bytes)
        #: one byte per chunk, 1 once it is in
        self._arrived = bytearray(self._missing)
        self._requested = 0

    @property
    def is_incomplete(self) -> bool:
        """Whether chunks are missing and still wanted."""
        return self.result is None and self.failure is None

    def request(self, client: str) -> Iterator[on.ChunkRequested]:
        """Requests for the next chunks, within WINDOW_CHUNKS; raises MemoryError."""
        if self._buffer is None:
            self._buffer = BytesIO()
            self._buffer.seek(self.offer.size_bytes - 1)
            self._buffer.write(b"\0")
        outstanding = self._requested - (len(self._arrived) - self._missing)
        until = min(len(self._arrived), self._requested + WINDOW_CHUNKS - outstanding)
        for chunk in range(self._requested, until):
            yield self._request(client, chunk)
        self._requested = until

    def repeat(self, client: str) -> Iterator[on.ChunkRequested | on.StreamReceived]:
        """Events that may have got lost: unanswered requests, or the receipt."""
        if self.result is not None:
            yield self.received(client)
        for chunk in range(self._requested):
            if not self._arrived[chunk]:
                yield self._request(client, chunk)

    def received(self, client: str) -> on.StreamReceived:
        """The receipt: every chunk is in."""
        offer = self.offer
        return on.StreamReceived(client, offer.submission, offer.position, offer.lease)

    def take(self, action: do.DeliverChunk, now: float) -> bool:
        """Write a chunk to its place; False unless it was requested and is missing."""
        chunk, astray = divmod(action.offset, self._chunk_bytes)
        if action.lease != self.offer.lease or astray or chunk >= self._requested:
            return False
        size_bytes = min(self._chunk_bytes, self.offer.size_bytes - action.offset)
        if self._buffer is None or self._arrived[chunk] or len(action.chunk[0]) != size_bytes:
            return False
        self._buffer.seek(action.offset)
        self._buffer.write(action.chunk[0])
        self._arrived[chunk] = 1
        self._missing -= 1
        self.heard_at = now
        if not self._missing:
            self.result = self._buffer.getvalue()
            self._buffer = None
        return True

    def _request(self, client: str, chunk: int) -> on.ChunkRequested:
        offer, offset = self.offer, chunk * self._chunk_bytes
        size_bytes = min(self._chunk_bytes, offer.size_bytes - offset)
        place = offer.submission, offer.position, offer.lease
        return on.ChunkRequested(client, *place, offset, size_bytes)


class Reassemblies:
    """The large results offered to a client, in order; at most ``MAX_STREAMS`` are fetched at once.
    ``outbox`` holds events for the coordinator.
    """

    def __init__(self, client: str, chunk_bytes: int) -> None:
        self.outbox: list[on.Event] = []
        #: chunks that were repeated or belong to a finished lease
        self.late_chunks = 0
        self._client = client
        self._chunk_bytes = chunk_bytes
        #: by submission and position, as offered
        self.open: dict[tuple[int, int], Reassembly] = {}

    def offered(self, action: do.Offer, now: float) -> None:
        """Fetch a result, or start over under a newer lease; a repeat changes nothing."""
        key = (action.submission, action.position)
        known = self.open.get(key)
        if known is None or known.offer.lease < action.lease:
            self.open[key] = Reassembly(action, self._chunk_bytes, now)
            self._fetch()

    def arrived(self, action: do.DeliverChunk, now: float) -> None:
        """Take in a chunk, and request the next ones."""
        reassembly = self.open.get((action.submission, action.position))
        if reassembly is None or not reassembly.take(action, now):
            self.late_chunks += 1
            return
        if reassembly.result is not None:
            self.outbox.append(reassembly.received(self._client))
        self._fetch()

    def confirmed(self, action: do.Confirm) -> bytes | None:
        """The result that is now its task's outcome; None if it is not complete."""
        reassembly = self.open.get((action.submission, action.position))
        if reassembly is None or reassembly.offer.lease != action.lease:
            return None
        return reassembly.result

    def withdrawn(self, action: do.Withdraw) -> None:
        """Drop a result that is lost; its task will be offered again or fail."""
        key = (action.submission, action.position)
        reassembly = self.open.get(key)
        if reassembly is not None and reassembly.offer.lease == action.lease:
            del self.open[key]
            self._fetch()

    def settled(self, submission: int, start: int, stop: int) -> None:
        """Drop the results of tasks that have their outcome."""
        for key in [k for k in self.open if k[0] == submission and start <= k[1] < stop]:
            del self.open[key]
        self._fetch()

    def failure(self, submission: int, failure: Failure) -> Failure:
        """Why a task failed: the lack of memory here if it was cancelled for that."""
        reassembly = self.open.get((submission, failure.position))
        return failure if reassembly is None or reassembly.failure is None else reassembly.failure

    def repeat(self, now: float) -> None:
        """Repeat events without an answer for REPEAT_AFTER_S."""
        for reassembly in self.open.values():
            if now - reassembly.heard_at >= REPEAT_AFTER_S:
                reassembly.heard_at = now
                self.outbox += reassembly.repeat(self._client)

    def _fetch(self) -> None:
        wanted = (one for one in self.open.values() if one.is_incomplete)
        for reassembly in [*islice(wanted, MAX_STREAMS)]:
            try:
                self.outbox += reassembly.request(self._client)
            except MemoryError:
                self._cancel(reassembly)

    def _cancel(self, reassembly: Reassembly) -> None:
        """Cancel a task whose result does not fit into memory."""
        offer = reassembly.offer
        words = f"no memory for a result of {offer.size_bytes} bytes"
        reassembly.failure = Failure(offer.position, "MemoryError", words)
        cancel = on.TasksCancelled(self._client, offer.submission, [offer.position])
        self.outbox.append(cancel)
