"""A coordinator among simulated peers, without a clock or a socket.

Dispatcher, sessions and codec are the production ones; only the network and the clock are
stand-ins. All messages follow from the code alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import zmq

from cluster.protocol.client_session import Settled
from cluster.protocol.codec import Codec, Frame
from cluster.protocol.held_lease import HeldLease
from cluster.protocol.worker_session import WorkerSession
from cluster.spec import ClusterSpec, load_codec
from cluster.vocabulary import events as on
from cluster.vocabulary.task import Failure
from perfkit.bench.counts.lockstep import (
    Letters,
    SteppedClient,
    SteppedCoordinator,
    SteppedWorker,
    Wire,
)

#: What workers offer: to echo, to raise, and to hold until told.
ECHO, FAIL, HOLD = "echo", "fail", "hold"
#: What only workers that get lost offer; they hold it too.
VISIT = "visit"
WORKERS = 2


class Network(Wire):
    """Stands in for the coordinator's socket; absent peers are unreachable."""

    def __init__(self) -> None:
        super().__init__()
        self.present: set[bytes] = set()

    def send(self, frames: Sequence[Frame]) -> None:
        """Keep a message; raises zmq.ZMQError as a ROUTER does for an unknown peer."""
        if frames[0] not in self.present:
            raise zmq.ZMQError(zmq.EHOSTUNREACH)
        super().send(frames)


class ClockedCoordinator(SteppedCoordinator):
    """The coordinator on a network where peers come and go."""

    def __init__(self, spec: ClusterSpec) -> None:
        self.network = Network()
        super().__init__(spec, self.network)


class Worker(SteppedWorker):
    """A worker whose handlers take no time, fail, or hold a task until told."""

    def __init__(self, codec: Codec, route: bytes, session: WorkerSession) -> None:
        super().__init__(codec, route, session)
        self._held: list[tuple[HeldLease, list[bytes]]] = []

    def work(self, lease: HeldLease, payloads: list[bytes]) -> Letters:
        """Finish a lease, or hold it."""
        if lease.kind in (HOLD, VISIT):
            self._held.append((lease, payloads))
            return []
        if lease.kind != FAIL:
            return self.report(lease, payloads, [])
        positions = range(lease.reported, lease.reported + len(payloads))
        failures = [Failure(at, "Raised", "told to fail") for at in positions]
        return self.report(lease, [b""] * len(payloads), failures)

    def release(self) -> Letters:
        """Finish held tasks, wanted or not."""
        held, self._held = self._held, []
        return [letter for one in held for letter in self.report(*one, [])]

    def beat(self) -> Letters:
        """Send a heartbeat."""
        return self.pack([*self.session.introduction(), *self.session.heartbeat()])

    def leave(self) -> Letters:
        """Leave as on SIGTERM: return what is not started, say goodbye."""
        return self.pack([*self.session.drain(), *self.session.leave("stopped")])


class Client(SteppedClient):
    """A client that can give up and go, and whose tasks may fail."""

    #: Fewer, so that a reading at rest does not see receipts that are owed.
    owed_most = 64

    def check(self, news: Settled) -> None:
        """Raise WrongResult for a result that is not the payload."""
        if not news.failures:
            super().check(news)

    def cancel(self) -> Letters:
        """Cancel everything."""
        open_runs = self.session.open.values()
        return self.pack([self.session.cancel(submission, []) for submission in open_runs])

    def leave(self) -> Letters:
        """Say goodbye."""
        return self.pack([on.ClientLeft(self.session.name)])


class World:
    """A coordinator and its current peers: `open` brings residents, `rest` removes every peer."""

    def __init__(
        self, spec: ClusterSpec, make: Callable[[ClusterSpec], ClockedCoordinator]
    ) -> None:
        self.coordinator = make(spec)
        self.now_s = 0.0
        self.limits = spec.limits
        self.burst = spec.burst
        self._credit = max(1, spec.credit)
        self._codec = load_codec(spec)
        self._peers: dict[bytes, Worker | Client] = {}
        self._came = 0
        self.workers: list[Worker] = []
        self.client: Client

    @property
    def counters(self) -> Counter[str]:
        """The coordinator's."""
        return self.coordinator.scheduler.counters

    def open(self) -> None:
        """Add the residents: workers and a client."""
        self.workers = [
            self.add_worker((ECHO, FAIL, HOLD), f"resident-{number}", 1 + self._came)
            for number in range(WORKERS)
        ]
        self.client = self.add_client()

    def rest(self) -> None:
        """Let every peer leave and every timer expire; AssertionError for a broken invariant."""
        for peer in list(self._peers.values()):
            self.remove(peer, peer.leave())
        self.workers = []
        self.wait(2.0 * self.limits.client_liveness_s)
        self.coordinator.scheduler.validate()

    def add_worker(self, kinds: Sequence[str], name: str = "", life: int = 1) -> Worker:
        """A worker, which the coordinator has admitted when this returns."""
        route = self._route()
        name = name or f"worker-{self._came}"
        worker = Worker(self._codec, route, WorkerSession(name, life, 1, self._credit, kinds))
        self._enter(worker)
        self.deliver(worker.beat())
        return worker

    def add_client(self) -> Client:
        """A client that has said nothing yet."""
        client = Client(self._codec, self._route(), f"client-{self._came}")
        self._enter(client)
        return client

    def remove(self, peer: Worker | Client, last_words: Letters | None = None) -> None:
        """Let a peer go; without last words it is lost."""
        self.deliver(last_words or [])
        del self._peers[peer.route]
        self.coordinator.network.present.discard(peer.route)

    def throw(self, frames: list[Frame]) -> None:
        """Send a malformed message, from a socket of its own."""
        route = self._route()
        self.coordinator.network.present.add(route)
        self.coordinator.step([[route, *frames]], self.now_s)
        self.coordinator.network.present.discard(route)

    def deliver(self, letters: Letters) -> None:
        """Deliver messages and all answers to them."""
        while letters:
            letters = self._answers(self.coordinator.step(letters, self.now_s))

    def wait(self, seconds: float) -> None:
        """Let time pass: present peers send heartbeats, and due timers fire.

        A longer step than half a heartbeat would be a pause of the coordinator, which it forgives.
        """
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.now_s = min(end_s, self.now_s + self.limits.heartbeat_s / 2)
            self.deliver([letter for peer in self._peers.values() for letter in peer.beat()])
            self.deliver(self._answers(self.coordinator.step([], self.now_s)))
        self.coordinator.deadline()  # forgets timers that no longer matter, as the real loop does

    def _answers(self, sent: Letters) -> Letters:
        mail: dict[bytes, Letters] = {}
        for route, *frames in sent:
            mail.setdefault(bytes(route), []).append(frames)
        there = [(self._peers[route], arrived) for route, arrived in mail.items()]
        return [letter for peer, arrived in there for letter in peer.receive(arrived)]

    def _route(self) -> bytes:
        self._came += 1
        return self._came.to_bytes(5, "big")

    def _enter(self, peer: Worker | Client) -> None:
        self._peers[peer.route] = peer
        self.coordinator.network.present.add(peer.route)
