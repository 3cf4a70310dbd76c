"""What clients have not read yet, and who has to read before more is done for it.

A result is kept until its client says that it has it, so a client that does not read would make the
coordinator grow with everything it was promised. Nothing of that may be dropped or refused any
more; but it can wait. A client whose unread bytes are as many as what is left of the bound is held
back: nothing more of it is leased until it has read. So one client gets at most half of the bound,
n of them n/(n + 1), and there is always room for those who read. This is the dynamic threshold of
Choudhury and Hahne ("Dynamic queue length thresholds for shared-memory packet switches", 1998).
"""

from __future__ import annotations

from cluster.core.queue import RunQueue
from cluster.core.run import Run


class Backpressure:
    """Bytes of outcomes that are kept, by client; decides whose runs the queue holds back."""

    def __init__(self, bound_bytes: int) -> None:
        self._bound_bytes = bound_bytes
        #: nobody can be over as long as all together have less
        self.half_bytes = (bound_bytes + 1) // 2
        self._by_client: dict[str, int] = {}
        self.total_bytes = 0

    def add(self, client: str, size_bytes: int) -> None:
        """Keep so many bytes more, or less."""
        self.total_bytes += size_bytes
        self._by_client[client] = self._by_client.get(client, 0) + size_bytes

    def forget(self, client: str) -> None:
        """A client is gone, and nothing is kept for it."""
        self._by_client.pop(client, None)

    def is_over(self, client: str) -> bool:
        """Whether a client has to read before anything more is done for it."""
        return self._by_client.get(client, 0) >= self._bound_bytes - self.total_bytes

    def holds_back(self, queue: RunQueue, run: Run, suspect: bool) -> bool:
        """Whether the run at the queue's head has to wait for its client: then it is out of it."""
        if not self.is_over(run.client):
            return False
        queue.hold_back(run, suspect)
        return True

    def resume(self, queue: RunQueue) -> None:
        """Let those into the queue again who have read enough."""
        for client in [c for c in queue.held_back if not self.is_over(c)]:
            queue.resume(client)
