"""What a client exchanges with its coordinator: one session, one socket, and what waits to be sent.

Invariant: session, codec, socket and ``_unsent`` are touched only under ``_io``, which is held for
moments and never while waiting; meanwhile no signal handler runs. Other threads append to
``_tasks`` and ``_calls``, each in one step, and the holder of ``_io`` empties them.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeAlias

import zmq

from cluster.protocol.client_session import ClientSession, Options, Refused
from cluster.protocol.codec import Frame
from cluster.shells.futures import TaskFuture, set_exception, settle_futures
from cluster.shells.mapping import Chunk, run_bytes
from cluster.shells.refusals import WATCHERS, fail, refuse, watched
from cluster.spec import ClusterSpec, load_codec
from cluster.transport.channel import READABLE, WRITABLE
from cluster.transport.hello import check_heard
from cluster.transport.interrupts import GuardedLock
from cluster.transport.wakeable import WakeableChannel
from cluster.vocabulary import actions as do
from cluster.vocabulary import events as on
from cluster.vocabulary.errors import (
    ClientClosed,
    ClusterError,
    CoordinatorLost,
    ProtocolError,
    TaskTimedOut,
    Unreachable,
)

MAX_OWED = 256

#: kind, payload, options, whether it is traced, future
Task: TypeAlias = tuple[str, bytes, Options, bool, TaskFuture]
Fail: TypeAlias = Callable[[Exception], None]

CLOSED = "the client was closed before this was done"


class Exchange:
    """Send a client's tasks and questions, and settle what comes back. ``wake`` has the leader look
    at what was handed in. After ``give_up_s`` without a word from the coordinator all that waits
    for it fails.

    Raises ClusterError for an invalid endpoint.
    """

    def __init__(
        self,
        endpoint: str,
        spec: ClusterSpec,
        name: str,
        wake: Callable[[], None],
        give_up_s: float | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.spec = spec
        self.name = name
        self._give_up_s = math.inf if give_up_s is None else give_up_s
        self._silent_s = 0.0
        self._heard_at: float | None = None
        self.channel = WakeableChannel(zmq.DEALER, spec, shared=True)
        self.channel.connect(endpoint)
        self._wake = wake
        self.beat_at = time.monotonic()
        #: why the coordinator can't be talked to
        self.refusal: ClusterError | None = None
        self.endpoint = endpoint
        self.is_closed = False
        self._session = ClientSession(name, spec.limits.most_chunk_bytes)
        self._codec = load_codec(spec)
        self._run_bytes = run_bytes(spec.limits.message_bytes)
        self._unsent: deque[list[Frame]] = deque()
        #: there is something to read, and the descriptor has already said so
        self._has_more = False
        #: the leader waits for the descriptor, or is about to look and wait
        self.is_waited_for = False
        self._tasks: deque[Task] = deque()
        #: what takes an error if the client closes first, and the method to call until then
        self._calls: deque[tuple[Fail, Callable[..., None], tuple[Any, ...]]] = deque()
        self._io = GuardedLock()

    # From any thread

    def add_task(self, task: Task) -> bool:
        """Take a task to send, without a wake-up; returns whether nothing else is open or waits."""
        self._tasks.append(task)
        return not self._session.open and len(self._tasks) == 1

    def submit_batch(self, tasks: list[Task]) -> None:
        """Send tasks; those of equal attributes stay one run, since they are added in one step."""
        self._tasks.extend(tasks)
        self._wake()

    def submit_chunk(self, kind: str, payloads: list[bytes], options: Options, to: Chunk) -> None:
        """Send a part of a map."""
        self._call(to.fail, self._submit_chunk, kind, payloads, options, to)

    def cancel(self, future: TaskFuture) -> None:
        """Cancel a task."""
        self._call(_ignore, self._cancel, future)

    def cancel_chunks(self, chunks: list[Chunk]) -> None:
        """Cancel parts of a map."""
        self._call(_ignore, self._cancel_chunks, chunks)

    def send_now(self) -> bool:
        """Send the tasks that wait, in the caller's thread; false if the leader has to look."""
        if not self._io.acquire(blocking=False):
            return False
        try:
            self._send_tasks()
            self._has_more = self.channel.readable()
            # The send may have taken the signal that a waiting leader needs.
            return not (self._unsent or (self._has_more and self.is_waited_for))
        finally:
            self._io.release()

    def is_crowded(self) -> bool:
        """Whether more than one submission is open."""
        return len(self._session.open) > 1

    def is_busy(self) -> bool:
        """Whether anything waits for the coordinator."""
        return bool(self._session.open or self._tasks or self._calls)

    def fail_waiting(self, error: Exception) -> None:
        """Fail what was taken and will never be sent."""
        with suppress(IndexError):
            while True:
                set_exception(self._tasks.popleft()[4], error)
        with suppress(IndexError):
            while True:
                self._calls.popleft()[0](error)

    # From the thread that leads

    def has_more(self) -> bool:
        """Whether there is something to do that no descriptor tells."""
        if self._has_more or ((self._tasks or self._calls) and not self._unsent):
            return True
        if self.channel.is_quiet:
            return False
        with self._io:
            self._has_more = self.channel.ready(READABLE | WRITABLE if self._unsent else READABLE)
        return self._has_more

    def turn(self) -> bool:
        """Send what waits, take in what has arrived, and send a heartbeat if one is due; returns
        whether the own thread should lead.
        """
        with self._io:
            self._exchange()
            now = time.monotonic()
            session = self._session
            if now >= self.beat_at or session.owed >= MAX_OWED or session.is_hurried:
                self._beat(now)
            return len(session.open) > 1

    def close(self) -> None:
        """Leave: the coordinator forgets what is open, and everybody who waits gets an error."""
        with self._io:
            self._send([on.ClientLeft(self.name)])
            self.is_closed = True
            self._fail_all(ClientClosed(CLOSED))
            self.channel.close()

    def _hear(self, frames: list[Frame]) -> None:
        """Fail everything if the coordinator announces another spec, or refuses this client."""
        try:
            check_heard(frames, self.spec, self.endpoint)
        except ClusterError as error:
            self.refusal = error
            self._fail_all(error)

    def _call(self, fail: Fail, method: Callable[..., None], *args: Any) -> None:
        """Have the leader call a method."""
        self._calls.append((fail, method, args))
        self._wake()

    # Under the lock

    def _exchange(self) -> None:
        if self._unsent:
            self._flush()
        self._take_waiting()
        channel, has_more, self._has_more = self.channel, self._has_more, False
        if has_more or channel.is_signalled or channel.readable():
            for frames in channel.receive(self.spec.drain):
                try:
                    actions = self._codec.actions(frames)
                except ProtocolError:
                    self._hear(frames)
                    continue
                now = time.monotonic()
                for action in actions:
                    self._take_in(action, now)
        if self._session.streams.outbox:
            self._send(self._session.answers())

    def _beat(self, now: float) -> None:
        """Send a heartbeat, and fail what has waited for too long."""
        heartbeat_s, is_due = self.spec.limits.heartbeat_s, now >= self.beat_at
        # After a pause of this process the news may just not have been read.
        is_late = now - self.beat_at > 5 * heartbeat_s
        self.beat_at = now + heartbeat_s
        self.channel.tend(now)
        if self._unsent:  # an absent coordinator needs no heartbeat
            self._take_waiting(even_if_full=True)  # so that time limits hold
        else:
            self._send(self._session.heartbeat(now))
        if is_due and not (is_late or self.channel.readable()):
            self._judge(now)

    def _judge(self, now: float) -> None:
        """Fail what is overdue, and everything if the coordinator has been silent for too long."""
        for submission in self._session.expired(now):
            limit = f"no result within timeout_s = {submission.options.timeout_s:g} s"
            words = f"{limit}, and no word about it from the coordinator at {self.endpoint}"
            fail(submission, TaskTimedOut(words))
        heard, self._heard_at = self._session.heard_at != self._heard_at, self._session.heard_at
        if heard or not self._session.open:
            self._silent_s = 0.0
            return
        self._silent_s += self.spec.limits.heartbeat_s
        if self._silent_s > self._give_up_s:
            self._unsent.clear()
            self._fail_all(
                Unreachable(
                    f"given up: the coordinator at {self.endpoint} has been silent for "
                    f"{self._silent_s:.1f} s (give_up_s = {self._give_up_s:g}), although the "
                    "client kept connecting and sending heartbeats; is it running?"
                )
            )
            self._silent_s = 0.0

    def _fail_all(self, error: Exception) -> None:
        """Fail everything that waits."""
        for submission in list(self._session.open.values()):
            self._session.drop(submission)
            fail(submission, error)
        self.fail_waiting(error)

    def _take_waiting(self, even_if_full: bool = False) -> None:
        while self._calls and (even_if_full or not self._unsent):
            _, method, args = self._calls.popleft()
            method(*args)
        self._send_tasks(even_if_full)

    def _send_tasks(self, even_if_full: bool = False) -> None:
        while self._tasks and (even_if_full or not self._unsent):
            if self._tasks[0][4].cancelled():
                self._tasks.popleft()
            else:
                self._hand_in(self._join_tasks())

    def _hand_in(self, event: on.TasksSubmitted) -> None:
        """Send a submission; one that can't be encoded fails alone."""
        if WATCHERS:
            event = watched(self.endpoint, self._session.open[event.submission], event)
        try:
            frames = self._codec.encode([event])
        except Exception as error:
            submission = self._session.open[event.submission]
            self._session.drop(submission)
            fail(
                submission, ClusterError(f"a task of kind {event.kind!r} can't be sent: {error!r}")
            )
            return
        self._unsent += frames
        self._flush()

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
        self._hand_in(self._session.submit(kind, payloads, options, chunk, time.monotonic()))

    def _cancel(self, future: TaskFuture) -> None:
        submission = future.submission
        if submission is not None and submission.id in self._session.open:
            self._send([self._session.cancel(submission, [future.position])])

    def _cancel_chunks(self, chunks: list[Chunk]) -> None:
        unwanted = set(chunks)
        for submission in list(self._session.open.values()):
            if isinstance(submission.sink, Chunk) and submission.sink in unwanted:
                self._send([self._session.cancel(submission, [])])

    def _send(self, events: list[Any]) -> None:
        """Send, or keep what can't leave before the coordinator is there or has caught up; nothing
        else is sent before that.
        """
        self._unsent += self._codec.encode(events)
        self._flush()

    def _flush(self) -> None:
        try:
            while self._unsent:
                self.channel.send(self._unsent[0])
                self._unsent.popleft()
        except zmq.Again:  # the descriptor tells when there is room
            return

    def _take_in(self, action: do.Action, now: float) -> None:
        news = self._session.handle(action, now)
        if news is None:
            return
        sink = news.submission.sink
        if isinstance(news, Refused):
            self._refused(news, now)
            return
        if WATCHERS:
            for watcher in tuple(WATCHERS):
                watcher.settled(news, now)
        if isinstance(sink, Chunk):
            sink.settle(news)
        else:
            settle_futures(sink, news, now)

    def _refused(self, news: Refused, now: float) -> None:
        if news.error == CoordinatorLost.__name__ and news.submission.options.idempotent:
            self._send(self._session.resubmit(news.submission, now))
        else:
            refuse(news, self.endpoint)


def _ignore(_: Exception) -> None:
    """A cancellation that was not sent: closing cancels everything."""
