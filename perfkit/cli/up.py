"""A cluster in the foreground: started, shown while it runs, stopped when told to.

In a terminal there is a table that keeps itself up to date; elsewhere there is a line when
something happens, which is what a log can use.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

from rich.live import Live
from rich.text import Text

from cluster.local import LocalCluster, Process
from cluster.spec import ClusterSpec
from cluster.vocabulary.errors import ClusterError, Unreachable
from perfkit.cli.config import DEFAULT_BIND, Settings
from perfkit.cli.output import complain, err, out, write_json
from perfkit.cli.status import ask_status, status_view

LOOK_EVERY_S = 0.5
#: What to ask a model first.
EXAMPLES: Mapping[str, str] = {"magika": "README.md", "minilm": '"A man is eating food."'}


class StopSignals:
    """Turns the first SIGINT, SIGTERM or SIGHUP into KeyboardInterrupt, and none after it.

    Whoever presses Ctrl-C twice means it, but the second must not interrupt the stopping: that
    would leave processes behind.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self._stopping = False

    def __enter__(self) -> StopSignals:
        self._before = {number: signal.signal(number, self._stop) for number in self.SIGNALS}
        return self

    def __exit__(self, *about: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def ignore(self) -> None:
        """From here on nothing is interrupted."""
        self._stopping = True

    def _stop(self, signum: int, frame: FrameType | None) -> None:
        if not self._stopping:
            self._stopping = True
            raise KeyboardInterrupt


@contextmanager
def port_taken(bind: str) -> Iterator[None]:
    """Say of a bind that fails because of somebody else who that probably is, and the way out."""
    try:
        yield
    except ClusterError as error:
        if os.strerror(errno.EADDRINUSE) not in str(error):
            raise
        raise ClusterError(
            f"{bind} is taken: is another cluster up? use --bind for another port"
        ) from None


def run_up(settings: Settings, spec: ClusterSpec, *, probe: str | None, as_json: bool) -> None:
    """Keep a cluster until a signal stops it; its workers' probe is made by what `probe` names.

    Raises:
        ClusterError: a process did not come up, or the coordinator died.
    """
    local = LocalCluster(
        settings.workers,
        spec,
        capacity=settings.capacity,
        handlers=settings.handlers,
        models=settings.models,
        probe=probe,
        bind=settings.bind,
        insecure=settings.insecure,
    )
    with StopSignals() as signals:
        try:
            with port_taken(settings.bind), err().status("starting the cluster …"):
                local.start()
            _announce(local, settings, as_json=as_json)
            _keep(local, in_terminal=out().is_terminal and not as_json)
        except KeyboardInterrupt:
            signals.ignore()
            err().print("stopping the cluster …", style="dim")
        finally:
            signals.ignore()
            local.stop()


def _announce(local: LocalCluster, settings: Settings, *, as_json: bool) -> None:
    if as_json:
        facts = {
            "endpoint": local.endpoint,
            "spec": local.spec.name,
            "models": settings.models,
            "coordinator": {"pid": local.coordinator_pid},
            "workers": [{"name": w.role, "pid": w.pid} for w in local.workers],
        }
        write_json(facts, indent=None)
        return
    where = "" if local.endpoint == DEFAULT_BIND else f" --endpoint {local.endpoint}"
    served = settings.models[0] if settings.models else None
    what = "--kind echo --payload hello"
    if served is not None:
        what = f"--model {served} {EXAMPLES.get(served, 'FILE…')}"
    text = Text.assemble(
        ("Cluster up", "bold green"), f" at {local.endpoint} (spec {local.spec.name})\n",
        *(f"  {process.role:<12} pid {process.pid}\n" for process in _processes(local)),
        "Give it work from another terminal:\n",
        (f"  perfkit cluster submit{where} {what}\n", "cyan"),
        "Ctrl-C stops it.",
    )  # fmt: skip
    out().print(text)


def _processes(local: LocalCluster) -> list[Process]:
    return [local.coordinator, *local.workers]


def _keep(local: LocalCluster, *, in_terminal: bool) -> None:
    """Until a signal: tell of workers that die, and show how the cluster is."""
    gone: set[str] = set()
    pause = threading.Event()
    if not in_terminal:
        while True:
            _tell_of_the_dead(local, gone)
            pause.wait(LOOK_EVERY_S)
    console = out()
    with local.client() as client, Live(console=console, auto_refresh=False) as live:
        while True:
            _tell_of_the_dead(local, gone)
            try:
                live.update(status_view(ask_status(client)), refresh=True)
            except Unreachable:
                live.update(Text("the coordinator does not answer", "red"), refresh=True)
            pause.wait(LOOK_EVERY_S)


def _tell_of_the_dead(local: LocalCluster, gone: set[str]) -> None:
    coordinator = local.coordinator
    if not coordinator.alive():
        raise ClusterError(f"the coordinator has died (pid {coordinator.pid}); "
                           f"the cluster is stopped{coordinator.last_words()}")  # fmt: skip
    for worker in local.workers:
        if worker.role not in gone and not worker.alive():
            gone.add(worker.role)
            left = len(local.workers) - len(gone)
            complain(
                f"{worker.role} (pid {worker.pid}) has died; {left} of {len(local.workers)} "
                f"workers left{worker.last_words()}"
            )
