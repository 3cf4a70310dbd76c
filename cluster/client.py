"""The client: submit work, get futures or an iterator of results.

One thread owns the socket and the session. Submits that wait while it is busy and share their
attributes become one run, up to the spec's ``burst``: under light load nothing waits for company,
under heavy load batches form by themselves.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self

import msgspec
import zmq

from cluster import actions as do
from cluster import events as on
from cluster.client_session import ClientSession, Options, Refused, Settled
from cluster.codec import Frame, in_words
from cluster.errors import Busy, ClusterError, ProtocolError, Unreachable
from cluster.futures import TaskFuture, as_exception, set_exception, set_result
from cluster.mapping import Chunk, MapReader, as_payload, run_bytes
from cluster.spec import BASELINE, ClusterSpec, load_codec
from cluster.status import Status
from cluster.task import NO_REQUIREMENTS, NO_RETRY, Priority, Requirements, Retry
from cluster.transport import Channel, Waker

MAX_OWED = 256


class Client:
    """Talk to the coordinator at ``endpoint``. Methods may be called from any thread.

    Errors reach the caller through the future: Busy (the coordinator is at a bound, which it
    names), TaskFailed, TaskTimedOut, TaskDeadLettered, or CancelledError.
    """

    def __init__(
        self, endpoint: str, *, spec: ClusterSpec = BASELINE, name: str | None = None
    ) -> None:
        self.endpoint = endpoint
        self.spec = spec
        self.name = name or f"{socket.gethostname()}-{os.getpid()}-{os.urandom(4).hex()}"
        self._session = ClientSession(self.name)
        self._codec = load_codec(spec)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._channel = Channel(self._context, zmq.DEALER, spec)
        self._channel.connect(endpoint)
        self._waker = Waker()
        self._poller = zmq.Poller()
        self._run_bytes = run_bytes(spec.limits.message_bytes)
        self._unsent: deque[list[Frame]] = deque()
        self._awake = False
        self._closing = False
        self._gone = False
        self._checked: tuple[str, Options] | None = None
        self._tasks: deque[tuple[str, bytes, Options, bool, TaskFuture]] = deque()
        self._wishes: deque[tuple[Any, tuple[Any, ...]]] = deque()
        self._questions: dict[int, Future[Status]] = {}
        self._asked = 0
        self._thread = threading.Thread(target=self._run, name="client", daemon=True)
        self._thread.start()

    def submit(
        self,
        kind: str,
        payload: bytes = b"",
        *,
        priority: Priority = Priority.NORMAL,
        requirements: Requirements | None = None,
        timeout_s: float | None = None,
        retry: Retry = NO_RETRY,
        traced: bool = False,
    ) -> TaskFuture:
        """Hand in one task; its future has the result, and its stamps if it is ``traced``.

        Raises ClusterError for options that no coordinator would take, TypeError for a payload that
        is not bytes.
        """
        self._check_open()
        options = self._options(kind, priority, requirements, timeout_s, retry)
        if type(payload) is not bytes or len(payload) >= self._run_bytes:
            payload = as_payload(payload, self.spec.limits.message_bytes)
        future = TaskFuture(self._give_up_task)
        self._tasks.append((kind, payload, options, traced, future))
        self._wake()
        return future

    def map(
        self,
        kind: str,
        payloads: Iterable[bytes],
        *,
        priority: Priority = Priority.NORMAL,
        requirements: Requirements | None = None,
        timeout_s: float | None = None,
        retry: Retry = NO_RETRY,
    ) -> Iterator[bytes]:
        """The results of many like tasks, in order. Submission starts at once and stays a bounded
        window ahead.

        A failed task raises where its result would have been; what is not yet done is then
        cancelled.
        """
        self._check_open()
        options = self._options(kind, priority, requirements, timeout_s, retry)

        def submit(column: list[bytes], chunk: Chunk) -> None:
            self._ask(self._submit_chunk, kind, column, options, chunk)

        def cancel(chunks: list[Chunk]) -> None:
            self._ask(self._cancel_chunks, chunks)

        message_bytes = self.spec.limits.message_bytes
        reader = MapReader(payloads, self.spec.burst, message_bytes, submit, cancel)
        reader.fill()
        return reader.read()

    def cancel(self, future: TaskFuture) -> bool:
        """Give a task up; the same as ``future.cancel()``."""
        return future.cancel()

    def status(self, timeout: float | None = 5.0) -> Status:
        """How the cluster is; raises Unreachable when nobody answers in ``timeout`` seconds."""
        return self._question(on.StatusRequested, (), timeout)

    def change_policy(self, policy: str, timeout: float | None = 5.0) -> Status:
        """Switch the assignment policy by name while the cluster runs; raises ClusterError for an
        unknown one.
        """
        return self._question(on.PolicyChanged, (policy,), timeout)

    def close(self) -> None:
        """Say goodbye; what is not done is cancelled, and its futures say so."""
        if self._closing:
            return
        self._closing = True
        self._waker.wake()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # From other threads to the client's own

    def _check_open(self) -> None:
        if self._closing:
            raise ClusterError("this client is closed")

    def _options(
        self,
        kind: str,
        priority: Priority,
        requirements: Requirements | None,
        timeout_s: float | None,
        retry: Retry,
    ) -> Options:
        """What tasks share, checked here: the coordinator could only drop what it does not
        understand.
        """
        options = Options(Priority(priority), requirements or NO_REQUIREMENTS, timeout_s, retry)
        if self._checked != (kind, options):
            event = on.TasksSubmitted(self.name, 0, kind, [], *options)
            try:
                msgspec.convert(msgspec.to_builtins(event), on.TasksSubmitted)
            except msgspec.ValidationError as error:
                raise ClusterError(
                    f"a task of kind {kind!r}: {in_words(error, on.TasksSubmitted)}"
                ) from error
            self._checked = kind, options
        return options

    def _give_up_task(self, future: TaskFuture) -> None:
        self._ask(self._cancel_one, future)

    def _wake(self) -> None:
        if not self._awake:
            self._awake = True
            self._waker.wake()
        if self._gone:  # closed between the check and the append
            self._fail_waiting()

    def _ask(self, method: Any, *args: Any) -> None:
        """Have the client's thread call a method."""
        self._wishes.append((method, args))
        self._wake()

    def _question(
        self,
        event: type[on.StatusRequested] | type[on.PolicyChanged],
        args: tuple[Any, ...],
        timeout: float | None,
    ) -> Status:
        self._check_open()
        answer: Future[Status] = Future()
        self._ask(self._send_question, event, args, answer)
        try:
            return answer.result(timeout)
        except TimeoutError:
            raise Unreachable(
                f"no coordinator answers at {self.endpoint} within {timeout} s; is it running?"
            ) from None

    # The client's own thread

    def _run(self) -> None:
        poller = self._poller
        poller.register(self._channel.socket, zmq.POLLIN)
        poller.register(self._waker.fileno(), zmq.POLLIN)
        beat_s = self.spec.limits.heartbeat_s
        beat_at = time.monotonic()
        try:
            while not self._closing:
                poller.poll(max(0, round((beat_at - time.monotonic()) * 1000)))
                self._waker.clear()
                self._awake = (
                    False  # only now: a wake-up that was cleared away must not count as given
                )
                self._turn()
                now = time.monotonic()
                if self._unsent:  # nobody is there to hear that it is alive
                    beat_at = max(beat_at, now + beat_s)
                elif now >= beat_at or self._session.owed >= MAX_OWED:
                    self._send(self._session.heartbeat(now))
                    beat_at = now + beat_s
        finally:
            self._give_up()

    def _turn(self) -> None:
        """Send what others handed over, take in what has arrived."""
        if self._unsent:
            self._poller.modify(self._channel.socket, zmq.POLLIN)
            self._send([])
        while self._wishes and not self._unsent:
            method, args = self._wishes.popleft()
            method(*args)
        while self._tasks and not self._unsent:
            if self._tasks[0][4].cancelled():
                self._tasks.popleft()
            else:
                self._send([self._join_tasks()])
        for frames in self._channel.receive(self.spec.drain):
            try:
                actions = self._codec.actions(frames)
            except ProtocolError:
                continue
            now = time.monotonic()
            for action in actions:
                self._take_in(action, now)

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
        for submission in list(self._session.open.values()):
            if submission.sink in chunks:
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
        except zmq.Again:
            self._poller.modify(self._channel.socket, zmq.POLLIN | zmq.POLLOUT)

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
            self._settle_futures(sink, news, now)

    def _settle_futures(self, futures: list[TaskFuture], news: Settled, now: float) -> None:
        failed = {failure.position: failure for failure in news.failures}
        for position, result in enumerate(news.results, news.start):
            future = futures[position]
            if news.stamps and news.submission.sent_at is not None:
                future.stamps = (news.submission.sent_at, *news.stamps, now)
            if position in failed:
                set_exception(future, as_exception(failed[position]))
            else:
                set_result(future, result)

    def _give_up(self) -> None:
        """Leave: the coordinator forgets what is open, and whoever still waits hears so."""
        self._closing = True
        self._send([on.ClientLeft(self.name)])
        closed = ClusterError("the client was closed before this was done")
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
        closed = ClusterError("the client was closed before this was done")
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
