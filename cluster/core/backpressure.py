"""Backpressure: clients that do not acknowledge results, and when their runs are held back.

A result is retained until its client acknowledges it, so a client that stops reading would make the
coordinator grow. Accepted tasks may not be dropped or refused, but they can wait: a client whose
retained bytes reach the room that is left is held back: nothing more of it is leased until it
acknowledges. So one client gets at most half of the bound, n of them n/(n + 1), and there is always
room for the others. This is the dynamic threshold of Choudhury and Hahne ("Dynamic queue length
thresholds for shared-memory packet switches", 1998).
"""

from __future__ import annotations

from cluster.core.queue import RunQueue


class Backpressure:
    """Retained bytes by client; decides whose runs the queue holds back."""

    def __init__(self, bound_bytes: int) -> None:
        self._bound_bytes = bound_bytes
        #: below this total no client can be over
        self.half_bytes = (bound_bytes + 1) // 2
        self._by_client: dict[str, int] = {}
        self.total_bytes = 0

    def add(self, client: str, size_bytes: int) -> None:
        """Retain ``size_bytes`` more for a client; less if negative."""
        self.total_bytes += size_bytes
        self._by_client[client] = self._by_client.get(client, 0) + size_bytes

    def forget(self, client: str) -> None:
        """Drop a client that is gone and for which nothing is retained."""
        self._by_client.pop(client, None)

    def is_over(self, client: str) -> bool:
        """Whether a client must acknowledge results before more of its tasks are leased."""
        return self._by_client.get(client, 0) >= self._bound_bytes - self.total_bytes

    def resume(self, queue: RunQueue) -> None:
        """Queue the runs of clients again that are no longer over."""
        for client in [c for c in queue.held_back if not self.is_over(c)]:
            queue.resume(client)
