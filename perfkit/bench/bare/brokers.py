"""The clients of the bare brokers: start one in a with block and put it under load.

Each way to load one checks its results after the clock has stopped.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import msgspec
import zmq

from cluster.local import Process
from cluster.protocol.codec import Codec
from cluster.scratch import ScratchFolder
from cluster.spec import load_part
from cluster.transport.channel import NOW
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from cluster.vocabulary.task import Priority
from perfkit.bench.bare.processes import TASKS_PER_FRAME, pack, send_all, unpack_outcomes
from perfkit.bench.workloads.load import ExperimentError, Work

READY_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 5.0
#: A lost message must end a measurement, not hang it.
ANSWER_TIMEOUT_MS = 30_000
#: Frames that a client has in flight: as many tasks as the cluster's map has.
FRAMES_IN_FLIGHT = 655
#: Frames or messages that a worker holds, so that it never waits for the next.
FRAMES_HELD, MESSAGES_HELD = 4, 64


class Bare:
    """A bare broker's processes and a socket to it, during a with block.

    Raises ClusterError with the child's output if a process does not come up.
    """

    kind: int = zmq.DEALER

    def __init__(self, role: str, *options: str) -> None:
        self._first = (role, options)
        self._others: list[tuple[str, tuple[str, ...]]] = []
        self.processes: list[Process] = []

    @property
    def pids(self) -> list[int]:
        """The broker's process id, then its workers'."""
        return [process.pid for process in self.processes]

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._folder = Path(stack.enter_context(ScratchFolder("bare-")))
            context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
            stack.callback(context.destroy, linger=0)
            stack.callback(self._stop_processes)
            self._until_s = time.monotonic() + READY_TIMEOUT_S
            endpoint = self._start(*self._first)
            for role, options in self._others:
                self._start(role, ("--endpoint", endpoint, *options))
            self._socket: zmq.Socket[bytes] = context.socket(self.kind)
            self._socket.set_hwm(0)
            self._socket.linger = 0
            self._socket.connect(endpoint)
            self._poller = zmq.Poller()
            self._poller.register(self._socket, zmq.POLLIN)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _stop_processes(self) -> None:
        until_s = time.monotonic() + STOP_TIMEOUT_S
        for process in reversed(self.processes):
            process.stop(until_s)

    def _start(self, role: str, options: Sequence[str]) -> str:
        name = f"{role}-{len(self.processes)}"
        process = Process(name, "perfkit.bench.bare.processes", [role, *options], self._folder)
        self.processes.append(process)
        return process.announcement(self._until_s)["endpoint"]

    def _wait(self) -> None:
        if not self._poller.poll(ANSWER_TIMEOUT_MS):
            raise ExperimentError(
                f"a bare {self._first[0]} gave no answer within {ANSWER_TIMEOUT_MS // 1000} s"
            )


class PackedBroker(Bare):
    """A hundred tasks to a frame; the broker enters each in a table and a priority bucket."""

    def __init__(self, workers: int) -> None:
        super().__init__("packed-broker")
        self._others = [("packed-worker", ("--credit", str(FRAMES_HELD)))] * workers

    def map_s(self, work: Work) -> float:
        """Seconds until every result was here; they are checked afterwards."""
        socket, payloads, total = self._socket, work.payloads, len(work)
        found: dict[int, bytes] = {}
        started = 0
        began_s = time.perf_counter()
        while len(found) < total:
            while started < total and started - len(found) < FRAMES_IN_FLIGHT * TASKS_PER_FRAME:
                part = payloads[started : started + TASKS_PER_FRAME]
                normal = int(Priority.NORMAL)
                tasks = [(n, normal, work.kind, payload) for n, payload in enumerate(part, started)]
                socket.send(pack(tasks), NOW)
                started += len(part)
            self._wait()
            found.update(unpack_outcomes(socket.recv()))
        took_s = time.perf_counter() - began_s
        work.check([found[number] for number in range(total)])
        return took_s


class Forwarder(Bare):
    """One task to a message, forwarded to the worker that was free first.

    With ``uncopied`` no process copies a payload, which pays for large ones. A worker holds
    ``messages_held`` messages; with one, no process looks for a second message after a wake-up.
    """

    def __init__(
        self, workers: int, *, uncopied: bool = False, messages_held: int = MESSAGES_HELD
    ) -> None:
        options = ("--uncopied",) if uncopied else ()
        if messages_held == 1:
            options = (*options, "--drain", "1")
        super().__init__("forwarder", *options)
        self._others = [("echo-worker", ("--credit", str(messages_held), *options))] * workers
        self._copy = not uncopied

    def stream_s(self, work: Work, in_flight: int) -> float:
        """Seconds until every echo was back; they are checked afterwards.

        Echoes of two workers overtake each other, so they are sorted by the number at their front.
        """
        socket, payloads, total, copy = self._socket, work.payloads, len(work), self._copy
        found: list[Any] = []
        started = 0
        began_s = time.perf_counter()
        while len(found) < total:
            while started < total and started - len(found) < in_flight:
                socket.send(payloads[started], NOW, copy=copy)
                started += 1
            self._wait()
            try:
                while True:
                    found.append(socket.recv(NOW, copy=copy))
            except zmq.Again:
                pass
        took_s = time.perf_counter() - began_s
        work.check(sorted(found if copy else [frame.bytes for frame in found]))
        return took_s

    def one_by_one_ms(self, work: Work) -> list[float]:
        """The latency of each echo in ms, with one in flight."""
        socket = self._socket
        took_ms: list[float] = []
        found: list[bytes] = []
        for payload in work.payloads:
            began_s = time.perf_counter()
            socket.send(payload, NOW)
            self._wait()
            found.append(socket.recv(NOW))
            took_ms.append((time.perf_counter() - began_s) * 1e3)
        work.check(found)
        return took_ms


class Messenger(Bare):
    """One task at a time through the cluster's own messages and processes, without a scheduler.

    What the cluster takes longer is the price of its promises. ``codec`` is that of a spec.
    """

    def __init__(self, codec: str) -> None:
        super().__init__("message-broker", "--codec", codec)
        self._others = [("message-worker", ("--codec", codec))]
        self._codec: Codec = load_part(codec)()

    def one_by_one_ms(self, work: Work) -> list[float]:
        """The latency of each echo in ms, with one in flight."""
        took_ms: list[float] = []
        found: list[bytes] = []
        for number, payload in enumerate(work.payloads):
            began_s = time.perf_counter()
            task = on.TasksSubmitted("client", number, work.kind, [payload])
            send_all(self._socket, self._codec.encode([task]))
            while len(found) <= number:
                self._wait()
                for action in self._codec.actions(self._socket.recv_multipart(NOW)):
                    if isinstance(action, do.Deliver):
                        found += action.outcomes
            took_ms.append((time.perf_counter() - began_s) * 1e3)
        work.check(found)
        return took_ms


class RawLink(Bare):
    """Two processes and one hop without copies: the fastest way for payloads."""

    kind = zmq.PAIR

    def __init__(self) -> None:
        super().__init__("sink")

    def send_s(self, work: Work) -> float:
        """Seconds until the last payload had arrived; their checksums are compared afterwards."""
        socket = self._socket
        began_s = time.perf_counter()
        socket.send(b"%d" % len(work))
        for payload in work.payloads:
            socket.send(payload, copy=False)
        self._wait()
        socket.recv()
        took_s = time.perf_counter() - began_s
        sums = msgspec.msgpack.decode(socket.recv(), type=list[int])
        if sums != [zlib.crc32(payload) for payload in work.expected]:
            raise ExperimentError("what arrived over a bare link is not what was sent")
        return took_s
