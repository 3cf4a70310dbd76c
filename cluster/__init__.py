"""The distributed system under study: a coordinator, its workers and its clients.

It runs alone and knows nothing of perfkit. The names below are all that a user needs. They are
imported on first use, so that a worker does not load the client, nor a client the coordinator.

    with LocalCluster(n_workers=2) as local, local.client() as client:
        assert client.submit("echo", b"x").result(timeout=5) == b"x"
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster.core.scheduler import Scheduler as Scheduler
    from cluster.local import LocalCluster as LocalCluster
    from cluster.shells.async_client import AsyncClient as AsyncClient
    from cluster.shells.client import Client as Client
    from cluster.shells.coordinator import ClusterCoordinator as ClusterCoordinator
    from cluster.shells.worker import Worker as Worker
    from cluster.spec import BASELINE as BASELINE
    from cluster.spec import ClusterSpec as ClusterSpec
    from cluster.vocabulary.errors import Busy as Busy
    from cluster.vocabulary.errors import ClientClosed as ClientClosed
    from cluster.vocabulary.errors import ClusterError as ClusterError
    from cluster.vocabulary.errors import CoordinatorLost as CoordinatorLost
    from cluster.vocabulary.errors import NoWorker as NoWorker
    from cluster.vocabulary.errors import Superseded as Superseded
    from cluster.vocabulary.errors import TaskDeadLettered as TaskDeadLettered
    from cluster.vocabulary.errors import TaskError as TaskError
    from cluster.vocabulary.errors import TaskFailed as TaskFailed
    from cluster.vocabulary.errors import TaskTimedOut as TaskTimedOut
    from cluster.vocabulary.errors import Unreachable as Unreachable
    from cluster.vocabulary.task import Priority as Priority
    from cluster.vocabulary.task import Requirements as Requirements
    from cluster.vocabulary.task import Retry as Retry
    from cluster.work.handlers import Handlers as Handlers
else:  # a type checker that saw this __getattr__ would accept any name
    _HOME = {
        "AsyncClient": "cluster.shells.async_client",
        "BASELINE": "cluster.spec",
        "Busy": "cluster.vocabulary.errors",
        "Client": "cluster.shells.client",
        "ClusterCoordinator": "cluster.shells.coordinator",
        "ClusterError": "cluster.vocabulary.errors",
        "ClusterSpec": "cluster.spec",
        "Handlers": "cluster.work.handlers",
        "LocalCluster": "cluster.local",
        "NoWorker": "cluster.vocabulary.errors",
        "Unreachable": "cluster.vocabulary.errors",
        "Superseded": "cluster.vocabulary.errors",
        "CoordinatorLost": "cluster.vocabulary.errors",
        "ClientClosed": "cluster.vocabulary.errors",
        "Priority": "cluster.vocabulary.task",
        "Requirements": "cluster.vocabulary.task",
        "Retry": "cluster.vocabulary.task",
        "Scheduler": "cluster.core.scheduler",
        "TaskDeadLettered": "cluster.vocabulary.errors",
        "TaskError": "cluster.vocabulary.errors",
        "TaskFailed": "cluster.vocabulary.errors",
        "TaskTimedOut": "cluster.vocabulary.errors",
        "Worker": "cluster.shells.worker",
    }
    __all__ = list(_HOME)

    def __getattr__(name: str) -> object:
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_HOME[name]), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
