"""The vocabulary of work: what a task is, what it may ask for, and how it can end.

Tasks that arrive together and share every attribute are one *run*. A task has no object of its own:
it is a position in a run, so its identity is the pair (run, position).
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
    """A task: the run it came in and its place there, counted from 0."""

    run: RunId
    position: int


class Priority(IntEnum):
    """How urgent a task is; a smaller number is served first."""

    URGENT = 0
    HIGH = 1
    NORMAL = 2
    LOW = 3


class State(StrEnum):
    """Where a task is in its life. The last four are terminal."""

    QUEUED = "queued"
    ASSIGNED = "assigned"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DEAD_LETTERED = "dead-lettered"


class Backoff(StrEnum):
    """How the wait before the next attempt grows with the number of attempts made."""

    FIXED = "fixed"
    LINEAR = "linear"
    EXPONENTIAL = "exponential"


class Requirements(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a worker must offer before it may be given the task; None asks for nothing."""

    model: Name | None = None
    min_vram_bytes: Count = 0
    gpu_family: Name | None = None


class Retry(msgspec.Struct, frozen=True, omit_defaults=True):
    """How often a task whose handler raised is tried again, and after what wait.

    The wait before attempt n + 1 is ``base_s`` (fixed), ``base_s * n`` (linear) or ``base_s * 2 **
    (n - 1)`` (exponential), at most ``max_s``, then multiplied by a random factor in ``[1 - jitter,
    1]`` so that tasks that failed together do not come back together.
    """

    max_attempts: Annotated[int, Meta(ge=1, le=1000)] = 1
    backoff: Backoff = Backoff.EXPONENTIAL
    base_s: Seconds = 0.05
    max_s: Seconds = 30.0
    jitter: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.5

    def wait_s(self, attempts: int, chance: float) -> float:
        """Seconds to wait after so many failed attempts; ``chance`` is uniform in [0, 1)."""
        if self.backoff is Backoff.FIXED:
            wait = self.base_s
        elif self.backoff is Backoff.LINEAR:
            wait = self.base_s * attempts
        else:
            wait = self.base_s * 2.0 ** min(attempts - 1, 60)
        return min(wait, self.max_s) * (1.0 - self.jitter * chance)


class Failure(msgspec.Struct, frozen=True, array_like=True):
    """Why one task of a run has no result: its position, the state it ended in, and the error in
    words.
    """

    position: Count
    error: Text
    message: Text
    state: State = State.FAILED


class Gpu(msgspec.Struct, frozen=True, omit_defaults=True):
    """One graphics card a worker may use: its family (``polaris``, ``vega`` …) and its memory."""

    family: Name
    vram_total_bytes: Count


class Load(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a worker last said of its host; None is unknown.

    ``gpu_trouble`` says why none of its cards is fit for work: it is given none until that is gone.
    """

    rss_bytes: Count | None = None
    memory_free_bytes: Count | None = None
    vram_free_bytes: Count | None = None
    gpu_busy_pct: float | None = None
    temperature_c: float | None = None
    gpu_trouble: Text | None = None


NO_REQUIREMENTS = Requirements()
NO_RETRY = Retry()
NO_LOAD = Load()
