"""The client: submit work, get futures or an iterator of results.

Tasks that wait while the socket is busy and share their attributes become one run, up to the spec's
``burst``: under light load nothing waits for company, under heavy load batches form by themselves.
client_loop.py exchanges the messages.
"""

from __future__ import annotations

import math
import os
import time
import weakref
from collections.abc import Collection, Iterable, Iterator
from socket import gethostname
from typing import Any, Self, TypeVar, overload

import zmq

from cluster.protocol.client_session import Options, as_event
from cluster.shells.calls import (
    NOTHING,
    CallFuture,
    as_call,
    as_calls,
    as_results,
    check_event,
    check_text,
    known_state,
    one_payload,
)
from cluster.shells.client_loop import ClientLoop
from cluster.shells.feeding import FedMapReader
from cluster.shells.futures import TaskFuture
from cluster.shells.mapping import (
    Chunk,
    MapReader,
    Payload,
    as_payload,
    many_payloads,
    run_bytes,
)
from cluster.spec import ClusterSpec
from cluster.transport import interrupts
from cluster.transport.endpoints import default_endpoint
from cluster.transport.questions import ask, learn_spec
from cluster.vocabulary import events as on
from cluster.vocabulary.errors import ClusterError, ProtocolError, did_you_mean
from cluster.vocabulary.markup import as_table
from cluster.vocabulary.status import (
    Status,
    Story,
    StoryEntry,
    Tasks,
    TaskStatus,
    WorkerStatus,
    still_restarting,
)
from cluster.vocabulary.task import (
    NO_REQUIREMENTS,
    NO_RETRY,
    Priority,
    Requirements,
    Retry,
    State,
    TaskId,
)
from cluster.work.functions import Function, Functions

T = TypeVar("T")

#: how long the coordinator may be silent before what waits for it fails
GIVE_UP_S = 60.0
#: how long to wait between two looks at the status
LOOK_AGAIN_S = 0.1
#: A supervisor reports a worker that has joined within a heartbeat, or later on a busy machine.
FIRST_REPORT_S = 5.0
#: the length of a name that leaves room for its incarnation
MAX_NAME = 100


class Client:
    """Talk to the coordinator at ``endpoint`` (default: ``$PERFKIT_ENDPOINT``, else that of a
    cluster on this machine). Methods may be called from any thread, but not in a forked child.

    A task is named by its kind, whose handler takes and returns bytes. A client that has the
    ``functions`` of a cluster, see `cluster.local.LocalCluster.register`, calls them with plain
    data: by the function itself, which must be as the workers have it, or by its name.

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
        endpoint: str | None = None,
        *,
        spec: ClusterSpec | None = None,
        name: str | None = None,
        give_up_s: float | None = GIVE_UP_S,
        functions: Functions | None = None,
    ) -> None:
        endpoint = default_endpoint() if endpoint is None else endpoint
        check_text("an endpoint", endpoint, 4_096)
        if name:
            check_text("a client's name", name, MAX_NAME)
        self.endpoint = endpoint
        self.spec = spec = spec or learn_spec(endpoint)
        self.name = name or f"{gethostname()[:60]}-{os.getpid()}-{os.urandom(4).hex()}"
        # A process that is restarted at once must not get the results of the one before.
        on_wire = self.name if not name else f"{name}#{time.time_ns():016x}"
        self._run_bytes = run_bytes(spec.limits.message_bytes)
        self._checked: tuple[str, Options] | None = None
        self._functions = functions or Functions()
        interrupts.hold()  # half a client could not be closed
        try:
            self._loop = ClientLoop(endpoint, spec, on_wire, give_up_s)
            weakref.finalize(self, self._loop.abandon).atexit = False
        finally:
            interrupts.let_go()

    @overload
    def submit(self, kind: str, payload: Payload = b"", **options: Any) -> TaskFuture: ...

    @overload
    def submit(self, kind: Function, *items: Any, **options: Any) -> CallFuture: ...

    def submit(  # type: ignore[misc]  # the overloads leave its options out
        self,
        kind: str | Function,
        payload: Any = NOTHING,
        *more: Any,
        priority: Priority = Priority.NORMAL,
        requirements: Requirements | None = None,
        timeout_s: float | None = None,
        retry: Retry = NO_RETRY,
        wait_for_worker: bool = False,
        idempotent: bool = False,
        traced: bool = False,
    ) -> TaskFuture:
        """Hand in one task; its future has the result, and its stamps if it is ``traced``.

        A handler takes one payload; a function takes any number of items, by position. A large
        buffer is sent uncopied, so it must not change until the result is there. Raises
        ClusterError for invalid options, or a function that the workers don't have as it is now;
        TypeError for a payload that is not a buffer, or an item that is not plain data.
        """
        self._check_open()
        name, is_call = self.resolve(kind)
        options = self._options(
            name, priority, requirements, timeout_s, retry, wait_for_worker, idempotent
        )
        data: Any = as_call(name, payload, more) if is_call else one_payload(name, payload, more)
        if type(data) is not bytes or len(data) >= self._run_bytes:
            data = as_payload(data, self.spec.limits.message_bytes)
        return self._loop.submit(name, data, options, traced, CallFuture if is_call else TaskFuture)

    def submit_batch(
        self,
        kind: str | Function,
        payloads: Iterable[Any],
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
        name, is_call = self.resolve(kind, many=True)
        options = self._options(
            name, priority, requirements, timeout_s, retry, wait_for_worker, idempotent
        )
        payloads = as_calls(name, payloads) if is_call else many_payloads(payloads)
        column = [as_payload(payload, self.spec.limits.message_bytes) for payload in payloads]
        make = CallFuture if is_call else TaskFuture
        return self._loop.submit_batch(name, column, options, make)

    @overload
    def map(self, kind: str, payloads: Iterable[Payload], **options: Any) -> Iterator[bytes]: ...

    @overload
    def map(
        self, kind: Function, items: Iterable[Any], *more: Iterable[Any], **options: Any
    ) -> Iterator[Any]: ...

    def map(  # type: ignore[misc]
        self,
        kind: str | Function,
        payloads: Iterable[Any],
        *more: Iterable[Any],
        priority: Priority = Priority.NORMAL,
        requirements: Requirements | None = None,
        timeout_s: float | None = None,
        retry: Retry = NO_RETRY,
        wait_for_worker: bool = False,
        idempotent: bool = False,
        timeout: float | None = None,
    ) -> Iterator[Any]:
        """The results of many like tasks, in order. A handler takes the payloads of one source; a
        function takes an item of each source, up to the end of the shortest. Submission starts at
        once and stays a bounded window ahead. A source other than a list, tuple or range is read in
        a thread of its own, so it may wait for results.

        A failed task raises in the place of its result; TimeoutError is raised in the place of the
        first result that is missing ``timeout`` seconds after the call; an error of the source, or
        a payload that can't be sent, is raised at once. Each cancels the rest.
        """
        self._check_open()
        name, is_call = self.resolve(kind, many=True)
        options = self._options(
            name, priority, requirements, timeout_s, retry, wait_for_worker, idempotent
        )

        def submit(column: list[bytes], chunk: Chunk) -> None:
            self._loop.exchange.submit_chunk(name, column, options, chunk)

        is_at_hand = all(isinstance(it, list | tuple | range) for it in (payloads, *more))
        payloads = as_calls(name, payloads, *more) if is_call else many_payloads(payloads, *more)
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
            return as_results(results) if is_call else results
        try:
            reader.fill()
        except BaseException:
            reader.stop()
            raise
        return as_results(reader.read()) if is_call else reader.read()

    def resubmit(self, futures: Iterable[TaskFuture]) -> list[TaskFuture]:
        """Hand in again what a coordinator has lost: a new future for each that holds a
        CoordinatorLost, in order, and the others as they are.
        """
        self._check_open()
        return self._loop.resubmit(list(futures))

    def resolve(self, kind: str | Function, *, many: bool = False) -> tuple[str, bool]:
        """The kind's name, and whether it is a function, at which ``many`` tasks look closely."""
        name = kind if type(kind) is str else self._functions.name_of(kind, closely=many)
        return name, name in self._functions.known

    def cancel(self, future: TaskFuture) -> bool:
        """Cancel a task; the same as ``future.cancel()``."""
        return future.cancel()

    def status(self, timeout: float | None = 5.0) -> Status:
        """The state of the cluster; raises Unreachable without an answer in ``timeout`` seconds,
        ProtocolError if the coordinator has a spec with another codec.
        """
        return self._question(Status, timeout, on.StatusRequested)

    def change_policy(self, policy: str, timeout: float | None = 5.0) -> Status:
        """Switch the running cluster's assignment policy; raises ClusterError for an unknown
        name.
        """
        return self._question(Status, timeout, on.PolicyChanged, policy)

    def serve_models(
        self,
        load: Collection[str] = (),
        unload: Collection[str] = (),
        timeout: float | None = 5.0,
    ) -> Status:
        """Have every worker load and unload models by name, and each that joins later. Returns at
        once: a status shows what each worker is ``wanted`` to serve, what it serves, and its
        ``trouble``.
        """
        for names in (load, unload):
            if isinstance(names, str):
                raise ClusterError(f"models are given as a list of names, not as {names!r}")
        return self._question(Status, timeout, on.ModelsRequested, list(load), list(unload))

    def tasks(
        self, state: State | str | None = None, limit: int = 100, timeout: float | None = 5.0
    ) -> list[TaskStatus]:
        """The newest tasks of all clients, at most 1,000, in one ``state`` if it is given: the
        newest run first. Of those that have ended, the coordinator remembers some.
        """
        wanted = state and known_state(state)
        return self._question(Tasks, timeout, on.TasksRequested, wanted, limit).tasks

    def story(self, task: TaskId, timeout: float | None = 5.0) -> list[StoryEntry]:
        """What has happened to a task, in order; raises ClusterError if it is not known (any
        more).
        """
        return self._question(Story, timeout, on.StoryRequested, *task).entries

    def cancel_task(self, task: TaskId, timeout: float | None = 5.0) -> bool:
        """Cancel a task of any client, whose future is cancelled then. False if it had ended
        otherwise; raises ClusterError if it is not known (any more).
        """
        return self._question(bool, timeout, on.CancelRequested, *task)

    def drain(self, worker: str, timeout: float | None = 5.0) -> Status:
        """Have a worker finish what it runs, give back the rest, and end; its supervisor does not
        start it again. Returns at once: it is in the status until it has left. Raises ClusterError
        if there is no such worker.
        """
        pid = self._find(worker, timeout).pid
        return self._question(Status, timeout, on.LeaveRequested, worker, pid)

    def restart(self, worker: str, timeout: float | None = 60.0) -> Status:
        """Drain a worker and have its supervisor start another process; returns when that serves
        all that it is wanted to. Raises ClusterError if there is no such worker, if no supervisor
        would start it again (none has reported it within FIRST_REPORT_S), if the new process is in
        trouble, and after ``timeout`` seconds.
        """
        end_s = math.inf if timeout is None else time.monotonic() + timeout
        until_s = min(end_s, time.monotonic() + FIRST_REPORT_S)
        while not (old := self._find(worker)).supervisor and time.monotonic() < until_s:
            self._loop.pause(LOOK_AGAIN_S)
        status = self._question(Status, 5.0, on.LeaveRequested, worker, old.pid, True)
        while state := still_restarting(status, worker, old.pid):
            if time.monotonic() > end_s:
                raise ClusterError(f"worker {worker!r} {state} {timeout} s after this began")
            self._loop.pause(LOOK_AGAIN_S)
            status = self.status()
        return status

    @property
    def socket(self) -> zmq.Socket[bytes]:
        """Its socket, for a monitor; anything else would break in on the client's own threads."""
        return self._loop.exchange.channel.socket

    def close(self) -> None:
        """Say goodbye; what is not done fails with ClientClosed. Call it again if it was
        interrupted.
        """
        self._loop.close()

    def __repr__(self) -> str:
        return f"<Client of {self.endpoint} ({self.spec.name}): {self._loop.state()}>"

    def _repr_html_(self) -> str:
        facts = self.endpoint, self.spec.name, self._loop.state(), ", ".join(self._functions.known)
        return as_table(f"Client {self.name}", ("endpoint", "spec", "state", "functions"), [facts])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._loop.closing or self._loop.exchange.refusal is not None:
            self._loop.check_open()

    def _options(
        self, kind: str, priority: Priority, requirements: Requirements | None, *rest: Any
    ) -> Options:
        """The options that tasks share, checked here: the coordinator would only drop a message
        with invalid ones.
        """
        options = Options(Priority(priority), requirements or NO_REQUIREMENTS, *rest)
        if self._checked != (kind, options):
            event = as_event(self.name, 0, kind, [], options)
            check_event(event, f"a task of kind {kind!r}")
            self._checked = kind, options
        return options

    def _find(self, worker: str, timeout: float | None = 5.0) -> WorkerStatus:
        workers = {one.worker: one for one in self.status(timeout).workers}
        if worker not in workers:
            known = f"there are {', '.join(sorted(workers))}" if workers else "there is none"
            hint = did_you_mean(worker, workers)
            raise ClusterError(f"no worker {worker!r} is here; {known}{hint}")
        return workers[worker]

    def _question(self, kind: type[T], timeout: float | None, event: Any, *args: Any) -> T:
        """The answer of this kind to a question; raises ClusterError for one that is refused."""
        self._check_open()
        self._loop.check_may_wait()
        question = event(self.name, 0, *args)
        check_event(question, "the question")
        answer = ask(self.endpoint, self.spec, question, timeout, lambda: self._loop.closing)
        if not isinstance(answer, kind):
            raise ProtocolError(f"the coordinator answers {event.__name__} with {answer!r:.100}")
        return answer
