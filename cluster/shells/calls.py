"""What a caller hands to a client, checked, and what it gets back for a call of a function.

A call is a task whose payload and result are plain data (`cluster.work.plain_data`); its failure
carries the traceback of the worker as a note.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from cluster.protocol.codec import in_words
from cluster.shells.futures import TaskFuture
from cluster.vocabulary.errors import ClusterError, TaskFailed
from cluster.vocabulary.printable import printable
from cluster.vocabulary.task import State
from cluster.work.functions import TRACEBACK
from cluster.work.plain_data import pack_call, read_result


class _Nothing(bytes):
    """What a task without an argument has as its payload; a function is called with none."""


NOTHING = _Nothing()
_UNREAD = object()


class CallFuture(TaskFuture):
    """The future of a call: its result is plain data, read when it is first asked for."""

    _value: Any = _UNREAD

    def result(self, timeout: float | None = None) -> Any:
        """What the function returned; raises its error, or TimeoutError after ``timeout``
        seconds.
        """
        packed = super().result(timeout)
        if self._value is _UNREAD:
            self._value = read_result(packed)
            self._result = b""  # another thread that reads it now finds the value
        return self._value

    def __repr__(self) -> str:
        if not self.done() or self.cancelled():
            return f"<CallFuture: {'cancelled' if self.done() else 'pending'}>"
        error = self.exception()
        outcome = self.result() if error is None else error
        return f"<CallFuture: {outcome!r:.100}>"

    def set_exception(self, exception: BaseException | None) -> None:
        """Give it its error, with the worker's traceback as a note."""
        super().set_exception(exception and with_note(exception))


def with_note(error: BaseException) -> BaseException:
    """A failure whose message ends with a traceback, with a note instead of that."""
    if isinstance(error, TaskFailed) and TRACEBACK in (text := str(error)):
        message, _, lines = text.partition(TRACEBACK)
        error.args = (message,)
        error.add_note(printable(TRACEBACK.strip() + f"\n{lines.rstrip()}"))
    return error


def as_call(function: str, payload: Any, more: Sequence[Any]) -> bytes:
    """The payload of a call with these items; TypeError for one that is not plain data."""
    return pack_call(() if payload is NOTHING else (payload, *more), function)


def one_payload(kind: str, payload: Any, more: Sequence[Any]) -> Any:
    """The payload of a task for a handler; raises TypeError for several."""
    if more:
        raise TypeError(f"a task of kind {kind!r} takes one payload, not {1 + len(more)}")
    return b"" if payload is NOTHING else payload


def as_calls(function: str, *sources: Iterable[Any]) -> Iterator[bytes]:
    """The payload of a call for each item, or for the items of several sources side by side."""
    return (pack_call(items, function) for items in zip(*sources, strict=False))


def as_results(packed: Iterator[bytes]) -> Iterator[Any]:
    """The results of calls, or the error that a call raised."""
    try:
        for result in packed:
            yield read_result(result)
    except TaskFailed as error:
        raise with_note(error) from None


def known_state(state: str) -> State:
    """A state by name; ClusterError says which there are."""
    try:
        return State(state)
    except ValueError:
        known = ", ".join(State)
        raise ClusterError(f"there is no state {state!r}; there are {known}") from None


def check_text(what: str, text: object, most: int) -> None:
    """Raise ClusterError unless this is a short printable text."""
    if not isinstance(text, str) or len(text) > most or not text.isprintable():
        raise ClusterError(f"{what} is a text of at most {most} characters, not {text!r:.150}")


def check_event(event: Any, what: str) -> None:
    """Raise ClusterError for a message that can't be encoded, or that a coordinator would drop."""
    try:
        msgspec.msgpack.decode(msgspec.msgpack.encode(event), type=type(event))
    except msgspec.ValidationError as error:
        raise ClusterError(f"{what}: {in_words(error, type(event))}") from error
    except Exception as error:  # an object that MessagePack can't hold
        raise ClusterError(f"{what} can't be sent: {error}") from error
