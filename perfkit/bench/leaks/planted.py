"""A leak planted on purpose: the positive control of everything that looks for leaks.

An instrument that has never found a leak has shown nothing by finding none. This one is of the kind
that is hard to see: bytes, which the collector does not track, a hundred of them for each task, in
no container that belongs to the coordinator.
"""

from __future__ import annotations

import msgspec

from cluster.core.queue import RunQueue
from cluster.core.run import Run
from cluster.spec import ClusterSpec
from cluster.vocabulary.errors import ClusterError

LEAK_BYTES = 100
#: What has leaked; whoever plants a leak into its own process clears this afterwards.
LEAKED: list[bytes] = []
#: A bytes object takes 33 besides what is in it.
_FILLING = LEAK_BYTES - 33


class LeakyQueue(RunQueue):
    """The plain queue, which keeps LEAK_BYTES for each task that ever was in it."""

    def __init__(self, bypasses: int) -> None:
        super().__init__(bypasses)
        self._newest = 0

    def push(self, run: Run) -> None:
        """Enter a run; if it was not here before, keep something of it."""
        if run.id > self._newest:
            self._newest = run.id
            LEAKED.extend(bytes(_FILLING) for _ in range(run.count))
        super().push(run)


def plant(spec: ClusterSpec) -> ClusterSpec:
    """The spec with the leak in it; raises ClusterError if its queue is not the plain one."""
    plain = f"{RunQueue.__module__}:{RunQueue.__name__}"
    if spec.queue != plain:
        raise ClusterError(f"spec {spec.name!r} has a queue of its own, and the leak is in {plain}")
    queue = f"{LeakyQueue.__module__}:{LeakyQueue.__name__}"
    return msgspec.structs.replace(spec, name=f"{spec.name}+leak", queue=queue)
