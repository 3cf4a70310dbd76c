"""A server that is not this project's, as a child that ends with the benchmark, however it ends.

``python -m perfkit.bench.serving.guarded COMMAND… --parent FD``. It passes on the end of its
standard input as SIGTERM, and takes its whole group along in the end.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress

from cluster.supervision.ending import die_with_parent, stop_with_parent

#: How long a server has to end by itself.
GRACE_S = 5.0


def main() -> None:
    """Run the command until it ends or the standard input does."""
    *command, _, fd = sys.argv[1:]
    die_with_parent(int(fd))
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr)

    def stop() -> None:
        child.terminate()
        with suppress(subprocess.TimeoutExpired):
            child.wait(GRACE_S)
        os.killpg(0, signal.SIGKILL)

    stop_with_parent(stop)
    code = child.wait()
    # Its own children may be left: the group ends with it.
    print(f"the server ended with {code}", file=sys.stderr, flush=True)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
