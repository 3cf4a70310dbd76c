"""The client's I/O: an exchange with the coordinator, and whichever thread leads it.

A thread that submits while nothing else is under way sends at once; otherwise it leaves its task to
the leader. leadership.py says who leads, exchange.py what is exchanged.
"""

from __future__ import annotations

import math
import os
import threading
import time
from typing import TypeVar
from weakref import WeakSet

from cluster.protocol.client_session import Options
from cluster.shells.exchange import CLOSED, Exchange, Task
from cluster.shells.futures import TaskFuture
from cluster.shells.leadership import Leadership
from cluster.spec import ClusterSpec
from cluster.transport import interrupts
from cluster.transport.interrupts import Latch
from cluster.vocabulary.errors import ClientClosed, ClusterError, CoordinatorLost

F = TypeVar("F", bound=TaskFuture)

#: those of this process that are not collected
LOOPS: WeakSet[ClientLoop] = WeakSet()


def _disown_all() -> None:
    for loop in list(LOOPS):
        loop.disown()


os.register_at_fork(after_in_child=_disown_all)


class ClientLoop:
    """Exchange messages with the coordinator at ``endpoint`` until closed.

    Raises ClusterError for an invalid endpoint.
    """

    def __init__(
        self, endpoint: str, spec: ClusterSpec, name: str, give_up_s: float | None
    ) -> None:
        self.closing = False
        self._is_forked = self._is_abandoned = False
        self.exchange = Exchange(endpoint, spec, name, self._wake, give_up_s)
        self._wake_leader = self.exchange.channel.waker.wake
        self._leadership = Leadership(self._wake_leader, spec.limits.heartbeat_s)
        #: the leader will look at what was handed over before it waits again
        self._is_awake = False
        self._is_over = Latch()
        self._thread = threading.Thread(target=self._run, name="client", daemon=True)
        LOOPS.add(self)
        try:
            self._thread.start()
        except RuntimeError as error:
            self.exchange.close()
            raise ClusterError(f"no thread is left for a client: {error}") from error

    def check_open(self) -> None:
        """Raise ClientClosed in a forked child and after close, or why the coordinator can't be
        talked to.
        """
        if self._is_forked:
            raise ClientClosed(
                f"this client belongs to the process that forked this one ({os.getppid()}); make "
                "a new client here, or start processes with the method 'spawn'"
            )
        if self.closing:
            raise ClientClosed("this client is closed")
        if self.exchange.refusal is not None:
            raise self.exchange.refusal

    def state(self) -> str:
        """Whether the client is open, in a word, or why it is not."""
        try:
            self.check_open()
        except ClusterError as error:
            return "closed" if self.closing and not self._is_forked else str(error)[:200]
        return "open"

    def check_may_wait(self) -> None:
        """Raise ClusterError where a wait for this client could never end."""
        if self._is_forked:
            self.check_open()
        self._leadership.check_not_own()

    def pause(self, seconds: float) -> None:
        """Wait; not for long any more once the client is closed."""
        self._is_over.wait(seconds)

    def submit(self, kind: str, payload: bytes, options: Options, traced: bool, make: type[F]) -> F:
        """Hand in one task: at once if it is the only one, else with others like it. Its future is
        one of class ``make``.
        """
        future = make(self.exchange.cancel, self.wait_for, self._leadership.defer)
        alone = self.exchange.add_task((kind, payload, options, traced, future))
        if not alone or not self.exchange.send_now() or self.closing:
            self._wake()
        return future

    def submit_batch(
        self, kind: str, payloads: list[bytes], options: Options, make: type[TaskFuture]
    ) -> list[TaskFuture]:
        """Hand in many like tasks at once, a future each."""
        own = self.exchange.cancel, self.wait_for, self._leadership.defer
        futures = [make(*own) for _ in payloads]
        self.exchange.submit_batch(
            [
                (kind, payload, options, False, f)
                for payload, f in zip(payloads, futures, strict=True)
            ]
        )
        return futures

    def resubmit(self, futures: list[TaskFuture]) -> list[TaskFuture]:
        """Hand in again the tasks that were lost with their coordinator."""
        tasks: list[Task] = []
        for place, lost in enumerate(futures):
            submission = lost.submission
            if submission is None or not lost.done() or lost.cancelled():
                continue
            if not isinstance(lost.exception(), CoordinatorLost):
                continue
            own = self.exchange.cancel, self.wait_for, self._leadership.defer
            futures[place] = type(lost)(*own)
            event, options = submission.work, submission.options
            task = event.kind, event.payloads[lost.position], options, False, futures[place]
            tasks.append(task)
        self.exchange.submit_batch(tasks)
        return futures

    def wait_for(self, future: TaskFuture, timeout: float | None) -> None:
        """Lead while the caller waits for a future, if that is worth it.

        Returns when it is done, the time is up, or another thread leads better.
        """
        self.check_may_wait()
        end = math.inf if timeout is None else time.monotonic() + timeout

        def step() -> bool:
            if future.done() or self.closing or time.monotonic() >= end:
                return False
            self._wait(end)
            if self.exchange.turn() or self._leadership.deferred:
                self._leadership.call_own()
                return False
            return True

        self._leadership.visit(step, ask=not self.exchange.is_crowded())

    def close(self) -> None:
        """Say goodbye and fail what is not done. Returns when all resources are free; if it is
        interrupted it can be called again.
        """
        if self._is_forked:
            return  # the sockets are the parent's
        if self.closing and self._leadership.is_own():
            return  # a callback of a task that closing has ended
        self.check_may_wait()
        self.closing = True
        self._wake_leader()
        self._leadership.call_own()
        # An interrupted join takes a thread that runs for one that has ended: hence the latch.
        while not self._is_over.wait(0.1):
            pass
        self._thread.join()

    def abandon(self) -> None:
        """Close once nothing is open: nobody can submit any more."""
        self._is_abandoned = True
        if not self._is_forked:
            self._wake_leader()
            self._leadership.call_own()

    def disown(self) -> None:
        """Touch nothing any more: this is a forked child, and the threads are the parent's."""
        self.closing = self._is_forked = self._is_awake = True

    def _wake(self) -> None:
        """Have the leader look at what was handed over; the own thread if no other leads."""
        if not self._is_awake:
            interrupts.hold()  # else the flag might stand without the wake-up
            self._is_awake = True
            self._wake_leader()
            self._leadership.call_own()
            interrupts.let_go()
        if self.exchange.is_closed:  # since the caller checked
            self.exchange.fail_waiting(ClientClosed(CLOSED))

    def _run(self) -> None:
        try:
            self._leadership.reside(self._step)
        finally:
            self.closing = True
            try:
                self._leadership.retire(self.exchange.close)
            finally:
                self._is_over.set()

    def _step(self) -> bool:
        if self.closing or (self._is_abandoned and not self.exchange.is_busy()):
            return False
        self._wait(math.inf)
        self.exchange.turn()
        return True

    def _wait(self, end: float) -> None:
        """Wait until there is something to do, at most until ``end`` or the next heartbeat."""
        # The flags change before the look: what is handed over after that wakes again.
        self._is_awake, self.exchange.is_waited_for = False, True
        wait_s = min(end, self.exchange.beat_at) - time.monotonic()
        if wait_s > 0.0 and not self.exchange.has_more():
            self.exchange.channel.listener.poll(math.ceil(wait_s * 1000))
        self.exchange.is_waited_for = False
