"""``perfkit cluster``: run the cluster, look at it, give it work.

The commands only check their arguments. The modules that do the work load ZeroMQ, so each command
imports its own, and help appears at once.
"""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cluster.vocabulary.cards import CARD, card_environment
from cluster.vocabulary.errors import ClusterError
from cluster.vocabulary.printable import count_of
from perfkit.cli.terminal import options as opt
from perfkit.cli.terminal.command import add_command, examples
from perfkit.cli.terminal.config import Settings
from perfkit.cli.terminal.output import FAILED, note
from perfkit.optimized.knobs import SettingError

app = typer.Typer(
    help="Run a cluster, look at it, give it work.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    epilog=examples(
        ("a coordinator and two workers, until Ctrl-C", "perfkit cluster up --model magika"),
        ("in another terminal: what are these files?", "perfkit cluster submit --model magika *"),
        ("how is it?", "perfkit cluster top"),
    ),
)

#: Makes the probe of a worker that has GPUs.
GPU_PROBE = "perfkit.gpu.probe:GpuProbe"


class PriorityName(StrEnum):
    """The priority of a task, as it is typed."""

    URGENT = "urgent"
    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


def up(
    workers: Annotated[int | None, opt.setting("How many worker processes.", default=2)] = None,
    model: opt.Models = None,
    repository: opt.Repository = None,
    bind: opt.Bind = None,
    spec: opt.Spec = None,
    knobs: opt.Knobs = None,
    capacity: opt.Capacity = None,
    handlers: opt.Handlers = None,
    gpu: opt.Gpu = False,
    insecure: opt.Insecure = None,
    config: opt.Config = None,
    log_level: opt.LogLevel = opt.OutputLevel.INFO,
    log_file: opt.LogFile = None,
    as_json: Annotated[Path | None, opt.json_option("Endpoint and pids, when ready")] = None,
) -> None:
    """Start a coordinator and workers on this machine and keep them until Ctrl-C.

    A worker that dies is started again. What handlers print is shown with the worker and the task,
    as lease.position.

    Ends with 0 when it is told to stop (Ctrl-C, SIGTERM), with 1 if the coordinator dies. With
    --gpu each worker is bound to a card of its own, on which models run that are faster there, and
    gets no work while its card is overheated, hangs or is gone.
    """
    found = opt.settings(
        config,
        knobs,
        workers=workers,
        models=model,
        repository=repository,
        bind=bind,
        spec=spec,
        capacity=capacity,
        handlers=handlers,
        insecure=insecure,
    )
    from perfkit.cli.crew import find_log
    from perfkit.cli.up import run_up

    opt.find_models(found)
    _check_bind(found)
    run_up(
        found,
        found.cluster_spec(),
        probe=gpu_probe(gpu),
        cards=cards_for(gpu, found.worker_count),
        log=find_log(log_file),
        show=log_level.value,
        as_json=as_json,
    )


def coordinator(
    bind: opt.Bind = None,
    spec: opt.Spec = None,
    knobs: opt.Knobs = None,
    insecure: opt.Insecure = None,
    config: opt.Config = None,
) -> None:
    """Run a coordinator alone, until Ctrl-C or SIGTERM.

    Writes one line of JSON when it listens: its endpoint and pid.
    """
    found = opt.settings(config, knobs, bind=bind, spec=spec, insecure=insecure)
    chosen = found.cluster_spec()
    _check_bind(found)
    from cluster.process import run_coordinator
    from cluster.shells.malloc_trim import reexec_with_one_heap
    from perfkit.cli.up import port_taken

    # Re-exec only a process that runs this very command.
    if chosen.trim_bytes and sys.argv[1:3] == ["cluster", "coordinator"]:
        reexec_with_one_heap()
    note(f"coordinator of spec {chosen.name}; Ctrl-C stops it")
    with port_taken(found.bind):
        run_coordinator(chosen, found.bind, insecure=found.insecure, cprofile=None, alone=True)


def worker(
    endpoint: opt.Endpoint = None,
    model: opt.Models = None,
    repository: opt.Repository = None,
    capacity: opt.Capacity = None,
    handlers: opt.Handlers = None,
    name: Annotated[
        str | None,
        typer.Option(help="Unique in the cluster.  [dim]\\[default: host and process id][/dim]"),
    ] = None,
    gpu: opt.Gpu = False,
    spec: opt.Spec = None,
    knobs: opt.Knobs = None,
    config: opt.Config = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, help="Run this many as processes of their own, and start again what dies."
        ),
    ] = None,
    log_level: opt.LogLevel = opt.OutputLevel.INFO,
    log_file: opt.LogFile = None,
) -> None:
    """Run a worker alone, until Ctrl-C or SIGTERM; it then finishes the tasks it has started.

    A worker waits for a coordinator that is not there yet, and for one that went away. Writes one
    line of JSON when a coordinator has welcomed it: its name, its pid and, with --gpu, its card. It
    gets no work while that is overheated, hangs or is gone. Several cards want as many --workers.
    """
    found = opt.settings(
        config,
        knobs,
        endpoint=endpoint,
        models=model,
        repository=repository,
        capacity=capacity,
        handlers=handlers,
        spec=spec,
    )
    chosen = found.peer_spec()
    opt.find_models(found)
    if workers is not None:
        if name is not None:
            raise SettingError("--name is for a single worker; --workers names them itself")
        _run_crew(found, workers, log_file, log_level, gpu=gpu)
        return
    from cluster.process import run_worker

    note(f"worker for the coordinator at {found.coordinator}; Ctrl-C stops it")
    run_worker(
        chosen,
        found.coordinator,
        handlers=found.handlers,
        models=found.models,
        name=name,
        capacity=found.capacity,
        alone=True,
        probe=_bind_to_card(gpu),
    )


def status(
    endpoint: opt.Endpoint = None,
    as_json: Annotated[Path | None, opt.json_option("All")] = None,
    spec: opt.Spec = None,
    knobs: opt.Knobs = None,
    config: opt.Config = None,
) -> None:
    """Show the workers, the queues and the counters of a cluster."""
    found = opt.settings(config, knobs, endpoint=endpoint, spec=spec)
    from perfkit.cli.status import show_status

    show_status(found.coordinator, found.peer_spec(), as_json)


def top(
    endpoint: opt.Endpoint = None,
    interval: Annotated[float, typer.Option(min=0.5, help="Seconds between two looks.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Show one frame, and end.")] = False,
    spec: opt.Spec = None,
    knobs: opt.Knobs = None,
    config: opt.Config = None,
) -> None:
    """Watch a cluster work: queue, throughput, hosts, workers, cards. The key q ends it.

    Of more than 20 workers, a host has one row: the median, and in brackets the smallest and the
    largest. An unknown value is a gap. A coordinator that goes away is asked on until it is back.

    Where the output is no terminal it shows one frame. Ends with 0 by q, with 130 by Ctrl-C, with 1
    if no coordinator answers at first.
    """
    found = opt.settings(config, knobs, endpoint=endpoint, spec=spec)
    from perfkit.cli.status import show_top

    show_top(found.coordinator, found.peer_spec(), interval, once=once)


def submit(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILE",
            help="Files to ask about, one task each: .npz, .npy or CSV for a "
            "model of tensors; for a model of texts also the texts.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The model to ask: magika, digits, minilm, yours, …"),
    ] = None,
    kind: Annotated[
        str | None, typer.Option(metavar="NAME", help="A handler to call instead: echo, noop, …")
    ] = None,
    payload: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Text for the handler, or for a model of texts."),
    ] = None,
    priority: Annotated[
        PriorityName, typer.Option(help="More urgent tasks go first.")
    ] = PriorityName.NORMAL,
    timeout: Annotated[
        float, typer.Option(min=0.001, help="Seconds that a task may take, waiting included.")
    ] = 30.0,
    repeat: Annotated[
        int, typer.Option(min=1, help="Submit each this many times, and show the spread of times.")
    ] = 1,
    as_json: Annotated[Path | None, opt.json_option("Results and every time")] = None,
    endpoint: opt.Endpoint = None,
    spec: opt.Spec = None,
    knobs: opt.Knobs = None,
    config: opt.Config = None,
) -> None:
    """Give a running cluster work and print each result with its time.

    A time is that of one task, from submit to result. No more tasks are in flight than the workers
    can run at once, so no task waits for another of this call.

    Ends with 1 if a task failed, a file could not be read, or no coordinator answers.
    """
    found = opt.settings(config, knobs, endpoint=endpoint, spec=spec)
    from perfkit.cli.submit import Request, run_submit

    request = Request(
        model=model,
        kind=kind,
        files=tuple(files or ()),
        payload=payload,
        priority=priority.value,
        timeout_s=timeout,
        repeat=repeat,
    )
    request.check()
    if not run_submit(found.coordinator, found.peer_spec(), request, as_json=as_json):
        raise typer.Exit(FAILED)


def _run_crew(
    found: Settings, workers: int, log_file: Path | None, log_level: opt.OutputLevel, *, gpu: bool
) -> None:
    """Run several workers, looked after by a supervisor, until Ctrl-C."""
    from cluster.supervision.crew import worker_options
    from perfkit.cli.crew import find_log, run_workers
    from perfkit.cli.up import stop_signals

    note(
        f"{count_of(workers, 'worker')} for the coordinator at {found.coordinator}; Ctrl-C stops "
        "them"
    )
    probe, cards = gpu_probe(gpu), cards_for(gpu, workers)
    options = worker_options(found.capacity, found.handlers, found.models, probe)
    log = find_log(log_file)
    with stop_signals():
        run_workers(
            workers, found.coordinator, found.peer_spec(), options, log, log_level.value, cards
        )


def gpu_probe(gpu: bool) -> str | None:
    """What makes a worker's probe with --gpu, for which this machine should have a card."""
    if not gpu:
        return None
    from perfkit.gpu.device.discovery import DRM_ROOT
    from perfkit.gpu.probe import GpuProbe

    if not GpuProbe().gpus():
        note(f"--gpu: no AMD card under {DRM_ROOT}, so none is announced; "
             "`perfkit gpu` says what is there")  # fmt: skip
    return GPU_PROBE


def cards_for(gpu: bool, workers: int | None) -> list[str]:
    """The cards that `workers` workers (None: as many as there are cards) are bound to with --gpu,
    one each, by PCI address. A process that is bound to a card already keeps it.
    """
    if not gpu or CARD in os.environ:
        return []
    from perfkit.gpu.device.discovery import discover

    cards = [it.pci for it in discover().cards if it.pci and it.driver == "amdgpu"]
    workers = len(cards) if workers is None else workers
    if len(cards) > workers:
        note(
            f"{workers} of {count_of(len(cards), 'card')} have a worker; --workers {len(cards)} "
            "uses all"
        )
    elif 0 < len(cards) < workers:
        note(f"{len(cards)} of {count_of(workers, 'worker')} have a card; the others use the CPU")
    return cards[:workers]


def _bind_to_card(gpu: bool) -> str | None:
    """With --gpu bind this process to the first card; returns what makes its probe."""
    for card in cards_for(gpu, 1):
        os.environ.update(card_environment(card))
    return gpu_probe(gpu)


def _check_bind(settings: Settings) -> None:
    from cluster.transport.endpoints import check_bind

    try:
        check_bind(settings.bind, settings.insecure)
    except ClusterError as error:
        raise SettingError(str(error)) from None


add_command(
    app, "up", up,
    ("two workers that tell file types", "perfkit cluster up --workers 2 --model magika"),
    ("a model of your own", "perfkit cluster up --model iris.onnx"),
    ("a slow network", "perfkit cluster up --set limits.heartbeat_s=1 --set limits.liveness_s=3"),
    ("from a program, on any free port", "perfkit cluster up --bind 'tcp://127.0.0.1:*' --json"),
)  # fmt: skip
add_command(
    app, "coordinator", coordinator,
    ("for workers on this machine", "perfkit cluster coordinator"),
    ("in a private network", "perfkit cluster coordinator --bind tcp://0.0.0.0:5577 --insecure"),
)  # fmt: skip
add_command(
    app, "worker", worker,
    ("serve a model, two tasks at once", "perfkit cluster worker --model magika --capacity 2"),
    ("four on this machine, started again when they die", "perfkit cluster worker --workers 4"),
    ("for another machine", "perfkit cluster worker --endpoint tcp://10.0.0.5:5577 --model magika"),
    ("offer handlers of your own, in jobs.py", "perfkit cluster worker --handlers jobs:HANDLERS"),
)  # fmt: skip
add_command(
    app, "status", status,
    ("once", "perfkit cluster status"),
    ("how many tasks wait, for a program", "perfkit cluster status --json | jq '.queued | add'"),
)  # fmt: skip
add_command(
    app, "top", top,
    ("watch it work, until q", "perfkit cluster top"),
    ("now, into a file", "perfkit cluster top --once > cluster.txt"),
)  # fmt: skip
add_command(
    app, "submit", submit,
    ("what are these files?", "perfkit cluster submit --model magika README.md photo.jpg"),
    ("64 numbers from 0 to 16 a line, or .npy", "perfkit cluster submit --model digits rows.csv"),
    ("arrays by name, for a model of yours", "perfkit cluster submit --model iris rows.npz"),
    ("texts as vectors", 'perfkit cluster submit --model minilm "A man is eating." letter.txt'),
    ("how long is a round trip?", "perfkit cluster submit --kind echo --payload x --repeat 100"),
    ("urgent", "perfkit cluster submit --model magika --priority urgent --timeout 2 big.iso"),
)  # fmt: skip
