"""The worker: a process that offers handlers by name and runs leases.

With one slot the loop that reads the socket also computes, so no task is handed from thread to
thread; with more, each slot is a thread with a connection of its own for results. A control thread
sends heartbeats and hears of recalls and cancellations while handlers compute. It also sends
outcomes that a slow handler holds up, on the connection of that handler's slot, so that results
stay in order.

An error of any of these threads ends the worker, and without a goodbye: that would promise that
nothing of its work was lost.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence

import msgspec
import zmq

from cluster.protocol.codec import in_words
from cluster.protocol.worker_session import HeldLease, WorkerSession
from cluster.shells.connection import Connection, Context
from cluster.spec import BASELINE, ClusterSpec
from cluster.transport.questions import learn_spec
from cluster.transport.wakeable import Listener, Waker
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from cluster.vocabulary.errors import ClusterError
from cluster.vocabulary.task import Gpu, Load
from cluster.work.forks import default_signals, end_copy, note_worker
from cluster.work.handlers import Handlers
from cluster.work.host import ask_probe, host_load
from cluster.work.lease_runner import LeaseRunner

REPORT_AFTER_S = 0.001


class Worker:
    """Work for the coordinator at ``endpoint``, ``capacity`` tasks at once, until stop or SIGTERM.

    Without a ``spec`` it waits for a coordinator and adopts its spec. ``probe`` returns the host's
    load for each heartbeat; unknown values are None. ``on_serve`` is called, in a thread that must
    not wait, with the models that this worker is wanted to serve from now on; what it loads or
    unloads then is told by ``offer``. Raises ClusterError for an invalid capacity,
    name or kind; so does ``run`` if the coordinator has another codec or other limits than
    ``spec``, or refuses this worker.
    """

    def __init__(
        self,
        endpoint: str,
        handlers: Handlers,
        *,
        name: str | None = None,
        capacity: int = 1,
        spec: ClusterSpec | None = None,
        models: Sequence[str] = (),
        gpus: Sequence[Gpu] = (),
        probe: Callable[[], Load] = host_load,
        on_serve: Callable[[list[str]], None] | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.handlers = handlers
        self.capacity = capacity
        #: called once, in the main thread, after the coordinator's welcome
        self.on_welcome: Callable[[], None] | None = None
        #: called with the error that ends a thread, in that thread
        self.on_failure: Callable[[BaseException], None] | None = None
        self.name = name or f"{socket.gethostname()}-{os.getpid()}"
        self._probe = probe
        self._on_serve = on_serve
        incarnation = time.time_ns()

        def session(spec: ClusterSpec) -> WorkerSession:
            return WorkerSession(
                self.name,
                incarnation=incarnation,
                capacity=capacity,
                credit=max(1, capacity * spec.credit),
                kinds=handlers.kinds(),
                models=models,
                gpus=gpus,
                host=socket.gethostname(),
                pid=os.getpid(),
                stored_bytes_max=spec.limits.stored_result_bytes,
            )

        try:
            for event in session(spec or BASELINE).introduction():
                msgspec.convert(msgspec.to_builtins(event), on.WorkerJoined)
        except msgspec.ValidationError as error:
            raise ClusterError(
                f"worker {self.name!r} with capacity {capacity}: {in_words(error, on.WorkerJoined)}"
            ) from error
        self.spec = spec or learn_spec(endpoint, None)
        self._session = session(self.spec)
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        #: how many tasks of a kind to run between two looks at the clock
        self._steps: dict[str, int] = {}
        self._runners: dict[Connection, LeaseRunner] = {}
        self._waker = Waker()
        #: wakes the control thread after a welcome and at the end
        self._control_waker = Waker()
        self._drain = threading.Event()
        #: when a client last fetched a part of a large result
        self._read_at = 0.0
        self._done = threading.Event()
        #: the error that ends this worker
        self._error: BaseException | None = None
        #: when the coordinator first refused to admit this worker
        self._refused_at: float | None = None
        #: the connections of slots
        self._slots: list[Connection] = []
        self._hears_signals = False
        #: whether this is the copy in a forked child of a handler
        self._is_copy = False
        note_worker(self)

    def run(self) -> None:
        """Work until stop; then finish started tasks, give back the rest, and say goodbye.

        Raises whatever ended one of the worker's threads, without a goodbye, and ClusterError if
        the coordinator goes on refusing this worker.
        """
        context: Context = zmq.Context()
        connection = self._connect(context, lambda: self._session.introduction(again=True))
        slots = self.capacity if self.capacity > 1 else 0
        threads = [
            threading.Thread(target=self._guard, args=(part, context), daemon=True)
            for part in [self._control, *[self._slot] * slots]
        ]
        for thread in threads:
            thread.start()
        try:
            self._loop(connection)
        except BaseException:
            with self._lock:
                self._session.leave()  # unsaid; nothing more is begun or reported
            self._end_threads()
            connection.close()
            raise
        self._end_threads()
        for thread in threads:
            thread.join()
        with self._lock:
            events = self._session.leave("stopped")
        connection.send(events)
        connection.close()
        context.term()
        self._waker.close()
        self._control_waker.close()

    def stop(self) -> None:
        """Ask run to end gracefully; safe from a signal handler."""
        self._read_at = time.monotonic()
        self._drain.set()
        self._waker.wake()

    def offer(self, kinds: Sequence[str], models: Sequence[str], trouble: str = "") -> None:
        """Offer these kinds and models from now on; ``trouble`` names a model that could not be
        loaded, and why. Call it from any thread: before a handler is taken away, after one is
        there. What is not started of other kinds is given back.
        """
        with self._lock:
            self._session.offer(kinds, models, trouble)  # a heartbeat says so
        self._control_waker.wake()

    def stop_on_signals(self) -> None:
        """Let SIGTERM and SIGINT stop this worker; call it from the main thread."""
        self._hears_signals = True
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop())

    def become_copy(self) -> None:
        """In a forked child: give signals their default effect, and run no more tasks."""
        self._is_copy = True
        for runner in self._runners.values():
            runner.lease.pending.clear()
        if self._hears_signals:
            default_signals()

    def current_task(self) -> str:
        """The task that the calling thread runs, as lease.position; "" in a thread without one."""
        thread = threading.get_ident()
        for connection, runner in list(self._runners.items()):
            if connection.thread == thread:
                return f"{runner.lease.id}.{runner.lease.next - 1}"
        return ""

    def _connect(
        self, context: Context, introduction: Callable[[], list[on.Event]] = list
    ) -> Connection:
        here = self._hear, introduction, self._fail
        return Connection(context, self.endpoint, self.spec, *here)

    def _fail(self, error: BaseException) -> None:
        """End the worker with an error."""
        self._error = error
        self._waker.wake()

    def _guard(self, part: Callable[[Connection], None], context: Context) -> None:
        """Run a thread with a connection of its own; its error ends the worker."""
        connection = self._connect(context)
        try:
            part(connection)
        except BaseException as error:
            if self.on_failure is not None:
                self.on_failure(error)
            self._fail(error)
        finally:
            with connection.lock:
                if connection in self._slots:
                    self._slots.remove(connection)
                connection.close()

    def _end_threads(self) -> None:
        self._done.set()
        self._control_waker.wake()
        with self._work:
            self._work.notify_all()

    def _loop(self, connection: Connection) -> None:
        listener = Listener(connection.channel, self._waker)
        introduce_at = 0.0
        beat_ms = round(self.spec.limits.heartbeat_s * 1000)
        drained, patience_s = False, self.spec.limits.liveness_s
        while True:
            if self._error is not None:
                raise self._error
            if self._session.epoch is None and time.monotonic() >= introduce_at:
                connection.channel.socket.poll(beat_ms, zmq.POLLOUT)
                connection.send(self._session.introduction())
                introduce_at = time.monotonic() + self.spec.limits.heartbeat_s
            if self._drain.is_set():
                with self._lock:
                    events = [] if drained else self._session.drain()
                    is_finished = self._session.is_finished(
                        time.monotonic() - self._read_at > patience_s
                    )
                drained = True
                connection.send(events)
                if is_finished:
                    return
            if self.on_welcome is not None and self._session.epoch is not None:
                self.on_welcome()
                self.on_welcome = None
            if self.capacity == 1:
                with self._lock:
                    lease = self._session.take()
                if lease is not None:
                    self._run_lease(lease, connection)
                    continue
            listener.wait(beat_ms)
            connection.tend()

    def _slot(self, connection: Connection) -> None:
        """Run leases in one of several slots."""
        self._slots.append(connection)
        while True:
            lease = None
            with self._work:
                while not self._done.is_set() and (lease := self._session.take()) is None:
                    self._work.wait()
            if lease is None:
                return
            self._run_lease(lease, connection)
            self._waker.wake()

    def _run_lease(self, lease: HeldLease, connection: Connection) -> None:
        """Run a lease step by step, so that results don't wait long."""
        step = self._steps.get(lease.kind, 1)
        runner = LeaseRunner(lease, self.handlers, step, self.spec.limits)
        self._runners[connection] = runner
        while runner.go_on():
            if runner.waits_s() > REPORT_AFTER_S:
                with connection.lock:
                    self._report(runner, connection)
        if self._is_copy:
            end_copy(runner)
        del self._runners[connection]
        self._steps[lease.kind] = runner.step
        with connection.lock:
            self._report(runner, connection)
        if lease.stored is not None:
            with self._lock:
                events = self._session.give_back(lease)
            with connection.lock:
                connection.send(events)

    def _report(self, runner: LeaseRunner, connection: Connection) -> None:
        """Report the outcomes so far; the caller holds the connection's lock."""
        finished, lease = runner.collect(), runner.lease
        if finished.outcomes:
            parts = finished.parts(self.spec.limits.message_bytes // 2, lease.reported)
            with self._lock:
                events = [e for part in parts for e in self._session.report(lease, *part)]
            connection.send(events)

    def _care_for_slots(self) -> None:
        """Report outcomes that slow handlers hold up, and tend the lines of busy and idle slots."""
        for connection in self._slots or list(self._runners):
            # A taken lock means that its slot is reporting, so nothing is held up.
            if not connection.lock.acquire(blocking=False):
                continue
            try:
                runner = self._runners.get(connection)
                if runner is not None:
                    self._report(runner, connection)
                if runner is not None or connection in self._slots:
                    connection.tend()
            finally:
                connection.lock.release()

    def _control(self, connection: Connection) -> None:
        """Send heartbeats and hear of recalls and cancellations while the slots compute."""
        listener = Listener(connection.channel, self._control_waker)
        next_at = time.monotonic()
        while not self._done.is_set():
            now = time.monotonic()
            if now >= next_at:
                load = ask_probe(self._probe)
                with self._lock:
                    events = self._session.heartbeat(load)
                connection.send(events)
                next_at = now + (self._session.heartbeat_s or self.spec.limits.heartbeat_s)
            woken = listener.wait(max(0, round((next_at - now) * 1000)))
            connection.tend()
            self._obey()
            self._care_for_slots()
            if woken:  # a heartbeat tells the coordinator where recalls are heard
                next_at = now

    def _hear(self, actions: Sequence[do.Action]) -> list[on.Event]:
        """Take in actions and wake the slots; returns the answers."""
        with self._work:
            epoch, is_storing = self._session.epoch, bool(self._session.storing)
            answers = [e for action in actions for e in self._session.handle(action)]
            if self._session.epoch != epoch or self._session.has_orders:
                self._control_waker.wake()
            if epoch is None:
                self._hear_refusal(actions)
            if is_storing:  # there may be room for another large result
                self._waker.wake()
            self._work.notify_all()
        if any(isinstance(answer, on.ChunkRead) for answer in answers):
            self._read_at = time.monotonic()
        return answers

    def _obey(self) -> None:
        """Carry out the coordinator's orders: serve other models, end."""
        with self._lock:
            wanted, is_dismissed = self._session.orders()
            if wanted is not None and self._on_serve is None:
                self._session.refuse(wanted)
        if wanted is not None and self._on_serve is not None:
            self._on_serve(wanted)
        if is_dismissed:
            self.stop()

    def _hear_refusal(self, actions: Sequence[do.Action]) -> None:
        """Give up if the coordinator has refused to admit this worker for 2 * ``liveness_s``."""
        now = time.monotonic()
        for action in actions:
            if isinstance(action, do.Welcome):
                self._refused_at = None
            elif isinstance(action, do.Disconnect) and action.epoch == 0:
                self._refused_at = self._refused_at or now
                if now - self._refused_at > 2 * self.spec.limits.liveness_s:
                    reason = f"the coordinator refuses worker {self.name!r}: {action.reason}"
                    self._error = ClusterError(reason)
