"""The coordinator: a ZeroMQ ROUTER loop around a dispatcher.

It reads what has arrived, bounded, and takes a turn. One thread owns the socket and the scheduler,
so there is nothing to lock.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections import OrderedDict
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Self

from msgspec.structs import replace

from cluster.shells.dispatcher import Dispatcher
from cluster.spec import BASELINE, ClusterSpec
from cluster.transport.endpoints import check_bind, is_loopback
from cluster.transport.router import RouterChannel
from cluster.vocabulary.errors import ClusterError
from cluster.vocabulary.task import Priority, TaskId

if TYPE_CHECKING:
    from cluster.shells.client import Client

LOCAL_ONLY = "tcp://127.0.0.1:*"
MAX_KEPT_RESULTS = 100_000
#: how many heartbeats clients have to hear of the end
FAREWELL_BEATS = 3


class ClusterCoordinator(Dispatcher):
    """Serve workers and clients at an endpoint, in the caller's thread (run) or in one of its own
    (start).

    Embedded in a program it can also be its own client: ``submit_task`` and ``get_result``. Raises
    ClusterError for a bad endpoint or spec.
    """

    def __init__(
        self, spec: ClusterSpec = BASELINE, bind: str = LOCAL_ONLY, *, insecure: bool = False
    ) -> None:
        check_bind(bind, insecure)
        spec = replace(spec, checks=spec.checks or not is_loopback(bind))
        self._router = RouterChannel(spec)
        try:
            super().__init__(spec, self._router)
            self.scheduler.roster.next_epoch = time.time_ns() // 1_000_000
            self.endpoint = self._router.bind(bind)
        except BaseException:
            self._router.close()
            raise
        self._stopping = self._draining = self._serving = False
        #: until when what runs may end, and then until when clients may hear of the end
        self._end_at = math.inf
        self._has_dismissed = False
        self._thread: threading.Thread | None = None
        self._own_client: Client | None = None
        self._results: OrderedDict[int, Future[bytes]] = OrderedDict()
        self._submitted = 0

    def run(self) -> None:
        """Serve until stop is called, or drain and nothing runs any more; clients are told."""
        self._serving = True
        try:
            while not self._draining or not self._is_over(time.monotonic()):
                self._router.listener.wait(self._patience_ms())
                messages = [*self._router.receive(self.spec.drain)]
                now = time.monotonic()
                self.turn(messages, now, self._router.readable)
                self._router.care(now)
        finally:
            self._router.close()

    def start(self) -> Self:
        """Serve in a thread of its own until stop; raises ClusterError after that."""
        if self._stopping:
            raise ClusterError("this coordinator has been stopped; make a new one")
        self._serving = True
        self._thread = threading.Thread(target=self.run, name="coordinator", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop serving and free the port; returns when both are done. Safe to call from a signal
        handler.
        """
        if self._own_client is not None:
            self._own_client.close()
            self._own_client = None
        self._stopping = self._draining = True
        self._router.waker.wake()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        elif not self._serving:
            self._router.close()

    def drain(self) -> None:
        """Accept nothing more, let what runs end for ``Limits.drain_s``, and stop; stop at once if
        called again. Safe to call from a signal handler.
        """
        if self._draining:
            self.stop()
        self._draining = True
        self._router.waker.wake()

    def stop_on_signals(self) -> None:
        """Let SIGTERM and SIGINT drain this coordinator; call this and run in the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.drain())
        self._router.waker.hear_signals()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *error: object) -> None:
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

        ``options`` are those of Client.submit. Only the newest 100,000 results are kept.
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
        result = self._results[task].result(timeout)
        del self._results[task]
        return result

    def story(self, task: TaskId) -> list[str]:
        """What happened to one task, a line each; call it from the serving thread or after stop."""
        return [f"{e.at_s:.6f} {e.cause}: {e.detail}" for e in self.scheduler.story(task)]

    def _is_over(self, now: float) -> bool:
        """Whether nothing runs any more, and every client has heard how its tasks ended.

        A connection that ends takes along what its peer has not read: hence the wait for clients.
        """
        if self._end_at == math.inf:
            self.scheduler.drain()
            self._end_at = now + self.spec.limits.drain_s
        if not self._has_dismissed:
            if self.scheduler.ledger.leases and now < self._end_at and not self._stopping:
                return False
            self.dismiss()
            self._has_dismissed, self._end_at = (
                True,
                now + FAREWELL_BEATS * self.spec.limits.heartbeat_s,
            )
        return now >= self._end_at or not self.scheduler.clients.are_owed()

    def _publish(self) -> None:
        super()._publish()
        for cause, count in self._router.gate.cuts.items():
            self.scheduler.counters[f"connections_{cause}"] = count
        self.scheduler.counters["corrupted"] = self._router.corrupted

    def _patience_ms(self) -> int:
        patience_s = min(self.deadline() - time.monotonic(), self._router.gate.sweep_s)
        return max(0, math.ceil(patience_s * 1000))
