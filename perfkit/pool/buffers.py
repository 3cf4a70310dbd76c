"""Byte buffers by size class, within a bound of bytes that counts those in use as well.

A buffer is lent as a view of exactly the bytes asked for. Releasing it takes the view's memory
away, so that a later use is a ValueError, and checks that nothing else still uses the memory: a
slice, an array or a message that ZeroMQ has not sent yet. Such memory is never lent again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from perfkit.pool.base import Pool, PoolStats, StillInUse, check_positive

#: The smallest class: below it the record of the loan would be larger than the buffer.
SMALLEST_BYTES = 256


def size_class(size_bytes: int) -> int:
    """The size of the buffers that serve a request: four sizes for each doubling.

    At most a fifth of a buffer is beyond the request (from SMALLEST_BYTES on), as in jemalloc
    (https://jemalloc.net/jemalloc.3.html#size_classes). Raises ValueError below 0.
    """
    if size_bytes < 0:
        raise ValueError(f"a buffer cannot have {size_bytes} bytes")
    if size_bytes <= SMALLEST_BYTES:
        return SMALLEST_BYTES
    step = 1 << ((size_bytes - 1).bit_length() - 3)
    return -(-size_bytes // step) * step


class BufferPool(Pool):
    """Buffers of at most `max_bytes` together, in use or idle; methods may be called from any
    thread.

    An acquire without an idle buffer of its class makes one. Where that would exceed the bound,
    idle buffers of other classes are evicted, the least recently used class first; if that is not
    enough it raises PoolExhausted. Each buffer has SMALLEST_BYTES or more, so the bytes bound the
    count too.

    Double and foreign releases are errors. In debug mode these are as well: a release while
    something else uses the memory (otherwise that buffer is only dropped), and closing the pool
    while a buffer is in use.
    """

    def __init__(self, max_bytes: int, *, debug: bool = False) -> None:
        check_positive(max_bytes=max_bytes)
        super().__init__(debug=debug)
        self.max_bytes = max_bytes
        #: by class, the one used last at the end
        self._idle: OrderedDict[int, list[bytearray]] = OrderedDict()
        self._idle_bytes = self._in_use_bytes = 0

    def acquire(self, size_bytes: int) -> memoryview:
        """A writable view of exactly `size_bytes`, with any content.

        Raises PoolExhausted, PoolClosed, and ValueError for a size below 0.
        """
        class_bytes = size_class(size_bytes)
        with self._lock:
            self._check_open()
            idle = self._idle.get(class_bytes)
            hit = bool(idle)
            if idle:
                memory = idle.pop()
                self._idle_bytes -= class_bytes
                self._idle.move_to_end(class_bytes)
            else:
                self._make_room(size_bytes, class_bytes)
                memory = bytearray(class_bytes)
            view = memoryview(memory)
            if size_bytes != class_bytes:
                view = view[:size_bytes]
            self._in_use_bytes += class_bytes
            self._lend(view, memory)
            self._count(hit)
        return view

    def release(self, buffer: memoryview) -> None:
        """Give back the very view that was acquired; its memory is taken away.

        Raises DoubleRelease, ForeignRelease and, in debug mode, StillInUse.
        """
        with self._lock:
            memory: bytearray = self._take_back(buffer)
            self._counts.in_use -= 1
            self._in_use_bytes -= len(memory)
            unused = _withdraw(buffer, memory)
            if unused and not self._closed:
                self._idle.setdefault(len(memory), []).append(memory)
                self._idle.move_to_end(len(memory))
                self._idle_bytes += len(memory)
                self._counts.idle += 1
            else:
                self._counts.dropped += 1
        if self.debug and not unused:
            raise StillInUse(
                f"a buffer of {len(memory):,} bytes was released while a slice, an array or a "
                "message still uses its memory"
            )

    @contextmanager
    def borrow(self, size_bytes: int) -> Iterator[memoryview]:
        """A buffer for the length of a with block."""
        buffer = self.acquire(size_bytes)
        try:
            yield buffer
        finally:
            self.release(buffer)

    @property
    def stats(self) -> PoolStats:
        """A copy of the counts; bytes are those of whole buffers, not of the requests."""
        with self._lock:
            return replace(
                self._counts, idle_bytes=self._idle_bytes, in_use_bytes=self._in_use_bytes
            )

    def _make_room(self, size_bytes: int, class_bytes: int) -> None:
        if class_bytes + self._in_use_bytes > self.max_bytes:
            raise self._refuse(
                f"no room for a buffer of {class_bytes:,} bytes (asked for: {size_bytes:,}): "
                f"{self._in_use_bytes:,} of {self.max_bytes:,} bytes are in use"
            )
        while class_bytes + self._in_use_bytes + self._idle_bytes > self.max_bytes:
            oldest, idle = next(iter(self._idle.items()))
            if idle:
                idle.pop()
                self._idle_bytes -= oldest
                self._counts.idle -= 1
                self._counts.evicted += 1
            else:
                del self._idle[oldest]

    def _was_released(self, thing: memoryview) -> bool:
        try:
            memoryview(thing)
        except ValueError:
            return True
        return False

    def _drain(self) -> None:
        with self._lock:
            self._idle.clear()
            self._idle_bytes = self._counts.idle = 0


def _withdraw(view: memoryview, memory: bytearray) -> bool:
    """Take the view's memory away; whether nothing else uses it.

    A bytearray with a view refuses to change its size. Taking the last byte and putting it back
    stays within what is allocated, and costs 50 ns.
    """
    try:
        view.release()
        memory.append(memory.pop())
    except BufferError:
        return False
    return True
