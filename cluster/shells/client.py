"""The client: submit work, get futures or an iterator of results.

Tasks that wait while the socket is busy and share their attributes become one run, up to the spec's
``burst``: under light load nothing waits for company, under heavy load batches form by themselves.
client_loop.py exchanges the messages.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Iterable, Iterator
from socket import gethostname
from typing import Any, Self

import msgspec
import zmq

from cluster.protocol.client_session import Options, as_event
from cluster.protocol.codec import in_words
from cluster.shells.client_loop import ClientLoop
from cluster.shells.feeding import FedMapReader
from cluster.shells.futures import TaskFuture
from cluster.shells.mapping import Chunk, MapReader, Payload, as_payload, refuse_single, run_bytes
from cluster.spec import ClusterSpec
from cluster.transport import interrupts
from cluster.transport.questions import ask, learn_spec
from cluster.vocabulary import events as on
from cluster.vocabulary.errors import ClusterError
from cluster.vocabulary.status import Status
from cluster.vocabulary.task import NO_REQUIREMENTS, NO_RETRY, Priority, Requirements, Retry

#: how long the coordinator may be silent before what waits for it fails
GIVE_UP_S = 60.0
#: the length of a name that leaves room for its incarnation
MAX_NAME = 100


class Client:
    """Talk to the coordinator at ``endpoint``. Methods may be called from any thread, but not in a
    forked child.

    Without a ``spec`` it adopts the coordinator's, which must be there then: raises Unreachable. A
    coordinator with another codec or other limits than ``spec`` fails every call: ProtocolError.

    Errors reach the caller through the future: TaskFailed, TaskTimedOut, NoWorker and
    TaskDeadLettered of the task; Busy (the coordinator is at a bound, which it names),
    CoordinatorLost (it was restarted; see ``resubmit``) and Unreachable (it has been silent for
    ``give_up_s``; None waits for ever); Superseded (another client of this ``name`` came later) and
    ClientClosed of the client. A client that nobody refers to closes when nothing is open.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        spec: ClusterSpec | None = None,
        name: str | None = None,
        give_up_s: float | None = GIVE_UP_S,
    ) -> None:
        _check_text("an endpoint", endpoint, 4_096)
        if name:
            _check_text("a client's name", name, MAX_NAME)
        self.endpoint = endpoint
        self.spec = spec = spec or learn_spec(endpoint)
        self.name = name or f"{gethostname()[:60]}-{os.getpid()}-{os.urandom(4).hex()}"
        # A process that is restarted at once must not get the results of the one before.
        on_wire = self.name if not name else f"{name}#{time.time_ns():016x}"
        self._run_bytes = run_bytes(spec.limits.message_bytes)
        self._checked: tuple[str, Options] | None = None
        interrupts.hold()  # half a client could not be closed
        try:
            self._loop = ClientLoop(endpoint, spec, on_wire, give_up_s)
            weakref.finalize(self, self._loop.abandon).atexit = False
        finally:
            interrupts.let_go()

    def submit(
        self,
        kind: str,
        payload: Payload = b"",
        *,
        priority: Priority = Priority.NORMAL,
        requirements: Requirements | None = None,
        timeout_s: float | None = None,
        retry: Retry = NO_RETRY,
        wait_for_worker: bool = False,
        idempotent: bool = False,
        traced: bool = False,
    ) -> TaskFuture:
        """Hand in one task; its future has the result, and its stamps if it is ``traced``.

        A large buffer is sent uncopied, so it must not change until the result is there. Raises
        ClusterError for invalid options, TypeError for a payload that is not a buffer.
        """
        self._check_open()
        options = self._options(
            kind, priority, requirements, timeout_s, retry, wait_for_worker, idempotent
        )
        data: Any = payload
        if type(data) is not bytes or len(data) >= self._run_bytes:
            data = as_payload(data, self.spec.limits.message_bytes)
        return self._loop.submit(kind, data, options, traced)

    def submit_batch(
        self,
        kind: str,
        payloads: Iterable[Payload],
        *,
        priority: Priority = Priority.NORMAL,
        requirements: Requirements | None = None,
        timeout_s: float | None = None,
        retry: Retry = NO_RETRY,
        wait_for_worker: bool = False,
        idempotent: bool = False,
    ) -> list[TaskFuture]:
        """Hand in many like tasks at once; returns a future for each, in order. Raises as submit
        does, before any task is handed in.
        """
        self._check_open()
        options = self._options(
            kind, priority, requirements, timeout_s, retry, wait_for_worker, idempotent
        )
        refuse_single(payloads)
        column = [as_payload(payload, self.spec.limits.message_bytes) for payload in payloads]
        return self._loop.submit_batch(kind, column, options)

    def map(
        self,
        kind: str,
        payloads: Iterable[Payload],
        *,
        priority: Priority = Priority.NORMAL,
        requirements: Requirements | None = None,
        timeout_s: float | None = None,
        retry: Retry = NO_RETRY,
        wait_for_worker: bool = False,
        idempotent: bool = False,
        timeout: float | None = None,
    ) -> Iterator[bytes]:
        """The results of many like tasks, in order. Submission starts at once and stays a bounded
        window ahead. A source other than a list or tuple is read in a thread of its own, so it may
        wait for results.

        A failed task raises in the place of its result; TimeoutError is raised in the place of the
        first result that is missing ``timeout`` seconds after the call; an error of the source, or
        a payload that can't be sent, is raised at once. Each cancels the rest.
        """
        self._check_open()
        options = self._options(
            kind, priority, requirements, timeout_s, retry, wait_for_worker, idempotent
        )

        def submit(column: list[bytes], chunk: Chunk) -> None:
            self._loop.exchange.submit_chunk(kind, column, options, chunk)

        refuse_single(payloads)
        is_at_hand = isinstance(payloads, list | tuple)
        reader = (MapReader if is_at_hand else FedMapReader)(
            payloads,
            self.spec.burst,
            self.spec.limits.message_bytes,
            submit,
            self._loop.exchange.cancel_chunks,
            self._loop.check_may_wait,
            timeout,
        )
        if isinstance(reader, FedMapReader):
            reader.start()
            results = reader.read()
            weakref.finalize(results, reader.stop).atexit = False  # if it is never read
            return results
        try:
            reader.fill()
        except BaseException:
            reader.stop()
            raise
        return reader.read()

    def resubmit(self, futures: Iterable[TaskFuture]) -> list[TaskFuture]:
        """Hand in again what a coordinator has lost: a new future for each that holds a
        CoordinatorLost, in order, and the others as they are.
        """
        self._check_open()
        return self._loop.resubmit(list(futures))

    def cancel(self, future: TaskFuture) -> bool:
        """Cancel a task; the same as ``future.cancel()``."""
        return future.cancel()

    def status(self, timeout: float | None = 5.0) -> Status:
        """The state of the cluster; raises Unreachable without an answer in ``timeout`` seconds,
        ProtocolError if the coordinator has a spec with another codec.
        """
        return self._question(timeout, on.StatusRequested)

    def change_policy(self, policy: str, timeout: float | None = 5.0) -> Status:
        """Switch the running cluster's assignment policy; raises ClusterError for an unknown
        name.
        """
        return self._question(timeout, on.PolicyChanged, policy)

    @property
    def socket(self) -> zmq.Socket[bytes]:
        """Its socket, for a monitor; anything else would break in on the client's own threads."""
        return self._loop.exchange.channel.socket

    def close(self) -> None:
        """Say goodbye; what is not done fails with ClientClosed. Call it again if it was
        interrupted.
        """
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._loop.closing or self._loop.exchange.refusal is not None:
            self._loop.check_open()

    def _options(
        self,
        kind: str,
        priority: Priority,
        requirements: Requirements | None,
        timeout_s: float | None,
        retry: Retry,
        wait_for_worker: bool,
        idempotent: bool,
    ) -> Options:
        """The options that tasks share, checked here: the coordinator would only drop a message
        with invalid ones.
        """
        options = Options(
            Priority(priority),
            requirements or NO_REQUIREMENTS,
            timeout_s,
            retry,
            wait_for_worker,
            idempotent,
        )
        if self._checked != (kind, options):
            event = as_event(self.name, 0, kind, [], options)
            _check_event(event, f"a task of kind {kind!r}")
            self._checked = kind, options
        return options

    def _question(self, timeout: float | None, event: Any, *args: Any) -> Status:
        self._check_open()
        self._loop.check_may_wait()
        question = event(self.name, 0, *args)
        _check_event(question, "the question")
        return ask(self.endpoint, self.spec, question, timeout, lambda: self._loop.closing)


def _check_text(what: str, text: object, most: int) -> None:
    if not isinstance(text, str) or len(text) > most or not text.isprintable():
        raise ClusterError(f"{what} is a text of at most {most} characters, not {text!r:.150}")


def _check_event(event: Any, what: str) -> None:
    """Raise ClusterError for a message that can't be encoded, or that a coordinator would drop."""
    try:
        msgspec.msgpack.decode(msgspec.msgpack.encode(event), type=type(event))
    except msgspec.ValidationError as error:
        raise ClusterError(f"{what}: {in_words(error, type(event))}") from error
    except Exception as error:  # an object that MessagePack can't hold
        raise ClusterError(f"{what} can't be sent: {error}") from error
