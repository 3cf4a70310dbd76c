"""The scheduler's periods and bounds. Every queue, cache and history has a bound."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

Whole: TypeAlias = Annotated[int, Meta(ge=1)]
Period: TypeAlias = Annotated[float, Meta(gt=0.0, le=86_400.0)]


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Times in seconds, sizes in tasks, bytes or entries.

    At ``tasks``, ``payload_bytes``, ``retained_bytes``, ``submissions_per_client`` and ``clients``
    a submission is refused, and the reason names the bound; at ``workers`` a worker is refused; at
    ``hosts`` a supervisor is ignored. ``history_runs`` and ``story_entries`` drop the oldest.

    A worker that is silent for ``liveness_s`` is lost unless its supervisor vouches for it, and its
    tasks are queued again; a task that was on ``deaths`` workers when their processes died is
    dead-lettered. A task that no worker serves, by what it needs, fails after ``unserved_s``.

    ``retained_bytes`` bounds the results that clients have not read. A client with more unread
    bytes than are left of it is held back (backpressure.py): its tasks wait until it reads, so one
    client gets half of the bound and never all. Tasks that workers already hold still come in, as
    does a message for each task that ends without a worker. So the coordinator keeps at most
    ``retained_bytes``, one result for each task within the workers' credit, and those messages. If
    workers hold more than half of the bound at once, a client that does not read may stop the
    others; if it is gone, for ``client_liveness_s``. Results that a client missed are sent again,
    at most ``resent_bytes`` of them per ``heartbeat_s``.

    A coordinator that is told to stop lets what workers hold end for ``drain_s``.

    A frame has at most ``message_bytes``; a message twice that, in at most ``message_frames``. A
    peer that sends more is cut off.

    A worker stores a result over ``stream_bytes`` until the client has fetched it in chunks of
    ``chunk_bytes``; a result over ``result_bytes`` is a failure. A worker that stores
    ``stored_result_bytes`` or more begins no further lease until some are fetched.
    """

    heartbeat_s: Period = 0.2
    liveness_s: Period = 0.6
    client_liveness_s: Period = 10.0
    recall_after_s: Period = 0.005
    unserved_s: Period = 30.0
    drain_s: Period = 10.0
    deaths: Whole = 3
    bypasses: Whole = 16
    tasks: Whole = 1_000_000
    payload_bytes: Whole = 1 << 30
    retained_bytes: Whole = 1 << 28
    resent_bytes: Whole = 1 << 24
    submissions_per_client: Whole = 200_000
    clients: Whole = 1_024
    workers: Whole = 4_096
    hosts: Whole = 1_024
    history_runs: Whole = 256
    story_entries: Whole = 256
    message_bytes: Whole = 1 << 26
    message_frames: Whole = 4_096
    stream_bytes: Whole = 1 << 23
    chunk_bytes: Whole = 1 << 20
    result_bytes: Whole = 1 << 30
    stored_result_bytes: Whole = 1 << 30

    @property
    def most_inline_bytes(self) -> int:
        """The largest result that travels in a report."""
        return min(self.stream_bytes, self.message_bytes // 2)

    @property
    def most_chunk_bytes(self) -> int:
        """The size of a chunk, small enough for a message."""
        return min(self.chunk_bytes, self.message_bytes // 2)
