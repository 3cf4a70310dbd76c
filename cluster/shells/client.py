"""The client: submit work, get futures or an iterator of results.

Tasks that wait while the socket is busy and share their attributes become one run, up to the spec's
``burst``: under light load nothing waits for company, under heavy load batches form by themselves.
client_loop.py exchanges the messages.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator
from typing import Any, Self

import msgspec

from cluster.protocol.client_session import Options
from cluster.protocol.codec import in_words
from cluster.shells.client_loop import ClientLoop
from cluster.shells.futures import TaskFuture
from cluster.shells.mapping import Chunk, MapReader, Payload, as_payload, run_bytes
from cluster.spec import BASELINE, ClusterSpec
from cluster.vocabulary import events as on
from cluster.vocabulary.errors import ClusterError, ProtocolError, Unreachable
from cluster.vocabulary.status import Status
from cluster.vocabulary.task import NO_REQUIREMENTS, NO_RETRY, Priority, Requirements, Retry


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
        self._run_bytes = run_bytes(spec.limits.message_bytes)
        self._checked: tuple[str, Options] | None = None
        self._loop = ClientLoop(endpoint, spec, self.name)

    def submit(
        self,
        kind: str,
        payload: Payload = b"",
        *,
        priority: Priority = Priority.NORMAL,
        requirements: Requirements | None = None,
        timeout_s: float | None = None,
        retry: Retry = NO_RETRY,
        traced: bool = False,
    ) -> TaskFuture:
        """Hand in one task; its future has the result, and its stamps if it is ``traced``.

        A large buffer is sent uncopied, so it must not change until the result is there. Raises
        ClusterError for invalid options, TypeError for a payload that is not a buffer.
        """
        self._check_open()
        options = self._options(kind, priority, requirements, timeout_s, retry)
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
    ) -> list[TaskFuture]:
        """Hand in many like tasks at once; returns a future for each, in order. Raises as submit
        does, before any task is handed in.
        """
        self._check_open()
        options = self._options(kind, priority, requirements, timeout_s, retry)
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
        timeout: float | None = None,
    ) -> Iterator[bytes]:
        """The results of many like tasks, in order. Submission starts at once and stays a bounded
        window ahead.

        A failed task raises in the place of its result; TimeoutError is raised in the place of the
        first result that is missing ``timeout`` seconds after the call. Either cancels the rest.
        """
        self._check_open()
        options = self._options(kind, priority, requirements, timeout_s, retry)

        def submit(column: list[bytes], chunk: Chunk) -> None:
            self._loop.exchange.submit_chunk(kind, column, options, chunk)

        reader = MapReader(
            payloads,
            self.spec.burst,
            self.spec.limits.message_bytes,
            submit,
            self._loop.exchange.cancel_chunks,
            self._loop.check_not_leading,
            timeout,
        )
        reader.fill()
        return reader.read()

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

    def close(self) -> None:
        """Say goodbye and cancel what is not done."""
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._loop.closing:
            raise ClusterError("this client is closed")

    def _options(
        self,
        kind: str,
        priority: Priority,
        requirements: Requirements | None,
        timeout_s: float | None,
        retry: Retry,
    ) -> Options:
        """The options that tasks share, checked here: the coordinator would only drop a message
        with invalid ones.
        """
        options = Options(Priority(priority), requirements or NO_REQUIREMENTS, timeout_s, retry)
        if self._checked != (kind, options):
            event = on.TasksSubmitted(self.name, 0, kind, [], *options[:4])
            try:
                msgspec.convert(msgspec.to_builtins(event), on.TasksSubmitted)
            except msgspec.ValidationError as error:
                raise ClusterError(
                    f"a task of kind {kind!r}: {in_words(error, on.TasksSubmitted)}"
                ) from error
            self._checked = kind, options
        return options

    def _question(self, timeout: float | None, event: Any, *args: Any) -> Status:
        self._check_open()
        self._loop.check_not_leading()
        try:
            return self._loop.exchange.ask(event, *args).result(timeout)
        except TimeoutError:
            if self._loop.exchange.misunderstood:
                raise ProtocolError(
                    f"the coordinator at {self.endpoint} answers in another codec than that of "
                    f"spec {self.spec.name!r}; name the spec it was started with"
                ) from None
            raise Unreachable(
                f"no coordinator answers at {self.endpoint} within {timeout} s; is it running?"
            ) from None
