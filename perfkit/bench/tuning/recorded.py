"""A mix of tasks that was written down, and is sent again as it came.

A recording has one task a line, as JSON, in the order in which they were sent::

    {"at_s": 0.0, "kind": "sleep", "payload": "0.002"}
    {"at_s": 0.0013, "kind": "echo", "payload_bytes": 4096}

`at_s` counts from the start, `kind` is echo unless given, and a task has a `payload` as text or
`payload_bytes` of noise. Latency counts from the time at which a task was to be sent, whatever
became of those before it.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from cluster.shells.client import Client
from perfkit.bench.workloads.load import ExperimentError, Work, result_of, send

#: A longer recording could not be repeated often enough for a search.
LONGEST_S = 10.0
TASKS_MAX = 100_000


class NoRecording(ExperimentError):
    """A file that holds no recording; the message names the line."""


class RecordedTask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of a recording."""

    at_s: Annotated[float, Meta(ge=0.0, le=LONGEST_S)] = 0.0
    kind: Annotated[str, Meta(min_length=1)] = "echo"
    payload: str | None = None
    payload_bytes: Annotated[int, Meta(ge=0, le=1 << 26)] = 200

    def encoded(self, rng: random.Random) -> bytes:
        """Its payload; noise follows from the seed."""
        if self.payload is not None:
            return self.payload.encode()
        return rng.randbytes(self.payload_bytes)


@dataclass
class Recording:
    """Tasks to send again; the results of the first time are what all later ones must be."""

    tasks: Sequence[RecordedTask]
    payloads: Sequence[bytes] = field(repr=False)
    _expected: dict[int, bytes] = field(default_factory=dict, repr=False)

    @property
    def work(self) -> Work:
        """The tasks by their numbers, as the drivers of loads take them."""
        numbers = [b"%d" % number for number in range(len(self.tasks))]
        kinds = sorted({task.kind for task in self.tasks})
        facts = {"kinds": " ".join(kinds), "length_s": self.tasks[-1].at_s}
        return Work("recorded", numbers, numbers, facts=facts)

    def latencies_ms(self, client: Client, work: Work) -> list[float]:
        """Milliseconds from when each task was to be sent to its result."""
        at_s = [task.at_s for task in self.tasks[: len(work)]]
        sending = send(_Player(self, client), work, at_s)
        results = [result_of(future) for future in sending.futures]
        expected = [self._expected.setdefault(*pair) for pair in enumerate(results)]
        Work("recorded", work.payloads, expected).check(results)
        return [latency_s * 1e3 for latency_s in sending.latencies_s(at_s)]


@dataclass
class _Player:
    """Submits the recorded task that a payload is the number of."""

    recording: Recording
    client: Client

    def submit(self, kind: str, payload: bytes = b"") -> Future[bytes]:
        """Hand in the task of that number."""
        number = int(payload)
        task = self.recording.tasks[number]
        return self.client.submit(task.kind, self.recording.payloads[number])

    def map(self, kind: str, payloads: Iterable[bytes]) -> Iterator[bytes]:
        """The results of some tasks, in order."""
        for future in [self.submit(kind, payload) for payload in payloads]:
            yield result_of(future)


def read_recording(path: Path, seed: int = 0, tasks: int | None = None) -> Recording:
    """The recording in a file, or its first tasks.

    Raises NoRecording, which names the file and the line, if the file can't be read, is empty or
    too long, if a line is not a task, or if the tasks are not in the order of time.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise NoRecording(f"cannot read the recording {path}: {reason}") from None
    found: list[RecordedTask] = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or len(found) == tasks:
            continue
        try:
            task = msgspec.json.decode(line, type=RecordedTask)
        except msgspec.DecodeError as error:
            raise NoRecording(f"{path}, line {number}: not a task: {error}") from None
        if found and task.at_s < found[-1].at_s:
            raise NoRecording(f"{path}, line {number}: sent before the line above it")
        found.append(task)
    if not 1 <= len(found) <= TASKS_MAX:
        raise NoRecording(f"{path}: a recording has 1 to {TASKS_MAX:,} tasks, not {len(found):,}")
    rng = random.Random(seed)
    return Recording(found, [task.encoded(rng) for task in found])
