"""A cluster in the foreground: started, shown while it runs, and stopped by a signal.

A terminal shows a table that is kept up to date; a log gets a line when something happens.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from types import FrameType

from rich.live import Live
from rich.text import Text

from cluster.local import LocalCluster
from cluster.models.inference import model_name
from cluster.spec import ClusterSpec
from cluster.vocabulary.cards import card_environment
from cluster.vocabulary.errors import ClusterError, Unreachable
from perfkit.cli.crew import Deaths, Level, print_output
from perfkit.cli.status import ask_status, status_view
from perfkit.cli.terminal.config import DEFAULT_BIND, Settings
from perfkit.cli.terminal.output import err, out, write_json

LOOK_EVERY_S = 0.5
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: A first question for a model.
QUESTIONS: Mapping[str, str] = {"magika": "README.md", "minilm": '"A man is eating food."'}


@contextmanager
def stop_signals() -> Iterator[Callable[[], None]]:
    """Turn the first of `STOP_SIGNALS` into KeyboardInterrupt and ignore the rest.

    A second Ctrl-C must not interrupt the stopping: that would leave processes behind. The function
    that it yields ignores all signals from then on.
    """

    def ignore() -> None:
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def stop(signum: int, frame: FrameType | None) -> None:
        ignore()
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in STOP_SIGNALS}
    try:
        yield ignore
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def port_taken(bind: str) -> Iterator[None]:
    """Explain a bind that fails because the port is in use, and what to do."""
    try:
        yield
    except ClusterError as error:
        if os.strerror(errno.EADDRINUSE) not in str(error):
            raise
        raise ClusterError(
            f"{bind} is taken: is another cluster up? use --bind for another port"
        ) from None


def run_up(
    settings: Settings,
    spec: ClusterSpec,
    *,
    probe: str | None,
    cards: Sequence[str] = (),
    log: Path,
    show: Level,
    as_json: Path | None,
) -> None:
    """Keep a cluster until a signal stops it; `probe` names what makes its workers' probe, and
    `cards` are those that the first workers are bound to, by PCI address. What
    workers print is appended to the file `log` and shown from the level `show` up.

    Raises:
        ClusterError: a process did not come up, or the coordinator died.
    """
    local = LocalCluster(
        settings.worker_count,
        spec,
        capacity=settings.capacity,
        handlers=settings.handlers,
        models=settings.models,
        probe=probe,
        environments=[card_environment(card) for card in cards],
        bind=settings.bind,
        insecure=settings.insecure,
        log=log,
        show=show,
    )
    with stop_signals() as ignore_signals:
        try:
            with port_taken(settings.bind), err().status("starting the cluster …"):
                local.start()
            _announce(local, settings, cards, log, as_json=as_json)
            _keep(local, in_terminal=out().is_terminal and as_json is None)
        except KeyboardInterrupt:
            err().print("stopping the cluster …", style="dim")
        finally:
            ignore_signals()
            local.stop()


def _announce(
    local: LocalCluster,
    settings: Settings,
    cards: Sequence[str],
    log: Path,
    *,
    as_json: Path | None,
) -> None:
    workers = list(zip_longest(local.workers, cards))
    if as_json is not None:
        facts = {
            "endpoint": local.endpoint,
            "spec": local.spec.name,
            "models": settings.models,
            "coordinator": {"pid": local.coordinator_pid},
            "workers": [
                {"name": worker.role, "pid": worker.pid} | ({"card": card} if card else {})
                for worker, card in workers
            ],
            "log": str(log),
        }
        write_json(facts, as_json, indent=None)
        return
    where = "" if local.endpoint == DEFAULT_BIND else f" --endpoint {local.endpoint}"
    text = Text.assemble(
        ("Cluster up", "bold green"), f" at {local.endpoint} (spec {local.spec.name})\n",
        f"  {'coordinator':<12} pid {local.coordinator_pid}\n",
        *(
            f"  {worker.role:<12} pid {worker.pid}{f' on the card {card}' if card else ''}\n"
            for worker, card in workers
        ),
        "Give it work from another terminal:\n",
        (f"  perfkit cluster submit{where} {_question(local, settings)}\n", "cyan"),
        "Ctrl-C stops it.\n",
        (f"Workers' output: {log}", "dim"),
    )  # fmt: skip
    out().print(text)


def _question(local: LocalCluster, settings: Settings) -> str:
    """The options of a submit that these workers can answer."""
    if settings.models:
        name = model_name(settings.models[0])
        return f"--model {name} {QUESTIONS.get(name, 'FILE…')}"
    with local.client() as client:
        kinds = client.status().workers[0].kinds
    return f"--kind {'echo' if 'echo' in kinds else min(kinds, default='KIND')} --payload hello"


def _keep(local: LocalCluster, *, in_terminal: bool) -> None:
    """Until a signal: report workers that die, and show the status in a terminal."""
    deaths = Deaths(local.crew)
    pause = threading.Event()
    if not in_terminal:
        print_output(local.crew, err())
        while True:
            _check_coordinator(local)
            deaths.report()
            pause.wait(LOOK_EVERY_S)
    with local.client() as client, Live(console=out(), auto_refresh=False) as live:
        print_output(local.crew, live.console)
        while True:
            _check_coordinator(local)
            deaths.report()
            try:
                live.update(status_view(ask_status(client)), refresh=True)
            except Unreachable:
                live.update(Text("the coordinator does not answer", "red"), refresh=True)
            pause.wait(LOOK_EVERY_S)


def _check_coordinator(local: LocalCluster) -> None:
    coordinator = local.coordinator
    if not coordinator.alive():
        raise ClusterError(f"the coordinator has died (pid {coordinator.pid}); "
                           f"the cluster is stopped{coordinator.last_words()}")  # fmt: skip
