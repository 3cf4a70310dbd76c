"""What a worker can do, by name: work is named, never shipped."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence, Set
from concurrent.futures import CancelledError
from itertools import islice
from typing import Any, Protocol, TypeAlias

from cluster.vocabulary.buffers import check_travels
from cluster.vocabulary.printable import count_of
from cluster.vocabulary.task import Failure

Result: TypeAlias = bytes | bytearray | memoryview
Handler: TypeAlias = Callable[[Any], Result]
BatchHandler: TypeAlias = Callable[[list[bytes]], Sequence[Result | BaseException]]

NOT_STARTED = "cancelled before it was started"
NAME_LENGTH_MAX = 100
MESSAGE_LENGTH_MAX = 2_000

#: a class's own name, whatever its metaclass says
_class_name: Callable[[type], str] = type.__dict__["__name__"].__get__


class Told(Exception):
    """A failure in the words that the client is to read, and the class that it is named after."""

    def __init__(self, kind: type, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Question(Protocol):
    """A payload as a model has read it: how many ``items`` it has (rows of a batch), and the
    ``bucket`` of questions that may run together.
    """

    @property
    def items(self) -> int: ...

    @property
    def bucket(self) -> Hashable: ...


class Model(Protocol):
    """A handler that runs the payloads of several leases together.

    ``prepare`` reads a payload, in any thread: a question, or at once its outcome. ``run`` answers
    questions of one bucket, at most ``batch_items_max`` items unless it is one question.
    ``handle_batch`` does both for any payloads.
    """

    batch_items_max: int

    def prepare(self, payload: Any) -> Question | bytes | Exception: ...

    def run(self, questions: list[Any]) -> Sequence[Result | BaseException]: ...

    def handle_batch(self, payloads: list[Any]) -> Sequence[Result | BaseException]: ...


class Handlers:
    """A registry of handlers by name. A batch handler takes a list of payloads and returns a
    sequence of outcomes in the same order; an exception among them fails its task.

    A result may be any bytes-like object. A large one (``limits.stream_bytes``) is not copied, so
    the handler must not change it later.
    """

    def __init__(self) -> None:
        self._batch: dict[str, BatchHandler] = {}
        self._single: dict[str, Handler] = {}
        self._views: set[str] = set()
        self.models: dict[str, Model] = {}

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

    def register_model(self, kind: str, model: Model) -> None:
        """Offer a model; it gets large payloads as read-only views."""
        self.update({kind: model.handle_batch}, views=True)
        self.models[kind] = model

    def withdraw(self, kind: str) -> None:
        """Offer a kind no more."""
        for offered in (self._batch, self._single, self.models):
            offered.pop(kind, None)
        self._views.discard(kind)

    def update(self, other: Handlers | Mapping[str, BatchHandler], *, views: bool = False) -> None:
        """Add the handlers of another registry; ``views`` as in ``register``, for a mapping."""
        single: dict[str, Handler] = {}
        models: dict[str, Model] = {}
        if isinstance(other, Handlers):
            batch, single, models, viewing = other._batch, other._single, other.models, other._views
        else:
            batch, viewing = dict(other), set(other) if views else set()
        self._batch.update(batch)  # first: a kind that is replaced is never missing
        for kind in batch:
            self._single.pop(kind, None)
            self.models.pop(kind, None)
            self._views.discard(kind)
        self.models.update(models)
        self._single.update(single)
        self._views |= viewing

    def converter(self, kind: str) -> Callable[[Any], bytes | memoryview]:
        """The function that turns a received buffer into the payload of a kind's handler."""
        return _view if kind in self._views else bytes

    def kinds(self) -> list[str]:
        """The names offered."""
        return sorted(self._batch)

    def __contains__(self, kind: str) -> bool:
        return kind in self._batch

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
    """A handler's outcome for one payload, or whatever it raised."""
    if cancelled and position in cancelled:
        return CancelledError(NOT_STARTED)
    try:
        return handler(payload)
    except BaseException as error:
        return error


def try_some(
    handler: BatchHandler, payloads: list[bytes], first: int, cancelled: Collection[int]
) -> Sequence[Any]:
    """One outcome for each payload from position ``first`` on; cancelled ones are not run."""
    if not cancelled:
        return call_batch(handler, payloads)
    wanted = [p for i, p in enumerate(payloads, first) if i not in cancelled]
    found = iter(call_batch(handler, wanted) if wanted else ())
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
    """Append to the outcomes the results found, and to the failures those that can't be sent.

    ``store`` takes the position and value of a result over ``inline_bytes`` (at most
    ``most_bytes``), whose outcome is then ``b""``.
    """
    for position, outcome in enumerate(found, first):
        if type(outcome) is bytes and len(outcome) <= inline_bytes:
            outcomes.append(outcome)
            continue
        result = b""
        try:
            if isinstance(outcome, BaseException):
                failures.append(_failure(position, outcome))
            elif _size_bytes(outcome, most_bytes) > inline_bytes and store is not None:
                store(position, outcome)
            else:
                result = bytes(memoryview(outcome))
        except BaseException as error:
            failures.append(_failure(position, error))
        # After its failure: another thread may collect both at any moment.
        outcomes.append(result)


def _size_bytes(outcome: object, most_bytes: int) -> int:
    """The size of a result; raises TypeError or ValueError if it cannot be sent."""
    if type(outcome) is not bytes and not isinstance(outcome, bytearray | memoryview):
        raise TypeError(f"the handler gave {_class_name(type(outcome))}, not bytes")
    view = memoryview(outcome)
    check_travels(view)
    if view.nbytes > most_bytes:
        raise ValueError(f"the result has {view.nbytes} bytes; at most {most_bytes} can be sent")
    return view.nbytes


def call_batch(handler: BatchHandler, payloads: list[bytes]) -> Sequence[Any]:
    """A handler's outcomes; if it raises or miscounts, that error for each payload."""
    count = len(payloads)
    try:
        found: Any = handler(payloads)
        # A copy: a thread of the handler may still change its list.
        outcomes = found[:] if type(found) is list else _in_order(found, count)
        if len(outcomes) == count:
            return outcomes
        raise TypeError(
            f"the handler gave {count_of(len(outcomes), 'outcome')} for "
            f"{count_of(count, 'payload')}"
        )
    except BaseException as error:
        return [error] * count


def _in_order(found: Any, count: int) -> Sequence[Any]:
    """A sequence of outcomes, as a list if it has the right length. Raises TypeError for what has
    no order or length, and for text and bytes.
    """
    kind = type(found)
    is_sequence = hasattr(kind, "__len__") and hasattr(kind, "__getitem__")
    if not is_sequence or isinstance(found, str | bytes | bytearray | memoryview | Set | Mapping):
        name = _class_name(kind)
        raise TypeError(f"a batch handler returns a list of outcomes in order, not {name}")
    return list(islice(found, count + 1)) if len(found) == count else found


def _failure(position: int, error: BaseException) -> Failure:
    """What the client is told, in characters that can be encoded."""
    try:
        message = _clean(str(error), MESSAGE_LENGTH_MAX)
    except BaseException as broken:
        message = f"its message can't be had: {_class_name(type(broken))}"
    kind = error.kind if type(error) is Told else type(error)
    name = _clean(_class_name(kind), NAME_LENGTH_MAX)
    return Failure(position, name or "Unnamed", message)


def _clean(text: str, most: int) -> str:
    # A subclass of str may override its methods.
    return str.__getitem__(text, slice(most)).encode(errors="replace").decode()
