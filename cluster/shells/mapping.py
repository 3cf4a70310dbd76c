"""A map of many like tasks: chunks in flight, results in order."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias

from cluster.protocol.client_session import Settled
from cluster.shells.futures import as_exception
from cluster.vocabulary.buffers import check_travels
from cluster.vocabulary.errors import ClusterError

MAX_RUN_BYTES = 1 << 20
WINDOW_TASKS = 65_536
WINDOW_BYTES = 64 << 20
#: the size from which a buffer is sent uncopied
UNCOPIED_BYTES = 65_536
#: How often a reader looks for results of a chunk that is not whole: to be told of each message
#: would take the time of the thread that receives them.
LOOK_EVERY_S = 0.02

#: A task's input: bytes, or another buffer in C order, such as a numpy array or its ``data``. A
#: large one is not copied and must not change until its result is there.
Payload: TypeAlias = bytes | bytearray | memoryview


def run_bytes(message_bytes: int) -> int:
    """The size from which a run takes no further payload, so that it fits into a message."""
    return min(MAX_RUN_BYTES, message_bytes // 4)


def as_payload(payload: Any, message_bytes: int) -> Any:
    """The payload as bytes, or as a view if it is another buffer of ``UNCOPIED_BYTES`` or more.

    Raises TypeError unless it is a buffer of plain data, ClusterError if it has gaps or fits into
    no message.
    """
    if not isinstance(payload, bytes):
        payload = _view(payload)
    if len(payload) > message_bytes // 2:
        raise ClusterError(
            f"the payload has {len(payload)} bytes; a message of {message_bytes} carries one of at "
            "most half its size"
        )
    return payload


def many_payloads(payloads: Any, *more: Any) -> Iterable[Any]:
    """The payloads of many tasks; raises TypeError for several sources of them, and for one payload
    or a text where an iterable of payloads is meant.
    """
    if more:
        raise TypeError(f"handlers take payloads of one source, not of {1 + len(more)}")
    try:
        is_single = isinstance(payloads, str) or memoryview(payloads).ndim < 2
    except TypeError:
        is_single = False
    if is_single:
        raise TypeError(
            f"payloads is one {type(payloads).__name__}, whose items are no payloads; for a single "
            "task write [payload]"
        )
    return payloads  # type: ignore[no-any-return]


def _view(payload: Any) -> Any:
    try:
        view = memoryview(payload)
    except (TypeError, ValueError, BufferError) as error:
        wrong = type(payload).__name__
        raise TypeError(
            f"a payload is bytes, not {wrong}; encode it first, or call a function of plain data, "
            f"see LocalCluster.register ({error})"
        ) from None
    check_travels(view)
    if view.nbytes < UNCOPIED_BYTES:
        return bytes(view)
    if not view.c_contiguous:
        raise ClusterError(
            f"a buffer of {view.nbytes} bytes with gaps or not in C order can't be sent as it is; "
            "numpy.ascontiguousarray makes a copy that can"
        )
    return view.toreadonly().cast("B")


class Chunk:
    """Part of a map: consecutive payloads that travel as one run."""

    __slots__ = ("done", "failures", "missing", "results", "seen", "size_bytes")

    def __init__(self, payloads: list[bytes], done: SimpleQueue[Any]) -> None:
        self.results: list[bytes] = [b""] * len(payloads)
        self.failures: dict[int, Exception] = {}
        self.missing = len(payloads)
        self.seen = bytearray(self.missing)
        self.size_bytes = sum(map(len, payloads))
        self.done = done

    def settle(self, news: Settled) -> None:
        """Take in outcomes; the last one wakes the reader."""
        count = len(news.results)
        self.results[news.start : news.start + count] = news.results
        for failure in news.failures:
            self.failures[failure.position] = as_exception(failure)
        self.seen[news.start : news.start + count] = b"\1" * count
        self.missing -= count
        if not self.missing:
            self.done.put(self)

    def fail(self, error: Exception, seen: Sequence[int] = ()) -> None:
        """Give every task one error, but those whose position in ``seen`` is set: they have their
        outcome.
        """
        for position in range(len(self.results)):
            if not seen or not seen[position]:
                self.failures[position] = error
        self.missing = 0
        self.done.put(self)

    def ready(self, begin: int) -> int:
        """Up to which position all outcomes from ``begin`` on are there."""
        end = self.seen.find(0, begin)
        return len(self.seen) if end < 0 else end


class MapReader:
    """Keeps a window of chunks in flight and yields their results in order. ``may_wait`` raises
    where waiting is forbidden.
    """

    def __init__(
        self,
        payloads: Iterable[Payload],
        burst: int,
        message_bytes: int,
        submit: Callable[[list[bytes], Chunk], None],
        cancel: Callable[[list[Chunk]], None],
        may_wait: Callable[[], None] = lambda: None,
        timeout: float | None = None,
    ) -> None:
        self._payloads = iter(payloads)
        self._burst = burst
        self._message_bytes = message_bytes
        self._submit = submit
        self._cancel = cancel
        self._may_wait = may_wait
        self._timeout = timeout
        self._end = None if timeout is None else time.monotonic() + timeout
        self._done: SimpleQueue[Any] = SimpleQueue()
        self._chunks: deque[Chunk] = deque()
        self._in_flight_tasks = self._in_flight_bytes = 0

    def fill(self) -> None:
        """Submit chunks until the window is full or no payload is left."""
        while self._in_flight_tasks < WINDOW_TASKS and self._in_flight_bytes < WINDOW_BYTES:
            payloads = self._next_payloads()
            if not payloads:
                return
            self._hand_in(payloads)

    def stop(self) -> None:
        """Cancel what is in flight."""
        if self._chunks:
            self._cancel(list(self._chunks))

    def read(self) -> Iterator[bytes]:
        """Results in order, each when all before it are there; on an early end the rest is
        cancelled.
        """
        begin = 0  # where the first chunk is read on
        try:
            while self._is_any_left():
                chunk = self._chunks[0]
                if is_whole := not chunk.missing:
                    while not self._done.empty():  # else the queue keeps every read chunk alive
                        self._done.get()
                    self._take_out()
                    self.fill()
                end = len(chunk.results) if is_whole else chunk.ready(begin)
                if not chunk.failures:
                    yield from chunk.results[begin:end]
                else:
                    for position in range(begin, end):
                        if position in chunk.failures:
                            raise chunk.failures[position]
                        yield chunk.results[position]
                if not is_whole and end == begin:
                    self._wait()
                begin = 0 if is_whole else end
        finally:
            self.stop()

    def _is_any_left(self) -> bool:
        """Whether there is another result to wait for."""
        return bool(self._chunks)

    def _hand_in(self, payloads: list[bytes]) -> None:
        chunk = Chunk(payloads, self._done)
        self._chunks.append(chunk)
        self._in_flight_tasks += len(payloads)
        self._in_flight_bytes += chunk.size_bytes
        self._submit(payloads, chunk)

    def _take_out(self) -> None:
        chunk = self._chunks.popleft()
        self._in_flight_tasks -= len(chunk.results)
        self._in_flight_bytes -= chunk.size_bytes

    def _wait(self, most_s: float = LOOK_EVERY_S) -> None:
        """Wait until a chunk is done, or for ``most_s``; raises TimeoutError if the time is up
        already.
        """
        self._may_wait()
        left = most_s if self._end is None else min(most_s, self._end - time.monotonic())
        if left <= 0:
            raise TimeoutError(f"no result within {self._timeout} s of the call")
        with suppress(Empty):
            self._done.get(timeout=left)

    def _next_payloads(self) -> list[bytes]:
        """The payloads of the next chunk."""
        payloads: list[bytes] = []
        size = 0
        most = run_bytes(self._message_bytes)
        for payload in islice(self._payloads, self._burst):
            if type(payload) is not bytes or len(payload) >= most:
                payload = as_payload(payload, self._message_bytes)
            payloads.append(payload)
            size += len(payload)
            if size >= most:
                break
        return payloads
