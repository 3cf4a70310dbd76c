"""The worker: a process that offers handlers by name and runs leases.

With one slot the loop that reads the socket also computes, so no task is handed from thread to
thread; with more, or with a model, each slot is a thread with a connection of its own for results
(slots.py). A model's slot runs the tasks of several leases together, while another thread reads the
payloads of the next ones. A control thread sends heartbeats and hears of recalls and cancellations
while handlers compute. It also sends outcomes that a slow handler holds up, on the connection of
that handler's slot, so that results stay in order.

An error of any of these threads ends the worker, and without a goodbye: that would promise that
nothing of its work was lost.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
import zmq

from cluster.protocol.codec import in_words
from cluster.protocol.worker_session import WorkerSession
from cluster.shells.connection import Connection, Context
from cluster.shells.slots import Slots
from cluster.spec import BASELINE, ClusterSpec
from cluster.transport.questions import learn_spec
from cluster.transport.wakeable import Listener, Waker
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from cluster.vocabulary.errors import ClusterError
from cluster.vocabulary.task import NO_LOAD, Gpu, Load
from cluster.work.batch_run import BatchRuns
from cluster.work.forks import default_signals, note_worker
from cluster.work.handlers import Handlers
from cluster.work.host import ask_probe, host_load

REPORT_AFTER_S = 0.001


class Worker:
    """Work for the coordinator at ``endpoint``, ``capacity`` tasks at once, until stop or SIGTERM.

    Without a ``spec`` it waits for a coordinator and adopts its spec. ``probe`` returns the host's
    load for each heartbeat; unknown values are None. ``wanted`` are models that it should
    serve besides ``models``, but could not load. ``on_serve`` is called, in a thread that must
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
        wanted: Sequence[str] = (),
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
        self._batches = BatchRuns(handlers)
        self._on_serve = on_serve
        self._introduced: dict[str, Any] = {
            "incarnation": time.time_ns(),
            "capacity": capacity,
            "kinds": handlers.kinds(),
            "models": models,
            "wanted": wanted,
            "gpus": gpus,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "batches": self._batches.sizes(),
        }
        try:
            for event in self._make_session(spec or BASELINE).introduction():
                msgspec.convert(msgspec.to_builtins(event), on.WorkerJoined)
        except msgspec.ValidationError as error:
            raise ClusterError(
                f"worker {self.name!r} with capacity {capacity}: {in_words(error, on.WorkerJoined)}"
            ) from error
        self.spec = spec or learn_spec(endpoint, None)
        self._session = self._make_session(self.spec)
        self._waker = Waker()
        self._slots = Slots(
            self._session, handlers, self._batches, self.spec.limits, self._waker.wake
        )
        self._lock = self._slots.lock
        #: whether the main thread runs the tasks
        self._works_alone = capacity == 1 and not handlers.models
        self._threads: list[threading.Thread] = []
        self._context: Context
        #: wakes the control thread after a welcome and at the end
        self._control_waker = Waker()
        self._batches.on_news = self._control_waker.wake
        self._drain = threading.Event()
        #: when a client last fetched a part of a large result
        self._read_at = 0.0
        self._done = threading.Event()
        #: the error that ends this worker
        self._error: BaseException | None = None
        #: when the coordinator first refused to admit this worker
        self._refused_at: float | None = None
        self._hears_signals = False
        note_worker(self)

    def run(self) -> None:
        """Work until stop; then finish started tasks, give back the rest, and say goodbye.

        Raises whatever ended one of the worker's threads, without a goodbye, and ClusterError if
        the coordinator goes on refusing this worker.
        """
        self._context = context = zmq.Context()
        connection = self._connect(lambda: self._session.introduction(again=True))
        self._begin(partial(self._connected, self._control))
        if not self._works_alone:
            self._begin_slots()
        try:
            self._loop(connection)
        except BaseException:
            with self._lock:
                self._session.leave()  # unsaid; nothing more is begun or reported
            self._end_threads()
            connection.close()
            raise
        self._end_threads()
        for thread in self._threads:
            thread.join()
        with self._lock:
            events = self._heartbeat()
            events += self._session.leave("stopped")
        connection.send(events)
        if events:
            connection.confirm()
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
        batches = {kind: most for kind, most in self._batches.sizes().items() if kind in kinds}
        with self._lock:
            self._session.offer(kinds, models, trouble, batches)  # a heartbeat says so
        self._control_waker.wake()

    def stop_on_signals(self) -> None:
        """Let SIGTERM and SIGINT stop this worker; call it from the main thread."""
        self._hears_signals = True
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop())

    def become_copy(self) -> None:
        """In a forked child: give signals their default effect, and run no more tasks."""
        self._slots.become_copy()
        if self._hears_signals:
            default_signals()

    def current_task(self) -> str:
        """The task that the calling thread runs, as lease.position; "" in a thread without one."""
        return self._slots.current_task()

    def _make_session(self, spec: ClusterSpec) -> WorkerSession:
        return WorkerSession(
            self.name,
            credit=self._credit(spec, self._batches.sizes()),
            stored_bytes_max=spec.limits.stored_result_bytes,
            **self._introduced,
        )

    def _credit(self, spec: ClusterSpec, batches: Mapping[str, int]) -> int:
        """The most tasks to hold: each slot runs a batch while the next one forms."""
        return self.capacity * max(spec.credit, 2 * max(batches.values(), default=0))

    def _heartbeat(self, load: Load = NO_LOAD) -> list[on.Event]:
        wants = self._batches.wants()
        credit = self._credit(self.spec, self._batches.sizes() | wants)
        return self._session.heartbeat(load, self._batches.counts(), wants, credit)

    def _connect(self, introduction: Callable[[], list[on.Event]] = list) -> Connection:
        here = self._hear, introduction, self._fail
        return Connection(self._context, self.endpoint, self.spec, *here)

    def _fail(self, error: BaseException) -> None:
        """End the worker with an error."""
        self._error = error
        self._waker.wake()

    def _begin(self, part: Callable[[], None]) -> None:
        thread = threading.Thread(target=self._guard, args=(part,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _begin_slots(self) -> None:
        """Have threads run the tasks from now on."""
        self._works_alone = False
        for _ in range(self.capacity):
            self._begin(partial(self._connected, self._slots.work))
        self._begin(self._slots.read_ahead)

    def _guard(self, part: Callable[[], None]) -> None:
        """Run a thread; its error ends the worker."""
        try:
            part()
        except BaseException as error:
            if self.on_failure is not None:
                self.on_failure(error)
            self._fail(error)

    def _connected(self, part: Callable[[Connection], None]) -> None:
        """Run a part with a connection of its own."""
        connection = self._connect()
        try:
            part(connection)
            if self._session.epoch is not None:
                connection.confirm()
        finally:
            with connection.lock:
                connection.close()

    def _end_threads(self) -> None:
        self._done.set()
        self._control_waker.wake()
        self._slots.end()

    def _loop(self, connection: Connection) -> None:
        listener = Listener(connection.channel, self._waker)
        introduce_at = 0.0
        beat_ms = round(self.spec.limits.heartbeat_s * 1000)
        # a client that lives may have other results to fetch first
        drained, patience_s = False, self.spec.limits.client_liveness_s
        while True:
            if self._error is not None:
                raise self._error
            if self._session.epoch is None and time.monotonic() >= introduce_at:
                connection.channel.socket.poll(beat_ms, zmq.POLLOUT)
                connection.send(self._session.introduction())
                introduce_at = time.monotonic() + self.spec.limits.heartbeat_s
            if self._drain.is_set():
                if not drained:
                    with self._lock:
                        events = self._session.drain()
                    connection.send(events)
                    if events:
                        connection.confirm()  # brings the leases that were on their way
                    drained = True
                with self._lock:
                    is_forsaken = time.monotonic() - self._read_at > patience_s
                    if self._session.is_finished(is_forsaken):
                        return
            if self.on_welcome is not None and self._session.epoch is not None:
                self.on_welcome()
                self.on_welcome = None
            if self._works_alone and self._slots.run_next(connection):
                continue
            listener.wait(beat_ms)
            connection.tend()

    def _control(self, connection: Connection) -> None:
        """Send heartbeats and hear of recalls and cancellations while the slots compute."""
        listener = Listener(connection.channel, self._control_waker)
        next_at = time.monotonic()
        while not self._done.is_set():
            now = time.monotonic()
            if now >= next_at:
                load = ask_probe(self._probe)
                with self._lock:
                    events = self._heartbeat(load)
                connection.send(events)
                next_at = now + (self._session.heartbeat_s or self.spec.limits.heartbeat_s)
            woken = listener.wait(max(0, round((next_at - now) * 1000)))
            connection.tend()
            self._obey()
            self._slots.tend()
            if woken:  # a heartbeat tells the coordinator where recalls are heard
                next_at = now

    def _hear(self, actions: Sequence[do.Action]) -> list[on.Event]:
        """Take in actions and wake the slots; returns the answers."""
        with self._lock:
            epoch, is_storing = self._session.epoch, bool(self._session.storing)
            now = time.monotonic()
            answers = [e for action in actions for e in self._session.handle(action, now)]
            if self._session.epoch != epoch:
                self._batches.clear_counts()
            if self._session.epoch != epoch or self._session.has_orders:
                self._control_waker.wake()
            if epoch is None:
                self._hear_refusal(actions)
            if is_storing:  # there may be room for another large result
                self._waker.wake()
            self._slots.notify()
        if any(isinstance(answer, on.ChunkRead) for answer in answers):
            self._read_at = now
        return answers

    def _obey(self) -> None:
        """Carry out the coordinator's orders: serve other models, end."""
        with self._lock:
            wanted, is_dismissed = self._session.orders()
            if wanted is not None and self._on_serve is None:
                self._session.refuse(wanted)
        if wanted is not None and self._on_serve is not None:
            if self._works_alone:
                self._begin_slots()
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
                    self._fail(ClusterError(reason))
