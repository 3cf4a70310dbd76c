"""Who runs the tasks, by name: this cluster, a pool of processes, or one of its peers.

One protocol for all, so that a program which has outgrown one coordinator changes a name and not
its code, and so that a benchmark puts the same tasks to each. A peer's package is imported when
its engine is made and not before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cluster.spec import BASELINE, ClusterSpec, load_part
from cluster.vocabulary.errors import ClusterError, did_you_mean
from perfkit.engines.base import Engine

__all__ = ["ENGINES", "Engine", "MissingExtra", "make_engine"]

#: Every engine there is, and where its class is.
ENGINES: Mapping[str, str] = {
    "local": "perfkit.engines.local:LocalEngine",
    "zmq": "perfkit.engines.zmq:ZmqEngine",
    "dask": "perfkit.engines.dask:DaskEngine",
    "ray": "perfkit.engines.ray:RayEngine",
}


class MissingExtra(ClusterError):
    """An engine whose packages are not installed; the message says how to install them."""


def make_engine(
    name: str, *, workers: int = 2, spec: ClusterSpec = BASELINE, models: Sequence[str] = ()
) -> Engine:
    """An engine of so many worker processes on this machine, to be entered.

    Every worker offers `cluster.work.workloads:HANDLERS` and `models`. `spec` says how a cluster is
    built; only zmq has one.

    Raises ClusterError when there is no such engine or it can't have so many workers, MissingExtra
    when its packages are not installed.
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
    return engine(workers, spec, models)
