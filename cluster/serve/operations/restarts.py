"""A rolling restart: workers are restarted one after another, so that the others go on."""

from __future__ import annotations

import asyncio
import time
from typing import Literal

import msgspec
from starlette.concurrency import run_in_threadpool

from cluster.shells.client import Client
from cluster.vocabulary.errors import ClusterError

#: how long a worker may take to finish what it holds and to come back
BACK_S = 600.0


class Step(msgspec.Struct):
    """One worker of a rolling restart; ``error`` says why it failed."""

    worker: str
    state: Literal["waiting", "restarting", "done", "failed"] = "waiting"
    error: str = ""


class Progress(msgspec.Struct):
    """How far a rolling restart is. Times are seconds since 1970."""

    state: Literal["running", "done", "failed", "stopped"]
    steps: list[Step]
    started_at: float
    ended_at: float | None = None


class RollingRestart:
    """Restarts ``workers`` in order and ends at the first that fails. Used in one loop only."""

    def __init__(self, client: Client, workers: list[str]) -> None:
        self._client = client
        self.progress = Progress("running", [Step(name) for name in workers], time.time())
        self._task: asyncio.Task[None] | None = None
        self._is_stopping = False

    @property
    def is_running(self) -> bool:
        """Whether a worker is being restarted, or is to be."""
        return self.progress.state == "running"

    def start(self) -> None:
        """Begin, in the running loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def stop(self) -> None:
        """End after the worker whose turn it is."""
        self._is_stopping = True

    async def _run(self) -> None:
        progress = self.progress
        for step in progress.steps:
            if self._is_stopping:
                progress.state = "stopped"
                break
            step.state = "restarting"
            try:
                await run_in_threadpool(self._client.restart, step.worker, BACK_S)
            except ClusterError as error:
                step.state, step.error, progress.state = "failed", str(error), "failed"
                break
            step.state = "done"
        else:
            progress.state = "done"
        progress.ended_at = time.time()
