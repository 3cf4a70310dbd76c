"""Large results on their way to a client: asked for chunk by chunk, put together in one buffer.

A client asks for a few chunks ahead and for the next one when one has come, of a few results at a
time. So what is on the way to it is bounded by what it asked for, and it holds one copy of each
result it works on.
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
    """One large result: what was asked for, and what has come.

    ``result`` is there when all has. It is written into one buffer in place: BytesIO hands out as
    bytes what it holds, uncopied, if that is exactly as large as its buffer.
    """

    __slots__ = (
        "_asked",
        "_buffer",
        "_chunk_bytes",
        "_come",
        "_missing",
        "failure",
        "heard_at",
        "offer",
        "result",
    )

    def __init__(self, offer: do.Offer, chunk_bytes: int, now: float) -> None:
        self.offer = offer
        self.heard_at = now
        self.result: bytes | None = None
        self.failure: Failure | None = None
        self._chunk_bytes = chunk_bytes
        self._buffer: BytesIO | None = None
        self._missing = -(-offer.size_bytes // chunk_bytes)
        #: one byte per chunk, 1 once it is in; and how many have been asked for
        self._come = bytearray(self._missing)
        self._asked = 0

    @property
    def waits(self) -> bool:
        """Whether there is something to ask for, or to wait for."""
        return self.result is None and self.failure is None

    def ask(self, client: str) -> Iterator[on.ChunkRequested]:
        """Requests for as many chunks as there is room for; raises MemoryError."""
        if self._buffer is None:
            self._buffer = BytesIO()
            self._buffer.seek(self.offer.size_bytes - 1)
            self._buffer.write(b"\0")
        outstanding = self._asked - (len(self._come) - self._missing)
        until = min(len(self._come), self._asked + WINDOW_CHUNKS - outstanding)
        for chunk in range(self._asked, until):
            yield self._request(client, chunk)
        self._asked = until

    def repeat(self, client: str) -> Iterator[on.ChunkRequested | on.StreamReceived]:
        """What may have got lost: the requests not answered, or the news that all is here."""
        if self.result is not None:
            yield self.received(client)
        for chunk in range(self._asked):
            if not self._come[chunk]:
                yield self._request(client, chunk)

    def received(self, client: str) -> on.StreamReceived:
        """The news that all is here."""
        offer = self.offer
        return on.StreamReceived(client, offer.submission, offer.position, offer.lease)

    def take(self, action: do.DeliverChunk, now: float) -> bool:
        """Put a chunk in its place; False if it is none that was asked for and is still missing."""
        chunk, astray = divmod(action.offset, self._chunk_bytes)
        if action.lease != self.offer.lease or astray or chunk >= self._asked:
            return False
        size_bytes = min(self._chunk_bytes, self.offer.size_bytes - action.offset)
        if self._buffer is None or self._come[chunk] or len(action.chunk[0]) != size_bytes:
            return False
        self._buffer.seek(action.offset)
        self._buffer.write(action.chunk[0])
        self._come[chunk] = 1
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
    """The large results a client has been offered, in that order; at most ``MAX_STREAMS`` of them
    are fetched at once. ``outbox`` is what to tell the coordinator.
    """

    def __init__(self, client: str, chunk_bytes: int) -> None:
        self.outbox: list[on.Event] = []
        #: chunks of a lease that is over, or that came again
        self.late_chunks = 0
        self._client = client
        self._chunk_bytes = chunk_bytes
        #: by submission and position, as offered
        self.open: dict[tuple[int, int], Reassembly] = {}

    def offered(self, action: do.Offer, now: float) -> None:
        """Fetch a result, or start over under another lease; a repeat changes nothing."""
        key = (action.submission, action.position)
        known = self.open.get(key)
        if known is None or known.offer.lease < action.lease:
            self.open[key] = Reassembly(action, self._chunk_bytes, now)
            self._fetch()

    def arrived(self, action: do.DeliverChunk, now: float) -> None:
        """Take in a chunk, and ask for what there is room for now."""
        reassembly = self.open.get((action.submission, action.position))
        if reassembly is None or not reassembly.take(action, now):
            self.late_chunks += 1
            return
        if reassembly.result is not None:
            self.outbox.append(reassembly.received(self._client))
        self._fetch()

    def confirmed(self, action: do.Confirm) -> bytes | None:
        """The result that is its task's outcome, handed over; None when it is not here."""
        reassembly = self.open.get((action.submission, action.position))
        if (
            reassembly is None
            or reassembly.offer.lease != action.lease
            or reassembly.result is None
        ):
            return None
        return reassembly.result

    def withdrawn(self, action: do.Withdraw) -> None:
        """Give up what is not to be had; its task will be offered again, or come to another end."""
        key = (action.submission, action.position)
        reassembly = self.open.get(key)
        if reassembly is not None and reassembly.offer.lease == action.lease:
            del self.open[key]
            self._fetch()

    def settled(self, submission: int, start: int, stop: int) -> None:
        """These tasks have their outcome: nothing more is fetched for them."""
        for key in [k for k in self.open if k[0] == submission and start <= k[1] < stop]:
            del self.open[key]
        self._fetch()

    def failure(self, submission: int, failure: Failure) -> Failure:
        """Why a task failed: for want of memory here, if that is why it was given up."""
        reassembly = self.open.get((submission, failure.position))
        return failure if reassembly is None or reassembly.failure is None else reassembly.failure

    def repeat(self, now: float) -> None:
        """Say again what has had no answer for long."""
        for reassembly in self.open.values():
            if now - reassembly.heard_at >= REPEAT_AFTER_S:
                reassembly.heard_at = now
                self.outbox += reassembly.repeat(self._client)

    def _fetch(self) -> None:
        for reassembly in [*islice((a for a in self.open.values() if a.waits), MAX_STREAMS)]:
            try:
                self.outbox += reassembly.ask(self._client)
            except MemoryError:
                self._give_up(reassembly)

    def _give_up(self, reassembly: Reassembly) -> None:
        """Cancel a task whose result there is no memory for."""
        offer = reassembly.offer
        words = f"no memory for a result of {offer.size_bytes} bytes"
        reassembly.failure = Failure(offer.position, "MemoryError", words)
        cancel = on.TasksCancelled(self._client, offer.submission, [offer.position])
        self.outbox.append(cancel)
