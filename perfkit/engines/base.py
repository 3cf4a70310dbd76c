"""The protocol of every engine, and the shared part of the engines that are not this cluster.

Work is named, never shipped: each worker process loads the same handlers and models and looks up
the kind. The other engines get *columns*, many payloads of one kind, which are answered by this
cluster's worker code, so that a failed task fails alone and with the same message everywhere. The
peers advise the same for tiny tasks: make them larger. One rule sets the size for all. The price,
which the figures of a map do not show: a peer places, loses and cancels a column as a whole.
`submit` shows how a peer handles single tasks.
"""

from __future__ import annotations

import re
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from concurrent.futures import CancelledError, Future
from functools import cache
from typing import ClassVar, Self, TypeAlias

from cluster.models.inference import model_handlers, model_kinds
from cluster.shells.futures import TaskFuture, as_exception, set_exception, set_result
from cluster.shells.mapping import Chunk, MapReader, as_payload
from cluster.spec import BASELINE, ClusterSpec
from cluster.vocabulary.errors import ClusterError, TaskError, did_you_mean
from cluster.vocabulary.task import Failure
from cluster.work.handlers import Handlers, sort_out, try_some
from cluster.work.workloads import HANDLERS

#: The results of a column of payloads, ``b""`` where a failure stands, and the failures.
Column: TypeAlias = tuple[list[bytes], list[Failure]]

#: A map of known length is cut evenly as by multiprocessing.Pool.map, this many columns for each
#: worker, so that the last column to finish is short.
COLUMNS_PER_WORKER = 4
COLUMN_TASKS_MAX = 1_000
#: For a map of unknown length, whose first result should not wait for a thousand others.
COLUMN_TASKS = 16
#: held while a process loads models, which threads of one worker may want at the same time
_LOADING = threading.Lock()
#: The cluster's bound, so that a program that runs on one engine runs on all.
MESSAGE_BYTES = BASELINE.limits.message_bytes
READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 5.0


class Engine(ABC):
    """Worker processes that answer tasks by name, while a with block lasts: on this machine, or in
    the cluster at ``address``, which runs already and goes on afterwards.

    Once it is entered, every worker has loaded its handlers and models. Methods may be called from
    any thread. Raises ClusterError for fewer than one worker, for an address that is none of this
    engine's and, when entered, for workers that do not come up.
    """

    name: ClassVar[str]
    #: what its addresses look like, as a pattern and in words; "" if its workers always start here
    addresses: ClassVar[tuple[str, str]] = ("", "")

    def __init__(
        self,
        workers: int = 2,
        spec: ClusterSpec = BASELINE,
        models: Sequence[str] = (),
        address: str | None = None,
    ) -> None:
        self._check_address(address)
        if workers < 1:
            raise ClusterError(
                f"the {self.name} engine can't have {workers} workers; take 1 or more"
            )
        self.workers = workers
        self.spec = spec
        self.address = address
        self.models = tuple(models)
        self.kinds = frozenset(HANDLERS.kinds())
        self._open = False

    @abstractmethod
    def submit(self, kind: str, payload: bytes = b"") -> Future[bytes]:
        """Submit one task; its future has the result, or TaskFailed with the handler's message.

        Raises ClusterError for a kind that no worker offers or an engine that is not running,
        TypeError for a payload that is not bytes.
        """

    @abstractmethod
    def map(self, kind: str, payloads: Iterable[bytes]) -> Iterator[bytes]:
        """The results of many tasks of a kind, in order; payloads are read a bounded window ahead.

        A failed task raises TaskFailed in the place of its result. Raises as submit does.
        """

    @abstractmethod
    def _start(self) -> None:
        """Start every worker."""

    @abstractmethod
    def _stop(self) -> None:
        """End every process, even after a _start that failed; unfinished tasks are lost."""

    def start(self) -> Self:
        """Start every process; returns when every worker is ready."""
        if self._open:
            raise ClusterError(f"the {self.name} engine is running already")
        self.kinds = frozenset([*HANDLERS.kinds(), *model_kinds(self.models)])
        try:
            self._start()
        except BaseException as error:
            self._stop()
            if isinstance(error, ClusterError) or not isinstance(error, Exception):
                raise
            raise ClusterError(
                f"the {self.name} engine did not come up: {type(error).__name__}: {error}"
            ) from error
        self._open = True
        return self

    def close(self) -> None:
        """Stop every process; unfinished tasks are cancelled. Safe to call twice."""
        if self._open:
            self._open = False
            self._stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_address(self, address: str | None) -> None:
        pattern, words = self.addresses
        if address is None or (pattern and re.fullmatch(pattern, address)):
            return
        if pattern:
            raise ClusterError(f"{address!r} is no address of the {self.name} engine; give {words}")
        raise ClusterError(
            f"the {self.name} engine has no address, since its workers start here; zmq, dask and "
            "ray reach a cluster that exists"
        )

    def _check(self, kind: str) -> None:
        if not self._open:
            raise ClusterError(f"the {self.name} engine is not running; use it in a with block")
        if kind not in self.kinds:
            hint = did_you_mean(kind, self.kinds)
            raise ClusterError(
                f"no worker offers {kind!r}; there are {', '.join(sorted(self.kinds))}{hint}"
            )


class ColumnEngine(Engine):
    """An engine that answers columns, one future for each; subclasses send them."""

    def __init__(
        self,
        workers: int = 2,
        spec: ClusterSpec = BASELINE,
        models: Sequence[str] = (),
        address: str | None = None,
    ) -> None:
        super().__init__(workers, spec, models, address)
        self._pending: set[Future[Column]] = set()

    @abstractmethod
    def _send(self, kind: str, payloads: list[bytes]) -> Future[Column]:
        """Have a worker call `answer`. Cancelling the future drops a column not yet started."""

    def submit(self, kind: str, payload: bytes = b"") -> Future[bytes]:
        """A column of one."""
        self._check(kind)
        sent = self._hand_in(kind, [as_payload(payload, MESSAGE_BYTES)])

        def give_up(_: TaskFuture) -> None:
            sent.cancel()

        future = TaskFuture(give_up, lambda *_: None)

        def settle(outcome: Column | Exception) -> None:
            if isinstance(outcome, Exception):
                set_exception(future, outcome)
            elif outcome[1]:
                set_exception(future, as_exception(outcome[1][0]))
            else:
                set_result(future, outcome[0][0])

        self._follow(sent, settle)
        return future

    def submit_column(
        self, kind: str, payloads: list[bytes], settle: Callable[[Column | Exception], None]
    ) -> None:
        """Send payloads as one column; ``settle`` is called once with its outcome. Raises as
        submit does.
        """
        self._check(kind)
        self._follow(self._hand_in(kind, payloads), settle)

    def map(self, kind: str, payloads: Iterable[bytes]) -> Iterator[bytes]:
        """Results in order, with a window of columns in flight as in a cluster's client."""
        self._check(kind)
        in_flight: deque[tuple[Chunk, Future[Column]]] = deque()

        def submit(column: list[bytes], chunk: Chunk) -> None:
            self._check(kind)
            while in_flight and not in_flight[0][0].missing:
                in_flight.popleft()
            sent = self._hand_in(kind, column)
            in_flight.append((chunk, sent))
            self._follow(sent, lambda outcome: _settle_chunk(chunk, outcome))

        def cancel(chunks: list[Chunk]) -> None:
            for chunk, sent in in_flight:
                if chunk.missing:
                    sent.cancel()

        reader = MapReader(payloads, self._column_tasks(payloads), MESSAGE_BYTES, submit, cancel)
        reader.fill()
        return reader.read()

    def close(self) -> None:
        """Stop every process; unfinished tasks are cancelled. Safe to call twice."""
        try:
            super().close()
        finally:
            for sent in list(self._pending):
                sent.cancel()

    def _column_tasks(self, payloads: Iterable[bytes]) -> int:
        """The number of tasks in a column of a map."""
        if not isinstance(payloads, Sized):
            return COLUMN_TASKS
        columns = COLUMNS_PER_WORKER * self.workers
        return max(1, min(COLUMN_TASKS_MAX, -(-len(payloads) // columns)))

    def _hand_in(self, kind: str, payloads: list[bytes]) -> Future[Column]:
        try:
            return self._send(kind, [bytes(p) for p in payloads])  # a view can't be pickled
        except Exception as error:
            raise ClusterError(
                f"the {self.name} engine takes no more tasks: {type(error).__name__}: {error}"
            ) from error

    def _follow(self, sent: Future[Column], settle: Callable[[Column | Exception], None]) -> None:
        """Pass on the outcome of a column, once."""

        def done(sent: Future[Column]) -> None:
            self._pending.discard(sent)
            settle(self._outcome(sent))

        self._pending.add(sent)
        sent.add_done_callback(done)

    def _outcome(self, sent: Future[Column]) -> Column | Exception:
        if sent.cancelled() or not self._open:
            return CancelledError(f"given up before the {self.name} engine was done with it")
        error = sent.exception()
        if error is None:
            return sent.result()
        return TaskError(f"the {self.name} engine lost the task: {type(error).__name__}: {error}")


def load(models: tuple[str, ...]) -> None:
    """In a worker process: load every handler and model. Raises ModelError."""
    with _LOADING:
        _offered(models)


def answer(models: tuple[str, ...], kind: str, payloads: list[bytes]) -> Column:
    """In a worker process: the outcome of each payload, by the code of a cluster's worker."""
    results: list[bytes] = []
    failures: list[Failure] = []
    load(models)
    sort_out(try_some(_offered(models)[kind], payloads, 0, ()), 0, results, failures)
    return results, failures


@cache
def _offered(models: tuple[str, ...]) -> Handlers:
    """This process's handlers; a replaced worker loads them with its first task."""
    offered = Handlers()
    offered.update(HANDLERS)
    if models:
        offered.update(model_handlers(models))
    return offered


def not_importable(where: str, error: BaseException) -> ClusterError | None:
    """The error for a peer's process that can't import this package; None if that is not it."""
    for cause in (error, error.__cause__):
        if cause is not None and "No module named" in (text := str(cause)):
            missing = text[text.index("No module named") :].splitlines()[0].rstrip(")\"'") + "'"
            return ClusterError(
                f"{where} can't import what its tasks need ({missing}); install there what is "
                "installed here: perfkit, in the same version"
            )
    return None


def _settle_chunk(chunk: Chunk, outcome: Column | Exception) -> None:
    if isinstance(outcome, CancelledError):
        chunk.fail(ClusterError(str(outcome)))
    elif isinstance(outcome, Exception):
        chunk.fail(outcome)
    else:
        results, failures = outcome
        chunk.results = results
        chunk.failures = {failure.position: as_exception(failure) for failure in failures}
        chunk.missing = 0
        chunk.done.put(chunk)
