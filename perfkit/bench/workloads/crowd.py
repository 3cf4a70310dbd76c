"""A crowd of real workers in few processes: ``python -m perfkit.bench.workloads.crowd``.

A worker of its own process holds 20 MB and half a second of start-up, a hundred of them too much
for a small machine. These are the same shells with the same sockets, threads and heartbeats, and
share interpreters, PER_PROCESS of them each. They can't be killed one by one, and compute in turns.
"""

from __future__ import annotations

import os
import threading
import time
from argparse import ArgumentParser
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from cluster.local import Process
from cluster.process import announce
from cluster.scratch import ScratchFolder
from cluster.shells.worker import Worker
from cluster.spec import ClusterSpec, decode_spec, encode_spec, load_part
from cluster.supervision.ending import stop_with_parent

PER_PROCESS = 25
READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 5.0


class Crowd:
    """Real workers of a coordinator that runs already, or will, during a with block.

    Entered, every process has started; the coordinator's status says who has joined. Raises
    ClusterError with a child's output if one does not come up.
    """

    def __init__(self, endpoint: str, spec: ClusterSpec, workers: int) -> None:
        self._options = ["--endpoint", endpoint, "--spec", encode_spec(spec)]
        self._workers = workers
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(ScratchFolder("crowd-")))
            until_s = time.monotonic() + READY_TIMEOUT_S
            processes = []
            for first in range(0, self._workers, PER_PROCESS):
                count = min(PER_PROCESS, self._workers - first)
                numbers = ["--first", str(first), "--count", str(count)]
                process = Process(f"crowd-{first}", __name__, [*self._options, *numbers], folder)
                stack.callback(_stop, process)
                processes.append(process)
            for process in processes:
                process.announcement(until_s)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def _stop(process: Process) -> None:
    process.stop(time.monotonic() + STOP_TIMEOUT_S)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run some workers until standard input ends."""
    parser = ArgumentParser(prog=f"python -m {__name__}", description=__doc__)
    parser.add_argument("--endpoint", required=True, help="where the coordinator listens")
    parser.add_argument("--spec", required=True, help="the cluster's spec, as JSON")
    parser.add_argument("--first", type=int, default=0, help="the number of the first worker")
    parser.add_argument("--count", type=int, default=1, help="how many")
    args = parser.parse_args(arguments)
    handlers, spec = load_part("cluster.work.workloads:HANDLERS"), decode_spec(args.spec)
    workers = [
        Worker(args.endpoint, handlers, name=f"crowd-{args.first + number}", spec=spec)
        for number in range(args.count)
    ]
    threads = [threading.Thread(target=worker.run, daemon=True) for worker in workers]
    for thread in threads:
        thread.start()
    announce()
    stop_with_parent(lambda: os._exit(0))
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
