"""The distributed system under study: a coordinator, its workers and its clients.

It runs alone and knows nothing of perfkit. The names below are the whole of what a user needs; they
are imported on first use, so that a worker does not pay for the client and a client not for the
coordinator.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cluster.async_client import AsyncClient
    from cluster.client import Client
    from cluster.coordinator import ClusterCoordinator
    from cluster.errors import (
        Busy,
        ClusterError,
        TaskDeadLettered,
        TaskError,
        TaskFailed,
        TaskTimedOut,
    )
    from cluster.handlers import Handlers
    from cluster.local import LocalCluster
    from cluster.scheduler import Scheduler
    from cluster.spec import BASELINE, ClusterSpec
    from cluster.task import Priority, Requirements, Retry
    from cluster.worker import Worker

_HOME = {
    "AsyncClient": "async_client",
    "BASELINE": "spec",
    "Busy": "errors",
    "Client": "client",
    "ClusterCoordinator": "coordinator",
    "ClusterError": "errors",
    "ClusterSpec": "spec",
    "Handlers": "handlers",
    "LocalCluster": "local",
    "Priority": "task",
    "Requirements": "task",
    "Retry": "task",
    "Scheduler": "scheduler",
    "TaskDeadLettered": "errors",
    "TaskError": "errors",
    "TaskFailed": "errors",
    "TaskTimedOut": "errors",
    "Worker": "worker",
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
