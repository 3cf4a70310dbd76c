"""The scheduler's periods and bounds. Every queue, cache and history has a bound."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

Whole: TypeAlias = Annotated[int, Meta(ge=1)]
#: bytes a second that any line is taken to pass
SLOW_LINE = 1e6
Period: TypeAlias = Annotated[float, Meta(gt=0.0, le=86_400.0)]


def about(text: str) -> Meta:
    """What a knob means, kept with its type; `cluster.spec.describe` shows it."""
    return Meta(description=text)


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Times in seconds, sizes in tasks, bytes or entries.

    At ``tasks``, ``payload_bytes``, ``retained_bytes``, ``submissions_per_client`` and ``clients``
    a submission is refused, and the reason names the bound.

    ``retained_bytes`` bounds the results that clients have not read. A client with more unread
    bytes than are left of it is held back (queue.py): its tasks wait until it reads, so one
    client gets half of the bound and never all. Tasks that workers already hold still come in, as
    does a message for each task that ends without a worker. So the coordinator keeps at most
    ``retained_bytes``, one result for each task within the workers' credit, and those messages. If
    workers hold more than half of the bound at once, a client that does not read may stop the
    others; if it is gone, for ``client_liveness_s``.

    A peer whose message is over twice ``message_bytes``, or over ``message_frames``, is cut off.
    """

    heartbeat_s: Annotated[Period, about("between two signs of life")] = 0.2
    liveness_s: Annotated[
        Period, about("a worker that is silent for it is lost, unless its supervisor vouches")
    ] = 0.6
    client_liveness_s: Annotated[Period, about("a client that is silent for it is gone")] = 10.0
    recall_after_s: Annotated[
        Period, about("an idle worker gets the unstarted tail of a lease that is this old")
    ] = 0.005
    unserved_s: Annotated[Period, about("a task that no worker serves fails after it")] = 30.0
    overrun_s: Annotated[
        Period, about("a task may run on for it after its timeout_s; then its worker is killed")
    ] = 0.2
    drain_s: Annotated[
        Period, about("what workers hold may end for it when the coordinator is told to stop")
    ] = 10.0
    deaths: Annotated[
        Whole, about("a task that was on this many workers when they died is dead-lettered")
    ] = 3
    bypasses: Annotated[
        Whole, about("leases of higher priority that may pass a waiting run of a lower one")
    ] = 16
    tasks: Annotated[Whole, about("tasks that are queued or assigned")] = 1_000_000
    payload_bytes: Annotated[Whole, about("payloads of queued and assigned tasks")] = 1 << 30
    retained_bytes: Annotated[Whole, about("results that clients have not read")] = 1 << 28
    resent_bytes: Annotated[Whole, about("missed results that are sent again in a heartbeat_s")] = (
        1 << 24
    )
    submissions_per_client: Annotated[Whole, about("open submissions of a client")] = 200_000
    clients: Annotated[Whole, about("clients at once")] = 1_024
    workers: Annotated[Whole, about("workers at once; one more is refused")] = 4_096
    hosts: Annotated[Whole, about("supervisors at once; one more is ignored")] = 1_024
    history_runs: Annotated[Whole, about("ended runs that are remembered")] = 256
    story_entries: Annotated[Whole, about("entries of a task's story; the oldest go")] = 256
    message_bytes: Annotated[Whole, about("the largest frame; a message may have twice that")] = (
        1 << 26
    )
    message_frames: Annotated[Whole, about("frames of a message")] = 4_096
    stream_bytes: Annotated[
        Whole, about("a larger result stays with its worker until the client fetches it")
    ] = 1 << 23
    chunk_bytes: Annotated[Whole, about("the chunks in which such a result is fetched")] = 1 << 20
    result_bytes: Annotated[Whole, about("a larger result is a failure")] = 1 << 30
    stored_result_bytes: Annotated[
        Whole, about("a worker that stores this much begins no lease until some is fetched")
    ] = 1 << 30

    @property
    def most_inline_bytes(self) -> int:
        """The largest result that travels in a report."""
        return min(self.stream_bytes, self.message_bytes // 2)

    @property
    def most_chunk_bytes(self) -> int:
        """The size of a chunk, small enough for a message."""
        return min(self.chunk_bytes, self.message_bytes // 2)
