"""A leak planted on purpose: the positive control of the leak checks.

It is of a kind that is hard to see: a hundred bytes for each task, which the garbage collector does
not track, in no container of the coordinator.
"""

from __future__ import annotations

import msgspec

from cluster.core.queue import RunQueue
from cluster.core.run import Run
from cluster.spec import ClusterSpec
from cluster.vocabulary.errors import ClusterError

LEAK_BYTES = 100
#: What has leaked; clear it after a check in this process.
LEAKED: list[bytes] = []
#: A bytes object takes 33 bytes besides its content.
_FILLING = LEAK_BYTES - 33


class LeakyQueue(RunQueue):
    """The plain queue, which leaks LEAK_BYTES for each task."""

    _newest = 0

    def push(self, run: Run) -> None:
        """Enter a run; leak if it is new."""
        if run.id > self._newest:
            self._newest = run.id
            LEAKED.extend(bytes(_FILLING) for _ in range(run.count))
        super().push(run)


def plant(spec: ClusterSpec) -> ClusterSpec:
    """The spec with the leak; raises ClusterError unless it has the plain queue."""
    plain = f"{RunQueue.__module__}:{RunQueue.__name__}"
    if spec.queue != plain:
        raise ClusterError(f"spec {spec.name!r} has a queue of its own, and the leak is in {plain}")
    queue = f"{LeakyQueue.__module__}:{LeakyQueue.__name__}"
    return msgspec.structs.replace(spec, name=f"{spec.name}+leak", queue=queue)
