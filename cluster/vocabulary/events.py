"""Events: everything the scheduler is told, in the past tense.

All but WorkerUnreachable are also the messages to the coordinator: a codec turns frames into these
and nothing else. Times are seconds on the sender's monotonic clock.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from cluster.vocabulary.task import (
    MAX_GPUS,
    NO_LOAD,
    NO_REQUIREMENTS,
    NO_RETRY,
    Count,
    Failure,
    Gpu,
    KindBatches,
    Load,
    Name,
    Priority,
    ProcessState,
    Requirements,
    Retry,
    Seconds,
    State,
    Text,
)

MAX_TASKS_PER_MESSAGE = 65_536
MAX_PROCESSES_PER_HOST = 4_096
MAX_TASKS_LISTED = 1_000

Payloads: TypeAlias = Annotated[list[bytes], Meta(max_length=MAX_TASKS_PER_MESSAGE)]
OneChunk: TypeAlias = Annotated[list[bytes], Meta(min_length=1, max_length=1)]
Failures: TypeAlias = Annotated[list[Failure], Meta(max_length=MAX_TASKS_PER_MESSAGE)]
Numbers: TypeAlias = Annotated[list[Count], Meta(max_length=MAX_TASKS_PER_MESSAGE)]
Names: TypeAlias = Annotated[list[Name], Meta(max_length=1024)]
#: the kinds whose tasks a worker runs together, and how many at most
Batches: TypeAlias = Annotated[
    dict[Name, Annotated[int, Meta(ge=2, le=65_536)]], Meta(max_length=1024)
]
#: how many tasks of a kind a worker wants for a batch
Wants: TypeAlias = Annotated[
    dict[Name, Annotated[int, Meta(ge=1, le=65_536)]], Meta(max_length=1024)
]
#: a worker's name, its process id, and what its supervisor sees of it
Processes: TypeAlias = Annotated[
    list[tuple[Name, Count, ProcessState]], Meta(max_length=MAX_PROCESSES_PER_HOST)
]


class TasksSubmitted(msgspec.Struct, array_like=True, tag=1):
    """A client submitted a run: tasks of one kind with equal attributes, payloads as a column.

    ``submission`` counts up per client, so that a repeated message is harmless. ``sent_at`` asks
    for a trace. ``wait_for_worker``: wait for ever if no worker offers what the tasks need, instead
    of failing after ``Limits.unserved_s``.
    """

    client: Name
    submission: Count
    kind: Name
    payloads: Payloads
    priority: Priority = Priority.NORMAL
    requirements: Requirements = NO_REQUIREMENTS
    timeout_s: Seconds | None = None
    retry: Retry = NO_RETRY
    sent_at: float | None = None
    wait_for_worker: bool = False


class TasksCancelled(msgspec.Struct, array_like=True, tag=2):
    """A client cancelled some tasks of a submission; no positions means all of them."""

    client: Name
    submission: Count
    positions: Numbers = []


class ClientHeartbeat(msgspec.Struct, array_like=True, tag=3):
    """A client is alive and has all of the submissions below ``floor`` and in ``received``.

    ``waiting`` holds pairs (submission, results received so far) without news for long; ``partly``
    holds the received positions (submission, start, stop) of unfinished submissions.
    """

    client: Name
    floor: Count
    received: Numbers = []
    waiting: Annotated[list[tuple[Count, Count]], Meta(max_length=MAX_TASKS_PER_MESSAGE)] = []
    partly: Annotated[list[tuple[Count, Count, Count]], Meta(max_length=MAX_TASKS_PER_MESSAGE)] = []


class ClientLeft(msgspec.Struct, array_like=True, tag=4):
    """A client closed; its tasks are no longer needed."""

    client: Name


class StatusRequested(msgspec.Struct, array_like=True, tag=5):
    """A client asked for the cluster's status."""

    client: Name
    request: Count


class PolicyChanged(msgspec.Struct, array_like=True, tag=6):
    """An operator chose another assignment policy, by its registered name."""

    client: Name
    request: Count
    policy: Name


class ModelsRequested(msgspec.Struct, array_like=True, tag=30):
    """An operator wants every worker to load and to unload some models."""

    client: Name
    request: Count
    load: Names = []
    unload: Names = []


class LeaveRequested(msgspec.Struct, array_like=True, tag=31):
    """An operator wants a worker's process to finish what it runs and to leave; if ``again``, its
    supervisor is to start another one. Nothing happens if the worker has another process by now.
    """

    client: Name
    request: Count
    worker: Name
    pid: Count
    again: bool = False


class TasksRequested(msgspec.Struct, array_like=True, tag=32):
    """An operator asked for the newest tasks, those of one ``state`` if it is given."""

    client: Name
    request: Count
    state: State | None = None
    limit: Annotated[int, Meta(ge=1, le=MAX_TASKS_LISTED)] = 100


class StoryRequested(msgspec.Struct, array_like=True, tag=33):
    """An operator asked what has happened to a task."""

    client: Name
    request: Count
    run: Count
    position: Count


class CancelRequested(msgspec.Struct, array_like=True, tag=34):
    """An operator cancels a task of any client."""

    client: Name
    request: Count
    run: Count
    position: Count


class ChunkRequested(msgspec.Struct, array_like=True, tag=7):
    """A client has room for ``size_bytes`` from ``offset`` of a result stored under a lease."""

    client: Name
    submission: Count
    position: Count
    lease: Count
    offset: Count
    size_bytes: Annotated[int, Meta(ge=1)]


class StreamReceived(msgspec.Struct, array_like=True, tag=8):
    """A client has every byte of a result that was stored under a lease."""

    client: Name
    submission: Count
    position: Count
    lease: Count


class WorkerJoined(msgspec.Struct, array_like=True, tag=10):
    """A worker process started; ``incarnation`` grows with each process of the same name.

    It runs ``capacity`` leases at once and never holds more tasks than ``credit``. ``batches`` maps
    the kinds whose tasks it runs together to how many at most, whatever leases they are from, so
    that it wants as many in hand. ``epoch`` is the last
    one that any coordinator gave it, 0 if none did: a coordinator that was started again counts its
    epochs and leases from 1, and must not give this one again. ``wanted`` are the models that it
    was started with or ordered to serve, those too that it could not load.
    """

    worker: Name
    incarnation: Count
    capacity: Annotated[int, Meta(ge=1, le=1024)]
    credit: Annotated[int, Meta(ge=1, le=1_000_000)]
    kinds: Names
    models: Names = []
    gpus: Annotated[list[Gpu], Meta(max_length=MAX_GPUS)] = []
    host: Name = "?"
    pid: Count = 0
    epoch: Count = 0
    batches: Batches = {}
    wanted: Names = []


class WorkerHeartbeat(msgspec.Struct, array_like=True, tag=11):
    """A worker is alive and holds these leases; ``batches`` count since its welcome.

    ``wants`` are the tasks that it wants for a batch of each kind, as far as it has learned how
    many items they have and how many pay, and ``credit`` what it has room for with those, at most
    what it joined with; 0 says nothing.
    """

    worker: Name
    epoch: Count
    held: Numbers
    load: Load = NO_LOAD
    batches: Annotated[list[KindBatches], Meta(max_length=1_024)] = []
    wants: Wants = {}
    credit: Count = 0


class TasksFinished(msgspec.Struct, array_like=True, tag=12):
    """A worker finished positions ``start …`` of a lease: an outcome each, ``b""`` if failed."""

    worker: Name
    epoch: Count
    lease: Count
    start: Count
    outcomes: Payloads
    failures: Failures = []
    started_at: float = 0.0
    ended_at: float = 0.0


class TasksReleased(msgspec.Struct, array_like=True, tag=13):
    """A worker gave back the unstarted tail of a lease, from position ``start``."""

    worker: Name
    epoch: Count
    lease: Count
    start: Count


class WorkerDraining(msgspec.Struct, array_like=True, tag=14):
    """A worker takes no more work and will leave when it has finished its leases."""

    worker: Name
    epoch: Count


class WorkerLeft(msgspec.Struct, array_like=True, tag=15):
    """A worker leaves for a ``reason`` and will send no results for its leases."""

    worker: Name
    epoch: Count
    reason: Text = ""


class ResultStored(msgspec.Struct, array_like=True, tag=16):
    """A worker stores a result that is too large for a report, to be fetched. It repeats this with
    each heartbeat; later positions of the lease wait behind it.
    """

    worker: Name
    epoch: Count
    lease: Count
    position: Count
    size_bytes: Annotated[int, Meta(ge=1)]
    started_at: float = 0.0
    ended_at: float = 0.0


class ChunkRead(msgspec.Struct, array_like=True, tag=17):
    """A worker read a chunk of a stored result, from ``offset``."""

    worker: Name
    epoch: Count
    lease: Count
    position: Count
    offset: Count
    chunk: OneChunk


class WorkerOffers(msgspec.Struct, array_like=True, tag=18):
    """A worker offers other kinds and models than before; it repeats this until it is acknowledged.

    ``revision`` counts a process's offers up from 1, so that an older message changes nothing.
    ``trouble`` names a model that could not be loaded, and why. ``heard`` is the number of the last
    order to serve models that it has received.
    """

    worker: Name
    epoch: Count
    kinds: Names
    models: Names
    trouble: Text = ""
    revision: Count = 0
    heard: Count = 0
    batches: Batches = {}


class HostReported(msgspec.Struct, array_like=True, tag=20):
    """A supervisor saw its workers' processes. It says so each ``heartbeat_s`` and at once after a
    change; it names a process that has ended for 10 s.

    ``host`` is the name that the supervisor is reached by; ``restarts`` counts the workers that it
    started again, and ``trouble`` says what it gave up.
    """

    host: Name
    workers: Processes
    restarts: Count = 0
    trouble: Text = ""


class HostLeft(msgspec.Struct, array_like=True, tag=21):
    """A supervisor ends, after its workers."""

    host: Name


class WorkerUnreachable(msgspec.Struct):
    """The transport has no route to a worker, and these leases were not sent.

    Never on the wire, or a peer could claim it.
    """

    worker: Name
    leases: Numbers


FromPeer: TypeAlias = (
    TasksSubmitted
    | TasksCancelled
    | ClientHeartbeat
    | ClientLeft
    | StatusRequested
    | PolicyChanged
    | ModelsRequested
    | LeaveRequested
    | TasksRequested
    | StoryRequested
    | CancelRequested
    | ChunkRequested
    | StreamReceived
    | WorkerJoined
    | WorkerHeartbeat
    | TasksFinished
    | TasksReleased
    | WorkerDraining
    | WorkerLeft
    | ResultStored
    | ChunkRead
    | WorkerOffers
    | HostReported
    | HostLeft
)
Event: TypeAlias = FromPeer | WorkerUnreachable
