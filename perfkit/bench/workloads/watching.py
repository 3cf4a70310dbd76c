"""The status of a cluster over time, asked for beside the load."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import Self

from cluster.shells.client import Client
from cluster.vocabulary.errors import ClusterError
from cluster.vocabulary.status import Status

#: A question costs the coordinator about as much as a task.
INTERVAL_S = 0.1


class watch_status:  # noqa: N801 -- a context manager, named as those are
    """Ask for a cluster's status every `interval_s` seconds during a `with` block.

    `rows` holds the answers with the time of each in seconds from the start; a coordinator that
    does not answer leaves a gap.
    """

    def __init__(self, client: Client, interval_s: float = INTERVAL_S) -> None:
        self.rows: list[tuple[float, Status]] = []
        self._client = client
        self._interval_s = interval_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="status-watch", daemon=True)

    def __enter__(self) -> Self:
        self._began_s = time.perf_counter()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def rates_per_s(self, counter: str) -> list[float | None]:
        """The growth of a counter per second since the row before; unknown for the first."""
        found: list[float | None] = [None] * bool(self.rows)
        for (from_s, before), (to_s, after) in zip(self.rows, self.rows[1:], strict=False):
            grown = after.counters[counter] - before.counters[counter]
            found.append(grown / (to_s - from_s))
        return found

    @property
    def at_s(self) -> list[float | None]:
        """When each status was asked for."""
        return [at_s for at_s, _ in self.rows]

    def depths(self) -> dict[str, list[float | None]]:
        """Tasks that wait, tasks with workers, and bytes of payloads over time."""
        return {
            "queued_tasks": [sum(status.queued.values()) for _, status in self.rows],
            "assigned_tasks": [status.assigned for _, status in self.rows],
            "payload_bytes": [status.payload_bytes for _, status in self.rows],
        }

    def _run(self) -> None:
        while not self._over.is_set():
            at_s = time.perf_counter() - self._began_s
            with suppress(ClusterError):
                self.rows.append((at_s, self._client.status()))
            self._over.wait(max(0.0, at_s + self._interval_s - time.perf_counter() + self._began_s))
