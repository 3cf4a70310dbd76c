"""A coordinator, a worker or a host's supervisor as a process of its own: ``python -m
cluster.process coordinator|worker|host``.

A coordinator and a worker print one line of JSON when they are ready. SIGTERM, SIGINT or the end of
standard input stop them gracefully; with ``--alone``, for a service manager, only signals do. With
``--parent FD`` the process and its children die at once when the pipe at that descriptor closes.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from cluster.shells.malloc_trim import MallocTrim, reexec_with_one_heap
from cluster.spec import BASELINE, ClusterSpec, decode_spec, load_part
from cluster.supervision.ending import (
    die_with_parent,
    empty_input,
    end_process,
    stop_with_parent,
    take_input,
)
from cluster.vocabulary.cards import CARD
from cluster.vocabulary.errors import ClusterError

if TYPE_CHECKING:
    from cluster.shells.coordinator import ClusterCoordinator
    from cluster.shells.worker import Worker
    from cluster.work.handlers import Handlers

#: the collector's threshold for its young generation
YOUNG_OBJECTS = 50_000


def announce(*, before: str = "", **facts: str | int) -> None:
    """Print that this process is ready, as a line of JSON."""
    line = json.dumps({"pid": os.getpid(), **facts})
    print(f"{before}{line}\n", end="", flush=True)


def answer(order: str, number: int, trouble: str) -> None:
    """Tell the supervisor what became of an order about functions, as a line of JSON."""
    # A program that a handler has run may have printed half a line.
    announce(before="\n", order=order, number=number, trouble=trouble)


def settle(spec: ClusterSpec) -> None:
    """Have the collector skip the objects that exist by now, and run rarely.

    A task waits for each collection, and there is hardly any cyclic garbage here.
    """
    gc.collect()
    gc.freeze()
    MallocTrim(spec.trim_bytes).trim(0)  # loading, of a model above all, leaves memory free
    gc.set_threshold(YOUNG_OBJECTS)


def follow_parent(stop: Callable[[], None], alone: bool, parent: int | None) -> None:
    """Call ``stop`` at the end of standard input unless ``alone``, or die with the pipe
    ``parent``.
    """
    if parent is not None:
        die_with_parent(parent)
    if not alone:
        stop_with_parent(stop)


def run_coordinator(
    spec: ClusterSpec,
    bind: str,
    *,
    insecure: bool,
    cprofile: str | None,
    alone: bool,
    parent: int | None = None,
    kind: type[ClusterCoordinator] | None = None,
) -> None:
    """Serve until told to stop, by a coordinator of class ``kind``, perhaps under cProfile."""
    from cluster.shells.coordinator import ClusterCoordinator

    coordinator = (kind or ClusterCoordinator)(spec, bind, insecure=insecure)
    coordinator.stop_on_signals()
    follow_parent(coordinator.stop, alone, parent)
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
    parent: int | None = None,
    share: bool = True,
    threads: int | None = None,
    probe: str | None = None,
    functions: Path | None = None,
    again: bool = False,
) -> None:
    """Work until told to stop; the worker is ready after the coordinator's welcome.

    Without a ``spec`` it adopts the coordinator's. Handlers are looked for in the working folder
    too, after everything that is installed. Workers of this host share large models' weights unless
    ``share`` is false, and each run takes ``threads`` threads. ``probe`` names what makes the
    worker's probe, which may have a method ``gpus`` for its cards. What is packed in the folder
    ``functions`` is added to the handlers, and more as standard input says. A worker on a card
    announces it. With ``again`` it does without models and packs that can't be loaded.
    """
    from cluster.model_offers import ModelOffers
    from cluster.shells.worker import Worker
    from cluster.work.host import host_load
    from cluster.work.pack_folder import PackReader
    from cluster.work.task_output import own_output

    if parent is not None:
        die_with_parent(parent)
        own_output()
        orders = take_input()
    sys.path.append(str(Path.cwd()))
    card = own_card(bool(models))
    offered = load_handlers(handlers)
    packs = PackReader(functions, offered, again=again) if functions else None
    served = ModelOffers(offered, models, again=again, share=share, threads=threads)
    ask = load_part(probe)() if probe else host_load
    worker = Worker(
        endpoint,
        offered,
        name=name,
        capacity=capacity,
        spec=spec,
        models=served.names,
        wanted=served.wanted,
        gpus=ask.gpus() if hasattr(ask, "gpus") else (),
        probe=served.beside(ask),
        on_serve=lambda wanted: served.change(wanted, tell),
    )

    def tell() -> None:
        troubles = filter(None, [served.trouble, packs.trouble if packs is not None else ""])
        worker.offer(served.kinds, served.names, "; ".join(troubles))

    def ready() -> None:
        announce(worker=worker.name, **card)
        if packs is not None and parent is not None:
            packs.follow(orders, tell, answer)
        # Only a supervisor reads after that line: a handler that prints would fill the pipe.
        if parent is None and not alone:
            os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    if again:
        tell()
    worker.on_welcome = ready
    work(worker, alone=alone or parent is not None)


def work(worker: Worker, *, alone: bool) -> None:
    """Run a worker until it is told to stop, by the end of its input too unless ``alone``."""
    from cluster.work.task_output import mark_output

    worker.on_failure = fail
    mark_output(worker.current_task)
    settle(worker.spec)
    worker.stop_on_signals()
    if alone:
        empty_input()
    else:
        stop_with_parent(worker.stop)
    worker.run()


def load_handlers(path: str) -> Handlers:
    """The handlers of the registry that ``"module:attribute"`` names, to be changed; raises
    ClusterError if there is none.
    """
    from cluster.work.handlers import Handlers

    offered, registry = Handlers(), load_part(path)
    if not isinstance(registry, Handlers):
        raise ClusterError(f"{path!r} is a {type(registry).__name__}, not a Handlers registry")
    offered.update(registry)
    return offered


def fail(error: BaseException) -> NoReturn:
    """End this process because of an error in one of its threads, without a goodbye."""
    traceback.print_exception(error)
    end_process(1)


def own_card(has_models: bool) -> dict[str, str]:
    """The card that this process is bound to, to be announced. The loss of any ends the process."""
    if has_models or CARD in os.environ:
        from cluster.models.providers import webgpu

        webgpu.on_device_lost = lose_card
    return {"card": os.environ[CARD]} if CARD in os.environ else {}


def lose_card(error: Exception) -> NoReturn:
    """End this process because its card is lost: a supervisor starts another, and what this one had
    in hand goes to other workers.
    """
    print(f"worker ends: {error}", file=sys.stderr, flush=True)
    end_process(1)


def run_host(
    spec: ClusterSpec, *, options: str, log: Path | None, show: str, parent: int | None, **_: object
) -> None:
    """Look after workers until told to stop; their ``options`` are a list in JSON."""
    from cluster.supervision.output import CrewLog
    from cluster.supervision.supervisor import Supervisor

    if parent is not None:
        die_with_parent(parent)
    Supervisor(spec, json.loads(options), CrewLog(log, show, sys.stderr.fileno())).run()


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
    worker.add_argument("--threads", type=int, help="of a model's run (default: as it says)")
    worker.add_argument("--name", help="unique in the cluster (default: host and process id)")
    worker.add_argument("--capacity", type=int, default=1, help="tasks at once")
    worker.add_argument("--functions", type=Path, help="folder of packs that are run as code")
    worker.add_argument("--again", action="store_true", help="do without what can't be loaded")
    worker.add_argument("--probe", help="module:attribute of what makes the worker's probe")
    host = roles.add_parser("host", help="look after workers, named on standard input")
    host.add_argument("--options", default="[]", help="the workers' options, a list as JSON")
    host.add_argument("--log", type=Path, help="append the workers' output to this file")
    host.add_argument(
        "--show",
        default="off",
        choices=["info", "warning", "off"],
        help="show output from this level",
    )
    for role in (coordinator, worker, host):
        role.add_argument("--spec", help="the cluster spec as JSON")
        role.add_argument("--alone", action="store_true", help="ignore the end of standard input")
        role.add_argument("--parent", type=int, metavar="FD", help="die when this pipe closes")
    options = vars(parser.parse_args(argv))
    name = options.pop("role")
    try:
        text = options.pop("spec")
        given = decode_spec(text) if text else None
        spec = given or BASELINE
        if name == "worker":
            run_worker(given, **options)
        elif name == "host":
            run_host(spec, **options)
        else:
            if spec.trim_bytes and argv is None:
                reexec_with_one_heap()
            run_coordinator(spec, **options, kind=kind)
    except ClusterError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    return 0


def run_main(kind: type[ClusterCoordinator] | None = None) -> NoReturn:
    """Run `main` as this process, which ends with it whatever threads its handlers have left."""
    code = 1
    try:
        code = main(kind=kind)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    end_process(code)


if __name__ == "__main__":
    run_main()
