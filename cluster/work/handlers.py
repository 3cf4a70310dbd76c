"""What a worker can do, by name: work is named, never shipped."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import CancelledError
from typing import Any, TypeAlias

from cluster.vocabulary.task import Failure

Result: TypeAlias = bytes | bytearray | memoryview
Handler: TypeAlias = Callable[[Any], Result]
BatchHandler: TypeAlias = Callable[[list[bytes]], Sequence[Result | BaseException]]

NOT_STARTED = "cancelled before it was started"


class Handlers:
    """A registry of handlers by name. A batch handler takes and returns a column; an exception in
    it fails its task.

    A result may be any bytes-like object. A large one (``limits.stream_bytes``) is not copied, so
    the handler must not change it later.
    """

    def __init__(self) -> None:
        self._batch: dict[str, BatchHandler] = {}
        self._single: dict[str, Handler] = {}
        self._views: set[str] = set()

    def register(self, kind: str, *, views: bool = False) -> Callable[[Handler], Handler]:
        """A decorator for a handler of single payloads. With ``views`` it gets a large payload as a
        read-only memoryview of the received buffer, otherwise as bytes, which takes a copy.
        """

        def decorate(handler: Handler) -> Handler:
            self.update({kind: _one_by_one(handler)}, views=views)
            self._single[kind] = handler
            return handler

        return decorate

    def register_batch(
        self, kind: str, *, views: bool = False
    ) -> Callable[[BatchHandler], BatchHandler]:
        """A decorator for a handler of many payloads at once, which returns an outcome for each, in
        order. ``views`` as in ``register``.
        """

        def decorate(handler: BatchHandler) -> BatchHandler:
            self.update({kind: handler}, views=views)
            return handler

        return decorate

    def update(self, other: Handlers | Mapping[str, BatchHandler], *, views: bool = False) -> None:
        """Add the handlers of another registry; ``views`` as in ``register``, for a mapping."""
        if isinstance(other, Handlers):
            batch, single, viewing = other._batch, other._single, other._views
        else:
            batch, single, viewing = dict(other), {}, set(other) if views else set()
        for kind in batch:
            self._single.pop(kind, None)
            self._views.discard(kind)
        self._batch.update(batch)
        self._single.update(single)
        self._views |= viewing

    def converter(self, kind: str) -> Callable[[Any], bytes | memoryview]:
        """The function that turns a received buffer into the payload of a kind's handler."""
        return _view if kind in self._views else bytes

    def kinds(self) -> list[str]:
        """The names offered."""
        return sorted(self._batch)

    def __getitem__(self, kind: str) -> BatchHandler:
        return self._batch[kind]

    def single(self, kind: str) -> Handler | None:
        """The handler of single payloads by name; None for a batch handler."""
        return self._single.get(kind)


def _one_by_one(handler: Handler) -> BatchHandler:
    def run(payloads: list[bytes]) -> list[Result | BaseException]:
        return [try_one(handler, payload) for payload in payloads]

    return run


def _view(buffer: Any) -> memoryview:
    return memoryview(buffer).toreadonly()


def try_one(
    handler: Handler, payload: bytes, position: int = 0, cancelled: Collection[int] = ()
) -> Result | BaseException:
    """A handler's outcome for one payload, or the exception it raised."""
    if cancelled and position in cancelled:
        return CancelledError(NOT_STARTED)
    try:
        return handler(payload)
    # Any exception is that task's outcome: a handler that exits must not end its worker, and after
    # a retry the next one.
    except (Exception, SystemExit) as error:
        return error


def try_some(
    handler: BatchHandler, payloads: list[bytes], first: int, cancelled: Collection[int]
) -> Sequence[Any]:
    """One outcome for each payload from position ``first`` on; cancelled ones are not run."""
    if not cancelled:
        return _call(handler, payloads)
    wanted = [p for i, p in enumerate(payloads, first) if i not in cancelled]
    found = iter(_call(handler, wanted) if wanted else ())
    return [
        CancelledError(NOT_STARTED) if i in cancelled else next(found)
        for i in range(first, first + len(payloads))
    ]


def sort_out(
    found: Sequence[Any],
    first: int,
    outcomes: list[bytes],
    failures: list[Failure],
    most_bytes: int = sys.maxsize,
    inline_bytes: int = sys.maxsize,
    store: Callable[[int, Any], None] | None = None,
) -> None:
    """Append to the outcomes the results found, and to the failures those not bytes or too large.

    ``store`` takes the position and value of a result over ``inline_bytes``, whose outcome is then
    ``b""``.
    """
    for position, outcome in enumerate(found, first):
        size = _size_bytes(outcome)
        if size is not None and inline_bytes < size <= most_bytes and store is not None:
            store(position, outcome)
            outcomes.append(b"")
        elif size is not None and size <= most_bytes:
            outcomes.append(outcome if type(outcome) is bytes else bytes(outcome))
        else:
            wrong = outcome
            if size is not None:
                wrong = ValueError(f"the result has {size} bytes; at most {most_bytes} can be sent")
            elif not isinstance(outcome, BaseException):
                wrong = TypeError(f"the handler gave {type(outcome).__name__}, not bytes")
            # The failure first: another thread may collect both at any moment.
            failures.append(Failure(position, type(wrong).__name__[:100], _words(wrong)))
            outcomes.append(b"")


def _size_bytes(outcome: object) -> int | None:
    """The size of a result; None if it is not bytes-like."""
    if isinstance(outcome, memoryview):
        return outcome.nbytes
    return len(outcome) if type(outcome) is bytes or isinstance(outcome, bytearray) else None


def _call(handler: BatchHandler, payloads: list[bytes]) -> Sequence[Any]:
    """A handler's outcomes; if it raises or miscounts, that error for each payload."""
    try:
        outcomes = handler(payloads)
        if len(outcomes) == len(payloads):
            return outcomes
        gave = f"{len(outcomes)} outcomes"
    except (Exception, SystemExit) as error:
        return [error] * len(payloads)
    return [TypeError(f"the handler gave {gave} for {len(payloads)} payloads")] * len(payloads)


def _words(error: object) -> str:
    """The error's message in encodable characters, at most 2,000."""
    try:
        return str(error)[:2000].encode(errors="replace").decode()
    except Exception as broken:
        return f"its message can't be had: {type(broken).__name__}"
