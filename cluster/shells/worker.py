"""The worker: a process that offers handlers by name and works through its leases.

With one slot the loop that reads the socket also computes, so no task is handed from thread to
thread; with more, each slot is a thread with a socket of its own for results. A second, small
thread sends heartbeats and hears of recalls and cancellations while a handler computes; whenever it
does it also sends what slow handlers hold up, on the line of the slot that works on it, so that
results stay in order.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType

import msgspec
import zmq

from cluster.protocol.codec import in_words
from cluster.protocol.stored_results import Gathered
from cluster.protocol.worker_session import HeldLease, WorkerSession
from cluster.shells.transport import Channel, Listener, Waker
from cluster.spec import BASELINE, ClusterSpec, load_codec
from cluster.vocabulary import events as on
from cluster.vocabulary.errors import ClusterError, ProtocolError
from cluster.vocabulary.task import NO_LOAD, Gpu, Load
from cluster.work.handlers import Handlers
from cluster.work.host import host_load
from cluster.work.lease_runner import LeaseRunner

REPORT_AFTER_S = 0.001


class Worker:
    """Work for the coordinator at ``endpoint``, ``capacity`` tasks at once, until stop or SIGTERM.

    ``probe`` is asked for the host's load at each heartbeat; what it can't know it leaves None.
    Raises ClusterError for a capacity, a name or kinds that no coordinator would take.
    """

    def __init__(
        self,
        endpoint: str,
        handlers: Handlers,
        *,
        name: str | None = None,
        capacity: int = 1,
        spec: ClusterSpec = BASELINE,
        models: Sequence[str] = (),
        gpus: Sequence[Gpu] = (),
        probe: Callable[[], Load] = host_load,
    ) -> None:
        self.endpoint = endpoint
        self.handlers = handlers
        self.capacity = capacity
        self.spec = spec
        #: called once, in the main thread, when the coordinator has said welcome
        self.on_welcome: Callable[[], None] | None = None
        self.name = name or f"{socket.gethostname()}-{os.getpid()}"
        self._probe = probe
        self._session = WorkerSession(
            self.name,
            incarnation=time.time_ns(),
            capacity=capacity,
            credit=max(1, capacity * spec.credit),
            kinds=handlers.kinds(),
            models=models,
            gpus=gpus,
            host=socket.gethostname(),
            pid=os.getpid(),
            most_kept_bytes=spec.limits.stored_result_bytes,
        )
        try:
            for event in self._session.introduction():
                msgspec.convert(msgspec.to_builtins(event), on.WorkerJoined)
        except msgspec.ValidationError as error:
            raise ClusterError(
                f"worker {self.name!r} with capacity {capacity}: {in_words(error, on.WorkerJoined)}"
            ) from error
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        #: how many tasks of a kind to run between two looks at the clock
        self._steps: dict[str, int] = {}
        #: what each slot works on, by its line
        self._shifts: dict[Line, LeaseRunner] = {}
        self._waker = Waker()
        #: the control thread has something to say now: the worker was taken in, or is done
        self._control_waker = Waker()
        self._drain = threading.Event()
        #: when a client was last heard to fetch a large result
        self._read_at = 0.0
        self._done = threading.Event()

    def run(self) -> None:
        """Work until stop, then finish what is started, give back the rest, and say goodbye."""
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        line = Line(context, self)
        threads = [threading.Thread(target=self._control, args=(context,), name="control")]
        if self.capacity > 1:
            threads += [
                threading.Thread(target=self._slot, args=(context,), name=f"slot-{i}")
                for i in range(self.capacity)
            ]
        for thread in threads:
            thread.start()
        try:
            self._loop(line)
        finally:
            self._done.set()
            self._control_waker.wake()
            with self._work:
                self._work.notify_all()
            for thread in threads:
                thread.join()
            with self._lock:
                events = self._session.leave("stopped")
            line.send(events)
            line.close()
            context.term()
            self._waker.close()
            self._control_waker.close()

    def stop(self) -> None:
        """Ask run to end gracefully; safe from a signal handler."""
        self._read_at = time.monotonic()
        self._drain.set()
        self._waker.wake()

    def stop_on_signals(self) -> None:
        """Let SIGTERM and SIGINT stop this worker; call it from the main thread."""

        def stop(signum: int, frame: FrameType | None) -> None:
            self.stop()

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)

    def _loop(self, line: Line) -> None:
        listener = Listener(line.channel, self._waker)
        introduce_at = 0.0
        beat_ms = round(self.spec.limits.heartbeat_s * 1000)
        drained, patience_s = False, self.spec.limits.liveness_s
        while True:
            if self._session.epoch is None and time.monotonic() >= introduce_at:
                line.channel.socket.poll(round(self.spec.limits.heartbeat_s * 1000), zmq.POLLOUT)
                line.send(self._session.introduction())
                introduce_at = time.monotonic() + self.spec.limits.heartbeat_s
            if self._drain.is_set():
                with self._lock:
                    events = [] if drained else self._session.drain()
                    over = self._session.through(time.monotonic() - self._read_at > patience_s)
                drained = True
                line.send(events)
                if over:
                    return
            if self.on_welcome is not None and self._session.epoch is not None:
                self.on_welcome()
                self.on_welcome = None
            if self.capacity == 1 and self._work_once(line):
                continue
            listener.wait(beat_ms)
            line.receive()

    def _work_once(self, line: Line) -> bool:
        """Work through the oldest lease; False without one."""
        with self._lock:
            lease = self._session.take()
        if lease is not None:
            self._work_through(lease, line)
        return lease is not None

    def _slot(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        """One of several slots: take a lease, work through it, report on a socket of its own."""
        line = Line(context, self)
        while True:
            with self._work:
                while (lease := self._session.take()) is None and not self._done.is_set():
                    self._work.wait()
            if lease is None:
                break
            self._work_through(lease, line)
            self._waker.wake()
        line.close()

    def _work_through(self, lease: HeldLease, line: Line) -> None:
        """Run a lease step by step, so that results don't wait long."""
        step = self._steps.get(lease.kind, 1)
        runner = LeaseRunner(lease, self.handlers, step, self.spec.limits)
        self._shifts[line] = runner
        while runner.go_on():
            if runner.waits_s() > REPORT_AFTER_S:
                self._report(runner, line)
        del self._shifts[line]
        self._steps[lease.kind] = runner.step
        self._report(runner, line)
        if lease.kept is not None:
            with self._lock:
                events = self._session.give_back(lease)
            line.send(events)

    def _report(self, runner: LeaseRunner, line: Line) -> None:
        with line.lock:
            gathered = runner.collect()
            if gathered.outcomes:
                line.send(self._told(runner.lease, gathered))

    def _report_held_up(self) -> None:
        """Report what is done behind the back of handlers that take long."""
        for line, runner in list(self._shifts.items()):
            # Who holds a line is busy with it, so nothing is held up there.
            if line.lock.acquire(blocking=False):
                try:
                    gathered = runner.collect()
                    if gathered.outcomes:
                        line.send(self._told(runner.lease, gathered))
                finally:
                    line.lock.release()

    def _told(self, lease: HeldLease, gathered: Gathered) -> list[on.Event]:
        """What the coordinator is told of outcomes; one by one where they would not go through its
        socket together, the time they took shared evenly.
        """
        outcomes, failures, began, ended = gathered
        with self._lock:
            if sum(map(len, outcomes)) <= self.spec.limits.message_bytes // 2:
                return self._session.report(lease, outcomes, failures, began, ended)
            events: list[on.Event] = []
            share = (ended - began) / len(outcomes)
            for at, outcome in enumerate(outcomes):
                mine = [failure for failure in failures if failure.position == lease.reported]
                from_s = began + at * share
                events += self._session.report(lease, [outcome], mine, from_s, from_s + share)
            return events

    def _control(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        """Send heartbeats and hear of recalls and cancellations, whatever the slots are doing."""
        line = Line(context, self)
        listener = Listener(line.channel, self._control_waker)
        next_at = time.monotonic()
        while not self._done.is_set():
            now = time.monotonic()
            if now >= next_at:
                try:
                    load = self._probe()
                except Exception:  # a card that can't be read must not silence the worker
                    load = NO_LOAD
                with self._lock:
                    events = self._session.heartbeat(load)
                line.send(events)
                next_at = now + (self._session.heartbeat_s or self.spec.limits.heartbeat_s)
            woken = listener.wait(max(0, round((next_at - now) * 1000)))
            line.receive()
            self._report_held_up()
            if woken:  # taken in: say where recalls are heard
                next_at = now
        line.close()


class Line:
    """One thread's connection to the coordinator: it sends events, and hands actions to the
    worker's session.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], worker: Worker) -> None:
        self.channel = Channel(context, zmq.DEALER, worker.spec)
        self.channel.connect(worker.endpoint)
        #: held by whoever sends results; the order of results is that of taking it
        self.lock = threading.Lock()
        self._codec = load_codec(worker.spec)
        self._worker = worker

    def send(self, events: Sequence[on.Event]) -> None:
        """Send, or drop at the high-water mark: the coordinator finds out by the heartbeats."""
        try:
            for frames in self._codec.encode(events):
                self.channel.send(frames)
        except zmq.Again:
            return

    def receive(self) -> None:
        """Take in what has arrived, answer it, and wake a slot if there is work."""
        worker = self._worker
        for frames in self.channel.receive(worker.spec.drain):
            try:
                actions = self._codec.actions(frames)
            except ProtocolError:
                continue
            with worker._work:
                epoch, kept = worker._session.epoch, bool(worker._session.keeping)
                answers = [e for action in actions for e in worker._session.handle(action)]
                if worker._session.epoch != epoch:
                    worker._control_waker.wake()
                if kept:  # there may be room for another large result
                    worker._waker.wake()
                worker._work.notify_all()
            if any(isinstance(answer, on.ChunkRead) for answer in answers):
                worker._read_at = time.monotonic()
            self.send(answers)

    def close(self) -> None:
        """Hang up."""
        self.channel.close()
