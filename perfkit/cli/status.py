"""The status of a cluster: as tables, as JSON, and as a view that is kept up to date."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from itertools import starmap, zip_longest
from pathlib import Path

import msgspec
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from cluster.shells.client import Client
from cluster.spec import ClusterSpec
from cluster.transport.questions import learn_spec
from cluster.vocabulary.errors import Unreachable
from cluster.vocabulary.printable import count_of, printable
from cluster.vocabulary.status import Status, WorkerStatus
from cluster.vocabulary.task import Gpu, GpuLoad
from perfkit.cli.terminal.keys import keys
from perfkit.cli.terminal.output import is_drawn_in_place, out, plain_table, write_json
from perfkit.evidence.text import quantity, size
from perfkit.profile.activity.board import board_of
from perfkit.profile.activity.lines import as_lines
from perfkit.profile.activity.looks import Activity, ask_coordinator
from perfkit.profile.activity.sparklines import RAMPS

ANSWER_WITHIN_S = 3.0
FOOT = "q ends it"
QUIT_KEYS = ("q", "Q", "\x04")
#: While there is no answer, no key is read for so long.
KEEP_ASKING_S = 1.0
#: How long a key or a new size of the window may wait.
KEY_S = 0.2
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


def show_status(endpoint: str, spec: ClusterSpec | None, as_json: Path | None) -> None:
    """Print the status.

    Raises:
        Unreachable: the coordinator does not answer.
    """
    with find_coordinator(endpoint, spec) as client:
        status = ask_status(client)
    if as_json is not None:
        write_json({"endpoint": endpoint, **msgspec.to_builtins(status)}, as_json, indent=2)
        return
    out().print(Text(f"{endpoint}, policy {status.policy}", "bold"))
    out().print(status_view(status))


def show_top(endpoint: str, spec: ClusterSpec | None, interval_s: float, *, once: bool) -> None:
    """Show the cluster in place until the key q; without a terminal, or with `once`, one frame.

    A coordinator that goes away is asked on until it is back.

    Raises:
        Unreachable: the coordinator does not answer at first.
        ClusterError: it refuses to.
    """
    activity = Activity(ask_coordinator(endpoint, spec), interval_s=interval_s)
    console = out()
    _first_look(activity, endpoint)
    if is_drawn_in_place(console) and not once:
        # SIGTERM too must leave the terminal as it was.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as view:
            while _shown_until_next_look(activity, endpoint, view, pressed):
                activity.look(KEEP_ASKING_S)
        return
    time.sleep(activity.pause_s)  # a rate needs two looks
    _first_look(activity, endpoint)
    console.print(_frame(activity, endpoint, console))


def _first_look(activity: Activity, endpoint: str) -> None:
    activity.look(ANSWER_WITHIN_S)
    if (error := activity.error) is not None:
        raise no_answer(endpoint) if isinstance(error, Unreachable) else error


def _shown_until_next_look(
    activity: Activity, endpoint: str, view: Live, pressed: Callable[[float], str]
) -> bool:
    """Show the board, again when the window's size changes; False if a key ends it."""
    until_s, drawn = time.monotonic() + activity.pause_s, None
    while (left_s := until_s - time.monotonic()) > 0:
        if view.console.size != drawn:
            drawn = view.console.size
            view.update(_frame(activity, endpoint, view.console, FOOT), refresh=True)
        if pressed(min(left_s, KEY_S)) in QUIT_KEYS:
            return False
    return True


def _frame(activity: Activity, endpoint: str, console: Console, foot: str = "") -> Text:
    """The board as lines; cut to the window if there is a last line for it, `foot`."""
    ramp = RAMPS[console.encoding.lower().startswith("utf")]
    board = board_of(activity, endpoint, time.monotonic())
    lines = [Text.assemble(*line) for line in as_lines(board, console.width, ramp)]
    if foot:
        most = max(1, console.height - 1)
        if (hidden := len(lines) - most) > 0:
            del lines[most:]
            foot = f"{count_of(hidden, 'more line')} below this window; {foot}"
        lines.append(Text(foot, "dim"))
        for line in lines:
            line.truncate(console.width)
    return Text("\n").join(lines)


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
        Text(
            f"{host.host}: {count_of(host.restarts, 'restart')} of workers. {host.trouble}",
            "yellow",
        )
        for host in status.hosts
        if host.restarts or host.trouble
    ]
    tasks = Text.assemble(("tasks   ", "bold"), _tasks(status))
    parts += [tasks, *(Text.assemble(("batches ", "bold"), line) for line in _batches(status))]
    return Group(*parts, Text.assemble(("so far  ", "bold"), _counters(status)))


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
    """A card's family, use, free memory, temperature and power, and what the worker uses of it."""
    load = load or GpuLoad()
    family = (gpu.family if gpu else None) or "card"
    parts = [
        "asleep" if load.asleep else "",
        "" if load.busy_pct is None else f"{load.busy_pct:.0f} %",
        "" if load.free_bytes is None else f"{size(load.free_bytes)} free",
        "" if load.temperature_c is None else f"{load.temperature_c:.0f} °C",
        "" if load.power_w is None else f"{load.power_w:.0f} W",
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


def _batches(status: Status) -> Iterator[str]:
    """For each kind that models ran: how many runs, and the items and time of one."""
    for one in status.batches:
        if runs := sum(size.runs for size in one.sizes):
            items = sum(size.items for size in one.sizes)
            run_s = sum(size.busy_s for size in one.sizes) / runs
            yield (
                f"{printable(one.kind)}: {count_of(runs, 'run')}, {items / runs:.1f} items and "
                f"{quantity(run_s, 's')} each"
            )


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
