"""What each model has answered so far, as Triton's statistics extension shows it.

The fields are those of
https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/protocol/extension_statistics.html;
``compute_infer`` is the time from a task's hand-over to its result, as the API sees it, the
cluster's own queue included. Where workers tell how batches formed, ``execution_count`` and
``batch_stats`` are theirs, as of a second ago: all that they ran, for other clients too. A
``batch_size`` is the mean of the batches between two powers of two.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from cluster.vocabulary.task import BatchSize, KindBatches


@dataclass
class Duration:
    """A count and the sum of its times."""

    count: int = 0
    ns: int = 0

    def add(self, seconds: float) -> None:
        """Count one more."""
        self.count += 1
        self.ns += int(seconds * 1e9)

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

    @property
    def compute(self) -> Duration:
        """From the hand-over of tasks to their results."""
        return Duration(self.success.count, max(0, self.success.ns - self.queue.ns))


def sum_sizes(told: Iterable[KindBatches]) -> list[BatchSize]:
    """The batches of some kinds together, by size."""
    columns = zip_longest(*(one.sizes for one in told), fillvalue=BatchSize())
    return [BatchSize(*map(sum, zip(*column, strict=True))) for column in columns]


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

    def shown(self, name: str, version: str, told: Iterable[KindBatches] | None) -> dict[str, Any]:
        """One model's statistics; zeros before its first request. ``told`` is how the batches of
        this version formed, None if that is unknown.
        """
        sizes = [size for size in sum_sizes(told or ()) if size.runs]
        found = self._models.get((name, version), ModelStatistics())
        nothing = Duration().shown()
        return {
            "name": name,
            "version": version,
            "last_inference": round(found.last_at * 1e3),
            "inference_count": found.items,
            "execution_count": found.executions if told is None else sum(s.runs for s in sizes),
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
            "batch_stats": [
                {
                    "batch_size": round(size.items / size.runs),
                    "compute_input": nothing,
                    "compute_infer": Duration(size.runs, round(size.busy_s * 1e9)).shown(),
                    "compute_output": nothing,
                }
                for size in sizes
            ],
        }
