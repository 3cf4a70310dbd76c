"""A cluster without sockets, threads and clocks, whose every message can be counted.

Coordinator, workers and client are the production dispatcher and sessions; only the coordinator's
socket is a stand-in. They step in turn, a task takes a fixed time by its worker's word, and the
clock stands still. So the traffic follows from the spec and the work alone: it is the same on every
machine, every time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from cluster.protocol.client_session import ClientSession, Options, Settled
from cluster.protocol.codec import Codec, Frame, Message
from cluster.protocol.worker_session import WorkerSession
from cluster.shells.dispatcher import Dispatcher
from cluster.shells.exchange import MAX_OWED
from cluster.spec import ClusterSpec, load_codec
from perfkit.bench.workloads.load import TRAFFIC, ExperimentError, Work

#: messages, each a list of frames; on the coordinator's side a peer's route comes first
Letters: TypeAlias = list[list[Frame]]

WORKERS = 2
#: The time a worker claims for a task: a no-op's, so short that no report of half a lease is due.
SERVICE_S = 0.5e-6
#: ZeroMQ names a peer by five bytes, which a coordinator's counts include.
CLIENT_ROUTE = b"clnt0"


@dataclass(frozen=True)
class Load:
    """How tasks come: in runs of at most `run_tasks` (a spec's burst may be less), and
    `runs_in_flight` runs at once.
    """

    tasks: int
    run_tasks: int
    runs_in_flight: int


#: One task at a time, like a caller that waits for each result, and all at once, like a map.
LOADS: Mapping[str, Load] = {
    "single": Load(tasks=512, run_tasks=1, runs_in_flight=1),
    "stream": Load(tasks=4_096, run_tasks=4_096, runs_in_flight=4_096),
}


class Wire:
    """Stands in for the coordinator's socket: keeps what is sent, and counts the traffic."""

    def __init__(self) -> None:
        self.sent: Letters = []
        self.messages_in = self.messages_out = self.bytes_in = self.bytes_out = 0

    def send(self, frames: Sequence[Frame]) -> None:
        """Keep a message, its addressee's route first."""
        self.messages_out += 1
        self.bytes_out += sum(map(len, frames))
        self.sent.append([*frames])


class SteppedCoordinator(Dispatcher):
    """The coordinator's dispatcher, stepped by hand. It does the same whenever it is sent the same
    at the same times.
    """

    def __init__(self, spec: ClusterSpec, wire: Wire | None = None) -> None:
        self.wire = wire or Wire()
        super().__init__(spec, self.wire)

    def step(self, arrived: Letters, now: float = 0.0) -> Letters:
        """Take in messages, sender first, in as many turns as the real loop would take; returns
        what is sent, addressee first.
        """
        for message in arrived:
            self.wire.messages_in += 1
            self.wire.bytes_in += sum(map(len, message))
        for start in range(0, len(arrived) or 1, self.spec.drain):
            self.turn(arrived[start : start + self.spec.drain], now)
        sent, self.wire.sent = self.wire.sent, []
        return sent

    def queue(self, runs: Sequence[Letters]) -> None:
        """Take in runs and send every answer, also those that wait for company."""
        for letters in runs:
            self.step(letters)
        self.step([], self.spec.answer_after_s)

    def traffic(self) -> dict[str, int]:
        """Messages and bytes so far, under the names of the coordinator's status."""
        return {name: getattr(self.wire, name) for name in TRAFFIC}


class Peer:
    """A peer of the coordinator: packs what it says."""

    def __init__(self, codec: Codec, route: bytes) -> None:
        self.route = route
        self.codec = codec

    def pack(self, events: Sequence[Message]) -> Letters:
        """Events sent together, as the coordinator's socket delivers them."""
        return [[self.route, *frames] for frames in self.codec.encode(events)]


class SteppedWorker(Peer):
    """A worker's session that echoes and finishes every lease within a step."""

    def __init__(self, spec: ClusterSpec, number: int) -> None:
        super().__init__(load_codec(spec), b"work%d" % number)
        credit = max(1, spec.credit)
        self._session = WorkerSession(f"worker-{number}", 1, 1, credit, ["echo"])

    def introduction(self) -> Letters:
        """Who it is and what it offers."""
        return self.pack(self._session.introduction())

    def step(self, arrived: Letters) -> Letters:
        """Take in messages and work through every lease; returns a report of each."""
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
    """A client's session that submits work under a load and collects the results."""

    def __init__(self, spec: ClusterSpec) -> None:
        super().__init__(load_codec(spec), CLIENT_ROUTE)
        self._burst = spec.burst
        self._session = ClientSession("client")

    def runs(self, work: Work, load: Load) -> Iterator[Letters]:
        """The work in runs, each a submission as it is sent; its `sink` is the index of its first
        result.
        """
        size = min(load.run_tasks, self._burst)
        for start in range(0, len(work), size):
            payloads = work.payloads[start : start + size]
            yield self.pack([self._session.submit(work.kind, payloads, Options(), start, 0.0)])

    def step(self, arrived: Letters, results: list[bytes]) -> Letters:
        """Take in messages; returns a heartbeat once it owes receipts for MAX_OWED runs."""
        for frames in arrived:
            for action in self.codec.actions(frames):
                news = self._session.handle(action, 0.0)
                if isinstance(news, Settled):
                    first = news.submission.sink + news.start
                    results[first : first + len(news.results)] = news.results
        return self.pack(self._session.heartbeat(0.0)) if self._session.owed >= MAX_OWED else []

    @property
    def runs_open(self) -> int:
        """The number of runs without all their results."""
        return len(self._session.open)


class Lockstep:
    """A coordinator, its workers and a client, stepped in turn.

    `inbox` holds what the coordinator was sent, step by step, so that another coordinator can be
    sent the same.
    """

    def __init__(self, spec: ClusterSpec, coordinator: SteppedCoordinator) -> None:
        self._coordinator = coordinator
        self._client = SteppedClient(spec)
        self._workers = [SteppedWorker(spec, number) for number in range(WORKERS)]
        self.inbox: list[Letters] = []
        self._arriving = [frames for worker in self._workers for frames in worker.introduction()]

    def drive(self, work: Work, load: Load) -> None:
        """Run the work; raises WrongResult for a wrong result, and ExperimentError when nothing
        moves any more.
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
