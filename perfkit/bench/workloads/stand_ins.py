"""Many workers in one process, whose tasks only wait: stand-ins for workers with a card each.

Every worker has the product's session and two connections of its own, as a real worker has, so the
coordinator gets the messages of as many real workers. But a task is a deadline in one loop, not a
handler in a process: a hundred processes on two cores would measure the system's scheduler instead.

``python -m perfkit.bench.workloads.stand_ins`` obeys lines of JSON on standard input and answers
each with one: ``{"join": [[name, speed]]}`` when all are welcome, ``{"starts": true}`` with the
times by time.perf_counter at which each worker has begun its tasks since the last time, ``{"bare":
[workers, service_s, window_s]}`` with those of as many loops without a cluster.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from heapq import heappop, heappush
from pathlib import Path
from typing import Any

import zmq

from cluster.protocol.held_lease import HeldLease
from cluster.protocol.worker_session import WorkerSession
from cluster.spec import ClusterSpec, decode_spec, encode_spec, load_codec
from cluster.supervision.children import Process
from cluster.transport.channel import Channel
from cluster.transport.hello import check_heard
from cluster.vocabulary import events as on
from cluster.vocabulary.errors import ProtocolError
from perfkit.bench.workloads.load import ExperimentError

KIND = "sleep"
STOP_TIMEOUT_S = 5.0


class StandIns(Process):
    """The process that holds the stand-ins, as its parent sees it; `folder` gets its errors."""

    def __init__(self, endpoint: str, spec: ClusterSpec, folder: Path) -> None:
        arguments = [endpoint, encode_spec(spec)]
        super().__init__("stand-ins", "perfkit.bench.workloads.stand_ins", arguments, folder)
        self._joined = 0

    def grow_to(self, workers: int, speeds: Sequence[float] = ()) -> None:
        """Let stand-ins join until there are this many; returns when all are welcome. Waits are
        divided by the worker's speed, 1 without `speeds`.
        """
        numbers = range(self._joined, workers)
        self._ask(join=[(f"stand-in-{n}", speeds[n] if speeds else 1.0) for n in numbers])
        self._joined = workers

    def starts(self) -> list[list[float]]:
        """When each worker has begun its tasks since this was asked last, or since it joined."""
        return [*self._ask(starts=True).values()]

    def bare_starts(self, workers: int, service_s: float, window_s: float) -> list[list[float]]:
        """The same of as many loops that wait without a cluster."""
        found: list[list[float]] = self._ask(bare=[workers, service_s, window_s])
        return found

    def end(self) -> None:
        """End the process."""
        self.stop(time.monotonic() + STOP_TIMEOUT_S)

    def _ask(self, **command: object) -> Any:
        assert self.stdin is not None
        assert self.stdout is not None
        self.stdin.write(json.dumps(command).encode() + b"\n")
        # The pipe is not buffered, so a long line comes in parts.
        line = b""
        while not line.endswith(b"\n"):
            part = self.stdout.readline()
            if not part:
                raise ExperimentError(f"the stand-ins have ended{self.last_words()}")
            line += part
        return json.loads(line)


class Loop:
    """Deadlines and readable descriptors; one thread serves them all."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._readers: dict[int, Callable[[], None]] = {}
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0

    def watch(self, fd: int, call: Callable[[], None]) -> None:
        """Call a function whenever a descriptor is readable."""
        self._poll.register(fd, select.EPOLLIN)
        self._readers[fd] = call

    def at(self, due_s: float, call: Callable[[], None]) -> None:
        """Call a function at a time."""
        self._sequence += 1
        heappush(self._due, (due_s, self._sequence, call))

    def turn(self) -> None:
        """Wait for something to do, and do all that there is."""
        wait_s = max(0.0, self._due[0][0] - time.perf_counter()) if self._due else None
        # Unlike epoll's own wait, select's ends to the microsecond.
        if wait_s != 0.0:
            select.select([self._poll.fileno()], [], [], wait_s)
        for fd, _ in self._poll.poll(0):
            self._readers[fd]()
        now = time.perf_counter()
        while self._due and self._due[0][0] <= now:
            heappop(self._due)[2]()


class StandIn:
    """One worker with one slot; its waits are divided by its `speed`."""

    def __init__(
        self,
        name: str,
        speed: float,
        endpoint: str,
        spec: ClusterSpec,
        context: Any,
        loop: Loop,
    ) -> None:
        self._loop = loop
        self._speed = speed
        self._codec = load_codec(spec)
        self._drain, self._beat_s, self._spec = spec.drain, spec.limits.heartbeat_s, spec
        self._endpoint = endpoint
        self.session = WorkerSession(
            name, time.time_ns(), 1, max(1, spec.credit), [KIND], host="stand-ins", pid=os.getpid()
        )
        #: when each task was begun
        self.starts: list[float] = []
        self._lease: HeldLease | None = None
        self._is_busy = False
        self._work, self._control = (Channel(context, zmq.DEALER, spec) for _ in range(2))
        for channel in (self._work, self._control):
            channel.connect(endpoint)
            loop.watch(int(channel.socket.getsockopt(zmq.FD)), partial(self._hear, channel))
        loop.at(time.perf_counter(), self._beat)

    def _beat(self) -> None:
        self._send(self._work, self.session.introduction())
        self._send(self._control, self.session.heartbeat())
        self._loop.at(time.perf_counter() + self._beat_s, self._beat)
        self._hear(self._control)
        self._hear(self._work)

    def _hear(self, channel: Channel) -> None:
        while channel.readable():
            for frames in channel.receive(self._drain):
                try:
                    actions = self._codec.actions(frames)
                except ProtocolError:
                    if check_heard(frames, self._spec, self._endpoint) and channel is self._work:
                        self._send(self._work, self.session.introduction(again=True))
                    continue
                for action in actions:
                    if answers := self.session.handle(action):
                        self._send(channel, answers)
        self._begin()

    def _begin(self) -> None:
        """Begin the next task unless one runs or none is there."""
        if self._is_busy:
            return
        lease = self._lease
        if lease is None or not lease.pending:
            self._lease = lease = self.session.take()
            if lease is None:
                return
        (payload,) = lease.claim(1)
        now = time.perf_counter()
        self._is_busy = True
        self.starts.append(now)
        self._loop.at(
            now + float(payload) / self._speed, partial(self._finish, lease, payload, now)
        )

    def _finish(self, lease: HeldLease, payload: bytes, began_s: float) -> None:
        self._is_busy = False
        ended_s = time.perf_counter()
        self._send(self._work, self.session.report(lease, [payload], [], began_s, ended_s))
        self._begin()
        # A message that came while this one was sent makes no noise.
        self._hear(self._work)

    def _send(self, channel: Channel, events: Sequence[on.Event]) -> None:
        with suppress(zmq.Again):  # not connected yet
            for frames in self._codec.encode(events):
                channel.send(frames)


def bare_starts(workers: int, service_s: float, window_s: float) -> list[list[float]]:
    """When each of this many loops without a cluster has begun its tasks."""
    loop, starts = Loop(), [list[float]() for _ in range(workers)]

    def begin(mine: list[float]) -> None:
        mine.append(time.perf_counter())
        loop.at(mine[-1] + service_s, partial(begin, mine))

    for mine in starts:
        begin(mine)
    until_s = time.perf_counter() + window_s
    while time.perf_counter() < until_s:
        loop.turn()
    return starts


def main() -> None:
    """Serve the commands of standard input until it ends."""
    endpoint, spec = sys.argv[1], decode_spec(sys.argv[2])
    context: Any = zmq.Context()
    context.set(zmq.MAX_SOCKETS, 4_096)
    loop = Loop()
    workers: dict[str, StandIn] = {}

    def obey() -> None:
        line = os.read(0, 1 << 16)
        if not line:
            raise SystemExit
        for text in line.splitlines():
            command = json.loads(text)
            for name, speed in command.get("join", ()):
                workers[name] = StandIn(name, speed, endpoint, spec, context, loop)
            while any(worker.session.epoch is None for worker in workers.values()):
                loop.turn()
            answer: Any = None
            if "starts" in command:
                answer = {name: worker.starts for name, worker in workers.items()}
            elif "bare" in command:
                answer = bare_starts(*command["bare"])
            print(json.dumps(answer), flush=True)
            for worker in workers.values():
                worker.starts = []

    loop.watch(0, obey)
    while True:
        loop.turn()


if __name__ == "__main__":
    main()
