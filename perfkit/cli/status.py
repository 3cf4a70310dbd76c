"""How a cluster is, for eyes and for programs: the same facts as a table or as JSON."""

from __future__ import annotations

import threading
from typing import Any

import msgspec
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cluster.shells.client import Client
from cluster.spec import ClusterSpec
from cluster.vocabulary.errors import Unreachable
from cluster.vocabulary.status import Status, WorkerStatus
from perfkit.cli.output import out, size, write_json

ANSWER_WITHIN_S = 3.0
LOOK_EVERY_S = 1.0
#: More workers than this do not fit a screen, and a live table longer than one can't be updated.
WORKERS_SHOWN = 40


def ask_status(client: Client) -> Status:
    """How the cluster is; a coordinator that is there has `ANSWER_WITHIN_S` to answer.

    Raises:
        Unreachable: nobody answers; the message says how to start a cluster.
    """
    try:
        return client.status(timeout=ANSWER_WITHIN_S)
    except Unreachable:
        raise Unreachable(
            f"no coordinator answers at {client.endpoint}; start one with `perfkit cluster up`, "
            "or say with --endpoint where it is"
        ) from None


def show_status(endpoint: str, spec: ClusterSpec, *, watch: bool, as_json: bool) -> None:
    """Print the status once, or every second until the coordinator is gone or Ctrl-C.

    Raises:
        Unreachable: nobody answers, or no longer.
    """
    console = out()
    pause = threading.Event()
    with Client(endpoint, spec=spec) as client:
        status = ask_status(client)
        if as_json or not watch:
            _print(status, endpoint, as_json=as_json, one_line=watch)
        if not watch:
            return
        if as_json:
            while not pause.wait(LOOK_EVERY_S):
                _print(ask_status(client), endpoint, as_json=True, one_line=True)
        with Live(status_view(status), console=console, auto_refresh=False) as live:
            while not pause.wait(LOOK_EVERY_S):
                live.update(status_view(ask_status(client)), refresh=True)


def status_json(status: Status, endpoint: str) -> dict[str, Any]:
    """The status as JSON values; the fields are those of `cluster.vocabulary.status.Status`."""
    facts: dict[str, Any] = msgspec.to_builtins(status)
    return {"endpoint": endpoint, **facts}


def status_view(status: Status) -> RenderableType:
    """The workers as a table, the queues and the counters as lines below it."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    cards = any(_card(worker) for worker in status.workers)
    for name in ("worker", "host", "pid", "holds", "finished", "memory", "heard"):
        table.add_column(
            name, justify="left" if name in ("worker", "host") else "right", no_wrap=True
        )
    table.add_column("offers")
    if cards:
        table.add_column("card")
    for worker in sorted(status.workers, key=lambda worker: worker.worker)[:WORKERS_SHOWN]:
        table.add_row(*_cells(worker, cards=cards))
    if not status.workers:
        about: RenderableType = Text(
            "no workers: start one with `perfkit cluster worker`", "yellow"
        )
    elif len(status.workers) > WORKERS_SHOWN:
        about = Group(table, Text(f"… and {len(status.workers) - WORKERS_SHOWN:,} more", "dim"))
    else:
        about = table
    return Group(about, *_troubles(status), _tasks(status), _counters(status))


def _print(status: Status, endpoint: str, *, as_json: bool, one_line: bool) -> None:
    if as_json:
        write_json(status_json(status, endpoint), indent=None if one_line else 2)
    else:
        console = out()
        console.print(Text(f"{endpoint}, policy {status.policy}", "bold"))
        console.print(status_view(status))


def _cells(worker: WorkerStatus, *, cards: bool) -> list[str | Text]:
    state = Text(" draining", "yellow") if worker.draining else Text("")
    offers = ", ".join([*worker.models, *(k for k in worker.kinds if k not in worker.models)])
    return [
        Text(worker.worker).append_text(state),
        worker.host,
        str(worker.pid),
        f"{worker.held} of {worker.credit}",
        f"{worker.finished:,}",
        size(worker.load.rss_bytes),
        f"{worker.silent_s:.1f} s ago",
        offers,
        *([_card(worker) or "–"] if cards else []),
    ]


def _card(worker: WorkerStatus) -> str:
    """What its cards say: utilisation, free memory, temperature; nothing for a worker without."""
    load = worker.load
    parts = [
        "" if load.gpu_busy_pct is None else f"{load.gpu_busy_pct:.0f} %",
        "" if load.vram_free_bytes is None else f"{size(load.vram_free_bytes)} free",
        "" if load.temperature_c is None else f"{load.temperature_c:.0f} °C",
    ]
    return ", ".join(filter(None, parts))


def _troubles(status: Status) -> list[Text]:
    """Which workers get no work because of their cards, and why."""
    return [
        Text(f"{worker.worker} gets no work: {worker.load.gpu_trouble}", "red")
        for worker in status.workers
        if worker.load.gpu_trouble is not None
    ]


def _tasks(status: Status) -> Text:
    waiting = sum(status.queued.values())
    by_priority = ", ".join(f"{count:,} {name}" for name, count in status.queued.items() if count)
    parts = [f"{waiting:,} queued" + (f" ({by_priority})" if by_priority else "")]
    parts += [f"{status.assigned:,} assigned", f"{status.delayed:,} waiting for a retry"]
    parts += [f"payloads {size(status.payload_bytes)}", f"results {size(status.retained_bytes)}"]
    return _line("tasks", " · ".join(parts))


def _counters(status: Status) -> Text:
    """What has happened so far; what never did is not worth a place."""
    parts = []
    for name, count in status.counters.items():
        words = name.replace("_", " ")
        if name.startswith("bytes_"):
            parts.append(f"{words} {size(count)}")
        elif count:
            parts.append(f"{count:,} {words}")
    return _line("so far", " · ".join(parts) or "nothing")


def _line(name: str, text: str) -> Text:
    return Text.assemble((f"{name:<8}", "bold"), text)
