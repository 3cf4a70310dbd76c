"""Actions: everything the scheduler asks for, in the imperative.

These are the messages from the coordinator to its peers: a codec turns each into frames for the
worker or client that it names.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from cluster.vocabulary.events import Failures, Names, Numbers, OneChunk, Payloads
from cluster.vocabulary.status import Answer
from cluster.vocabulary.task import Count, Name, Seconds, Text


class ToClient(msgspec.Struct, array_like=True):
    """An action for a client."""

    client: Name


class ToWorker(msgspec.Struct, array_like=True):
    """An action for a worker."""

    worker: Name


class ToHost(msgspec.Struct, array_like=True):
    """An action for the supervisor of a host."""

    host: Name


class Accept(ToClient, array_like=True, tag=40):
    """Tell a client that a submission is accepted as ``run``: each task will have one outcome,
    unless the coordinator ends before.
    """

    submission: Count
    run: Count


class Refuse(ToClient, array_like=True, tag=41):
    """Tell a client that a whole submission was refused, and why; ``error`` names the client's
    exception: Busy, CoordinatorLost or Superseded.
    """

    submission: Count
    reason: Text
    error: Name = "Busy"


class Deliver(ToClient, array_like=True, tag=42):
    """Give a client the outcomes of positions ``start …``: one each, ``b""`` for a failure.

    ``stamps`` is empty, or for a traced submission five times in seconds: received, assigned
    (coordinator's clock), started, ended (worker's clock), result received (coordinator's clock).
    """

    submission: Count
    start: Count
    outcomes: Payloads
    failures: Failures = []
    stamps: list[float] = []


class Report(ToClient, array_like=True, tag=43):
    """Answer a client's request; without an answer, ``error`` says why it failed."""

    request: Count
    answer: Answer | None = None
    error: Text = ""


class Greet(ToClient, array_like=True, tag=44):
    """Answer a client's heartbeat: the period of heartbeats, and the ``received`` it took in."""

    heartbeat_s: Seconds
    received: Numbers = []


class Offer(ToClient, array_like=True, tag=45):
    """Tell a client that a worker stores a large result, to be fetched under ``lease``."""

    submission: Count
    position: Count
    lease: Count
    size_bytes: Annotated[int, Meta(ge=1)]


class DeliverChunk(ToClient, array_like=True, tag=46):
    """Give a client a requested chunk, from ``offset`` of the result."""

    submission: Count
    position: Count
    lease: Count
    offset: Count
    chunk: OneChunk


class Confirm(ToClient, array_like=True, tag=47):
    """Tell a client that the result it fetched under ``lease`` is the task's outcome; ``stamps`` as
    in Deliver.
    """

    submission: Count
    position: Count
    lease: Count
    stamps: list[float] = []


class Withdraw(ToClient, array_like=True, tag=48):
    """Tell a client that ``lease`` has no more chunks: its worker is lost, or the task is over."""

    submission: Count
    position: Count
    lease: Count


class Meet(ToClient, array_like=True, tag=49):
    """Tell a client that the coordinator did not know it: what was accepted before is lost."""


class Welcome(ToWorker, array_like=True, tag=50):
    """Admit a worker under an epoch, and tell it the period of its heartbeats."""

    incarnation: Count
    epoch: Count
    heartbeat_s: Seconds


class Assign(ToWorker, array_like=True, tag=51):
    """Lease positions ``start …`` of a run to a worker, payloads as a column. ``left_s`` is the
    time until the tasks' deadline, if they have one.
    """

    epoch: Count
    lease: Count
    kind: Name
    start: Count
    payloads: Payloads
    left_s: float | None = None


class Recall(ToWorker, array_like=True, tag=52):
    """Ask a worker for the unstarted tail of a lease, because another worker is idle."""

    epoch: Count
    lease: Count


class Cancel(ToWorker, array_like=True, tag=53):
    """Tell a worker to drop these positions of a lease; no positions means all of it."""

    epoch: Count
    lease: Count
    positions: Numbers = []


class Disconnect(ToWorker, array_like=True, tag=54):
    """Tell a worker that its epoch is over: it may drop its leases and join again."""

    epoch: Count
    reason: Text


class Read(ToWorker, array_like=True, tag=55):
    """Ask a worker for ``size_bytes`` from ``offset`` of a result that it stores."""

    epoch: Count
    lease: Count
    position: Count
    offset: Count
    size_bytes: Count


class Serve(ToWorker, array_like=True, tag=56):
    """Tell a worker which models to serve; ``number`` counts these orders up from 1."""

    epoch: Count
    models: Names
    number: Count


class Acknowledge(ToWorker, array_like=True, tag=57):
    """Tell a worker that its offers up to this revision are known."""

    epoch: Count
    revision: Count


class Drain(ToWorker, array_like=True, tag=58):
    """Tell a worker to finish what it runs, give back the rest, and end."""

    epoch: Count


class Restart(ToHost, array_like=True, tag=61):
    """Ask a supervisor to drain a worker's process, and to start another one when it has ended."""

    worker: Name
    pid: Count


class Kill(ToHost, array_like=True, tag=60):
    """Ask a supervisor to kill a worker's process, because a task of it doesn't end."""

    worker: Name
    pid: Count
    reason: Text


Action: TypeAlias = (
    Accept
    | Refuse
    | Deliver
    | Report
    | Greet
    | Offer
    | DeliverChunk
    | Confirm
    | Withdraw
    | Meet
    | Welcome
    | Assign
    | Recall
    | Cancel
    | Disconnect
    | Read
    | Serve
    | Acknowledge
    | Drain
    | Restart
    | Kill
)
