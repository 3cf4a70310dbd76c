"""The clocks and the bounds of the scheduler: every queue, cache and history has one, and says what
happens there.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

Whole: TypeAlias = Annotated[int, Meta(ge=1)]
Period: TypeAlias = Annotated[float, Meta(gt=0.0, le=86_400.0)]


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Times in seconds, sizes in tasks, bytes or entries.

    At ``tasks``, ``payload_bytes``, ``retained_bytes``, ``submissions_per_client`` and ``clients``
    a submission is refused with the bound as its reason; at ``workers`` a worker is.
    ``history_runs`` and ``story_entries`` forget the oldest.

    A client that has not read as many bytes of results as are left of ``retained_bytes`` is held
    back: its tasks wait until it has read (unread.py), so one gets half of it and never all. What
    workers held by then still comes in, and a message for each task that ends without a worker. So
    kept are at most ``retained_bytes``, a result for each task that the workers' credit lets them
    hold, and those messages. If workers hold more than half of it at once, a client that does not
    read may stop the others, for ``client_liveness_s`` if it is gone.

    A result over ``stream_bytes`` stays with its worker until its client has fetched it, in chunks
    of ``chunk_bytes``; over ``result_bytes`` it is a failure. A worker that keeps
    ``stored_result_bytes`` or more begins no further lease until some are fetched.
    """

    heartbeat_s: Period = 0.2
    liveness_s: Period = 0.6
    client_liveness_s: Period = 10.0
    recall_after_s: Period = 0.005
    deaths: Whole = 3
    bypasses: Whole = 16
    tasks: Whole = 1_000_000
    payload_bytes: Whole = 1 << 30
    retained_bytes: Whole = 1 << 28
    submissions_per_client: Whole = 200_000
    clients: Whole = 1_024
    workers: Whole = 4_096
    history_runs: Whole = 256
    story_entries: Whole = 256
    message_bytes: Whole = 1 << 26
    stream_bytes: Whole = 1 << 23
    chunk_bytes: Whole = 1 << 20
    result_bytes: Whole = 1 << 30
    stored_result_bytes: Whole = 1 << 30

    @property
    def most_inline_bytes(self) -> int:
        """Up to how many bytes a result travels in a report."""
        return min(self.stream_bytes, self.message_bytes // 2)

    @property
    def most_chunk_bytes(self) -> int:
        """The size of a chunk, so that it fits into a message."""
        return min(self.chunk_bytes, self.message_bytes // 2)
