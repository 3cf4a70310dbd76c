"""A map over a source that may wait, such as a generator: a thread of its own reads it.

So results come while the source waits, and a time-out is heard. A list needs none of this.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from cluster.shells import mapping
from cluster.shells.mapping import MapReader, Payload
from cluster.transport.interrupts import GuardedLock

#: how long a payload waits for company while results are awaited
COMPANY_S = 0.005
#: which part of a full window is read ahead of it, and how often its reader looks for room
AHEAD_PART = 32
ROOM_S = 0.002


class _Drain:
    """Gives what a deque holds, and goes on when there is more."""

    def __init__(self, waiting: deque[Payload]) -> None:
        self._waiting = waiting

    def __iter__(self) -> Iterator[Payload]:
        return self

    def __next__(self) -> Payload:
        if not self._waiting:
            raise StopIteration
        return self._waiting.popleft()


class FedMapReader(MapReader):
    """A MapReader whose source is read in a thread of its own, which ends with the source, or when
    the source gives its next payload after the map has ended.

    The first payload travels at once, the next two together, then four, up to a burst; what waits
    for company leaves after ``COMPANY_S`` if a result is awaited.
    """

    def __init__(self, payloads: Iterable[Payload], *args: Any) -> None:
        self._source = iter(payloads)
        self._waiting: deque[Payload] = deque()
        super().__init__(_Drain(self._waiting), *args)
        self._lock = GuardedLock()
        self._is_feeding = True
        self._is_over = False
        self._error: BaseException | None = None

    def start(self) -> None:
        """Begin to read the source."""
        threading.Thread(target=self._feed, name="map source", daemon=True).start()

    def fill(self) -> None:
        """Hand in what waits, if there is room for it."""
        with self._lock:
            if not self._is_over:
                super().fill()

    def stop(self) -> None:
        """Cancel what is in flight, and take no more from the source."""
        with self._lock:
            self._is_over = True
        super().stop()

    def _is_any_left(self) -> bool:
        while not self._chunks and (self._is_feeding or self._waiting):
            self._wait()
        if self._error is not None:
            raise self._error
        return bool(self._chunks)

    def _take_out(self) -> None:
        with self._lock:
            super()._take_out()

    def _wait(self, most_s: float = mapping.LOOK_EVERY_S) -> None:
        if self._error is not None:
            raise self._error
        self.fill()
        super()._wait(COMPANY_S if self._is_feeding else most_s)

    def _feed(self) -> None:
        try:
            self._read_source()
        except BaseException as error:
            self._error = error
        self._is_feeding = False
        self._done.put(None)

    def _read_source(self) -> None:
        waiting, company = self._waiting, 1
        for payload in self._source:
            waiting.append(payload)
            if len(waiting) >= company or not self._chunks:
                company = min(2 * company, self._burst)
                self.fill()
                while self._is_far_ahead():
                    time.sleep(ROOM_S)
                    self.fill()
            if self._is_over:
                return
        self.fill()

    def _is_far_ahead(self) -> bool:
        is_full = self._in_flight_bytes >= mapping.WINDOW_BYTES
        most = 1 if is_full else mapping.WINDOW_TASKS // AHEAD_PART
        return len(self._waiting) >= most and not self._is_over
