"""The client's I/O: one socket, one session, and whichever thread has to wait anyway.

A hand-over between threads costs about as much as a hop on loopback. So the thread that waits for a
lone result reads the socket itself (it leads), and one that submits while nothing else is under way
sends at once. A thread of the client's own leads whenever nobody else does: while many tasks are in
flight, for callbacks, for heartbeats. This is the leader/followers pattern of Schmidt, O'Ryan,
Kircher and Pyarali (PLoP 2000).

Two locks: ``_lead`` is held by the one thread that waits on the descriptors, ``_io`` by whoever
touches socket and session, for moments only.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import zmq

from cluster.protocol.client_session import ClientSession, Options, Refused
from cluster.protocol.codec import Frame
from cluster.shells.futures import TaskFuture, set_exception, settle_futures
from cluster.shells.mapping import Chunk, run_bytes
from cluster.shells.transport import READABLE, WRITABLE, Channel, Listener, Waker
from cluster.spec import ClusterSpec, load_codec
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from cluster.vocabulary.errors import Busy, ClusterError, ProtocolError
from cluster.vocabulary.status import Status

MAX_OWED = 256
#: how long the own thread rests after another has led, before it takes over
REST_S = 0.005
#: how long whoever would lead waits for the place
PATIENCE_S = 0.001
CLOSED = "the client was closed before this was done"


class ClientLoop:
    """Exchange messages with the coordinator at ``endpoint`` until closed.

    Raises ClusterError for what is no endpoint.
    """

    def __init__(self, endpoint: str, spec: ClusterSpec, name: str) -> None:
        self.spec = spec
        self.name = name
        self.closing = False
        #: how many messages made no sense in this spec's codec
        self.misunderstood = 0
        self._session = ClientSession(name, spec.limits.most_chunk_bytes)
        self._codec = load_codec(spec)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._channel = Channel(self._context, zmq.DEALER, spec)
        self._channel.connect(endpoint)
        self._waker = Waker()
        self._listener = Listener(self._channel, self._waker)
        self._run_bytes = run_bytes(spec.limits.message_bytes)
        self._unsent: deque[list[Frame]] = deque()
        self._awake = False
        #: there is more to read, or room to send again, and the descriptor will not tell: it does
        #: so once, to whoever uses the socket next, whatever for
        self._more = False
        self._gone = False
        self._beat_at = time.monotonic()
        self._tasks: deque[tuple[str, bytes, Options, bool, TaskFuture]] = deque()
        self._wishes: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._questions: dict[int, Future[Status]] = {}
        self._asked = 0
        self._io = threading.Lock()
        self._lead = threading.Lock()
        self._leader: int | None = None
        self._led = False
        self._wanted = False
        self._rest = threading.Event()
        self._thread = threading.Thread(target=self._run, name="client", daemon=True)
        self._thread.start()

    # From any thread

    def submit(self, kind: str, payload: bytes, options: Options, traced: bool) -> TaskFuture:
        """Hand in one task: at once if it is the only one, else with others like it."""
        future = TaskFuture(self._give_up_task, self.wait_for)
        self._tasks.append((kind, payload, options, traced, future))
        if self._session.open or len(self._tasks) > 1 or not self._io.acquire(blocking=False):
            self._wake()
            return future
        try:
            self._send_tasks()
            missed = self._channel.readable() or bool(self._unsent)
        finally:
            self._io.release()
        if missed or self.closing:
            self._wake()
        return future

    def submit_batch(self, kind: str, payloads: list[bytes], options: Options) -> list[TaskFuture]:
        """Hand in many like tasks at once, a future each."""
        futures = [TaskFuture(self._give_up_task, self.wait_for) for _ in payloads]
        self._tasks.extend(
            (kind, payload, options, False, future)
            for payload, future in zip(payloads, futures, strict=True)
        )
        self._wake()
        return futures

    def submit_chunk(self, kind: str, payloads: list[bytes], options: Options, to: Chunk) -> None:
        """Hand in a part of a map."""
        self._ask(self._submit_chunk, kind, payloads, options, to)

    def cancel_chunks(self, chunks: list[Chunk]) -> None:
        """Nobody wants these parts of a map any more."""
        self._ask(self._cancel_chunks, chunks)

    def question(self, event: Any, *args: Any) -> Future[Status]:
        """Ask the coordinator something that a Report answers."""
        answer: Future[Status] = Future()
        self._ask(self._send_question, event, args, answer)
        return answer

    def wait_for(self, future: TaskFuture, timeout: float | None) -> None:
        """Help a future along while its owner waits for it: lead, if that is worth it.

        Returns when it is done, the time is up, or somebody else leads better.
        """
        self.check_not_leading()
        end = math.inf if timeout is None else time.monotonic() + timeout
        if not self._lead.acquire(blocking=False):
            if len(self._session.open) > 1:
                return
            self._wanted = True
            self._waker.wake()
            # Not for long: another thread may lead, and settle this future too.
            led = self._lead.acquire(timeout=PATIENCE_S)
            self._wanted = False
            if not led:
                return
        self._leader = threading.get_ident()
        try:
            while not future.done() and not self.closing and time.monotonic() < end:
                self._wait(end)
                self._turn()
                if self._more or len(self._session.open) > 1:
                    self._rest.set()
                    break
        finally:
            self._led = True
            self._leader = None
            self._lead.release()

    def check_not_leading(self) -> None:
        """Raise ClusterError in a callback of this client: what it waits for could never come."""
        if self._leader == threading.get_ident():
            raise ClusterError(
                "a callback of a future can't wait for the same client; hand the rest to another "
                "thread, or submit without waiting"
            )

    def close(self) -> None:
        """Say goodbye; what is not done is cancelled. Returns when all is given back."""
        if not self.closing:
            self.check_not_leading()
            self.closing = True
            self._waker.wake()
            self._rest.set()
            self._thread.join()

    def _give_up_task(self, future: TaskFuture) -> None:
        self._ask(self._cancel_one, future)

    def _wake(self) -> None:
        """Have whoever leads look at what was handed over; the own thread, if nobody does."""
        if not self._awake:
            self._awake = True
            self._waker.wake()
            self._rest.set()
        if self._gone:  # closed between the check and the append
            self._fail_waiting()

    def _ask(self, method: Callable[..., None], *args: Any) -> None:
        """Have whoever leads call a method."""
        self._wishes.append((method, args))
        self._wake()

    # The own thread

    def _run(self) -> None:
        try:
            while True:
                with self._lead:
                    self._leader = threading.get_ident()
                    while not (self.closing or self._wanted):
                        self._wait(math.inf)
                        self._turn()
                    self._leader = None
                if self.closing:
                    return
                self._stand_by()
        finally:
            with self._lead, self._io:
                self._leader = threading.get_ident()
                self._give_up()

    def _stand_by(self) -> None:
        """Rest while others lead often enough, and nobody needs this thread."""
        self._led = True
        while self._led and not self.closing:
            self._led = False
            if self._rest.wait(REST_S):
                break
        self._rest.clear()

    # Whoever leads

    def _wait(self, end: float) -> None:
        """Until there is something to do, at most until ``end`` or the next heartbeat."""
        wait_s = min(end, self._beat_at) - time.monotonic()
        # The flag falls last: a wake-up that was cleared away must not count as given.
        if wait_s > 0.0 and not self._more and self._listener.poll(math.ceil(wait_s * 1000)):
            self._awake = False

    def _turn(self) -> None:
        """Send what others handed over, take in what has arrived, be heard."""
        with self._io:
            self._exchange()
            now = time.monotonic()
            if now >= self._beat_at or self._session.owed >= MAX_OWED:
                # While nobody is there, nobody needs to hear that this client is alive.
                if not self._unsent:
                    self._send(self._session.heartbeat(now))
                self._beat_at = now + self.spec.limits.heartbeat_s
                self._more = self._more or self._channel.readable()
            if self._unsent:
                self._more = self._more or self._channel.ready(READABLE | WRITABLE)

    def _exchange(self) -> None:
        if self._unsent:
            self._send([])
        while self._wishes and not self._unsent:
            method, args = self._wishes.popleft()
            method(*args)
        self._send_tasks()
        count = 0
        if self._channel.readable():
            for frames in self._channel.receive(self.spec.drain):
                count += 1
                try:
                    actions = self._codec.actions(frames)
                except ProtocolError:
                    self.misunderstood += 1
                    continue
                now = time.monotonic()
                for action in actions:
                    self._take_in(action, now)
        if self._session.streams.outbox:
            self._send(self._session.answers())
        self._more = count == self.spec.drain

    def _send_tasks(self) -> None:
        while self._tasks and not self._unsent:
            if self._tasks[0][4].cancelled():
                self._tasks.popleft()
            else:
                self._send([self._join_tasks()])

    def _join_tasks(self) -> on.TasksSubmitted:
        """Make one run of the tasks at the head of the queue that share their attributes."""
        tasks, most_bytes = self._tasks, self._run_bytes
        kind, payload, options, traced, future = tasks.popleft()
        payloads, futures, size = [payload], [future], len(payload)
        while (
            tasks
            and len(payloads) < self.spec.burst
            and size < most_bytes
            and tasks[0][0] == kind
            and tasks[0][2] == options
            and not traced
            and not tasks[0][3]
        ):
            _, payload, _, _, future = tasks.popleft()
            if future.cancelled():
                continue
            payloads.append(payload)
            futures.append(future)
            size += len(payload)
        event = self._session.submit(kind, payloads, options, futures, time.monotonic(), traced)
        submission = self._session.open[event.submission]
        for position, future in enumerate(futures):
            future.submission, future.position = submission, position
        return event

    def _submit_chunk(
        self, kind: str, payloads: list[bytes], options: Options, chunk: Chunk
    ) -> None:
        event = self._session.submit(kind, payloads, options, chunk, time.monotonic())
        self._send([event])

    def _cancel_one(self, future: TaskFuture) -> None:
        submission = future.submission
        if submission is not None and submission.id in self._session.open:
            self._send([self._session.cancel(submission, [future.position])])

    def _cancel_chunks(self, chunks: list[Chunk]) -> None:
        unwanted = set(chunks)
        for submission in list(self._session.open.values()):
            if isinstance(submission.sink, Chunk) and submission.sink in unwanted:
                self._send([self._session.cancel(submission, [])])

    def _send_question(self, event: Any, args: tuple[Any, ...], answer: Future[Status]) -> None:
        self._asked += 1
        self._questions = {n: f for n, f in self._questions.items() if n > self._asked - 1000}
        self._questions[self._asked] = answer
        self._send([event(self.name, self._asked, *args)])

    def _send(self, events: list[Any]) -> None:
        """Send, or keep what can't leave before the coordinator is there or has caught up: until
        it has left, nothing more is taken up.
        """
        self._unsent += self._codec.encode(events)
        try:
            while self._unsent:
                self._channel.send(self._unsent[0])
                self._unsent.popleft()
        except zmq.Again:  # the descriptor tells when there is room
            return

    def _take_in(self, action: do.Action, now: float) -> None:
        if isinstance(action, do.Report):
            answer = self._questions.pop(action.request, None)
            if answer is not None and action.status is not None:
                answer.set_result(action.status)
            elif answer is not None:
                answer.set_exception(ClusterError(action.error))
            return
        news = self._session.handle(action, now)
        if news is None:
            return
        sink = news.submission.sink
        if isinstance(news, Refused):
            error = Busy(f"the coordinator refused: {news.reason}")
            if isinstance(sink, Chunk):
                sink.fail(error)
            else:
                for future in sink:
                    set_exception(future, error)
        elif isinstance(sink, Chunk):
            sink.settle(news)
        else:
            settle_futures(sink, news, now)

    def _give_up(self) -> None:
        """Leave: the coordinator forgets what is open, and whoever still waits hears so."""
        self._send([on.ClientLeft(self.name)])
        closed = ClusterError(CLOSED)
        for submission in self._session.open.values():
            if isinstance(submission.sink, Chunk):
                submission.sink.fail(closed)
            else:
                for future in submission.sink:
                    Future.cancel(future)
        for question in self._questions.values():
            question.set_exception(closed)
        self._gone = True
        self._fail_waiting()
        self._channel.close()
        self._context.term()
        self._waker.close()

    def _fail_waiting(self) -> None:
        """Nobody will see to what was handed over and not taken up: say so to whoever waits."""
        closed = ClusterError(CLOSED)
        with contextlib.suppress(IndexError):
            while True:
                Future.cancel(self._tasks.popleft()[4])
        with contextlib.suppress(IndexError):
            while True:
                method, args = self._wishes.popleft()
                if method == self._submit_chunk:
                    args[-1].fail(closed)
                elif method == self._send_question:
                    args[-1].set_exception(closed)
