"""The status of a cluster, as tables for people or as JSON for programs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import starmap, zip_longest
from pathlib import Path

import msgspec
from rich.console import Group, RenderableType
from rich.text import Text

from cluster.shells.client import Client
from cluster.spec import ClusterSpec
from cluster.transport.questions import learn_spec
from cluster.vocabulary.errors import Unreachable
from cluster.vocabulary.printable import printable
from cluster.vocabulary.status import Status, WorkerStatus
from cluster.vocabulary.task import Gpu, GpuLoad
from perfkit.cli.terminal.output import out, plain_table, show_live, write_json
from perfkit.evidence.text import size

ANSWER_WITHIN_S = 3.0
LOOK_EVERY_S = 1.0
#: A live table cannot be updated once it is longer than the screen.
WORKERS_SHOWN = 40


def find_coordinator(endpoint: str, spec: ClusterSpec | None) -> Client:
    """A client of ``spec``, or of the coordinator's spec; raises as `ask_status`."""
    try:
        return Client(endpoint, spec=spec or learn_spec(endpoint, ANSWER_WITHIN_S))
    except Unreachable:
        raise no_answer(endpoint) from None


def no_answer(endpoint: str) -> Unreachable:
    """The error that says how to start a cluster."""
    return Unreachable(
        f"no coordinator answers at {endpoint}; start one with `perfkit cluster up`, "
        "or say with --endpoint where it is"
    )


def ask_status(client: Client) -> Status:
    """The status of the cluster; a running coordinator answers within `ANSWER_WITHIN_S`.

    Raises:
        Unreachable: there is no answer; the message says how to start a cluster.
    """
    try:
        return client.status(timeout=ANSWER_WITHIN_S)
    except Unreachable:
        raise no_answer(client.endpoint) from None


def show_status(
    endpoint: str, spec: ClusterSpec | None, *, watch: bool, as_json: Path | None
) -> None:
    """Print the status once, or every second until the coordinator is gone or Ctrl-C.

    Raises:
        Unreachable: the coordinator does not answer, or no longer.
    """
    with find_coordinator(endpoint, spec) as client:
        looks = _looks(client) if watch else iter([ask_status(client)])
        if as_json is not None:
            for status in looks:
                facts = {"endpoint": endpoint, **msgspec.to_builtins(status)}
                write_json(facts, as_json, indent=None if watch else 2)
        elif watch:
            show_live(map(status_view, looks))
        else:
            status = next(looks)
            out().print(Text(f"{endpoint}, policy {status.policy}", "bold"))
            out().print(status_view(status))


def status_view(status: Status) -> RenderableType:
    """The workers as a table, the queues and the counters as lines below it."""
    parts: list[RenderableType] = []
    if status.workers:
        parts.append(_worker_table(status))
    else:
        parts.append(Text("no workers: start one with `perfkit cluster worker`", "yellow"))
    if len(status.workers) > WORKERS_SHOWN:
        parts.append(Text(f"… and {len(status.workers) - WORKERS_SHOWN:,} more", "dim"))
    parts += [Text(line, "red") for worker in status.workers for line in _troubles(worker)]
    parts += [
        Text(f"{host.host}: {host.restarts:,} restarts of workers. {host.trouble}", "yellow")
        for host in status.hosts
        if host.restarts or host.trouble
    ]
    tasks = Text.assemble(("tasks   ", "bold"), _tasks(status))
    return Group(*parts, tasks, Text.assemble(("so far  ", "bold"), _counters(status)))


def _looks(client: Client) -> Iterator[Status]:
    pause = threading.Event()
    yield ask_status(client)
    while not pause.wait(LOOK_EVERY_S):
        yield ask_status(client)


def _worker_table(status: Status) -> RenderableType:
    names = ["worker", "host", "pid", "holds", "finished", "memory", "heard", "offers"]
    words = ("worker", "host", "offers", "card")
    cards = any(_cards(worker) for worker in status.workers)
    table = plain_table(*names, *(["card"] if cards else []), left=words)
    for column in table.columns[:7]:
        column.no_wrap = True
    for worker in sorted(status.workers, key=lambda worker: worker.worker)[:WORKERS_SHOWN]:
        state = Text(" draining", "yellow") if worker.draining else Text("")
        kinds = [kind for kind in worker.kinds if kind not in worker.models]
        table.add_row(
            _name(worker.worker).append_text(state),
            _name(worker.host),
            str(worker.pid),
            f"{worker.held} of {worker.credit}",
            f"{worker.finished:,}",
            size(worker.load.rss_bytes),
            f"{worker.silent_s:.1f} s ago",
            _name(", ".join([*worker.models, *kinds])),
            *([_name(_cards(worker)) if _cards(worker) else "–"] if cards else []),
        )
    return table


def _name(text: str) -> Text:
    """A name from elsewhere as a cell: no markup, and as wide as it will be shown."""
    return Text(printable(text))


def _troubles(worker: WorkerStatus) -> list[str]:
    """Why it gets no work, or else which of its cards get none."""
    if worker.load.gpu_trouble is not None:
        return [f"{worker.worker} gets no work: {worker.load.gpu_trouble}"]
    told = [card.trouble for card in worker.load.gpus if card.trouble is not None]
    return [f"{worker.worker} gets no work for one card: {trouble}" for trouble in told]


def _cards(worker: WorkerStatus) -> str:
    """A line for each card; empty for a worker without."""
    return "\n".join(starmap(_card, zip_longest(worker.gpus, worker.load.gpus)))


def _card(gpu: Gpu | None, load: GpuLoad | None) -> str:
    """A card's family, utilisation, free memory, temperature, and what the worker uses of it."""
    load = load or GpuLoad()
    family = (gpu.family if gpu else None) or "card"
    parts = [
        "asleep" if load.asleep else "",
        "" if load.busy_pct is None else f"{load.busy_pct:.0f} %",
        "" if load.free_bytes is None else f"{size(load.free_bytes)} free",
        "" if load.temperature_c is None else f"{load.temperature_c:.0f} °C",
        "" if not load.own_memory_bytes else f"uses {size(load.own_memory_bytes)}",
        "in trouble" if load.trouble is not None else "",
    ]
    return f"{family}: {', '.join(filter(None, parts)) or 'nothing known'}"


def _tasks(status: Status) -> str:
    waiting = sum(status.queued.values())
    by_priority = ", ".join(f"{count:,} {name}" for name, count in status.queued.items() if count)
    parts = [f"{waiting:,} queued" + (f" ({by_priority})" if by_priority else "")]
    parts += [f"{status.assigned:,} assigned", f"{status.delayed:,} waiting for a retry"]
    parts += [f"payloads {size(status.payload_bytes)}", f"results {size(status.retained_bytes)}"]
    return " · ".join(parts)


def _counters(status: Status) -> str:
    """The events so far; one that never happened is left out."""
    parts = []
    for name, count in status.counters.items():
        words = name.replace("_", " ")
        if name.startswith("bytes_"):
            parts.append(f"{words} {size(count)}")
        elif count:
            parts.append(f"{count:,} {words}")
    return " · ".join(parts) or "nothing"
