"""Waiting for what other threads and processes bring about."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")
#: a deadline that only a fault reaches
DEADLINE_S = 60.0


def until(condition: Callable[[], Found], timeout_s: float = DEADLINE_S) -> Found:
    """Wait until a condition holds; return what it gave.

    It does not hold yet either while a row or a key that it asks for is missing.
    """
    pause, end_s = threading.Event(), time.monotonic() + timeout_s
    while True:
        late = time.monotonic() > end_s
        try:
            if found := condition():
                return found
        except (LookupError, StopIteration):
            if late:
                raise
        assert not late, f"still not so after {timeout_s} s"
        pause.wait(0.005)
