"""What each model has answered so far, as Triton's statistics extension shows it.

The fields are those of
https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/protocol/extension_statistics.html;
``compute_infer`` is the time from a task's hand-over to its result, as the API sees it, the
cluster's own queue included.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Duration:
    """A count and the sum of its times."""

    count: int = 0
    ns: int = 0

    def add(self, seconds: float) -> None:
        """Count one more."""
        self.count += 1
        self.ns += round(seconds * 1e9)

    def shown(self) -> dict[str, int]:
        """As the extension shows it."""
        return {"count": self.count, "ns": self.ns}


@dataclass
class ModelStatistics:
    """The answers of one version of a model."""

    items: int = 0
    executions: int = 0
    last_at: float = 0.0
    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    compute: Duration = field(default_factory=Duration)


class Statistics:
    """The statistics of all models since the start, by name and version."""

    def __init__(self) -> None:
        self._models: dict[tuple[str, str], ModelStatistics] = {}

    def add(
        self,
        name: str,
        version: str,
        *,
        items: int,
        tasks: int,
        latency_s: float,
        queue_s: float,
        succeeded: bool,
    ) -> None:
        """Count one request."""
        found = self._models.get((name, version))
        if found is None:
            found = self._models[name, version] = ModelStatistics()
        if not succeeded:
            found.fail.add(latency_s)
            return
        found.items += items
        found.executions += tasks
        found.last_at = time.time()
        found.success.add(latency_s)
        found.queue.add(queue_s)
        found.compute.add(max(0.0, latency_s - queue_s))

    def shown(self, name: str, version: str) -> dict[str, Any]:
        """One model's statistics; zeros before its first request."""
        found = self._models.get((name, version), ModelStatistics())
        nothing = Duration().shown()
        return {
            "name": name,
            "version": version,
            "last_inference": round(found.last_at * 1e3),
            "inference_count": found.items,
            "execution_count": found.executions,
            "inference_stats": {
                "success": found.success.shown(),
                "fail": found.fail.shown(),
                "queue": found.queue.shown(),
                "compute_input": nothing,
                "compute_infer": found.compute.shown(),
                "compute_output": nothing,
                "cache_hit": nothing,
                "cache_miss": nothing,
            },
            "batch_stats": [],
        }
