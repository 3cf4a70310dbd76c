"""What this process's own clients saw of their tasks while a report was open.

It hears of each message, not of each task, so it costs little. What it keeps is bounded: counts,
a random sample of the messages with outcomes, and some traces.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from cluster.protocol.client_session import Settled, Submission
from perfkit.profile.latency import Stamps

#: A trace adds five times to a message. One more is due every so often; a burst may run ahead by
#: BURST_S, since a map hands in all its tasks at once.
TRACE_EVERY_S, BURST_S, TRACES_MAX = 0.02, 4.0, 2_000
#: Messages with outcomes in the sample.
SAMPLE_MAX = 10_000
#: Pairs of kind and error; the tasks of further ones are counted together.
ERRORS_MAX = 50
MORE = ("others", "others")


@dataclass(frozen=True, slots=True)
class Slice:
    """Tasks whose outcomes came in one message: how many, and how long they were under way."""

    tasks: int
    latency_s: float


@dataclass
class OwnTasks:
    """Hears of the tasks that this process hands to the cluster at `endpoint`.

    `sent`, `done` and `failed` count tasks that were handed in since this was made; `earlier` those
    handed in before, of which nothing else is known. `errors` counts by kind and error, with one
    `message` each. `heard` counts the messages of which `slices` are a random sample. `traces` hold
    the stamps of `traced` tasks each.
    """

    endpoint: str
    sent: Counter[str] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)
    errors: Counter[tuple[str, str]] = field(default_factory=Counter)
    messages: dict[tuple[str, str], str] = field(default_factory=dict)
    earlier: int = 0
    slices: list[Slice] = field(default_factory=list)
    heard: int = 0
    traces: list[Stamps] = field(default_factory=list)
    traced: list[int] = field(default_factory=list)
    first_s: float | None = None
    last_s: float | None = None

    def __post_init__(self) -> None:
        self._open: dict[Submission, tuple[str, float]] = {}
        self._untraced: set[Submission] = set()
        self._lock = threading.Lock()
        self._trace_at_s = 0.0
        self._chance = random.Random(0)

    @property
    def failed(self) -> int:
        """Tasks that ended with an error."""
        return self.errors.total()

    @property
    def unended(self) -> int:
        """Tasks handed in that have no outcome."""
        return self.sent.total() - self.done.total() - self.failed

    def opened(self, endpoint: str, submission: Submission, now: float) -> bool:
        """Note a submission; True if it is one of the few that are traced."""
        if endpoint != self.endpoint:
            return False
        kind = submission.work.kind
        with self._lock:
            self._open[submission] = kind, now
            self.sent[kind] += submission.count
            self.first_s = now if self.first_s is None else self.first_s
            self._trace_at_s = max(self._trace_at_s, now)
            traced = self._trace_at_s - now < BURST_S and len(self.traces) < TRACES_MAX
            if traced:
                self._trace_at_s += TRACE_EVERY_S
                self._untraced.add(submission)
            return traced

    def settled(self, news: Settled, now: float) -> None:
        """Count outcomes, and keep how long they took."""
        submission, tasks = news.submission, len(news.results)
        with self._lock:
            if submission not in self._open:
                self.earlier += tasks
                return
            kind, since_s = self._open[submission]
            self.last_s = now
            self.done[kind] += tasks - len(news.failures)
            for failure in news.failures:
                self._failed(kind, failure.error, 1, failure.message)
            self._sample(Slice(tasks, now - since_s))
            # The stamps are those of the first slice, however many follow.
            if submission in self._untraced and news.stamps and submission.sent_at is not None:
                self._untraced.discard(submission)
                self.traces.append((submission.sent_at, *news.stamps, now))
                self.traced.append(tasks)
            if not submission.missing:
                self._forget(submission)

    def ended(self, submission: Submission, error: str) -> None:
        """Count the tasks without an outcome as failed."""
        with self._lock:
            if submission in self._open:
                kind, _ = self._open[submission]
                self._failed(kind, error, submission.missing, "")
                self._forget(submission)

    def latencies_s(self) -> Sequence[float]:
        """Latencies of tasks, one for each message of the sample.

        Tasks of one message share their latency and are no independent samples. So where messages
        carry several, tasks are drawn at random, as many as there are messages.
        """
        latencies = [one.latency_s for one in self.slices]
        if all(one.tasks == 1 for one in self.slices):
            return latencies
        weights = [one.tasks for one in self.slices]
        return random.Random(0).choices(latencies, weights, k=len(latencies))

    def _failed(self, kind: str, error: str, tasks: int, message: str) -> None:
        key = (kind, error)
        if key not in self.errors and len(self.errors) >= ERRORS_MAX:
            key, message = MORE, ""
        self.errors[key] += tasks
        self.messages.setdefault(key, message)

    def _sample(self, one: Slice) -> None:
        """Keep a message in a uniform sample of all (Vitter's Algorithm R, ACM TOMS 11, 1985)."""
        self.heard += 1
        if len(self.slices) < SAMPLE_MAX:
            self.slices.append(one)
        elif (place := self._chance.randrange(self.heard)) < SAMPLE_MAX:
            self.slices[place] = one

    def _forget(self, submission: Submission) -> None:
        del self._open[submission]
        self._untraced.discard(submission)
