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
