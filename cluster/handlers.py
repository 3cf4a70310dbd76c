"""What a worker can do, by name: work is named, never shipped."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from typing import Any, TypeAlias

from cluster.sessions import HeldLease
from cluster.task import Failure

Handler: TypeAlias = Callable[[bytes], bytes]
BatchHandler: TypeAlias = Callable[[list[bytes]], Sequence[bytes | BaseException]]


class Handlers:
    """What a worker can do, by name. A batch handler takes and returns a column; an exception in it
    fails its task.
    """

    def __init__(self) -> None:
        self._batch: dict[str, BatchHandler] = {}

    def register(self, kind: str) -> Callable[[Handler], Handler]:
        """A decorator for a handler of single payloads."""

        def decorate(handler: Handler) -> Handler:
            self._batch[kind] = _one_by_one(handler)
            return handler

        return decorate

    def register_batch(self, kind: str) -> Callable[[BatchHandler], BatchHandler]:
        """A decorator for a handler of many payloads at once: as many outcomes, in their order."""

        def decorate(handler: BatchHandler) -> BatchHandler:
            self._batch[kind] = handler
            return handler

        return decorate

    def update(self, other: Handlers | Mapping[str, BatchHandler]) -> None:
        """Offer what another registry offers too."""
        self._batch.update(other._batch if isinstance(other, Handlers) else other)

    def kinds(self) -> list[str]:
        """The names offered."""
        return sorted(self._batch)

    def __getitem__(self, kind: str) -> BatchHandler:
        return self._batch[kind]


def _one_by_one(handler: Handler) -> BatchHandler:
    def run(payloads: list[bytes]) -> list[bytes | BaseException]:
        outcomes: list[bytes | BaseException] = []
        for payload in payloads:
            try:
                outcomes.append(handler(payload))
            # Whatever a user's handler raises is that task's outcome: one that exits must not take
            # the worker along, and after it the next worker.
            except (Exception, SystemExit) as error:
                outcomes.append(error)
        return outcomes

    return run


def run_chunk(handler: BatchHandler, lease: HeldLease, payloads: list[bytes]) -> Sequence[Any]:
    """One outcome for each payload just claimed, without running what was cancelled before it was
    started.
    """
    if not lease.cancelled:
        return _call(handler, payloads)
    first = lease.next - len(payloads)
    wanted = [p for i, p in enumerate(payloads, first) if i not in lease.cancelled]
    found = iter(_call(handler, wanted) if wanted else ())
    return [
        CancelledError("cancelled before it was started") if i in lease.cancelled else next(found)
        for i in range(first, lease.next)
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
            outcomes.append(b"")
            failures.append(Failure(position, type(wrong).__name__[:100], _words(wrong)))


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
