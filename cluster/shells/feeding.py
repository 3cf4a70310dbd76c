"""A map over a source that may wait, such as a generator: a thread of its own reads it.

So results come while the source waits, and a time-out is heard. A list needs none of this.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any

from cluster.shells.interrupts import GuardedLock
from cluster.shells.mapping import WINDOW_BYTES, WINDOW_TASKS, MapReader, as_payload, run_bytes

#: how long a payload waits for company while results are awaited
COMPANY_S = 0.005
#: how often a source that is far ahead looks whether there is room
ROOM_S = 0.002


class FedMapReader(MapReader):
    """A MapReader whose source is read in a thread of its own, which ends with the source, or when
    the source gives its next payload after the map has ended.

    The first payload travels at once, the next two together, then four, up to a burst; what waits
    for company leaves after ``COMPANY_S`` if a result is awaited.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._lock = GuardedLock()
        self._waiting: deque[bytes] = deque()
        self._is_feeding = True
        self._is_over = False
        self._error: BaseException | None = None

    def start(self) -> None:
        """Begin to read the source."""
        threading.Thread(target=self._feed, name="map source", daemon=True).start()

    def fill(self) -> None:
        """Hand in what waits, if there is room for it."""
        with self._lock:
            if self._has_room() and not self._is_over:
                payloads = [self._waiting.popleft() for _ in range(len(self._waiting))]
                if payloads:
                    self._hand_in(payloads)

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

    def _wait(self, most_s: float | None = None) -> None:
        if self._error is not None:
            raise self._error
        self.fill()
        super()._wait(COMPANY_S if self._is_feeding else most_s)

    def _has_room(self) -> bool:
        return self._in_flight_tasks < WINDOW_TASKS and self._in_flight_bytes < WINDOW_BYTES

    def _feed(self) -> None:
        try:
            self._read_source()
        except BaseException as error:
            self._error = error
        self._is_feeding = False
        if self._error is None:
            self.fill()
        self._done.put(None)

    def _read_source(self) -> None:
        waiting, most_bytes = self._waiting, run_bytes(self._message_bytes)
        size, company = 0, 1
        for payload in self._payloads:
            if type(payload) is not bytes or len(payload) >= most_bytes:
                payload = as_payload(payload, self._message_bytes)
            waiting.append(payload)
            size += len(payload)
            if len(waiting) >= company or size >= most_bytes or not self._chunks:
                company, size = min(2 * company, self._burst), 0
                self.fill()
                while waiting and not self._is_over:
                    time.sleep(ROOM_S)
                    self.fill()
            if self._is_over:
                return
