"""What a coordinator does with messages: the scheduler decides, and every peer gets its answers.

No socket is opened and no clock is read here: the messages, the time and the channel for answers
are arguments. The ZeroMQ loop (coordinator.py) and the counters' lockstep both call ``turn``. It
never looks into a payload, and no message makes it raise.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Protocol

import zmq

from cluster.core.scheduler import Scheduler
from cluster.protocol.codec import Frame
from cluster.shells.malloc_trim import MallocTrim
from cluster.spec import ClusterSpec, load_codec, load_part
from cluster.transport.hello import ANSWERS, HELLO, announce
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from cluster.vocabulary.errors import ClusterError, ProtocolError

SPARE_ADDRESSES = 64
#: what a worker has to hear while its handlers compute
TO_CONTROL = do.Recall | do.Cancel | do.Read | do.Serve | do.Acknowledge | do.Drain
TO_CLIENTS = frozenset(do.ToClient.__subclasses__())


class Outlet(Protocol):
    """Where answers leave, and the counts of all traffic, in both directions."""

    messages_in: int
    messages_out: int
    bytes_in: int
    bytes_out: int

    def send(self, frames: Sequence[Frame]) -> None:
        """Send one message, its addressee's route first; raises zmq.ZMQError if it can't go."""


class Dispatcher:
    """Hands messages to a scheduler and sends its answers through ``channel``.

    Raises ClusterError for a part or a policy that does not exist.
    """

    def __init__(self, spec: ClusterSpec, channel: Outlet) -> None:
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
        self._channel = channel
        self._codec = load_codec(spec)
        self._heap = MallocTrim(spec.trim_bytes)
        #: where each peer was last heard
        self._clients: dict[str, bytes] = {}
        self._workers: dict[str, bytes] = {}
        self._controls: dict[str, bytes] = {}
        self._hosts: dict[str, bytes] = {}
        #: acceptances that wait for another message to their client, and until when they may wait
        self._answers: dict[bytes, list[do.Action]] = {}
        self._answers_due = math.inf

    def deadline(self) -> float:
        """When the next turn is due if no message comes; infinity if never."""
        deadline = self.scheduler.deadline()
        return self._answers_due if deadline is None else min(deadline, self._answers_due)

    def turn(
        self, messages: list[list[Frame]], now: float, behind: Callable[[], bool] = bool
    ) -> None:
        """Handle messages, each its sender's route and then its frames, and all that is due at
        ``now``; then send every peer its answers.

        ``messages`` is emptied on the way, so that no message outlives its handling. ``behind``
        tells whether more wait unread, so that no peer is judged by its silence.
        """
        outgoing: dict[bytes, list[do.Action]] = {}
        messages.reverse()
        while messages:
            message = messages.pop()
            sender = message[0]
            try:
                events = self._codec.events(message[1:])
            except ProtocolError as error:
                self._answer_plainly(sender, message[1:], error)
                continue
            for event in events:
                self._meet(event, sender)
                self._address(self.scheduler.handle(event, now), sender, outgoing)
        if self.deadline() <= now:
            self._address(self.scheduler.handle_timer(now, behind=behind()), b"", outgoing)
            passed_bytes = self._channel.bytes_in
            if self._heap.is_due(passed_bytes) and self.scheduler.shrink():
                self._heap.trim(passed_bytes)
        if self.spec.answer_after_s:
            self._hold_answers(outgoing, now)
        while outgoing:
            lost = self._send_all(outgoing)
            outgoing = {}
            for event in lost:
                self._address(self.scheduler.handle(event, now), b"", outgoing)

    def dismiss(self) -> None:
        """Tell every client what will have no outcome, because this coordinator ends."""
        outgoing: dict[bytes, list[do.Action]] = {}
        self._address(self.scheduler.dismiss(), b"", outgoing)
        for route, actions in outgoing.items():
            actions[:0] = self._answers.pop(route, [])
        self._send_all(outgoing)

    def _answer_plainly(self, sender: bytes, frames: Sequence[Frame], error: ProtocolError) -> None:
        """Answer what is in no codec: a hello, a question for a sign of life, or nonsense."""
        only = bytes(frames[0]) if len(frames) == 1 and len(frames[0]) < 8 else None
        if only in ANSWERS:
            answer = ANSWERS[only]
        elif only == HELLO:
            answer = announce(self.spec)
        else:
            self.scheduler.counters["malformed"] += 1
            answer = announce(self.spec, f"refused: {error}")
        with suppress(zmq.ZMQError):
            self._channel.send([sender, answer])

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
        elif isinstance(event, on.ClientHeartbeat):
            self._forget_gone()
            self._clients[event.client] = sender
        elif isinstance(event, on.StatusRequested):
            self._publish()
        elif isinstance(event, on.HostReported):
            self._forget_gone()
            self._hosts[event.host] = sender
        elif isinstance(event, on.ClientLeft):
            route = self._clients.pop(event.client, b"")
            self._answers.pop(route, None)

    def _address(
        self, actions: list[do.Action], sender: bytes, outgoing: dict[bytes, list[do.Action]]
    ) -> None:
        """Put each action on the pile of the peer it names; one that names none answers its
        ``sender``.
        """
        for action in actions:
            piles = outgoing
            if isinstance(action, do.Assign):
                route = self._workers.get(action.worker, b"")
            elif type(action) is do.Report:
                route = sender  # a question comes on a connection of its own
            elif isinstance(action, do.ToClient):
                route = self._clients.get(action.client, sender)
                if type(action) is do.Accept and self.spec.answer_after_s:
                    piles = self._answers
            elif isinstance(action, do.ToHost):
                route = self._hosts.get(action.host, b"")
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
        """Send acceptances, which nobody waits for, with the next message to their client, but
        after ``answer_after_s`` alone.
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

    def _send_all(self, outgoing: dict[bytes, list[do.Action]]) -> list[on.WorkerUnreachable]:
        """Send every pile; returns an event for each unreachable worker."""
        lost: list[on.WorkerUnreachable] = []
        routes: Iterable[bytes] = outgoing
        if len(outgoing) > 1:
            # Workers first: they begin to work, while a client only learns about it.
            routes = sorted(outgoing, key=lambda route: type(outgoing[route][0]) in TO_CLIENTS)
        for route in routes:
            event = self._send(route, outgoing[route])
            if event is not None:
                lost.append(event)
        return lost

    def _send(self, route: bytes, actions: list[do.Action]) -> on.WorkerUnreachable | None:
        """Send a pile; returns its worker and the leases in it if that proves unreachable."""
        try:
            for frames in self._codec.encode(actions):
                self._channel.send([route, *frames])
        except zmq.ZMQError as error:
            self.scheduler.counters["undelivered"] += len(actions)
            leases = [a for a in actions if isinstance(a, do.Assign)]
            if leases and error.errno in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                return on.WorkerUnreachable(leases[0].worker, [a.lease for a in leases])
        return None

    def _publish(self) -> None:
        """Copy the channel's counts to the scheduler's, for a status."""
        channel, counters = self._channel, self.scheduler.counters
        counters["messages_in"], counters["bytes_in"] = channel.messages_in, channel.bytes_in
        counters["messages_out"], counters["bytes_out"] = channel.messages_out, channel.bytes_out

    def _forget_gone(self) -> None:
        """Bound the addresses: drop those of absent peers once they are the majority. A newcomer
        is entered after that.
        """
        clients, workers = self.scheduler.clients.by_name, self.scheduler.workers
        hosts = self.scheduler.hosts.by_name
        if len(self._clients) > 2 * len(clients) + SPARE_ADDRESSES:
            self._clients = {n: route for n, route in self._clients.items() if n in clients}
        if len(self._workers) > 2 * len(workers) + SPARE_ADDRESSES:
            self._workers = {n: route for n, route in self._workers.items() if n in workers}
            self._controls = {n: route for n, route in self._controls.items() if n in workers}
        if len(self._hosts) > 2 * len(hosts) + SPARE_ADDRESSES:
            self._hosts = {n: route for n, route in self._hosts.items() if n in hosts}
