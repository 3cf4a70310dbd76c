"""The coordinator: a ZeroMQ ROUTER loop around the scheduler.

It reads whatever has arrived, bounded, lets the scheduler handle it, and answers each peer. It
never looks into a payload, and nothing a peer sends ends the loop. One thread owns the socket and
the scheduler, so there is nothing to lock.
"""

from __future__ import annotations

import math
import random
import signal
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import Future
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self

import zmq

from cluster.core.scheduler import Scheduler
from cluster.shells.malloc_trim import MallocTrim
from cluster.shells.transport import Channel, Listener, Waker, check_bind
from cluster.spec import BASELINE, ClusterSpec, load_codec, load_part
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from cluster.vocabulary.errors import ClusterError, ProtocolError
from cluster.vocabulary.task import Priority, TaskId

if TYPE_CHECKING:
    from cluster.shells.client import Client

LOCAL_ONLY = "tcp://127.0.0.1:*"
MAX_KEPT_RESULTS = 100_000
SPARE_ADDRESSES = 64
#: what a worker has to hear while its handlers compute
TO_CONTROL = do.Recall | do.Cancel | do.Read
TO_CLIENTS = frozenset(do.ToClient.__subclasses__())


class ClusterCoordinator:
    """Serve workers and clients at an endpoint, in the caller's thread (run) or in one of its own
    (start).

    Embedded in a program it can also be its own client: ``submit_task`` and ``get_result``.
    """

    #: seconds that only grow; who drives a coordinator without sockets turns it by hand
    _clock = staticmethod(time.monotonic)

    def __init__(
        self, spec: ClusterSpec = BASELINE, bind: str = LOCAL_ONLY, *, insecure: bool = False
    ) -> None:
        check_bind(bind, insecure)
        policies = load_part(spec.policies)
        if spec.policy not in policies:
            known = ", ".join(sorted(policies))
            raise ClusterError(f"spec {spec.name!r}: no policy {spec.policy!r}; there are {known}")
        self.spec = spec
        self.scheduler = Scheduler(
            policies[spec.policy](),
            spec.limits,
            random.Random().random,
            policies,
            load_part(spec.queue),
        )
        self._codec = load_codec(spec)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._channel = Channel(self._context, zmq.ROUTER, spec)
        self._waker = Waker()
        self._heap = MallocTrim(spec.trim_bytes)
        self._clients: dict[str, bytes] = {}
        self._workers: dict[str, bytes] = {}
        self._controls: dict[str, bytes] = {}
        #: acceptances held back until something else goes to their client, at most until …
        self._answers: dict[bytes, list[do.Action]] = {}
        self._answers_due = math.inf
        self._stopping = False
        self._serving = False
        self._thread: threading.Thread | None = None
        self._own_client: Client | None = None
        self._results: OrderedDict[int, Future[bytes]] = OrderedDict()
        self._submitted = 0
        try:
            self._channel.socket.bind(bind)
        except zmq.ZMQError as error:
            self._close()
            raise ClusterError(f"cannot listen at {bind}: {error}") from error
        self.endpoint: str = self._channel.socket.get_string(zmq.LAST_ENDPOINT).rstrip("\0")

    # Embedding

    def start(self) -> Self:
        """Serve in a thread of its own until stop; raises ClusterError after that."""
        if self._stopping:
            raise ClusterError("this coordinator has been stopped; make a new one")
        self._serving = True
        self._thread = threading.Thread(target=self.run, name="coordinator", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop serving and give the port back; returns when both are done. Safe from a signal
        handler's thread.
        """
        if self._own_client is not None:
            self._own_client.close()
            self._own_client = None
        self._stopping = True
        self._waker.wake()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        elif not self._serving:
            self._close()

    def stop_on_signals(self) -> None:
        """Let SIGTERM and SIGINT stop this coordinator; call this and run in the main thread."""

        def stop(signum: int, frame: FrameType | None) -> None:
            self.stop()

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        self._waker.hear_signals()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def submit_task(
        self,
        payload: bytes,
        priority: Priority = Priority.NORMAL,
        *,
        kind: str = "echo",
        **options: Any,
    ) -> int:
        """Submit one task from the program that embeds the coordinator; returns an id for
        get_result.

        ``options`` are those of Client.submit. The newest 100,000 results are kept until they are
        asked for.
        """
        if self._own_client is None:
            from cluster.shells.client import Client

            self._own_client = Client(self.endpoint, spec=self.spec)
        future = self._own_client.submit(kind, payload, priority=priority, **options)
        self._submitted += 1
        self._results[self._submitted] = future
        if len(self._results) > MAX_KEPT_RESULTS:
            self._results.popitem(last=False)
        return self._submitted

    def get_result(self, task: int, timeout: float | None = None) -> bytes:
        """The result of a submitted task, once; raises KeyError for an unknown id, TimeoutError,
        TaskError.
        """
        future = self._results[task]
        result = future.result(timeout)
        del self._results[task]
        return result

    def story(self, task: TaskId) -> list[str]:
        """What happened to one task, a line each; call it from the serving thread or after stop."""
        return [f"{e.at_s:.6f} {e.cause}: {e.detail}" for e in self.scheduler.story(task)]

    # The loop

    def run(self) -> None:
        """Serve until stop is called."""
        self._serving = True
        listener = Listener(self._channel, self._waker)
        try:
            while not self._stopping:
                listener.wait(self._patience_ms())
                self._turn()
        finally:
            self._close()

    def _patience_ms(self) -> int | None:
        deadline = self._deadline()
        if deadline == math.inf:
            return None
        return max(0, math.ceil((deadline - self._clock()) * 1000))

    def _deadline(self) -> float:
        deadline = self.scheduler.deadline()
        return self._answers_due if deadline is None else min(deadline, self._answers_due)

    def _turn(self) -> None:
        """Handle what has arrived and what is due, then answer every peer."""
        outgoing: dict[bytes, list[do.Action]] = {}
        for message in self._channel.receive(self.spec.drain):
            sender = message[0]
            try:
                events = self._codec.events(message[1:])
            except ProtocolError as error:
                self.scheduler.counters["malformed"] += 1
                answer = do.Report("?", 0, None, f"refused: {error}"[:1000])
                outgoing.setdefault(sender, []).append(answer)
                continue
            now = self._clock()
            for event in events:
                self._meet(event, sender)
                self._address(self.scheduler.handle(event, now), sender, outgoing)
        now = self._clock()
        if self._deadline() <= now:
            self._address(self.scheduler.handle_timer(now), b"", outgoing)
            passed_bytes = self._channel.bytes_in
            if self._heap.is_due(passed_bytes) and self.scheduler.shrink():
                self._heap.trim(passed_bytes)
        if self.spec.answer_after_s:
            self._hold_answers(outgoing, now)
        while outgoing:
            lost = self._send_all(outgoing)
            outgoing = {}
            for name in lost:
                gone = on.WorkerLost(name, "unreachable")
                self._address(self.scheduler.handle(gone, self._clock()), b"", outgoing)

    def _meet(self, event: on.Event, sender: bytes) -> None:
        """Learn where a peer can be reached."""
        if isinstance(event, on.TasksSubmitted):
            if self._clients.get(event.client) != sender:
                self._forget_gone()
                self._clients[event.client] = sender
        elif isinstance(event, on.TasksFinished):
            pass
        elif isinstance(event, on.WorkerHeartbeat):
            worker = self.scheduler.workers.get(event.worker)
            if worker is not None and worker.epoch == event.epoch:
                self._controls[event.worker] = sender
        elif isinstance(event, on.ClientHeartbeat | on.StatusRequested):
            self._forget_gone()
            self._clients[event.client] = sender
            if isinstance(event, on.StatusRequested):
                self._publish()
        elif isinstance(event, on.ClientLeft):
            route = self._clients.pop(event.client, b"")
            self._answers.pop(route, None)

    def _address(
        self, actions: list[do.Action], sender: bytes, outgoing: dict[bytes, list[do.Action]]
    ) -> None:
        """Put each action on the pile of the peer it names; what answers a message goes to its
        sender.
        """
        for action in actions:
            piles = outgoing
            if isinstance(action, do.Assign):
                route = self._workers.get(action.worker, b"")
            elif isinstance(action, do.ToClient):
                route = self._clients.get(action.client, sender)
                if type(action) is do.Accept and self.spec.answer_after_s:
                    piles = self._answers
            elif isinstance(action, TO_CONTROL):
                route = self._controls.get(action.worker) or self._workers.get(action.worker, b"")
            else:
                route = sender
                if isinstance(action, do.Welcome):
                    self._workers[action.worker] = sender
                    self._controls.pop(action.worker, None)
            if not route:
                continue
            pile = piles.get(route)
            if pile is None:
                piles[route] = [action]
            else:
                pile.append(action)

    def _hold_answers(self, outgoing: dict[bytes, list[do.Action]], now: float) -> None:
        """Let acceptances, which nobody waits for, travel with what goes to their client anyway;
        those that find no company for too long go alone.
        """
        answers = self._answers
        for route in outgoing:
            if route in answers:
                outgoing[route][:0] = answers.pop(route)
        if not answers:
            self._answers_due = math.inf
        elif self._answers_due == math.inf:
            self._answers_due = now + self.spec.answer_after_s
        elif self._answers_due <= now:
            outgoing.update(answers)
            answers.clear()
            self._answers_due = math.inf

    def _send_all(self, outgoing: dict[bytes, list[do.Action]]) -> list[str]:
        """Send every pile; returns the names of workers that can't be reached."""
        lost: list[str] = []
        routes: Iterable[bytes] = outgoing
        if len(outgoing) > 1:
            # Workers first: a task on its way is worth more than a client's being told so.
            routes = sorted(outgoing, key=lambda route: type(outgoing[route][0]) in TO_CLIENTS)
        for route in routes:
            name = self._send(route, outgoing[route])
            if name is not None:
                lost.append(name)
        return lost

    def _send(self, route: bytes, actions: list[do.Action]) -> str | None:
        """Send a pile; returns the worker's name if it turns out that it can't be reached."""
        try:
            for frames in self._codec.encode(actions):
                self._channel.send([route, *frames])
        except zmq.ZMQError as error:
            self.scheduler.counters["undelivered"] += len(actions)
            name = next((a.worker for a in actions if isinstance(a, do.Assign)), None)
            if name is not None and error.errno in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                return name
        return None

    def _publish(self) -> None:
        """Put the channel's counts beside the scheduler's, for a status."""
        channel, counters = self._channel, self.scheduler.counters
        counters["messages_in"], counters["bytes_in"] = channel.messages_in, channel.bytes_in
        counters["messages_out"], counters["bytes_out"] = channel.messages_out, channel.bytes_out

    def _forget_gone(self) -> None:
        """Keep the addresses bounded: once they are twice as many as the peers present, and some
        more, only those of the present stay. Who comes is entered after that.
        """
        clients, workers = self.scheduler.clients.by_name, self.scheduler.workers
        if len(self._clients) > 2 * len(clients) + SPARE_ADDRESSES:
            self._clients = {n: route for n, route in self._clients.items() if n in clients}
        if len(self._workers) > 2 * len(workers) + SPARE_ADDRESSES:
            self._workers = {n: route for n, route in self._workers.items() if n in workers}
            self._controls = {n: route for n, route in self._controls.items() if n in workers}

    def _close(self) -> None:
        self._channel.close()
        self._context.term()
        self._waker.close()
