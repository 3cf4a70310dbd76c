"""The distributed system under study: a coordinator, its workers and its clients.

It runs alone and knows nothing of perfkit. The names below are the whole of what a user needs; they
are imported on first use, so that a worker does not pay for the client and a client not for the
coordinator.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cluster.core.scheduler import Scheduler
    from cluster.local import LocalCluster
    from cluster.shells.async_client import AsyncClient
    from cluster.shells.client import Client
    from cluster.shells.coordinator import ClusterCoordinator
    from cluster.shells.worker import Worker
    from cluster.spec import BASELINE, ClusterSpec
    from cluster.vocabulary.errors import (
        Busy,
        ClusterError,
        TaskDeadLettered,
        TaskError,
        TaskFailed,
        TaskTimedOut,
    )
    from cluster.vocabulary.task import Priority, Requirements, Retry
    from cluster.work.handlers import Handlers

_HOME = {
    "AsyncClient": "shells.async_client",
    "BASELINE": "spec",
    "Busy": "vocabulary.errors",
    "Client": "shells.client",
    "ClusterCoordinator": "shells.coordinator",
    "ClusterError": "vocabulary.errors",
    "ClusterSpec": "spec",
    "Handlers": "work.handlers",
    "LocalCluster": "local",
    "Priority": "vocabulary.task",
    "Requirements": "vocabulary.task",
    "Retry": "vocabulary.task",
    "Scheduler": "core.scheduler",
    "TaskDeadLettered": "vocabulary.errors",
    "TaskError": "vocabulary.errors",
    "TaskFailed": "vocabulary.errors",
    "TaskTimedOut": "vocabulary.errors",
    "Worker": "shells.worker",
}

__all__ = [
    "BASELINE",
    "AsyncClient",
    "Busy",
    "Client",
    "ClusterCoordinator",
    "ClusterError",
    "ClusterSpec",
    "Handlers",
    "LocalCluster",
    "Priority",
    "Requirements",
    "Retry",
    "Scheduler",
    "TaskDeadLettered",
    "TaskError",
    "TaskFailed",
    "TaskTimedOut",
    "Worker",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'cluster' has no attribute {name!r}")
    return getattr(import_module(f"cluster.{_HOME[name]}"), name)
