"""A cluster without sockets, threads and clocks, whose every message can be counted.

Coordinator, workers and client are the production dispatcher and sessions; only the coordinator's
socket is a stand-in. They step in turn, a task takes a fixed time by its worker's word, and the
clock stands still. So the traffic follows from the spec and the work alone: it is the same on every
machine, every time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from cluster.protocol.client_session import ClientSession, Options, Refused, Settled
from cluster.protocol.codec import Codec, Frame, Message
from cluster.protocol.held_lease import HeldLease
from cluster.protocol.worker_session import WorkerSession
from cluster.shells.dispatcher import Dispatcher
from cluster.shells.exchange import MAX_OWED
from cluster.spec import ClusterSpec, load_codec
from cluster.vocabulary.printable import count_of
from cluster.vocabulary.task import Failure
from perfkit.bench.workloads.load import TRAFFIC, ExperimentError, Work, WrongResult

#: messages, each a list of frames; on the coordinator's side a peer's route comes first
Letters: TypeAlias = list[list[Frame]]

WORKERS = 2
#: The time a worker claims for a task: a no-op's, so short that no report of half a lease is due.
SERVICE_S = 0.5e-6
#: ZeroMQ names a peer by five bytes, which a coordinator's counts include.
CLIENT_ROUTE = b"clnt0"
PLAIN = Options()


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
    """A worker's session that echoes, and finishes every lease within a step."""

    def __init__(self, codec: Codec, route: bytes, session: WorkerSession) -> None:
        super().__init__(codec, route)
        self.session = session

    def receive(self, arrived: Letters) -> Letters:
        """Take in messages and work through every lease; returns a report of each."""
        out: Letters = []
        for frames in arrived:
            for action in self.codec.actions(frames):
                if answers := self.session.handle(action):
                    out += self.pack(answers)
        while (lease := self.session.take()) is not None:
            out += self.work(lease, lease.claim(len(lease.pending)))
        return out

    def work(self, lease: HeldLease, payloads: list[bytes]) -> Letters:
        """Finish a lease; returns its report."""
        return self.report(lease, payloads, [])

    def report(self, lease: HeldLease, results: list[bytes], failures: list[Failure]) -> Letters:
        """The report of a lease whose tasks took SERVICE_S each."""
        ended_s = 1.0 + SERVICE_S * len(results)
        return self.pack(self.session.report(lease, results, failures, 1.0, ended_s))


class SteppedClient(Peer):
    """A client's session that submits echoes and checks every result."""

    owed_most: ClassVar[int] = MAX_OWED

    def __init__(self, codec: Codec, route: bytes = CLIENT_ROUTE, name: str = "client") -> None:
        super().__init__(codec, route)
        self.session = ClientSession(name)

    def submit(self, kind: str, payloads: list[bytes], options: Options = PLAIN) -> Letters:
        """Submit a run, whose `sink` is what it is expected to return."""
        return self.pack([self.session.submit(kind, payloads, options, payloads, 0.0)])

    def runs(self, work: Work, size: int) -> Iterator[Letters]:
        """The work in runs of this size, each a submission as it is sent."""
        for start in range(0, len(work), size):
            yield self.submit(work.kind, work.payloads[start : start + size])

    def receive(self, arrived: Letters) -> Letters:
        """Take in messages; returns a heartbeat once it owes receipts for `owed_most` runs."""
        for frames in arrived:
            for action in self.codec.actions(frames):
                news = self.session.handle(action, 0.0)
                if isinstance(news, Refused):
                    raise ExperimentError(f"the coordinator refused work: {news.reason}")
                if isinstance(news, Settled):
                    self.check(news)
        return self.beat() if self.session.owed >= self.owed_most else []

    def check(self, news: Settled) -> None:
        """Raise WrongResult for a result that is not the payload."""
        stop = news.start + len(news.results)
        if news.failures or news.submission.sink[news.start : stop] != news.results:
            raise WrongResult("a task came back as another one")

    def beat(self) -> Letters:
        """Send a heartbeat and acknowledge results."""
        return self.pack(self.session.heartbeat(0.0))


class Lockstep:
    """A coordinator, its workers and a client, stepped in turn.

    `inbox` holds what the coordinator was sent, step by step, so that another coordinator can be
    sent the same.
    """

    def __init__(self, spec: ClusterSpec, coordinator: SteppedCoordinator) -> None:
        self._coordinator = coordinator
        self._burst = spec.burst
        self._client = SteppedClient(load_codec(spec))
        codec, credit = load_codec(spec), max(1, spec.credit)
        self._workers = [
            SteppedWorker(
                codec, b"work%d" % n, WorkerSession(f"worker-{n}", 1, 1, credit, ["echo"])
            )
            for n in range(WORKERS)
        ]
        self.inbox: list[Letters] = []
        self._arriving = [
            frames
            for worker in self._workers
            for frames in worker.pack(worker.session.introduction())
        ]

    def drive(self, work: Work, load: Load) -> None:
        """Run the work; raises WrongResult for a wrong result, and ExperimentError when nothing
        moves any more.
        """
        runs = self._client.runs(work, min(load.run_tasks, self._burst))
        open_runs = self._client.session.open
        while True:
            while len(open_runs) < load.runs_in_flight and (run := next(runs, None)):
                self._arriving += run
            if not self._arriving:
                break
            self._step()
        if open_runs:
            raise ExperimentError(
                f"no result of {count_of(len(open_runs), 'run')}, and nobody has anything to say: "
                "does the coordinator wait for its clock, which stands still here?"
            )

    def _step(self) -> None:
        self.inbox.append(self._arriving)
        mail: dict[bytes, Letters] = {}
        for route, *frames in self._coordinator.step(self._arriving):
            mail.setdefault(route, []).append(frames)
        peers: Sequence[SteppedClient | SteppedWorker] = (self._client, *self._workers)
        self._arriving = [
            frames for peer in peers for frames in peer.receive(mail.get(peer.route, []))
        ]
