"""Everything that comes and goes at a coordinator, ten thousand times over, without a socket.

The coordinator is the real one, whole turns of it, and its peers are the production sessions and
the production codec; only the network and the clock are stand-ins. So tasks, clients, workers and
garbage come in any number within seconds, and what is left of them follows from the code alone. No
process dies here: a worker that is killed is one that says no more, as the coordinator sees it.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import zmq

from cluster import events as on
from cluster.client_session import ClientSession, Options, Refused, Settled
from cluster.codec import Codec, Frame
from cluster.spec import ClusterSpec, load_codec
from cluster.task import Backoff, Failure, Retry
from cluster.worker_session import HeldLease, WorkerSession
from perfkit.bench.load import ExperimentError, WrongResult
from perfkit.bench.lockstep import SERVICE_S, Letters, Peer, Wire, WiredCoordinator

#: what workers offer: to give back, to raise, and to keep until told; and what nobody offers
ECHO, FAIL, HOLD, NOBODYS = "echo", "fail", "hold", "nobody's"
#: what only those workers offer that come to be lost
VISIT = "visit"
WORKERS = 2
RUN_TASKS = 256
PAYLOADS = [random.Random(seed).randbytes(200) for seed in range(RUN_TASKS)]
#: a client says what it has received when it owes that for so many runs
OWED = 64
#: so many things wait for one turn of the clock
AT_ONCE = 32
RETRY_AFTER_S = TIMEOUT_S = 0.05
RETRIED = Options(retry=Retry(max_attempts=2, backoff=Backoff.FIXED, base_s=RETRY_AFTER_S))
PLAIN = Options()
TIMED = Options(timeout_s=TIMEOUT_S)


class Network(Wire):
    """Stands in for the coordinator's socket: who is not there can't be reached."""

    def __init__(self) -> None:
        super().__init__()
        self.present: set[bytes] = set()

    def send(self, frames: Sequence[Frame]) -> None:
        """Keep a message; raises zmq.ZMQError as a ROUTER does for an unknown peer."""
        if frames[0] not in self.present:
            raise zmq.ZMQError(zmq.EHOSTUNREACH)
        super().send(frames)


class ClockedCoordinator(WiredCoordinator):
    """The coordinator, turned by hand, with a clock that is turned by hand."""

    def __init__(self, spec: ClusterSpec) -> None:
        super().__init__(spec)
        self._channel = self.wire = self.network = Network()
        self.now_s = 0.0
        self._clock = self._told_s

    def turn(self) -> Letters:
        """One turn, for what is due by now."""
        self._turn()
        self._deadline()
        return self.step([])

    def _told_s(self) -> float:
        return self.now_s


class Worker(Peer):
    """A worker's session with handlers that take no time, or as long as they are told."""

    def __init__(
        self, codec: Codec, route: bytes, credit: int, kinds: Sequence[str], name: str, life: int
    ) -> None:
        super().__init__(codec, route)
        self.session = WorkerSession(name, life, 1, credit, kinds)
        self._held: list[tuple[HeldLease, list[bytes]]] = []

    def receive(self, arrived: Letters) -> Letters:
        """Take in messages and work through what can be."""
        actions = [action for frames in arrived for action in self.codec.actions(frames)]
        events = [event for action in actions for event in self.session.handle(action)]
        while (lease := self.session.take()) is not None:
            payloads = lease.claim(len(lease.pending))
            if lease.kind in (HOLD, VISIT):
                self._held.append((lease, payloads))
            else:
                events += self._report(lease, payloads)
        return self.pack(events)

    def release(self) -> Letters:
        """Finish what it was told to keep, whether or not anybody still wants it."""
        held, self._held = self._held, []
        return self.pack([event for one in held for event in self._report(*one)])

    def beat(self) -> Letters:
        """Say that it is there."""
        return self.pack([*self.session.introduction(), *self.session.heartbeat()])

    def leave(self) -> Letters:
        """Leave as on SIGTERM: give back what is not started, say goodbye."""
        return self.pack([*self.session.drain(), *self.session.leave("stopped")])

    def _report(self, lease: HeldLease, payloads: list[bytes]) -> list[on.Event]:
        failures = [
            Failure(lease.reported + at, "Raised", "told to fail")
            for at in range(len(payloads))
            if lease.kind == FAIL
        ]
        outcomes = [b""] * len(payloads) if failures else payloads
        ended_s = 1.0 + SERVICE_S * len(payloads)
        return self.session.report(lease, outcomes, failures, 1.0, ended_s)


class Client(Peer):
    """A client's session that checks every result."""

    def __init__(self, codec: Codec, route: bytes, name: str) -> None:
        super().__init__(codec, route)
        self.session = ClientSession(name)

    def submit(self, kind: str, payloads: list[bytes], options: Options = PLAIN) -> Letters:
        """Hand in a run."""
        return self.pack([self.session.submit(kind, payloads, options, payloads, 0.0)])

    def cancel(self) -> Letters:
        """Want nothing any more."""
        open_runs = self.session.open.values()
        return self.pack([self.session.cancel(submission, []) for submission in open_runs])

    def receive(self, arrived: Letters) -> Letters:
        """Take in messages; raises WrongResult for a result that is not the payload."""
        for frames in arrived:
            for action in self.codec.actions(frames):
                news = self.session.handle(action, 0.0)
                if isinstance(news, Refused):
                    raise ExperimentError(f"the coordinator refused work: {news.reason}")
                if isinstance(news, Settled) and not news.failures:
                    stop = news.start + len(news.results)
                    if news.submission.sink[news.start : stop] != news.results:
                        raise WrongResult("a task came back as another one")
        return self.beat() if self.session.owed >= OWED else []

    def beat(self) -> Letters:
        """Say that it is there, and what it has."""
        return self.pack(self.session.heartbeat(0.0))


class World:
    """A coordinator and whoever is there at the moment: `open` brings residents, `rest` sends
    everybody home.
    """

    def __init__(
        self, spec: ClusterSpec, make: Callable[[ClusterSpec], ClockedCoordinator]
    ) -> None:
        self.coordinator = make(spec)
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
        """Let the residents come: workers and a client."""
        self.workers = [
            self.add_worker((ECHO, FAIL, HOLD), f"resident-{number}", 1 + self._came)
            for number in range(WORKERS)
        ]
        self.client = self.add_client()

    def rest(self) -> None:
        """Let everybody leave and every clock run out; raises AssertionError for a broken
        invariant.
        """
        for peer in list(self._peers.values()):
            self.remove(peer, peer.leave() if isinstance(peer, Worker) else self._goodbye(peer))
        self.workers = []
        self.wait(2.0 * self.limits.client_liveness_s)
        self.coordinator.scheduler.validate()

    def add_worker(self, kinds: Sequence[str], name: str = "", life: int = 1) -> Worker:
        """A worker, taken in when this returns."""
        route = self._route()
        name = name or f"worker-{self._came}"
        worker = Worker(self._codec, route, self._credit, kinds, name, life)
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

    def leave(self, client: Client) -> None:
        """Let a client close."""
        self.remove(client, self._goodbye(client))

    def throw(self, frames: list[Frame]) -> None:
        """Send what is no message, from a socket that is there for that alone."""
        route = self._route()
        self.coordinator.network.present.add(route)
        self.coordinator.step([[route, *frames]])
        self.coordinator.network.present.discard(route)

    def deliver(self, letters: Letters) -> None:
        """Let messages travel until nobody has anything more to say."""
        while letters:
            letters = self._answers(self.coordinator.step(letters))

    def wait(self, seconds: float) -> None:
        """Let time pass; who is there is heard, and what is due happens."""
        self.coordinator.now_s += seconds
        self.deliver([letter for peer in self._peers.values() for letter in peer.beat()])
        self.deliver(self._answers(self.coordinator.turn()))

    def _answers(self, sent: Letters) -> Letters:
        mail: dict[bytes, Letters] = {}
        for route, *frames in sent:
            mail.setdefault(bytes(route), []).append(frames)
        there = [(self._peers[route], arrived) for route, arrived in mail.items()]
        return [letter for peer, arrived in there for letter in peer.receive(arrived)]

    def _goodbye(self, client: Client) -> Letters:
        return client.pack([on.ClientLeft(client.session.name)])

    def _route(self) -> bytes:
        self._came += 1
        return self._came.to_bytes(5, "big")

    def _enter(self, peer: Worker | Client) -> None:
        self._peers[peer.route] = peer
        self.coordinator.network.present.add(peer.route)


# What happens, so many times


def run_tasks(world: World, count: int) -> None:
    """Tasks that come and are done, in runs."""
    while count:
        run = PAYLOADS[:count]
        count -= len(run)
        # A client may put fewer into one message.
        for payloads in _parts(run, world.burst):
            world.deliver(world.client.submit(ECHO, payloads))


def connect_clients(world: World, count: int) -> None:
    """Clients that come, have one task done, and close."""
    for at in range(count):
        client = world.add_client()
        world.deliver(client.submit(ECHO, [PAYLOADS[at % RUN_TASKS]]))
        world.leave(client)


def cancel_tasks(world: World, count: int) -> None:
    """Tasks that are cancelled, in turn while they wait and while a worker has them."""
    for at in range(count):
        world.deliver(world.client.submit((NOBODYS, HOLD)[at % 2], [b""]))
        world.deliver(world.client.cancel())
        release(world)


def fail_tasks(world: World, count: int) -> None:
    """Tasks that fail, are tried again, and fail for good."""
    for many in _batches(count):
        for _ in range(many):
            world.deliver(world.client.submit(FAIL, [b""], RETRIED))
        world.wait(2.0 * RETRY_AFTER_S)


def time_out_tasks(world: World, count: int) -> None:
    """Tasks that are not done in time, in turn waiting and in a worker's hands."""
    for many in _batches(count):
        for at in range(many):
            kind = (NOBODYS, HOLD)[at % 2]
            world.deliver(world.client.submit(kind, [b""], TIMED))
        world.wait(2.0 * TIMEOUT_S)
        release(world)


def throw_bad_frames(world: World, count: int) -> None:
    """What is no message: noise, nothing, half a message, a message with something behind it."""
    whole = world.client.submit(ECHO, [b"x"])[0][1:]
    world.deliver(world.client.cancel())
    rng = random.Random(0)
    kinds: Sequence[Callable[[], list[Frame]]] = (
        lambda: [rng.randbytes(rng.randint(1, 200))],
        lambda: [b""],
        lambda: [bytes(whole[0])[: len(whole[0]) // 2]],
        lambda: [*whole, b"more"],
        lambda: [b"\xdd\xff\xff\xff\xff" * 8],
    )
    for at in range(count):
        world.throw(kinds[at % len(kinds)]())


def lose_clients(world: World, count: int) -> None:
    """Clients that hand in work and are never heard of again."""
    for many in _batches(count):
        for at in range(many):
            client = world.add_client()
            world.deliver(client.submit((NOBODYS, HOLD, ECHO)[at % 3], [b""]))
            world.remove(client)
        world.wait(1.01 * world.limits.client_liveness_s)
        release(world)


def restart_workers(world: World, count: int) -> None:
    """Workers that are gone with work in their hands, in turn: silent, found unreachable, back
    under the same name before anybody noticed, and leaving as asked. The next one does the work.
    """
    visitor = world.add_worker((VISIT,))
    for at in range(count):
        silent, unreachable, restarted = (at % 4 == way for way in range(3))
        name, life = "", 1
        if unreachable:
            world.remove(visitor)
        world.deliver(world.client.submit(VISIT, [b"kept"]))
        if restarted:
            name, life = visitor.session.name, visitor.session.incarnation + 1
        if silent or restarted:
            world.remove(visitor)
        elif not unreachable:
            world.remove(visitor, visitor.leave())
        if silent:
            world.wait(1.01 * world.limits.liveness_s)
        visitor = world.add_worker((VISIT,), name, life)
        world.deliver(visitor.release())


def release(world: World) -> None:
    """Let the residents finish what they keep."""
    for worker in world.workers:
        world.deliver(worker.release())


def _batches(count: int) -> Iterator[int]:
    for start in range(0, count, AT_ONCE):
        yield min(AT_ONCE, count - start)


def _parts(payloads: list[bytes], size: int) -> Iterable[list[bytes]]:
    for start in range(0, len(payloads), size):
        yield payloads[start : start + size]


@dataclass(frozen=True)
class Kind:
    """One kind of event: what brings so many of them about, and the counters that show as many."""

    happen: Callable[[World, int], None]
    counted: tuple[str, ...]

    def run(self, world: World, count: int) -> None:
        """Bring about `count` events; raises ExperimentError if the coordinator saw another
        number.
        """
        before = sum(world.counters[name] for name in self.counted)
        self.happen(world, count)
        seen = sum(world.counters[name] for name in self.counted) - before
        if seen != count:
            names = " + ".join(self.counted)
            raise ExperimentError(f"of {count:,} events the coordinator counted {seen:,} ({names})")


KINDS: Mapping[str, Kind] = {
    "task": Kind(run_tasks, ("done",)),
    "connect": Kind(connect_clients, ("done",)),
    "cancel": Kind(cancel_tasks, ("cancelled",)),
    "failure": Kind(fail_tasks, ("failed",)),
    "timeout": Kind(time_out_tasks, ("failed",)),
    "bad frame": Kind(throw_bad_frames, ("malformed",)),
    "lost client": Kind(lose_clients, ("clients_lost",)),
    "worker restart": Kind(restart_workers, ("workers_lost", "workers_left")),
}
