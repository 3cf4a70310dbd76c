"""A server that is not this project's, as a child that ends with the benchmark, however it ends.

``python -m perfkit.bench.serving.guarded COMMAND… --parent FD``. It passes on the end of its
standard input as SIGTERM. In the end, and at once when the pipe FD closes, it kills all that the
command has started, in sessions of their own too, whether they run or stand still.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress

import psutil

from cluster.supervision.ending import stop_with_parent

#: How long a server has to end by itself.
GRACE_S = 5.0
#: Orphans become children of this process (https://man7.org/linux/man-pages/man2/prctl.2.html).
SET_CHILD_SUBREAPER = 36


def end() -> None:
    """Kill every descendant, then this process and its group."""
    while children := psutil.Process().children(recursive=True):
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        psutil.wait_procs(children, timeout=GRACE_S)
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    """Run the command until it ends or the standard input does."""
    *command, _, fd = sys.argv[1:]
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1)
    pipe = int(fd)
    os.set_inheritable(pipe, False)

    def follow() -> None:
        os.read(pipe, 1)
        end()

    threading.Thread(target=follow, daemon=True).start()
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr)

    def stop() -> None:
        child.terminate()
        with suppress(subprocess.TimeoutExpired):
            child.wait(GRACE_S)
        end()

    stop_with_parent(stop)
    code = child.wait()
    print(f"the server ended with {code}", file=sys.stderr, flush=True)
    end()


if __name__ == "__main__":
    main()
