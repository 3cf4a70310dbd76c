"""The rounds of a soak: a mixed load, and churn of every kind.

All of it is real: clients connect over sockets, processes are killed, garbage arrives. Maps run
meanwhile, so that a lost worker has work in its hands and a cancelled task waits behind others. A
round ends when every visitor is gone and all work is over: only then are two readings of the
coordinator comparable.
"""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import zmq

from cluster.local import Process
from cluster.process import announce
from cluster.protocol.client_session import ClientSession, Options
from cluster.protocol.codec import Frame
from cluster.scratch import ScratchFolder
from cluster.shells.client import Client
from cluster.spec import ClusterSpec, decode_spec, encode_spec, load_codec
from cluster.transport.channel import Channel
from cluster.vocabulary import events as on
from cluster.vocabulary.errors import ClusterError, TaskFailed, TaskTimedOut
from cluster.vocabulary.task import Backoff, Priority, Retry
from perfkit.bench.leaks.probe import ProbedCluster
from perfkit.bench.workloads.load import (
    RESULT_TIMEOUT_S,
    ExperimentError,
    WrongResult,
    echo_work,
    map_s,
    result_of,
)

MAP_TASKS = 5_000
RETRY = Retry(max_attempts=2, backoff=Backoff.FIXED, base_s=0.01)
ANSWER_TIMEOUT_S = 5.0
#: After a round silent clients are given up and killed workers are back.
REST_TIMEOUT_S = 30.0
LOOK_S = 0.05


@dataclass(frozen=True)
class Mix:
    """The events of a round, besides maps.

    `cut_clients` lose their connection and `killed_clients` their process, both without a goodbye.
    """

    submits: int = 200
    failures: int = 50
    cancels: int = 20
    timeouts: int = 10
    connects: int = 10
    cut_clients: int = 5
    killed_clients: int = 1
    bad_frames: int = 20
    killed_workers: int = 1
    stopped_workers: int = 1


MIX = Mix()


class SoakLoad:
    """Load and churn of a running cluster; `events` counts them by kind."""

    def __init__(self, local: ProbedCluster, mix: Mix, seed: int) -> None:
        self.events: Counter[str] = Counter()
        self._local = local
        self._mix = mix
        self._work = echo_work(MAP_TASKS, seed)
        self._rng = random.Random(seed)
        self._client = local.client()
        self._n_workers = len(local.workers)

    def round(self, seconds: float) -> None:
        """One round of about this length, then rest.

        Raises WrongResult for a wrong result, ExperimentError if the cluster does not come to rest.
        """
        until_s = time.monotonic() + seconds
        with self._maps(until_s):
            for happen in (
                self._submit, self._fail, self._cancel, self._time_out, self._connect,
                self._cut_clients, self._kill_clients, self._throw_bad_frames,
                self._restart_workers,
            ):  # fmt: skip
                happen()
        self._rest()

    @contextmanager
    def _maps(self, until_s: float) -> Iterator[None]:
        """Maps in a thread, one after the other until the time is over, at least one."""
        over = threading.Event()

        def run() -> int:
            mapped = 0
            while True:
                map_s(self._client, self._work)
                mapped += len(self._work)
                if over.is_set() or time.monotonic() >= until_s:
                    return mapped

        with ThreadPoolExecutor(1) as pool:
            maps = pool.submit(run)
            try:
                yield
            except BaseException:
                over.set()
                raise
        self.events["task"] += maps.result()

    # Load

    def _submit(self) -> None:
        work = self._work.part(0, self._mix.submits)
        priorities = list(Priority)
        futures = [
            self._client.submit(work.kind, payload, priority=self._rng.choice(priorities))
            for payload in work.payloads
        ]
        work.check([result_of(future) for future in futures])
        self.events["task"] += len(work)

    def _fail(self) -> None:
        futures = [self._client.submit("fail", retry=RETRY) for _ in range(self._mix.failures)]
        for future in futures:
            try:
                result_of(future)
            except TaskFailed:
                self.events["failure"] += 1
            else:
                raise WrongResult("a task that fails came back with a result")

    def _cancel(self) -> None:
        futures = [self._client.submit("sleep", b"0.02") for _ in range(self._mix.cancels)]
        for future in futures:
            future.cancel()
        for future in futures:
            try:
                result_of(future)
            except CancelledError:
                self.events["cancel"] += 1

    def _time_out(self) -> None:
        many = range(self._mix.timeouts)
        for future in [self._client.submit("sleep", b"0.02", timeout_s=0.01) for _ in many]:
            # Not raised: a task's own timeout is a TimeoutError too.
            if isinstance(future.exception(RESULT_TIMEOUT_S), TaskTimedOut):
                self.events["timeout"] += 1

    # Peers that come and go

    def _connect(self) -> None:
        for payload in self._work.payloads[: self._mix.connects]:
            with Client(self._local.endpoint, spec=self._local.spec) as client:
                if result_of(client.submit("echo", payload)) != payload:
                    raise WrongResult("a new client got another task's result")
            self.events["connect"] += 1

    def _cut_clients(self) -> None:
        codec = load_codec(self._local.spec)
        for _ in range(self._mix.cut_clients):
            session = ClientSession(f"cut-{os.urandom(4).hex()}")
            event = session.submit("sleep", [b"0.01"], Options(), None, 0.0)
            self._say_once(codec.encode([event, *session.heartbeat(0.0)]))
            self.events["lost client"] += 1

    def _kill_clients(self) -> None:
        for _ in range(self._mix.killed_clients):
            with ScratchFolder("client-") as folder:
                told = [self._local.endpoint, encode_spec(self._local.spec)]
                victim = Process("client", __name__, told, Path(folder))
                try:
                    victim.announcement(time.monotonic() + REST_TIMEOUT_S)
                    victim.kill()
                finally:
                    victim.stop(time.monotonic())
            self.events["lost client"] += 1

    def _throw_bad_frames(self) -> None:
        whole = load_codec(self._local.spec).encode([on.ClientHeartbeat("nobody", 0)])[0]
        for at in range(self._mix.bad_frames):
            noise = [self._rng.randbytes(200)], [b"\xc1"], [whole[0][:3]], [*whole, b"more"]
            self._say_once([noise[at % len(noise)]])
            self.events["bad frame"] += 1

    def _restart_workers(self) -> None:
        for at in range(self._mix.killed_workers + self._mix.stopped_workers):
            worker = self._local.workers[at % self._n_workers]
            if at < self._mix.killed_workers:
                worker.kill()
            else:
                worker.terminate()
            self._local.restart_worker(worker)
            self.events["worker restart"] += 1

    def _say_once(self, messages: Sequence[Sequence[Frame]]) -> None:
        """Connect, send messages, wait for an answer, and go without a goodbye."""
        with zmq.Context() as context:
            channel = Channel(context, zmq.DEALER, self._local.spec)
            channel.connect(self._local.endpoint)
            timeout_ms = round(ANSWER_TIMEOUT_S * 1000)
            if channel.socket.poll(timeout_ms, zmq.POLLOUT):
                for frames in messages:
                    channel.send(frames)
            answered = channel.socket.poll(timeout_ms, zmq.POLLIN)
            channel.close()
        if not answered:
            raise ExperimentError(f"the coordinator gave no answer in {ANSWER_TIMEOUT_S:.0f} s")

    def _rest(self) -> None:
        """Wait until only the workers and one client are there, and nothing is kept."""
        until_s = time.monotonic() + REST_TIMEOUT_S
        while unrest := self._unrest():
            if time.monotonic() > until_s:
                raise ExperimentError(
                    f"the cluster did not come to rest in {REST_TIMEOUT_S:.0f} s: {unrest}"
                )
            time.sleep(LOOK_S)

    def _unrest(self) -> str:
        """What is not over yet, in words; empty at rest."""
        status = self._client.status()
        counts = {
            "clients too many": status.clients - 1,
            "workers missing": self._n_workers - sum(not w.draining for w in status.workers),
            "runs": status.runs,
            "bytes of results": status.retained_bytes,
        }
        return ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def main(endpoint: str, spec: ClusterSpec) -> None:
    """Be a client with work in flight, until killed."""
    with Client(endpoint, spec=spec) as client:
        futures = [client.submit("sleep", b"0.01") for _ in range(5)]
        futures[0].result(REST_TIMEOUT_S)
        announce(client=client.name)
        os.read(0, 1)


if __name__ == "__main__":
    try:
        main(sys.argv[1], decode_spec(sys.argv[2]))
    except ClusterError as error:
        sys.exit(str(error))
