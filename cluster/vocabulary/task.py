"""Tasks: what they are, what they may ask for, and how they end.

Tasks that arrive together and share every attribute are one *run*. A task has no object of its own;
its identity is the pair (run, position).
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Annotated, NamedTuple, TypeAlias

import msgspec
from msgspec import Meta

RunId: TypeAlias = int
Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=128)]
Text: TypeAlias = Annotated[str, Meta(max_length=16_384)]
Count: TypeAlias = Annotated[int, Meta(ge=0)]
Seconds: TypeAlias = Annotated[float, Meta(ge=0.0, le=1e9)]


class TaskId(NamedTuple):
    """A task: its run and its position there, from 0."""

    run: RunId
    position: int


class Priority(IntEnum):
    """How urgent a task is; a smaller number is served first."""

    URGENT = 0
    HIGH = 1
    NORMAL = 2
    LOW = 3


class State(StrEnum):
    """The state of a task. The last four are terminal."""

    QUEUED = "queued"
    ASSIGNED = "assigned"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DEAD_LETTERED = "dead-lettered"


class ProcessState(StrEnum):
    """What a supervisor sees of a worker's process.

    ``stopped`` is suspended (SIGSTOP). ``killed`` has ended on the supervisor's order, or of itself
    in good order (exit code 0). ``gone`` has ended otherwise, which is a death.
    """

    RUNNING = "running"
    STOPPED = "stopped"
    KILLED = "killed"
    GONE = "gone"


class Backoff(StrEnum):
    """How the wait before the next attempt grows with the attempts made."""

    FIXED = "fixed"
    LINEAR = "linear"
    EXPONENTIAL = "exponential"


class Requirements(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a worker must offer to be given the task; None and 0 ask for nothing.

    ``min_vram_bytes`` and ``gpu_family`` are of one card that is fit for work. An APU's memory is
    all that it can use: see ``Gpu``.
    """

    model: Name | None = None
    min_vram_bytes: Count = 0
    gpu_family: Name | None = None


class Retry(msgspec.Struct, frozen=True, omit_defaults=True):
    """How often a task is tried if its handler raises, and the wait between attempts.

    The wait before attempt n + 1 is ``base_s`` (fixed), ``base_s * n`` (linear) or ``base_s * 2 **
    (n - 1)`` (exponential), at most ``max_s``, then multiplied by a random factor in ``[1 - jitter,
    1]``, so that tasks that failed together are not retried together.
    """

    max_attempts: Annotated[int, Meta(ge=1, le=1000)] = 1
    backoff: Backoff = Backoff.EXPONENTIAL
    base_s: Seconds = 0.05
    max_s: Seconds = 30.0
    jitter: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.5

    def wait_s(self, attempts: int, chance: float) -> float:
        """Seconds to wait after ``attempts`` failures; ``chance`` is uniform in [0, 1)."""
        if self.backoff is Backoff.FIXED:
            wait = self.base_s
        elif self.backoff is Backoff.LINEAR:
            wait = self.base_s * attempts
        else:
            wait = self.base_s * 2.0 ** min(attempts - 1, 60)
        return min(wait, self.max_s) * (1.0 - self.jitter * chance)


class Failure(msgspec.Struct, frozen=True, array_like=True):
    """Why one task of a run has no result: its position, the error and its final state."""

    position: Count
    error: Text
    message: Text
    state: State = State.FAILED


class Gpu(msgspec.Struct, frozen=True, omit_defaults=True):
    """A graphics card of a worker, as announced; None is unknown.

    The family is ``polaris``, ``vega`` …. The memory is what a program can use: video memory, and
    on an APU the host's memory that the driver lends it (GTT).
    """

    family: Name | None = None
    memory_bytes: Count | None = None
    is_apu: bool = False


class GpuLoad(msgspec.Struct, frozen=True, omit_defaults=True):
    """The state of one card at its worker's last heartbeat; None is unknown.

    ``trouble`` says why it can't work: it counts as not offered until that is None. ``own_…`` is
    the use by the worker's process: memory of the card, and the time of its engines, which counts
    up.
    """

    free_bytes: Count | None = None
    busy_pct: Annotated[float, Meta(ge=0.0, le=100.0)] | None = None
    temperature_c: Annotated[float, Meta(ge=-273.15, le=1_000.0)] | None = None
    power_w: Annotated[float, Meta(ge=0.0, le=10_000.0)] | None = None
    asleep: bool = False
    trouble: Annotated[str, Meta(max_length=512)] | None = None
    own_memory_bytes: Count | None = None
    own_engine_ns: Count | None = None


#: the cards of one worker: an MI300X can be eight in each of eight partitions
MAX_GPUS = 64


class Load(msgspec.Struct, frozen=True, omit_defaults=True):
    """The state of a worker's host at its last heartbeat; None is unknown.

    ``gpus`` has each card's state, in the order in which the worker announced its cards.
    ``gpu_trouble`` says why none of them can work; the worker gets no tasks until it is None.
    ``runs_on`` names what its models compute on, as ``CPU`` or ``WebGPU · AMD Radeon RX 580``.
    """

    rss_bytes: Count | None = None
    memory_free_bytes: Count | None = None
    gpus: Annotated[tuple[GpuLoad, ...], Meta(max_length=MAX_GPUS)] = ()
    gpu_trouble: Text | None = None
    runs_on: Annotated[tuple[Name, ...], Meta(max_length=16)] = ()


#: the places of `KindBatches.sizes`: powers of two up to 2 ** 20, the last one open above
BATCH_SIZES = 21
#: A sum over many workers must still be sent, in 64 bits.
Tally: TypeAlias = Annotated[int, Meta(ge=0, le=1 << 48)]


class BatchSize(NamedTuple):
    """The batches of one size, counted up: runs of a model, items in them, time computed."""

    runs: Tally = 0
    items: Tally = 0
    busy_s: Seconds = 0.0


class KindBatches(msgspec.Struct, frozen=True):
    """How the tasks of one kind ran together, a model's, counted up.

    Place n of ``sizes`` has the runs of more than ``2 ** (n - 1)`` and up to ``2 ** n`` items.
    """

    kind: Name
    sizes: Annotated[list[BatchSize], Meta(max_length=BATCH_SIZES)]


NO_REQUIREMENTS = Requirements()
NO_RETRY = Retry()
NO_LOAD = Load()
