"""A coordinator or a worker as a process of its own: ``python -m cluster.process
coordinator|worker``.

It prints one line of JSON when it is ready. SIGTERM, SIGINT or the end of its standard input stop
it gracefully; with ``--alone``, for a service manager, only signals do.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from cluster.shells.malloc_trim import MallocTrim, reexec_with_one_heap
from cluster.spec import BASELINE, ClusterSpec, decode_spec, load_part
from cluster.vocabulary.errors import ClusterError

if TYPE_CHECKING:
    from cluster.shells.coordinator import ClusterCoordinator

#: the collector's threshold for its young generation
YOUNG_OBJECTS = 50_000


def announce(**facts: str | int) -> None:
    """Print that this process is ready, as a line of JSON."""
    print(json.dumps({"pid": os.getpid(), **facts}), flush=True)


def settle(spec: ClusterSpec) -> None:
    """Have the collector skip the objects that exist by now, and run rarely.

    A task waits for each collection, and there is hardly any cyclic garbage here.
    """
    gc.collect()
    gc.freeze()
    MallocTrim(spec.trim_bytes).trim(0)  # loading, of a model above all, leaves memory free
    gc.set_threshold(YOUNG_OBJECTS)


def stop_with_parent(stop: Callable[[], None]) -> None:
    """Call ``stop`` when standard input ends: the parent has closed it or died."""

    def wait() -> None:
        while os.read(0, 4096):
            pass
        stop()

    threading.Thread(target=wait, name="parent", daemon=True).start()


def run_coordinator(
    spec: ClusterSpec,
    bind: str,
    *,
    insecure: bool,
    cprofile: str | None,
    alone: bool,
    kind: type[ClusterCoordinator] | None = None,
) -> None:
    """Serve until told to stop, by a coordinator of class ``kind``, perhaps under cProfile."""
    from cluster.shells.coordinator import ClusterCoordinator

    coordinator = (kind or ClusterCoordinator)(spec, bind, insecure=insecure)
    coordinator.stop_on_signals()
    if not alone:
        stop_with_parent(coordinator.stop)
    settle(spec)
    announce(endpoint=coordinator.endpoint)
    if cprofile is None:
        coordinator.run()
        return
    import cProfile

    profile = cProfile.Profile()
    profile.runcall(coordinator.run)
    profile.dump_stats(cprofile)


def run_worker(
    spec: ClusterSpec | None,
    endpoint: str,
    *,
    handlers: str,
    models: Sequence[str],
    name: str | None,
    capacity: int,
    alone: bool,
    share: bool = True,
    probe: str | None = None,
) -> None:
    """Work until told to stop; the worker is ready after the coordinator's welcome.

    Without a ``spec`` it adopts the coordinator's. Workers of this host share large models' weights
    unless ``share`` is false. ``probe`` names a function that makes the worker's probe, which may
    have a method ``gpus`` for its cards.
    """
    from cluster.shells.worker import Worker
    from cluster.work.handlers import Handlers
    from cluster.work.host import host_load

    offered = Handlers()
    registry = load_part(handlers)
    if not isinstance(registry, Handlers):
        raise ClusterError(f"{handlers!r} is a {type(registry).__name__}, not a Handlers registry")
    offered.update(registry)
    if models:
        from cluster.models.inference import model_handlers

        offered.update(model_handlers(models, share=share), views=True)
    ask = load_part(probe)() if probe else host_load
    worker = Worker(
        endpoint,
        offered,
        name=name,
        capacity=capacity,
        spec=spec,
        models=models,
        gpus=ask.gpus() if hasattr(ask, "gpus") else (),
        probe=ask,
    )

    def ready() -> None:
        announce(worker=worker.name)
        # Nobody reads after that line: a handler that prints would fill the pipe and hang.
        if not alone:
            os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    worker.on_welcome = ready
    settle(worker.spec)
    worker.stop_on_signals()
    if not alone:
        stop_with_parent(worker.stop)
    worker.run()


def main(argv: Sequence[str] | None = None, kind: type[ClusterCoordinator] | None = None) -> int:
    """Run one role, a coordinator of class ``kind``; returns the exit code.

    Without ``argv`` a coordinator may re-exec the process.
    """
    parser = argparse.ArgumentParser(prog="python -m cluster.process", description=__doc__)
    roles = parser.add_subparsers(dest="role", required=True)
    coordinator = roles.add_parser("coordinator", help="serve workers and clients")
    coordinator.add_argument("--bind", default="tcp://127.0.0.1:*", help="endpoint to listen at")
    coordinator.add_argument("--insecure", action="store_true", help="listen beyond this machine")
    coordinator.add_argument("--cprofile", help="write cProfile statistics to this file at the end")
    worker = roles.add_parser("worker", help="work for a coordinator")
    worker.add_argument("--endpoint", required=True, help="where the coordinator listens")
    worker.add_argument(
        "--handlers", default="cluster.work.workloads:HANDLERS", help="module:attribute"
    )
    worker.add_argument(
        "--model", dest="models", action="append", default=[], help="serve a model, repeatable"
    )
    worker.add_argument(
        "--no-share",
        dest="share",
        action="store_false",
        help="load large models instead of mapping shared ones",
    )
    worker.add_argument("--name", help="unique in the cluster (default: host and process id)")
    worker.add_argument("--capacity", type=int, default=1, help="tasks at once")
    worker.add_argument("--probe", help="module:attribute of what makes the worker's probe")
    for role in (coordinator, worker):
        role.add_argument("--spec", help="the cluster spec as JSON")
        role.add_argument("--alone", action="store_true", help="ignore the end of standard input")
    options = vars(parser.parse_args(argv))
    name = options.pop("role")
    try:
        text = options.pop("spec")
        spec = decode_spec(text) if text else None
        if name == "worker":
            run_worker(spec, **options)
        else:
            spec = spec or BASELINE
            if spec.trim_bytes and argv is None:
                reexec_with_one_heap()
            run_coordinator(spec, **options, kind=kind)
    except ClusterError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
