"""Engines that run tasks, by name: this cluster, a pool of processes, Dask and Ray.

They share one protocol, so that a program that outgrows one coordinator changes a name and no code,
and so that a benchmark gives each the same tasks. A peer's package is imported when its engine is
made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cluster.spec import BASELINE, ClusterSpec, load_part
from cluster.vocabulary.errors import ClusterError, did_you_mean
from perfkit.engines.base import Engine

__all__ = ["ENGINES", "Engine", "MissingExtra", "make_engine"]

#: Every engine's class, as ``"module:attribute"``.
ENGINES: Mapping[str, str] = {
    "local": "perfkit.engines.local:LocalEngine",
    "zmq": "perfkit.engines.zmq:ZmqEngine",
    "dask": "perfkit.engines.dask:DaskEngine",
    "ray": "perfkit.engines.ray:RayEngine",
}


class MissingExtra(ClusterError):
    """An engine's packages are not installed; the message says how to install them."""


def make_engine(
    name: str,
    *,
    workers: int = 2,
    spec: ClusterSpec = BASELINE,
    models: Sequence[str] = (),
    address: str | None = None,
) -> Engine:
    """An engine with `workers` processes on this machine, to be entered; or one that works on the
    cluster at `address`, which was started elsewhere and is not stopped: ``tcp://…`` or ``tls://…``
    of a Dask scheduler, ``HOST:PORT``, ``ray://…`` or ``auto`` of Ray, a coordinator's endpoint.

    Every worker offers `cluster.work.workloads:HANDLERS` and `models`; those of a coordinator at an
    `address` offer what they were started with. `spec` is for zmq without an address only.

    Raises ClusterError for an unknown engine, a wrong address or fewer than one worker,
    MissingExtra when its packages are not installed.
    """
    if name not in ENGINES:
        hint = did_you_mean(name, ENGINES)
        raise ClusterError(f"there is no engine {name!r}; there are {', '.join(ENGINES)}{hint}")
    try:
        engine: type[Engine] = load_part(ENGINES[name])
    except ClusterError as error:
        raise MissingExtra(
            f"the {name} engine is not installed ({error.__cause__}); "
            "pip install 'perfkit[peers]' brings it"
        ) from error
    return engine(workers, spec, models, address)
