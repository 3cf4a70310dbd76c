"""Everything that comes and goes at a coordinator, ten thousand times over, without a socket.

Tasks, clients, workers and garbage come by the thousand within seconds (world.py), and what is left
of them follows from the code alone. No process dies here: to the coordinator, a killed worker is
one that falls silent.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from cluster.protocol.client_session import Options
from cluster.protocol.codec import Frame
from cluster.vocabulary.task import Backoff, Retry
from perfkit.bench.leaks.world import ECHO, FAIL, HOLD, VISIT, World
from perfkit.bench.workloads.load import ExperimentError

#: A kind of task that no worker offers.
NOBODYS = "nobody's"
RUN_TASKS = 256
PAYLOADS = [random.Random(seed).randbytes(200) for seed in range(RUN_TASKS)]
#: Events that share one step of the clock.
AT_ONCE = 32
RETRY_AFTER_S = TIMEOUT_S = 0.05
RETRIED = Options(retry=Retry(max_attempts=2, backoff=Backoff.FIXED, base_s=RETRY_AFTER_S))
TIMED = Options(timeout_s=TIMEOUT_S)


def run_tasks(world: World, count: int) -> None:
    """Tasks that succeed, in runs."""
    for many in _batches(count, min(RUN_TASKS, world.burst)):
        world.deliver(world.client.submit(ECHO, PAYLOADS[:many]))


def connect_clients(world: World, count: int) -> None:
    """Clients that come, have one task done, and close."""
    for at in range(count):
        client = world.add_client()
        world.deliver(client.submit(ECHO, [PAYLOADS[at % RUN_TASKS]]))
        world.remove(client, client.leave())


def cancel_tasks(world: World, count: int) -> None:
    """Tasks that are cancelled, alternately while they wait and while a worker has them."""
    for at in range(count):
        world.deliver(world.client.submit((NOBODYS, HOLD)[at % 2], [b""]))
        world.deliver(world.client.cancel())
        release(world)


def fail_tasks(world: World, count: int) -> None:
    """Tasks that fail, are retried, and fail for good."""
    for many in _batches(count):
        for _ in range(many):
            world.deliver(world.client.submit(FAIL, [b""], RETRIED))
        world.wait(2.0 * RETRY_AFTER_S)


def time_out_tasks(world: World, count: int) -> None:
    """Tasks that time out, alternately while they wait and while a worker has them."""
    for many in _batches(count):
        for at in range(many):
            kind = (NOBODYS, HOLD)[at % 2]
            world.deliver(world.client.submit(kind, [b""], TIMED))
        world.wait(2.0 * TIMEOUT_S)
        release(world)


def throw_bad_frames(world: World, count: int) -> None:
    """Malformed messages: noise, no value, half a message, a message with a frame too many."""
    whole = world.client.submit(ECHO, [b"x"])[0][1:]
    world.deliver(world.client.cancel())
    rng = random.Random(0)
    kinds: Sequence[Callable[[], list[Frame]]] = (
        lambda: [rng.randbytes(rng.randint(1, 200))],
        lambda: [b"\xc1"],
        lambda: [bytes(whole[0])[: len(whole[0]) // 2]],
        lambda: [*whole, b"more"],
        lambda: [b"\xdd\xff\xff\xff\xff" * 8],
    )
    for at in range(count):
        world.throw(kinds[at % len(kinds)]())


def lose_clients(world: World, count: int) -> None:
    """Clients that submit work and fall silent."""
    for many in _batches(count):
        for at in range(many):
            client = world.add_client()
            world.deliver(client.submit((NOBODYS, HOLD, ECHO)[at % 3], [b""]))
            world.remove(client)
        world.wait(1.01 * world.limits.client_liveness_s)
        release(world)


def restart_workers(world: World, count: int) -> None:
    """Workers that go with work in their hands; the next worker does it.

    In turn they fall silent, are unreachable, restart under the same name unnoticed, and leave as
    asked.
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
        if not restarted:
            world.wait(1.01 * world.limits.liveness_s)
        visitor = world.add_worker((VISIT,), name, life)
        world.deliver(visitor.release())


def release(world: World) -> None:
    """Let the residents finish the tasks they hold."""
    for worker in world.workers:
        world.deliver(worker.release())


def _batches(count: int, size: int = AT_ONCE) -> Iterator[int]:
    for start in range(0, count, size):
        yield min(size, count - start)


@dataclass(frozen=True)
class Kind:
    """One kind of event: the function that causes it, and the counters that count it."""

    happen: Callable[[World, int], None]
    counted: tuple[str, ...]

    def run(self, world: World, count: int) -> None:
        """Cause `count` events; raises ExperimentError if the coordinator saw another number."""
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
