"""A process that a debugger may harm: `python -m perfkit.profile.stand_in WAIT`.

Its main thread waits in the system call of that name over and over, and runs a little Python each
time. It prints `ready`, and ends with 0 at a line of input. A wait that fails ends it with a
traceback, or by a signal of the C library.
"""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from collections.abc import Callable

TICK_S = 0.02

_inlet, _outlet = os.pipe()
_free = threading.Semaphore(0)
_poller = select.poll()
_poller.register(_inlet, select.POLLIN)

#: The waits of a coordinator, a worker and an idle Python. A tick of the clock ends each.
WAITS: dict[str, Callable[[], object]] = {
    "read": lambda: os.read(_inlet, 1),
    "poll": lambda: (_poller.poll(), os.read(_inlet, 1)),
    "select": lambda: (select.select([_inlet], [], []), os.read(_inlet, 1)),
    "futex": _free.acquire,
    "nanosleep": lambda: time.sleep(TICK_S),
}
if hasattr(select, "epoll"):
    _epoll = select.epoll()
    _epoll.register(_inlet, select.EPOLLIN)
    WAITS["epoll"] = lambda: (_epoll.poll(), os.read(_inlet, 1))


def main(wait: Callable[[], object]) -> None:
    """Wait until a line of input has come."""
    asked = threading.Event()

    def tick() -> None:
        while not asked.is_set():
            if select.select([0], [], [], TICK_S)[0]:
                asked.set()
            os.write(_outlet, b".")
            _free.release()

    threading.Thread(target=tick, daemon=True).start()
    print("ready", flush=True)
    while not asked.is_set():
        wait()


if __name__ == "__main__":
    main(WAITS[sys.argv[1]])
