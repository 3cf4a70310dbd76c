"""Byte buffers by size class, within a bound of bytes that counts those in use as well.

A buffer is lent as a view of exactly the bytes asked for. Releasing takes the view's memory away,
so a later use of it is a ValueError, and asks the memory itself whether anything else still looks
at it: a slice, an array or a message that ZeroMQ has not sent yet. Such memory is never lent again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from perfkit.pool.base import (
    Book,
    DoubleRelease,
    ForeignRelease,
    Pool,
    PoolError,
    PoolStats,
    StillInUse,
    check_positive,
)

#: The smallest class: below it the book-keeping would be larger than the buffer.
SMALLEST_BYTES = 256


def size_class(size_bytes: int) -> int:
    """The size of the buffers that serve a request: four sizes for each doubling.

    At most a fifth of a buffer is beyond what was asked for (from SMALLEST_BYTES on), as in
    jemalloc (https://jemalloc.net/jemalloc.3.html#size_classes). Raises ValueError below 0.
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

    An acquire that finds no idle buffer of its class makes one. Where that would go over the bound,
    idle buffers of other classes give way, those of the class used longest ago first; if that is
    not enough it raises PoolExhausted. Each buffer has SMALLEST_BYTES or more, so the bytes bound
    the count, too.

    Double and foreign releases are errors always. In debug mode these are as well: a release while
    something else still looks at the memory (otherwise that buffer is only dropped), and closing
    the pool while a buffer is in use.
    """

    def __init__(self, max_bytes: int, *, debug: bool = False) -> None:
        check_positive(max_bytes=max_bytes)
        super().__init__(debug=debug)
        self.max_bytes = max_bytes
        self._book = Book(sites=debug)
        #: by class, the one used last at the end
        self._idle: OrderedDict[int, list[bytearray]] = OrderedDict()
        self._idle_bytes = self._in_use_bytes = self._high_water_bytes = 0
        self._evicted = 0

    def acquire(self, size_bytes: int) -> memoryview:
        """A writable view of exactly so many bytes, which hold whatever was there before.

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
            self._book.lend(view, memory)
            self._in_use_bytes += class_bytes
            if self._in_use_bytes > self._high_water_bytes:
                self._high_water_bytes = self._in_use_bytes
            self._count(hit, len(self._book))
        return view

    def release(self, buffer: memoryview) -> None:
        """Give a buffer back: the very view that was acquired, which is of no use afterwards.

        Raises DoubleRelease, ForeignRelease and, in debug mode, StillInUse.
        """
        with self._lock:
            lent = self._book.take_back(buffer)
            if lent is None:
                raise _stranger(buffer)
            memory: bytearray
            _, memory, site = lent
            self._in_use_bytes -= len(memory)
            unseen = _withdraw(buffer, memory)
            if unseen and not self._closed:
                self._keep(memory)
            else:
                self._dropped += 1
        if self.debug and not unseen:
            raise StillInUse(
                f"a buffer of {len(memory):,} bytes, acquired at {site}, was released while a "
                "slice, an array or a message still uses its memory"
            )

    @contextmanager
    def borrow(self, size_bytes: int) -> Iterator[memoryview]:
        """A buffer for the length of a with block."""
        buffer = self.acquire(size_bytes)
        try:
            yield buffer
        finally:
            self.release(buffer)

    def preallocate(self, size_bytes: int, count: int) -> None:
        """Make buffers until so many of that size's class are idle.

        Raises PoolExhausted, and makes none, where they do not fit beside what is held already.
        """
        class_bytes = size_class(size_bytes)
        with self._lock:
            self._check_open()
            missing = count - len(self._idle.get(class_bytes, ()))
            if missing * class_bytes > self._free_bytes:
                raise self._refuse(
                    f"{missing} more buffers of {class_bytes:,} bytes do not fit: "
                    f"{self._free_bytes:,} of {self.max_bytes:,} bytes are free"
                )
            for _ in range(missing):
                self._keep(bytearray(class_bytes))

    @property
    def stats(self) -> PoolStats:
        """The counts so far; bytes are those of the buffers, not of what was asked for."""
        with self._lock:
            return PoolStats(
                hits=self._hits,
                misses=self._misses,
                refused=self._refused,
                in_use=len(self._book),
                high_water=self._high_water,
                idle=sum(map(len, self._idle.values())),
                dropped=self._dropped,
                evicted=self._evicted,
                idle_bytes=self._idle_bytes,
                in_use_bytes=self._in_use_bytes,
                high_water_bytes=self._high_water_bytes,
            )

    @property
    def _free_bytes(self) -> int:
        return self.max_bytes - self._idle_bytes - self._in_use_bytes

    def _keep(self, memory: bytearray) -> None:
        class_bytes = len(memory)
        self._idle.setdefault(class_bytes, []).append(memory)
        self._idle.move_to_end(class_bytes)
        self._idle_bytes += class_bytes

    def _make_room(self, size_bytes: int, class_bytes: int) -> None:
        if class_bytes + self._in_use_bytes > self.max_bytes:
            raise self._refuse(
                f"no room for a buffer of {class_bytes:,} bytes (asked for: {size_bytes:,}): "
                f"{self._in_use_bytes:,} of {self.max_bytes:,} bytes are in use"
            )
        while self._free_bytes < class_bytes:
            oldest, idle = next(iter(self._idle.items()))
            if idle:
                idle.pop()
                self._idle_bytes -= oldest
                self._evicted += 1
            else:
                del self._idle[oldest]

    def _drain(self) -> list[str]:
        with self._lock:
            self._idle.clear()
            self._idle_bytes = 0
            return self._book.sites()


def _withdraw(view: memoryview, memory: bytearray) -> bool:
    """Take the view's memory away; whether nobody else looks at it.

    A bytearray that anyone looks at refuses to change its size. Taking the last byte and putting it
    back stays within what is allocated, and costs 50 ns.
    """
    try:
        view.release()
        memory.append(memory.pop())
    except BufferError:
        return False
    return True


def _stranger(buffer: memoryview) -> PoolError:
    try:
        size_bytes = buffer.nbytes
    except ValueError:
        return DoubleRelease("this buffer was released before")
    return ForeignRelease(
        f"this pool has not lent this view of {size_bytes:,} bytes; release the one it lent, "
        "not a slice or a copy"
    )
