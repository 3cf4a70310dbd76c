"""A cluster without sockets, threads and clocks, whose every message can be counted.

The coordinator is the real one, whole turns of it, with a stand-in for its socket; client and
workers are the production sessions. They take turns in lockstep, a task takes a fixed time by its
worker's word, and no timer ever comes due. So what passes between them follows from the spec and
the work alone: it is the same on every machine, every time.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from cluster.protocol.client_session import ClientSession, Options, Settled
from cluster.protocol.codec import Codec, Frame, Message
from cluster.protocol.worker_session import WorkerSession
from cluster.shells.client_loop import MAX_OWED
from cluster.shells.coordinator import ClusterCoordinator
from cluster.shells.transport import Channel
from cluster.spec import ClusterSpec, load_codec
from cluster.vocabulary import actions as do
from perfkit.bench.workloads.load import TRAFFIC, ExperimentError, Work

#: messages, each a list of frames; on the coordinator's side a peer's route comes first
Letters: TypeAlias = list[list[Frame]]

WORKERS = 2
#: What a worker says a task took: a no-op's time, so short that no report of half a lease is due.
SERVICE_S = 0.5e-6
#: ZeroMQ names a peer by five bytes, which a coordinator's counts include.
CLIENT_ROUTE = b"clnt0"


@dataclass(frozen=True)
class Load:
    """How tasks come: in runs of at most `run_tasks` (a spec's burst may be less), so many runs in
    flight at once.
    """

    tasks: int
    run_tasks: int
    runs_in_flight: int


#: One task at a time, as who waits for each result sends them, and all at once, as a map does.
LOADS: Mapping[str, Load] = {
    "single": Load(tasks=512, run_tasks=1, runs_in_flight=1),
    "stream": Load(tasks=4_096, run_tasks=4_096, runs_in_flight=4_096),
}


class Wire(Channel):
    """Stands in for the coordinator's socket: messages are put into it and taken out by hand."""

    def __init__(self) -> None:
        self.arrived: deque[list[Frame]] = deque()
        self.sent: Letters = []
        self.messages_in = self.messages_out = self.bytes_in = self.bytes_out = 0

    def send(self, frames: Sequence[Frame]) -> None:
        """Keep a message, its addressee's route first."""
        self.messages_out += 1
        self.bytes_out += sum(map(len, frames))
        self.sent.append([*frames])

    def receive(self, most: int) -> Iterator[list[Frame]]:
        """What has arrived, at most `most` messages, their senders' routes first."""
        for _ in range(min(most, len(self.arrived))):
            frames = self.arrived.popleft()
            self.messages_in += 1
            self.bytes_in += sum(map(len, frames))
            yield frames

    def close(self) -> None:
        """Nothing is open."""


class WiredCoordinator(ClusterCoordinator):
    """The coordinator, turned by hand: each step is as many of its turns as what arrived takes."""

    def __init__(self, spec: ClusterSpec) -> None:
        super().__init__(spec)
        self._channel.close()
        self._channel = self.wire = Wire()

    def step(self, arrived: Letters) -> Letters:
        """Take in messages, sender first; returns what is sent, addressee first."""
        self.wire.arrived.extend(arrived)
        while self.wire.arrived:
            self._turn()
        sent, self.wire.sent = self.wire.sent, []
        return sent


class SteppedCoordinator(WiredCoordinator):
    """Its clock stands still as far as anything could come due, so what it does follows from what
    it is sent and from nothing else.
    """

    def __init__(self, spec: ClusterSpec) -> None:
        super().__init__(spec)
        self._clock_s = 0.0

    def queue(self, runs: Sequence[Letters]) -> None:
        """Take in runs and send every answer, also those that wait for company."""
        for letters in runs:
            self.step(letters)
        self._clock_s = math.inf
        self._turn()
        self._clock_s = 0.0
        self.wire.sent.clear()

    def traffic(self) -> dict[str, int]:
        """Messages and bytes that went through so far, under the names of its status."""
        self._publish()
        return {name: self.scheduler.counters[name] for name in TRAFFIC}

    def _deadline(self) -> float:
        return math.inf

    def _hold_answers(self, outgoing: dict[bytes, list[do.Action]], now: float) -> None:
        super()._hold_answers(outgoing, self._clock_s)


class Peer:
    """Whoever speaks to the coordinator, by a codec."""

    def __init__(self, codec: Codec, route: bytes) -> None:
        self.route = route
        self.codec = codec

    def pack(self, events: Sequence[Message]) -> Letters:
        """Events sent together, as the coordinator's socket gives them out."""
        return [[self.route, *frames] for frames in self.codec.encode(events)]


class SteppedWorker(Peer):
    """A worker's session that echoes: whatever it is leased is done by its next step."""

    def __init__(self, spec: ClusterSpec, number: int) -> None:
        super().__init__(load_codec(spec), b"work%d" % number)
        credit = max(1, spec.credit)
        self._session = WorkerSession(f"worker-{number}", 1, 1, credit, ["echo"])

    def introduction(self) -> Letters:
        """Who it is and what it offers."""
        return self.pack(self._session.introduction())

    def step(self, arrived: Letters) -> Letters:
        """Take in messages and work through every lease; a report for each."""
        out: Letters = []
        for frames in arrived:
            for action in self.codec.actions(frames):
                if answers := self._session.handle(action):
                    out += self.pack(answers)
        while (lease := self._session.take()) is not None:
            results = lease.claim(len(lease.pending))
            busy_s = SERVICE_S * len(results)
            out += self.pack(self._session.report(lease, results, [], 1.0, 1.0 + busy_s))
        return out


class SteppedClient(Peer):
    """A client's session that submits the work under a load and keeps every result."""

    def __init__(self, spec: ClusterSpec) -> None:
        super().__init__(load_codec(spec), CLIENT_ROUTE)
        self._burst = spec.burst
        self._session = ClientSession("client")

    def runs(self, work: Work, load: Load) -> Iterator[Letters]:
        """The work in runs, each a submission as it is sent; `sink` is where its results belong."""
        size = min(load.run_tasks, self._burst)
        for start in range(0, len(work), size):
            payloads = work.payloads[start : start + size]
            yield self.pack([self._session.submit(work.kind, payloads, Options(), start, 0.0)])

    def step(self, arrived: Letters, results: list[bytes]) -> Letters:
        """Take in messages; says what it has received when it owes that for many runs."""
        for frames in arrived:
            for action in self.codec.actions(frames):
                news = self._session.handle(action, 0.0)
                if isinstance(news, Settled):
                    first = news.submission.sink + news.start
                    results[first : first + len(news.results)] = news.results
        return self.pack(self._session.heartbeat(0.0)) if self._session.owed >= MAX_OWED else []

    @property
    def runs_open(self) -> int:
        """How many runs are not settled."""
        return len(self._session.open)


class Lockstep:
    """A coordinator, its workers and a client, stepped in turn.

    `inbox` is what the coordinator was sent, step by step: whoever gives the same to another
    coordinator sees it do the same.
    """

    def __init__(self, spec: ClusterSpec, coordinator: SteppedCoordinator) -> None:
        self._coordinator = coordinator
        self._client = SteppedClient(spec)
        self._workers = [SteppedWorker(spec, number) for number in range(WORKERS)]
        self.inbox: list[Letters] = []
        self._arriving = [frames for worker in self._workers for frames in worker.introduction()]

    def drive(self, work: Work, load: Load) -> None:
        """Put the work through; raises WrongResult unless every task has its result, and
        ExperimentError when nothing moves any more.
        """
        results = [b""] * len(work)
        runs = self._client.runs(work, load)
        while True:
            while self._client.runs_open < load.runs_in_flight and (run := next(runs, None)):
                self._arriving += run
            if not self._arriving:
                break
            self._step(results)
        if self._client.runs_open:
            raise ExperimentError(
                f"{self._client.runs_open} runs have no result and nobody has anything to say: "
                "does the coordinator wait for its clock, which stands still here?"
            )
        work.check(results)

    def _step(self, results: list[bytes]) -> None:
        self.inbox.append(self._arriving)
        mail: dict[bytes, Letters] = {}
        for route, *frames in self._coordinator.step(self._arriving):
            mail.setdefault(route, []).append(frames)
        self._arriving = self._client.step(mail.get(self._client.route, []), results)
        for worker in self._workers:
            self._arriving += worker.step(mail.get(worker.route, []))
