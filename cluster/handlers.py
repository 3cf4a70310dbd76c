"""What a worker can do, by name: work is named, never shipped."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import CancelledError
from typing import Any, TypeAlias

from cluster.task import Failure

Handler: TypeAlias = Callable[[bytes], bytes]
BatchHandler: TypeAlias = Callable[[list[bytes]], Sequence[bytes | BaseException]]

NOT_STARTED = "cancelled before it was started"


class Handlers:
    """What a worker can do, by name. A batch handler takes and returns a column; an exception in it
    fails its task.
    """

    def __init__(self) -> None:
        self._batch: dict[str, BatchHandler] = {}
        self._single: dict[str, Handler] = {}

    def register(self, kind: str) -> Callable[[Handler], Handler]:
        """A decorator for a handler of single payloads."""

        def decorate(handler: Handler) -> Handler:
            self._single[kind] = handler
            self._batch[kind] = _one_by_one(handler)
            return handler

        return decorate

    def register_batch(self, kind: str) -> Callable[[BatchHandler], BatchHandler]:
        """A decorator for a handler of many payloads at once: as many outcomes, in their order."""

        def decorate(handler: BatchHandler) -> BatchHandler:
            self.update({kind: handler})
            return handler

        return decorate

    def update(self, other: Handlers | Mapping[str, BatchHandler]) -> None:
        """Offer what another registry offers too."""
        batch, single = (other, {}) if isinstance(other, Mapping) else (other._batch, other._single)
        for kind in batch:
            self._single.pop(kind, None)
        self._batch.update(batch)
        self._single.update(single)

    def kinds(self) -> list[str]:
        """The names offered."""
        return sorted(self._batch)

    def __getitem__(self, kind: str) -> BatchHandler:
        return self._batch[kind]

    def single(self, kind: str) -> Handler | None:
        """The handler of single payloads behind a name; None for a batch handler."""
        return self._single.get(kind)


def _one_by_one(handler: Handler) -> BatchHandler:
    def run(payloads: list[bytes]) -> list[bytes | BaseException]:
        return [try_one(handler, payload) for payload in payloads]

    return run


def try_one(
    handler: Handler, payload: bytes, position: int = 0, cancelled: Collection[int] = ()
) -> bytes | BaseException:
    """A handler's outcome for one payload, or the exception that stands for it."""
    if cancelled and position in cancelled:
        return CancelledError(NOT_STARTED)
    try:
        return handler(payload)
    # Whatever a user's handler raises is that task's outcome: one that exits must not take
    # the worker along, and after it the next worker.
    except (Exception, SystemExit) as error:
        return error


def try_some(
    handler: BatchHandler, payloads: list[bytes], first: int, cancelled: Collection[int]
) -> Sequence[Any]:
    """One outcome for each payload from position ``first`` on, without running what was cancelled
    before it was started.
    """
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
) -> None:
    """Append what was found to the outcomes, and to the failures what is not bytes or too large to
    be sent.
    """
    for position, outcome in enumerate(found, first):
        if isinstance(outcome, bytearray | memoryview):
            outcome = bytes(outcome)
        if type(outcome) is bytes and len(outcome) <= most_bytes:
            outcomes.append(outcome)
        else:
            wrong = outcome
            if type(outcome) is bytes:
                size = len(outcome)
                wrong = ValueError(f"the result has {size} bytes; at most {most_bytes} can be sent")
            elif not isinstance(outcome, BaseException):
                wrong = TypeError(f"the handler gave {type(outcome).__name__}, not bytes")
            # The failure first: another thread may take what it sees at any moment.
            failures.append(Failure(position, type(wrong).__name__[:100], _words(wrong)))
            outcomes.append(b"")


def _call(handler: BatchHandler, payloads: list[bytes]) -> Sequence[Any]:
    """A handler's outcomes; if it raises, or miscounts, that is the outcome of each payload."""
    try:
        outcomes = handler(payloads)
        if len(outcomes) == len(payloads):
            return outcomes
        gave = f"{len(outcomes)} outcomes"
    except (Exception, SystemExit) as error:
        return [error] * len(payloads)
    return [TypeError(f"the handler gave {gave} for {len(payloads)} payloads")] * len(payloads)


def _words(error: object) -> str:
    """The error's message, in characters that can travel, cut to a bound."""
    try:
        return str(error)[:2000].encode(errors="replace").decode()
    except Exception as broken:
        return f"its message can't be had: {type(broken).__name__}"
